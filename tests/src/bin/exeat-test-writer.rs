//! Writes a journal and is ill-treated meanwhile: killed at any instant, or given a full disk.
//!
//! `loop FILE` records decisions and their outcomes for ever, and prints the id of each decision once
//! it holds its receipt. `full FOLDER` mounts a tiny tmpfs there, in a mount namespace of its own,
//! fills it, makes room again, and leaves the journal's text on stdout.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use exeat_sidecar::ledger::{
    Decision, Destination, Durability, JournalConfig, Ledger, Principal, Unrecorded,
};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::geteuid;

/// Journals here are bounded by the disk, not by their own limit.
const NO_LIMIT: u64 = u64::MAX;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (Some(what), Some(path)) = (arguments.next(), arguments.next()) else {
        bail!("usage: exeat-test-writer loop FILE | full FOLDER");
    };
    let path = PathBuf::from(path);
    // The namespaces must be made while there is one thread.
    if what == "full" {
        own_tmpfs(&path)?;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    match what.as_str() {
        "loop" => runtime.block_on(write_for_ever(path)),
        "full" => runtime.block_on(fill(&path)),
        other => bail!("`{other}` is neither `loop` nor `full`"),
    }
}

fn open(path: PathBuf, durability: Durability) -> Result<Ledger> {
    let config = JournalConfig {
        path,
        durability,
        max_bytes: NO_LIMIT,
    };
    Ok(Ledger::open(config, Principal::default())?)
}

fn decision(allow: bool) -> Decision {
    let destination = Destination {
        host: Some("api.example".into()),
        port: 443,
        address: None,
    };
    Decision {
        allow,
        ..Decision::denied("h2", destination, "no_rule")
    }
}

async fn write_for_ever(path: PathBuf) -> Result<()> {
    let ledger = open(path, Durability::Written)?;
    loop {
        let receipt = ledger.decide(&decision(true)).await?;
        // One write, so that a line is told whole or not at all.
        std::io::stdout().write_all(format!("{}\n", receipt.id()).as_bytes())?;
        ledger.guard(&receipt).settled();
        ledger.deny(&decision(false))?;
    }
}

fn own_tmpfs(folder: &Path) -> Result<()> {
    let mut flags = CloneFlags::CLONE_NEWNS;
    if !geteuid().is_root() {
        flags |= CloneFlags::CLONE_NEWUSER;
    }
    unshare(flags)
        .context("a mount namespace of its own is needed: run as root, or allow user namespaces")?;
    mount(
        None::<&str>,
        "/",
        None::<&str>,
        MsFlags::MS_REC | MsFlags::MS_PRIVATE,
        None::<&str>,
    )?;
    mount(
        Some("tmpfs"),
        folder,
        Some("tmpfs"),
        MsFlags::empty(),
        Some("size=256k"),
    )
    .context("mounting a tmpfs")
}

async fn fill(folder: &Path) -> Result<()> {
    let (path, filler) = (folder.join("journal"), folder.join("filler"));
    fs::write(&filler, vec![b'x'; 192 * 1024])?;
    let ledger = open(path.clone(), Durability::Synced)?;
    let mut guards = Vec::new();
    let error = loop {
        match ledger.decide(&decision(true)).await {
            Ok(receipt) => guards.push(ledger.guard(&receipt)),
            Err(error) => break error,
        }
        ensure!(guards.len() < 10_000, "the disk never filled");
    };
    ensure!(
        matches!(error, Unrecorded::Write(_)),
        "a full disk gave {error:?}"
    );
    ensure!(!ledger.writable(), "a full journal called itself writable");
    ensure!(fs::read(&path)?.ends_with(b"\n"), "half a line was left");
    for _ in 0..50 {
        ensure!(
            ledger.decide(&decision(true)).await.is_err(),
            "a call was let out of a full journal"
        );
    }
    // Calls that were let out end while the disk is full.
    let allowed = guards.len();
    for guard in guards {
        guard.settled();
    }
    tokio::time::sleep(Duration::from_millis(800)).await;
    ensure!(!ledger.writable());
    fs::remove_file(&filler)?;
    let began = Instant::now();
    while !ledger.writable() {
        ensure!(
            began.elapsed() < Duration::from_secs(5),
            "it did not find the room by itself"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    drop(ledger.decide(&decision(true)).await?);
    ledger.shutdown().await;
    ensure!(ledger.lost().outcomes == 0, "outcomes were lost");
    eprintln!("allowed {allowed}");
    std::io::stdout().write_all(&fs::read(&path)?)?;
    Ok(())
}
