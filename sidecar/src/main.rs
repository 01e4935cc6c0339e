//! `exeat-sidecar`: the gate as a process. Arguments, sockets, signals; nothing else.

mod args;
mod authority_file;
mod sockets;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Context as _;
use clap::Parser as _;
use exeat_sidecar::{
    gate::Gate,
    process::{
        confine, java,
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
    let public = Public::of(&arguments);
    let gate = Gate::start_with(arguments.into_settings(), listeners, workers).await?;
    // Before anyone is told that the gate has started: who starts then, mounts these.
    public.write(gate.ca_pem())?;
    gate.announce();
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

/// The files that tell clients whom to trust.
struct Public {
    authority: Option<PathBuf>,
    bundle: Option<PathBuf>,
    java: Option<PathBuf>,
}

// === impl Public ===

impl Public {
    fn of(arguments: &Serve) -> Self {
        Self {
            authority: arguments.ca_out.clone(),
            bundle: arguments.ca_bundle_out.clone(),
            java: arguments.ca_java_out.clone(),
        }
    }

    fn write(&self, authority: &str) -> anyhow::Result<()> {
        let bundle = authority_file::joined(&[&authority_file::system_roots(), authority]);
        if let Some(path) = &self.java {
            let store = java::store(bundle.as_bytes()).context("making Java's key store")?;
            authority_file::write(path, &store)?;
        }
        if let Some(path) = &self.bundle {
            authority_file::write(path, bundle.as_bytes())?;
        }
        if let Some(path) = &self.authority {
            authority_file::write(path, authority_file::joined(&[authority]).as_bytes())?;
        }
        Ok(())
    }
}
