//! `exeat run`.

use std::process::ExitCode;

use clap::Args;

/// What `exeat run` takes.
#[derive(Debug, Args)]
pub(crate) struct Arguments {}

pub(crate) fn main(_arguments: Arguments) -> ExitCode {
    ExitCode::from(125)
}
