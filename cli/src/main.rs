//! `exeat`: run a command under the gate, check and explain policies, verify and read the trail.

mod audit;
mod policy;
mod run;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "exeat", version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a command with the gate as its only way out
    Run(run::Arguments),
    /// Check and explain policies
    #[command(subcommand)]
    Policy(policy::Command),
    /// Verify and read the trail
    #[command(subcommand)]
    Audit(audit::Command),
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Run(arguments) => run::main(arguments),
        Command::Policy(command) => policy::main(command),
        Command::Audit(command) => audit::main(command),
    }
}
