#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::chain::Verifier;
use super::*;
use std::path::Path;
use std::time::Duration;

fn config(path: &Path, durability: Durability, max_bytes: u64) -> JournalConfig {
    JournalConfig {
        path: path.to_owned(),
        durability,
        max_bytes,
    }
}

fn open(path: &Path) -> Ledger {
    Ledger::open(
        config(path, Durability::Written, u64::MAX),
        Principal::default(),
    )
    .unwrap()
}

fn decision(allow: bool) -> Decision {
    let destination = Destination {
        host: Some("a.example".into()),
        port: 443,
        address: None,
    };
    Decision {
        allow,
        ..Decision::denied("h2", destination, "no_rule")
    }
}

fn verified(path: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.ends_with('\n'));
    let mut verifier = Verifier::default();
    text.lines()
        .enumerate()
        .map(|(index, line)| {
            verifier.line(line.as_bytes(), index == 0).unwrap();
            serde_json::from_str(line).unwrap()
        })
        .collect()
}

fn events(records: &[serde_json::Value]) -> Vec<&str> {
    records
        .iter()
        .map(|record| record["event"].as_str().unwrap())
        .collect()
}

#[tokio::test]
async fn a_decision_is_in_the_file_before_its_receipt() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("j");
    for durability in [Durability::Written, Durability::Synced] {
        let ledger =
            Ledger::open(config(&path, durability, u64::MAX), Principal::default()).unwrap();
        for _ in 0..20 {
            let decision = decision(true);
            let receipt = ledger.decide(&decision).await.unwrap();
            let text = std::fs::read_to_string(&path).unwrap();
            assert!(text.contains(&receipt.id().to_string()));
        }
        ledger.shutdown().await;
        assert_eq!(
            ledger.decide(&decision(true)).await.unwrap_err(),
            Unrecorded::Closed
        );
    }
    assert_eq!(verified(&path).len(), 2 * 22);
}

#[tokio::test]
async fn a_denial_is_written_and_has_no_receipt() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("j");
    let ledger = open(&path);
    let denied = decision(false);
    assert_eq!(
        ledger.decide(&denied).await.unwrap_err(),
        Unrecorded::Denied
    );
    let records = verified(&path);
    assert_eq!(records[1]["id"], denied.id.to_string());
    assert_eq!(records[1]["decision"], "deny");
}

#[tokio::test]
async fn an_outcome_comes_within_its_time_or_with_the_next_decision() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("j");
    let ledger = open(&path);
    let receipt = ledger.decide(&decision(true)).await.unwrap();
    let guard = ledger.guard(&receipt);
    guard.status(200);
    guard.sent(3);
    guard.settled();
    drop(guard);
    drop(ledger.guard(&receipt));
    let next = ledger.decide(&decision(true)).await.unwrap();
    let records = verified(&path);
    assert_eq!(
        events(&records)[2..],
        [
            "exeat.egress.outcome",
            "exeat.egress.outcome",
            "exeat.egress.decision"
        ]
    );
    assert_eq!(records[2]["decision_id"], receipt.id().to_string());
    assert_eq!(
        (&records[2]["status"], &records[2]["bytes"]["sent"]),
        (&200.into(), &3.into())
    );
    assert!(records[2].get("error").is_none());
    assert_eq!(records[3]["error"], receipt::ABANDONED);

    ledger.guard(&next).failed("upstream went away");
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(verified(&path)[5]["error"], "upstream went away");
}

#[tokio::test]
async fn dropping_the_ledger_writes_what_waits() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("j");
    let ledger = open(&path);
    let receipt = ledger.decide(&decision(true)).await.unwrap();
    drop(ledger.guard(&receipt));
    drop(ledger);
    assert_eq!(events(&verified(&path))[2], "exeat.egress.outcome");
    drop(open(&path));
}

