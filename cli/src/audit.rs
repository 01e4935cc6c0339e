//! `exeat audit`.

use std::process::ExitCode;

use clap::Subcommand;

/// What `exeat audit` can do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {}

pub(crate) fn main(command: Command) -> ExitCode {
    match command {}
}
