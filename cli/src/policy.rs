//! `exeat policy`.

use std::process::ExitCode;

use clap::Subcommand;

/// What `exeat policy` can do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {}

pub(crate) fn main(command: Command) -> ExitCode {
    match command {}
}
