//! The project's own commands: `cargo xtask demo`, `test`, `setup`, `cluster`, `images`, `deny`,
//! `fuzz`.
//!
//! They need nothing but Rust and a Debian or Ubuntu underneath; whatever else a command uses, it
//! fetches itself through the machine's ordinary package clients and keeps under `.cache/`.

mod cluster;
mod demo;
mod deny;
mod fuzz;
mod images;
mod setup;
mod shell;
mod soak;
mod suite;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The project's own commands
#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show in a minute what Exeat is for
    Demo(demo::Arguments),
    /// Run every test; needs root for the tests' own network namespaces
    Test(suite::Arguments),
    /// Kill the sidecar under load for longer than the tests do; needs root
    Soak(soak::Arguments),
    /// Fetch what the tests use: system packages, Python and node modules, Go and Java clients
    Setup(setup::Arguments),
    /// A real Kubernetes node on this machine; needs root
    Cluster(cluster::Arguments),
    /// Write the container images, as archives
    Images(images::Arguments),
    /// Check the licences and sources of everything that is linked
    Deny,
    /// Run the fuzz targets, each for a given time
    Fuzz(fuzz::Arguments),
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Demo(arguments) => demo::main(&arguments),
        Command::Test(arguments) => suite::main(&arguments),
        Command::Soak(arguments) => soak::main(&arguments),
        Command::Setup(arguments) => setup::main(&arguments),
        Command::Cluster(arguments) => cluster::main(&arguments),
        Command::Images(arguments) => images::main(&arguments),
        Command::Deny => deny::main(),
        Command::Fuzz(arguments) => fuzz::main(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
