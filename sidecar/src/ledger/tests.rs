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
    // Opened, key, twenty, closed, checkpoint.
    assert_eq!(verified(&path).len(), 2 * 24);
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
    assert_eq!(records[2]["id"], denied.id.to_string());
    assert_eq!(records[2]["decision"], "deny");
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
        events(&records)[3..],
        [
            "exeat.egress.outcome",
            "exeat.egress.outcome",
            "exeat.egress.decision"
        ]
    );
    assert_eq!(records[3]["decision_id"], receipt.id().to_string());
    assert_eq!(
        (&records[3]["status"], &records[3]["bytes"]["sent"]),
        (&200.into(), &3.into())
    );
    assert!(records[3].get("error").is_none());
    assert_eq!(records[4]["error"], receipt::ABANDONED);

    ledger.guard(&next).failed("upstream went away");
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(verified(&path)[6]["error"], "upstream went away");
}

#[tokio::test]
async fn dropping_the_ledger_writes_what_waits() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("j");
    let ledger = open(&path);
    let receipt = ledger.decide(&decision(true)).await.unwrap();
    drop(ledger.guard(&receipt));
    drop(ledger);
    assert_eq!(events(&verified(&path))[3], "exeat.egress.outcome");
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
    assert_eq!(ends[ends.len() - 6], "exeat.journal.full");
    assert_eq!(ends[ends.len() - 3], "exeat.egress.outcome");
    assert_eq!(records[records.len() - 2]["denials_lost"], 1);
    assert_eq!(ends[ends.len() - 1], sign::CHECKPOINT);
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
        assert!(
            seen >= 1602,
            "{seen}: closed and a checkpoint are the least"
        );
    }
    let records = verified(&path);
    let calls = records
        .iter()
        .filter(|it| it["event"].as_str().unwrap().starts_with("exeat.egress"));
    assert_eq!(calls.count(), 2 * 1600);
}

#[tokio::test]
async fn a_call_given_up_takes_nobody_along() {
    use futures_util::poll;
    for leader_goes in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("j");
        let ledger = open(&path);
        let under_way = ledger.decide(&decision(true)).await.unwrap();
        let guard = ledger.guard(&under_way);
        let (leads, follows) = (decision(true), decision(true));
        let mut first = Box::pin(ledger.decide(&leads));
        let mut second = Box::pin(ledger.decide(&follows));
        assert!(poll!(first.as_mut()).is_pending(), "it lets others come");
        assert!(poll!(second.as_mut()).is_pending());
        assert_eq!(verified(&path).len(), 3, "nothing is written yet");
        let (given_up, kept) = if leader_goes {
            drop(first);
            (leads.id, second.await)
        } else {
            drop(second);
            (follows.id, first.await)
        };
        drop(ledger.guard(&kept.unwrap()));
        guard.settled();
        drop(guard);
        ledger.shutdown().await;
        let records = verified(&path);
        let of = |id: DecisionId| {
            let id = id.to_string();
            let decided = records.iter().filter(|it| it["id"] == id).count();
            let ended = records.iter().filter(|it| it["decision_id"] == id);
            (decided, ended.collect::<Vec<_>>())
        };
        for id in [leads.id, follows.id] {
            let (decided, ended) = of(id);
            assert_eq!((decided, ended.len()), (1, 1), "{id} {leader_goes}");
            assert_eq!(ended[0]["error"], receipt::ABANDONED);
        }
        assert_eq!(ledger.lost(), Lost::default(), "{given_up}");
    }
}

#[tokio::test]
async fn of_those_written_together_each_is_judged_by_the_room_that_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("j");
    let max = 40_000;
    let ledger = Ledger::open(
        config(&path, Durability::Written, max),
        Principal::default(),
    )
    .unwrap();
    let under_way = ledger.decide(&decision(true)).await.unwrap();
    let guard = ledger.guard(&under_way);
    let asked: Vec<_> = (0..200).map(|_| decision(true)).collect();
    let answers = futures_util::future::join_all(asked.iter().map(|it| ledger.decide(it))).await;
    let given = answers.iter().filter(|answer| answer.is_ok()).count();
    assert!((20..190).contains(&given), "{given}");
    let text = std::fs::read_to_string(&path).unwrap();
    for (decision, answer) in asked.iter().zip(&answers) {
        let there = text.contains(&format!("\"id\":\"{}\"", decision.id));
        assert_eq!(
            answer.is_ok(),
            there,
            "a receipt is a record, and no record no receipt"
        );
    }
    assert_eq!(ledger.lost().refused, 200 - given as u64);
    drop(guard);
    ledger.shutdown().await;
    verified(&path);
}

#[tokio::test]
async fn heads_are_signed_and_a_forged_one_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("j");
    for _ in 0..2 {
        let ledger = open(&path);
        for _ in 0..5 {
            drop(ledger.decide(&decision(true)).await.unwrap());
        }
        ledger.shutdown().await;
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(&ledger.public_key()));
    }
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let prove = |lines: &[String]| {
        let mut verifier = Verifier::default();
        for (index, line) in lines.iter().enumerate() {
            verifier
                .line(line.as_bytes(), index == 0)
                .map_err(|problem| problem.to_string())?;
        }
        Ok::<_, String>((verifier.keys(), verifier.checkpoints(), verifier.signed()))
    };
    let whole: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
    let last = lines.len() as u64 - 1;
    assert_eq!(prove(&whole), Ok((2, 2, last)));

    // All of it written anew from one record on, as who can write the file and hash can do.
    let anew = |at: usize, change: &dyn Fn(&str) -> String| {
        let mut forged = whole.clone();
        forged[at] = change(&forged[at]);
        let mut hash = String::new();
        for (index, line) in forged.iter_mut().enumerate() {
            let mut body = line[..line.len() - 75].to_owned();
            if index > at {
                let prev = body.rfind("\"prev\":\"").unwrap() + 8;
                body.replace_range(prev..prev + 64, &hash);
            }
            let sealed = String::from_utf8(chain::sealed(body.as_bytes())).unwrap();
            hash = sealed[sealed.len() - 66..sealed.len() - 2].to_owned();
            *line = sealed;
        }
        forged
    };
    let forged = anew(4, &|line| line.replacen("a.example", "b.example", 1));
    assert!(
        prove(&forged)
            .unwrap_err()
            .contains("not among the records just before it")
    );
    let checkpoint = whole.len() - 1;
    let forged = anew(checkpoint, &|line| {
        let at = line.find("\"signature\":\"").unwrap() + 13;
        let digit = if line.as_bytes()[at] == b'0' {
            "1"
        } else {
            "0"
        };
        format!("{}{digit}{}", &line[..at], &line[at + 1..])
    });
    assert!(prove(&forged).unwrap_err().contains("not by the key"));
    let forged = anew(1, &|line| {
        line.replacen("exeat.audit.key", "exeat.audit.kez", 1)
    });
    assert!(prove(&forged).is_err(), "a signature without a key");
}
