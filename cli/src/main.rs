//! `exeat`: run a command under the gate, check and explain policies, verify and read the trail, put
//! manifests under the gate.

mod audit;
mod crd;
mod inject;
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
    /// Print the custom resource definitions of ToolPolicy and ClusterToolPolicy
    Crd,
    /// Check and explain policies
    #[command(subcommand)]
    Policy(policy::Command),
    /// Verify and read the trail
    #[command(subcommand)]
    Audit(audit::Command),
    /// Put the gate into manifests, as admission does
    Inject(Box<inject::Arguments>),
    /// Take it out again
    Uninject(inject::RemoveArguments),
    /// A part of `run`, started by `run`
    #[command(name = run::stage::SUBCOMMAND, hide = true)]
    Stage(run::stage::Arguments),
}

fn main() -> ExitCode {
    match Arguments::try_parse() {
        Ok(arguments) => match arguments.command {
            Command::Run(arguments) => run::main(&arguments),
            Command::Crd => crd::main(),
            Command::Policy(command) => policy::main(command),
            Command::Audit(command) => audit::main(command),
            Command::Inject(arguments) => inject::main(&arguments),
            Command::Uninject(arguments) => inject::main_remove(&arguments),
            Command::Stage(arguments) => run::stage::main(&arguments),
        },
        Err(error) => usage(&error),
    }
}

/// Prints what clap has to say: help, the version, or what was not understood.
fn usage(error: &clap::Error) -> ExitCode {
    // Nobody to print it to is no reason to fail otherwise.
    drop(error.print());
    if !error.use_stderr() {
        return ExitCode::SUCCESS;
    }
    // 1 or 2 would look like the exit status of the command that was to be run.
    let running = std::env::args_os()
        .nth(1)
        .is_some_and(|first| first == "run");
    ExitCode::from(if running { run::stage::NOT_BUILT } else { 2 })
}
