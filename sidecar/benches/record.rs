//! What it costs a call to be written down.
//!
//! `cargo bench -p exeat-sidecar --bench record`; `EXEAT_BENCH_DISK` names a folder on the disk to be
//! measured (the target folder's by default), tmpfs is /dev/shm.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::PathBuf;

use divan::{Bencher, counter::ItemsCount};
use exeat_sidecar::ledger::{
    Decision, DecisionId, Destination, Durability, Http, JournalConfig, Ledger, Outcome, Principal,
};
use tempfile::TempDir;

fn main() {
    divan::main();
}

/// Where the journal is.
#[derive(Debug, Clone, Copy)]
enum Place {
    Tmpfs,
    Disk,
}

const PLACES: [Place; 2] = [Place::Tmpfs, Place::Disk];

#[expect(
    clippy::disallowed_methods,
    reason = "a benchmark, told where a disk is"
)]
fn open(place: Place, durability: Durability) -> (TempDir, Ledger) {
    let folder = match place {
        Place::Tmpfs => PathBuf::from("/dev/shm"),
        Place::Disk => std::env::var_os("EXEAT_BENCH_DISK")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from),
    };
    let folder = tempfile::tempdir_in(folder).unwrap();
    let config = JournalConfig {
        path: folder.path().join("journal"),
        durability,
        max_bytes: u64::MAX,
    };
    let principal = Principal {
        namespace: Some("agents".into()),
        pod: Some("research-7d9f".into()),
        labels: [("app".into(), "research".into())].into(),
        ..Principal::default()
    };
    let ledger = Ledger::open(config, principal).unwrap();
    (folder, ledger)
}

fn call(allow: bool) -> Decision {
    let destination = Destination {
        host: Some("api.github.com".into()),
        port: 443,
        address: Some([198, 18, 4, 7].into()),
    };
    Decision {
        id: DecisionId::new(),
        allow,
        caller_uid: Some(1000),
        http: Some(Http {
            method: "GET".into(),
            scheme: "https",
            path: "/repos/acme/widgets/issues".into(),
            query: Some("state=open&per_page=50".into()),
            user_agent: Some("python-httpx/0.28.1".into()),
        }),
        policy: Some("agents/research".into()),
        rule: Some("github.read".into()),
        credential: Some("github".into()),
        bundle: "sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881".into(),
        trace_id: Some([7; 16]),
        span_id: Some([7; 8]),
        reason: "allowed_by_rule".into(),
        ..Decision::denied("h2", destination, "no_rule")
    }
}

/// One decision, as a call waits for it.
#[divan::bench(args = PLACES)]
fn decision_written(bencher: Bencher<'_, '_>, place: Place) {
    let (_folder, ledger) = open(place, Durability::Written);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let call = call(true);
    let _entered = runtime.enter();
    bencher.bench_local(|| futures_util::FutureExt::now_or_never(ledger.decide(&call)).unwrap());
}

/// A decision and its outcome: what a whole call costs.
#[divan::bench(args = PLACES)]
fn decision_and_outcome_written(bencher: Bencher<'_, '_>, place: Place) {
    let (_folder, ledger) = open(place, Durability::Written);
    let call = call(true);
    bencher.bench_local(|| {
        let receipt = futures_util::FutureExt::now_or_never(ledger.decide(&call)).unwrap();
        ledger.outcome(&Outcome {
            decision_id: receipt.unwrap().id(),
            status: Some(200),
            bytes_sent: 0,
            bytes_received: 4711,
            duration: std::time::Duration::from_millis(12),
            address: Some(([140, 82, 121, 6], 443).into()),
            usage: None,
            error: None,
        });
    });
}

/// Denials in a flood, almost all of them counted only.
#[divan::bench]
fn denial_in_a_flood(bencher: Bencher<'_, '_>) {
    let (_folder, ledger) = open(Place::Tmpfs, Durability::Written);
    let call = call(false);
    bencher.bench_local(|| ledger.deny(&call));
}

/// Calls that are ready at the same time, as on a busy thread.
const AT_ONCE: usize = 32;

/// 32 calls at once: one write serves many.
#[divan::bench(args = PLACES)]
fn decisions_written_32_at_once(bencher: Bencher<'_, '_>, place: Place) {
    at_once(bencher, place, Durability::Written);
}

/// 32 calls at once, each waiting for the disk: one sync serves many.
#[divan::bench(sample_count = 20)]
fn decisions_synced_32_at_once(bencher: Bencher<'_, '_>) {
    at_once(bencher, Place::Disk, Durability::Synced);
}

fn at_once(bencher: Bencher<'_, '_>, place: Place, durability: Durability) {
    let (_folder, ledger) = open(place, durability);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let call = call(true);
    // While others are under way, the first lets the rest come along.
    let under_way = runtime.block_on(ledger.decide(&call)).unwrap();
    let _guard = ledger.guard(&under_way);
    bencher.counter(ItemsCount::new(AT_ONCE)).bench_local(|| {
        runtime.block_on(futures_util::future::join_all(
            (0..AT_ONCE).map(|_| ledger.decide(&call)),
        ))
    });
}
