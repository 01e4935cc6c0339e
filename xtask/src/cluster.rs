//! `cargo xtask cluster`: a real Kubernetes node on this machine, from pinned Go modules.
//!
//! Control plane, kubelet, containerd, kube-proxy, `CoreDNS`, the agent-sandbox controller: each the
//! real program, in a network namespace of their own. In doubt it leaves things alone: what it ends,
//! it started itself and wrote down.

mod build;
mod down;
mod place;
mod process;
mod settings;
mod up;

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
};

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};

pub(crate) use self::build::main as programs;
use self::place::{LOCK, Place};
use crate::shell::is_root;

/// What `cargo xtask cluster` takes.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build the programs into .cache/cluster/bin (22 processor minutes, the first time)
    Build,
    /// Build what is missing and start the node
    Up,
    /// End all that was started, and remove its namespace and files
    Down,
    /// Say what runs, and how to reach it
    Status,
    /// Start the node, say where it is as JSON, and end it when standard input ends
    Hold,
}

pub(crate) fn main(arguments: &Arguments) -> Result<()> {
    if matches!(arguments.command, Command::Build) {
        return build::main();
    }
    if !is_root() {
        bail!(
            "a cluster makes namespaces and containers, which only root can\n\
             hint: sudo -E env \"PATH=$PATH\" cargo xtask cluster …"
        );
    }
    let place = Place::new();
    match arguments.command {
        Command::Build => Ok(()),
        Command::Up => {
            let _turn = turn()?;
            build::main()?;
            up::main(&place)?;
            status(&place)
        }
        Command::Down => {
            let _turn = turn()?;
            down::main(&place)
        }
        Command::Status => status(&place),
        Command::Hold => hold(&place),
    }
}

/// For a test: it never outlives whoever started it, also when that is killed.
fn hold(place: &Place) -> Result<()> {
    let _turn = turn()?;
    build::main()?;
    // Somebody works with it: the tests may too, and leave it there.
    let was_up = up::is_up(place);
    let begun = up::main(place).and_then(|()| {
        let told = serde_json::json!({
            "kubeconfig": place.kubeconfig(), "bin": place.bin, "state": place.state,
            "namespace": place::NAMESPACE, "node": place::NODE_V4, "node6": place::NODE_V6,
        });
        writeln!(io::stdout(), "{told}")?;
        io::stdout().flush()?;
        io::copy(&mut io::stdin(), &mut io::sink())?;
        Ok(())
    });
    if !was_up {
        down::main(place)?;
    }
    begun
}

fn status(place: &Place) -> Result<()> {
    let mut out = io::stdout();
    if !place.kubeconfig().exists() {
        writeln!(out, "no cluster is up; `cargo xtask cluster up` starts one")?;
        return Ok(());
    }
    for (name, state) in process::all(place)? {
        writeln!(out, "{name:<14} {state}")?;
    }
    let namespace = place::netns();
    writeln!(
        out,
        "\nalias k='nsenter --net={namespace} {} --kubeconfig {}'\n\
         logs: {}/log; images: {} -a {} -n k8s.io images import FILE.tar",
        place.bin.join("kubectl").display(),
        place.kubeconfig().display(),
        place.state.display(),
        place.bin.join("ctr").display(),
        place.containerd().display(),
    )?;
    Ok(())
}

/// One at a time on a machine: its names and addresses are there once.
fn turn() -> Result<File> {
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(LOCK)
        .with_context(|| format!("could not open {LOCK}"))?;
    if lock.try_lock().is_err() {
        eprintln!("cluster: waiting for another one on this machine to end");
        lock.lock()
            .with_context(|| format!("could not lock {LOCK}"))?;
    }
    Ok(lock)
}
