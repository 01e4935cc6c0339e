//! `exeat`: run a command under the gate, check and explain policies, verify and read the trail, put
//! manifests under the gate, look whether a cluster is under it.

mod audit;
mod check;
mod crd;
mod inject;
mod policy;
mod run;

use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

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
    /// Is this cluster, this namespace, this pod governed, and if not, why
    Check(check::Arguments),
    /// Put the gate into manifests, as admission does
    Inject(Box<inject::Arguments>),
    /// Take it out again
    Uninject(inject::RemoveArguments),
    /// A part of `run`, started by `run`
    #[command(name = run::stage::SUBCOMMAND, hide = true)]
    Stage(run::stage::Arguments),
}

fn main() -> ExitCode {
    let mut command = Arguments::command();
    if is_plugin() {
        // As it was typed: kubectl finds `kubectl-exeat` for it.
        command = command.bin_name("kubectl exeat");
    }
    let parsed = command
        .try_get_matches()
        .and_then(|matches| Arguments::from_arg_matches(&matches));
    match parsed {
        Ok(arguments) => match arguments.command {
            Command::Run(arguments) => run::main(&arguments),
            Command::Crd => crd::main(),
            Command::Policy(command) => policy::main(command),
            Command::Audit(command) => audit::main(command),
            Command::Check(arguments) => check::main(&arguments),
            Command::Inject(arguments) => inject::main(&arguments),
            Command::Uninject(arguments) => inject::main_remove(&arguments),
            Command::Stage(arguments) => run::stage::main(&arguments),
        },
        Err(error) => usage(&error),
    }
}

/// Whether this was started as kubectl's plugin, by a link of that name.
fn is_plugin() -> bool {
    let name = std::env::args_os().next();
    name.is_some_and(|name| {
        std::path::Path::new(&name)
            .file_name()
            .is_some_and(|name| name == "kubectl-exeat")
    })
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
