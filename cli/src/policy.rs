//! `exeat policy`: check policies and explain verdicts, without a gate and without a network.
//!
//! Data goes to standard output, findings about it to standard error. A policy that is not
//! understood in full is an error, as it is to the gate.

mod check;
mod explain;
mod input;

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use clap::{Subcommand, ValueEnum};
use exeat_policy::Diagnostics;

/// What `exeat policy` can do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Check policies: exit 0 if they compile, 1 with what is wrong otherwise
    Check(check::Arguments),
    /// Say what would become of a call, by which rule, and why not otherwise
    Explain(explain::Arguments),
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
}

pub(crate) fn main(command: Command) -> ExitCode {
    let result = match command {
        Command::Check(arguments) => check::run(&arguments),
        Command::Explain(arguments) => explain::run(&arguments),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            complain(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// One line, or several, of data. A closed pipe is the reader's wish.
fn print(text: &str) {
    drop(writeln!(std::io::stdout().lock(), "{text}"));
}

/// What is not data.
fn complain(text: &str) {
    drop(writeln!(std::io::stderr().lock(), "{text}"));
}

/// Findings, with their lines, in colour where somebody sees it.
fn complain_of(diagnostics: &Diagnostics) {
    let count = diagnostics.iter().count();
    complain(&diagnostics.render(colour(std::io::stderr().is_terminal())));
    let noun = if count == 1 { "problem" } else { "problems" };
    complain(&format!("\n{count} {noun} found"));
}

/// <https://no-color.org>: set and not empty means none.
#[expect(
    clippy::disallowed_methods,
    reason = "whether colours are wanted: the user's terminal, no gate"
)]
fn colour(terminal: bool) -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    terminal && !refused && !dumb
}
