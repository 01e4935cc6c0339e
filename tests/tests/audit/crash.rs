//! Killed at any instant, or with no room left: the journal goes on, and lost nothing it promised.

use std::collections::HashSet;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use exeat_sidecar::ledger::chain::Verifier;
use exeat_tests::governed::program;

use super::open;

/// Kills of the writer. Each round opens the journal that the round before left.
const ROUNDS: u64 = 60;

#[test]
fn kill_9_at_any_instant_loses_no_promised_record() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("j");
    let mut promised = HashSet::new();
    for round in 0..ROUNDS {
        let mut writer = Command::new(program("exeat-test-writer").unwrap())
            .arg("loop")
            .arg(&path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut told = BufReader::new(writer.stdout.take().unwrap());
        // Wait until it writes, then let it for a time that differs from round to round.
        let mut line = String::new();
        told.read_line(&mut line).unwrap();
        assert!(
            line.ends_with('\n'),
            "round {round}: the journal could not be opened again"
        );
        promised.insert(line.trim().to_owned());
        let reader =
            std::thread::spawn(move || told.lines().map_while(Result::ok).collect::<Vec<_>>());
        std::thread::sleep(Duration::from_micros(round * 397 % 9000));
        writer.kill().unwrap();
        writer.wait().unwrap();
        promised.extend(reader.join().unwrap());
    }
    // A last opening cuts what the last kill left.
    drop(open(&path));
    let text = fs::read_to_string(&path).unwrap();
    let mut verifier = Verifier::default();
    for (index, line) in text.lines().enumerate() {
        verifier.line(line.as_bytes(), index == 0).unwrap();
    }
    let written: HashSet<_> = text
        .lines()
        .filter(|line| line.contains("\"exeat.egress.decision\""))
        .map(|line| line.split('"').nth(7).unwrap().to_owned())
        .collect();
    let lost: Vec<_> = promised.difference(&written).collect();
    assert!(lost.is_empty(), "{} receipts have no record", lost.len());
    assert!(promised.len() as u64 > ROUNDS, "the writers hardly wrote");
    assert_eq!(
        text.matches("\"exeat.journal.opened\"").count() as u64,
        ROUNDS + 1
    );
}

#[test]
fn a_full_disk_denies_and_what_was_let_out_is_still_told() {
    let folder = tempfile::tempdir().unwrap();
    let ran = Command::new(program("exeat-test-writer").unwrap())
        .arg("full")
        .arg(folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{said}");
    let allowed: usize = said.trim().rsplit(' ').next().unwrap().parse().unwrap();
    let text = String::from_utf8(ran.stdout).unwrap();
    let mut verifier = Verifier::default();
    let records: Vec<serde_json::Value> = text
        .lines()
        .enumerate()
        .map(|(index, line)| {
            verifier.line(line.as_bytes(), index == 0).unwrap();
            serde_json::from_str(line).unwrap()
        })
        .collect();
    let count = |event: &str| {
        records
            .iter()
            .filter(|record| record["event"] == event)
            .count()
    };
    assert_eq!(count("exeat.egress.outcome"), allowed);
    assert_eq!(count("exeat.egress.decision"), allowed + 1);
    let resumed = records
        .iter()
        .find(|it| it["event"] == "exeat.journal.resumed")
        .unwrap();
    assert_eq!(resumed["refused"], 51, "the refused calls are told");
    assert_eq!(resumed["outcomes_lost"], 0);
    assert!(
        resumed["error"]
            .as_str()
            .unwrap()
            .contains("no storage space"),
        "{resumed}"
    );
}
