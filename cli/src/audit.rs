//! `exeat audit`: is the trail whole, and what does it say.
//!
//! Reads journals as a stream, in constant memory, and trusts nothing in them: what was tampered
//! with is named, what could fool a terminal is escaped. In doubt the trail is called broken.

mod explain;
mod lines;
mod row;
mod show;
mod verify;

use std::io::{self, ErrorKind};
use std::process::ExitCode;

use clap::{Subcommand, ValueEnum};

/// What `exeat audit` can do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Prove that journals are whole, or name the first record that is not
    Verify(verify::Arguments),
    /// Show what was let out and what was denied
    Show(show::Arguments),
    /// Tell the whole story of one decision
    Explain(explain::Arguments),
}

/// How a verdict is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people
    Text,
    /// For programs
    Json,
}

pub(crate) fn main(command: Command) -> ExitCode {
    let done = match command {
        Command::Verify(arguments) => verify::main(&arguments),
        Command::Show(arguments) => show::main(&arguments),
        Command::Explain(arguments) => explain::main(&arguments),
    };
    match done {
        Ok(code) => code,
        // Whoever reads the output has seen enough: `| head`.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}
