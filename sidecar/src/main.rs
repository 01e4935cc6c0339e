//! `exeat-sidecar`: the gate as a process. Arguments, sockets, signals; nothing else.

mod args;
mod authority_file;
mod sockets;

use std::{process::ExitCode, time::Duration};

use anyhow::Context as _;
use clap::Parser as _;
use exeat_sidecar::{
    gate::Gate,
    process::{
        confine,
        workers::{self, Workers},
    },
};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::{filter::Targets, prelude::*};

use args::{Arguments, Command, Serve};

// Buffers come and go in waves: the system's allocator keeps what a wave took, this one gives it
// back after `dirty_decay_ms`.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// `EX_CONFIG` of sysexits.h: set up wrongly; trying again changes nothing.
const EXIT_CONFIGURATION: u8 = 78;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match (arguments.command, arguments.serve) {
        (Some(Command::Healthz(healthz)), _) => healthz.run(),
        (None, None) => ExitCode::from(EXIT_CONFIGURATION), // clap has refused it
        (None, Some(arguments)) => match serve(arguments) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                // Not to the log: its filter may be what is wrong, or leave errors out.
                eprintln!("exeat-sidecar: {}", told(&error));
                ExitCode::from(EXIT_CONFIGURATION)
            }
        },
    }
}

/// An error with its causes, each told once.
fn told(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}

fn serve(arguments: Serve) -> anyhow::Result<()> {
    let filter: Targets = arguments
        .log
        .parse()
        .context("--log is not a filter; use for example `info` or `exeat_sidecar=debug`")?;
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(false);
    tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .init();
    // Before the first secret is read: no core dump and no debugger sees it.
    let confinement = confine::process()?;
    let files = confine::files(&arguments.files());
    tracing::info!(?confinement, %files, "process confined");
    let runtime = workers::runtime().context("starting the runtime")?;
    let count = usize::from(arguments.workers);
    let (workers, threads) = Workers::start(&runtime, count).context("starting the workers")?;
    let result = runtime.block_on(run(arguments, workers));
    // What is still served ends, on every thread, and its outcomes are written.
    drop((runtime, threads));
    result
}

async fn run(arguments: Serve, workers: Workers) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let listeners = sockets::bind(&arguments)?;
    let grace = Duration::from_secs(arguments.grace_seconds);
    let (ca_out, bundle_out) = (arguments.ca_out.clone(), arguments.ca_bundle_out.clone());
    let gate = Gate::start_with(arguments.into_settings(), listeners, workers).await?;
    if let Some(path) = &ca_out {
        authority_file::write(path, &[gate.ca_pem()])?;
    }
    if let Some(path) = &bundle_out {
        let roots = authority_file::system_roots();
        authority_file::write(path, &[&roots, gate.ca_pem()])?;
    }
    tracing::info!(key = gate.journal_key(), "the journal's heads are signed");
    tracing::info!(status = %gate.policies().status(), "exeat-sidecar is ready");
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopping; a second signal stops at once");
    tokio::select! {
        () = gate.shutdown(grace) => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
