//! The trail: whole after every ill-treatment, broken after every forgery, and told to collectors.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "audit/crash.rs"]
mod crash;
#[path = "audit/export.rs"]
mod export;
#[path = "audit/forge.rs"]
mod forge;
#[path = "audit/show.rs"]
mod show;

use std::path::Path;
use std::process::{Command, Output};

use exeat_sidecar::ledger::{
    Decision, Destination, Durability, Http, JournalConfig, Ledger, Principal,
};
use exeat_tests::governed::program;

/// Opens a journal without a limit.
fn open(path: &Path) -> Ledger {
    let config = JournalConfig {
        path: path.to_owned(),
        durability: Durability::Written,
        max_bytes: u64::MAX,
    };
    let principal = Principal {
        pod: Some("agent-0".into()),
        ..Principal::default()
    };
    Ledger::open(config, principal).unwrap()
}

/// A call to `path` on api.example.
fn call(allow: bool, path: &str) -> Decision {
    let destination = Destination {
        host: Some("api.example".into()),
        port: 443,
        address: None,
    };
    let http = Http {
        method: "GET".into(),
        scheme: "https",
        path: path.into(),
        query: Some("key=hidden".into()),
        user_agent: None,
    };
    Decision {
        allow,
        http: Some(http),
        policy: Some("research".into()),
        rule: allow.then(|| "github.read".into()),
        reason: if allow { "allowed_by_rule" } else { "no_rule" }.into(),
        ..Decision::denied("h2", destination, "no_rule")
    }
}

/// A journal of `calls` allowed calls, each with its outcome, and one denial after each.
async fn journal(path: &Path, calls: usize) {
    let ledger = open(path);
    for n in 0..calls {
        let receipt = ledger
            .decide(&call(true, &format!("/v1/{n}")))
            .await
            .unwrap();
        let guard = ledger.guard(&receipt);
        guard.status(200);
        guard.settled();
        drop(guard);
        ledger.deny(&call(false, "/admin")).unwrap();
    }
    ledger.shutdown().await;
}

/// Runs `exeat audit …`.
fn audit(arguments: &[&str]) -> Output {
    Command::new(program("exeat").unwrap())
        .arg("audit")
        .args(arguments)
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Lines as they stand in a file.
fn joined<'a>(lines: impl IntoIterator<Item = &'a str>) -> String {
    lines.into_iter().flat_map(|line| [line, "\n"]).collect()
}