#[tokio::test]
async fn a_full_journal_refuses_calls_and_still_takes_their_outcomes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("j");
    let max = 40_000;
    let ledger = Ledger::open(
        config(&path, Durability::Written, max),
        Principal::default(),
    )
    .unwrap();
    let mut receipts = Vec::new();
    let error = loop {
        match ledger.decide(&decision(true)).await {
            Ok(receipt) => receipts.push(receipt),
            Err(error) => break error,
        }
        assert!(receipts.len() < 1000);
    };
    assert_eq!(error, Unrecorded::Full);
    assert!(!ledger.writable());
    for receipt in receipts.iter().take(3) {
        ledger.guard(receipt).settled();
    }
    assert_eq!(ledger.deny(&decision(false)).unwrap_err(), Unrecorded::Full);
    ledger.shutdown().await;
    assert_eq!(
        ledger.lost(),
        Lost {
            refused: 1,
            denials: 1,
            outcomes: 0
        }
    );
    let records = verified(&path);
    let ends = events(&records);
    assert_eq!(ends[ends.len() - 5], "exeat.journal.full");
    assert_eq!(ends[ends.len() - 2], "exeat.egress.outcome");
    assert_eq!(records.last().unwrap()["denials_lost"], 1);
    assert!(std::fs::metadata(&path).unwrap().len() <= max);
    drop(ledger);
    assert!(matches!(
        Ledger::open(
            config(&path, Durability::Written, 100),
            Principal::default()
        ),
        Err(JournalError::FirstRecord(Unrecorded::Full))
    ));
}

#[tokio::test]
async fn a_journal_that_someone_touched_lets_nothing_out() {
    type Touch = fn(&Path);
    let touches: [(&str, Touch); 3] = [
        ("deleted", |path| std::fs::remove_file(path).unwrap()),
        ("cut", |path| {
            std::fs::OpenOptions::new()
                .write(true)
                .open(path)
                .unwrap()
                .set_len(0)
                .unwrap();
        }),
        ("linked", |path| {
            std::fs::hard_link(path, path.with_extension("x")).unwrap();
        }),
    ];
    for (name, touch) in touches {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("j");
        let ledger = open(&path);
        drop(ledger.decide(&decision(true)).await.unwrap());
        touch(&path);
        assert_eq!(
            ledger.decide(&decision(true)).await.unwrap_err(),
            Unrecorded::Foreign,
            "{name}"
        );
        assert!(!ledger.writable());
    }
}

#[tokio::test]
async fn a_flood_of_denials_is_counted_and_allows_are_not_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("j");
    let ledger = open(&path);
    let mut named = std::collections::HashSet::new();
    for n in 0..20_000 {
        named.insert(ledger.deny(&decision(false)).unwrap().to_string());
        if n % 1000 == 0 {
            drop(ledger.decide(&decision(true)).await.unwrap());
        }
    }
    ledger.shutdown().await;
    let records = verified(&path);
    let denied: u64 = records
        .iter()
        .filter(|record| record["decision"] == "deny")
        .map(|record| {
            record
                .get("count")
                .map_or(1, |count| count.as_u64().unwrap())
        })
        .sum();
    assert_eq!(denied, 20_000);
    assert_eq!(
        records
            .iter()
            .filter(|record| record["decision"] == "allow")
            .count(),
        20
    );
    assert!(records.len() < 2000, "{} records", records.len());
    let written: std::collections::HashSet<_> = records
        .iter()
        .map(|record| record["id"].as_str().unwrap().to_owned())
        .collect();
    assert!(
        named.is_subset(&written),
        "an id was told that is not on record"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_writers_make_one_chain() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("j");
    for durability in [Durability::Written, Durability::Synced] {
        let ledger =
            Ledger::open(config(&path, durability, u64::MAX), Principal::default()).unwrap();
        let mut watcher = ledger.subscribe();
        let tasks: Vec<_> = (0..8)
            .map(|_| {
                let ledger = ledger.clone();
                tokio::spawn(async move {
                    for _ in 0..100 {
                        let receipt = ledger.decide(&decision(true)).await.unwrap();
                        ledger.guard(&receipt).settled();
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        ledger.shutdown().await;
        let mut seen = 0;
        while let Ok(line) = watcher.try_recv() {
            assert!(line.starts_with("{\"event\":"));
            seen += 1;
        }
        assert_eq!(seen, 1601);
    }
    assert_eq!(verified(&path).len(), 2 * 1602);
}
