//! The oracle of an attempt: what the world saw of it, and what is on record.

use std::{
    fs::{self, File},
    io::{Read as _, Seek as _, SeekFrom},
    sync::PoisonError,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use serde_json::Value;

use super::{Gate, Reply, SECRET};
use crate::upstream::Received;

/// The journal as far as it was read.
#[derive(Debug, Default)]
pub(super) struct Trail {
    offset: u64,
    records: Vec<Value>,
    /// Which of them are decisions.
    decisions: Vec<usize>,
}

/// How far journal and upstream were at some moment.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    decisions: usize,
    requests: usize,
    bytes: usize,
}

/// Watches one attempt, from before it is made.
#[derive(Debug)]
pub struct Watch<'a> {
    gate: &'a Gate,
    mark: Mark,
}

/// Denials that are counted together are written a second later.
const WRITTEN: Duration = Duration::from_secs(3);

impl Gate {
    /// Watches what comes next.
    #[must_use]
    pub fn watch(&self) -> Watch<'_> {
        Watch {
            gate: self,
            mark: Mark {
                decisions: self.read(|trail| trail.decisions.len()),
                requests: self.upstream.requests().len(),
                bytes: self.upstream_bytes(),
            },
        }
    }

    /// All records.
    #[must_use]
    pub fn journal(&self) -> Vec<Value> {
        self.read(|trail| trail.records.clone())
    }

    /// All decisions.
    #[must_use]
    pub fn decisions(&self) -> Vec<Value> {
        self.decisions_from(0)
    }

    fn decisions_from(&self, first: usize) -> Vec<Value> {
        self.read(|trail| {
            let new = trail.decisions.iter().skip(first);
            new.map(|&at| trail.records[at].clone()).collect()
        })
    }

    /// Reads what was written since the last time.
    fn read<T>(&self, take: impl FnOnce(&Trail) -> T) -> T {
        let mut trail = self.trail.lock().unwrap_or_else(PoisonError::into_inner);
        let mut new = String::new();
        if let Ok(mut file) = File::open(self.path("state/journal.jsonl")) {
            // Nothing new where it can't be read: a test that waits for a record says so.
            let _read = file
                .seek(SeekFrom::Start(trail.offset))
                .and_then(|_| file.read_to_string(&mut new));
        }
        // The last line may be half written.
        let whole = new.rfind('\n').map_or(0, |end| end + 1);
        trail.offset += whole as u64;
        for line in new[..whole].lines() {
            let record: Value = serde_json::from_str(line).unwrap_or_default();
            if record["event"] == "exeat.egress.decision" {
                let at = trail.records.len();
                trail.decisions.push(at);
            }
            trail.records.push(record);
        }
        take(&trail)
    }

    /// The outcome of a decision, once it is there.
    #[must_use]
    pub fn outcome(&self, decision: &Value) -> Option<Value> {
        let start = Instant::now();
        while start.elapsed() < WRITTEN {
            let found = self.read(|trail| {
                let mut records = trail.records.iter();
                let ours = |record: &&Value| {
                    record["event"] == "exeat.egress.outcome"
                        && record["decision_id"] == decision["id"]
                };
                records.find(ours).cloned()
            });
            if found.is_some() {
                return found;
            }
            thread::sleep(Duration::from_millis(10));
        }
        None
    }

    /// Nothing has ever left the pod but to the upstream, nothing has arrived at the stranger, and
    /// no secret is on record.
    pub fn nothing_strayed(&self) -> Result<()> {
        let world: std::net::Ipv4Addr = crate::netns::WORLD_V4.parse()?;
        for frame in self.capture.take() {
            let kind = frame.bytes.get(12..14);
            let to = frame.bytes.get(30..34);
            ensure!(
                frame.neighbour || kind == Some(&[8, 0]) && to == Some(&world.octets()),
                "a frame went elsewhere: {frame:?}"
            );
        }
        ensure!(
            self.stranger.connections().is_empty(),
            "somebody reached the stranger"
        );
        let journal = fs::read_to_string(self.path("state/journal.jsonl"))?;
        ensure!(!journal.contains(SECRET), "a secret is in the journal");
        ensure!(
            !self.log().contains(SECRET),
            "a secret is in the sidecar's log"
        );
        Ok(())
    }

    fn upstream_bytes(&self) -> usize {
        let connections = self.upstream.connections();
        connections
            .iter()
            .map(|connection| connection.bytes.len())
            .sum()
    }
}

// === impl Watch ===

impl Watch<'_> {
    /// The decisions since, once there are `count`.
    #[must_use]
    pub fn decisions(&self, count: usize) -> Vec<Value> {
        let start = Instant::now();
        loop {
            let new = self.gate.decisions_from(self.mark.decisions);
            let so_far: usize = new.iter().map(weight).sum();
            if so_far >= count || start.elapsed() > WRITTEN {
                return new;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// The requests that arrived upstream since.
    #[must_use]
    pub fn requests(&self) -> Vec<Received> {
        self.gate.upstream.requests().split_off(self.mark.requests)
    }

    /// The attempt came to nothing: not a byte arrived, exactly one record says why, and it is one
    /// of these reasons.
    pub fn denied(&self, reasons: &[&str]) -> Result<Value> {
        self.denied_times(1, reasons)
    }

    /// The same for several attempts on one connection.
    pub fn denied_times(&self, count: usize, reasons: &[&str]) -> Result<Value> {
        let decisions = self.decisions(count);
        ensure!(
            self.gate.upstream_bytes() == self.mark.bytes,
            "bytes arrived upstream: {:?}",
            self.requests()
        );
        let recorded: usize = decisions.iter().map(weight).sum();
        ensure!(
            recorded == count,
            "{recorded} records instead of {count}: {decisions:#?}"
        );
        for decision in &decisions {
            let reason = decision["reason"].as_str().unwrap_or_default();
            ensure!(
                decision["decision"] == "deny" && reasons.contains(&reason),
                "expected one of {reasons:?}: {decision:#}"
            );
        }
        Ok(decisions.into_iter().next().unwrap_or_default())
    }

    /// Refused over HTTP with one of these reasons, and [`Self::denied`].
    pub fn refused(&self, answers: &[Reply], reasons: &[&str]) -> Result<Value> {
        ensure!(answers.len() <= 1, "more than one answer: {answers:?}");
        if let Some(answer) = answers.first() {
            ensure!(answer.status >= 400, "not refused: {answer:?}");
        }
        self.denied(reasons)
    }

    /// Exactly this many requests arrived, each with a record that allows it.
    pub fn allowed(&self, count: usize) -> Result<Vec<Received>> {
        let decisions = self.decisions(count);
        let allowed = decisions
            .iter()
            .filter(|decision| decision["decision"] == "allow");
        let (requests, allowed) = (self.requests(), allowed.count());
        ensure!(
            requests.len() == count && allowed == count && decisions.len() == count,
            "expected {count} calls: {requests:?}, {decisions:#?}"
        );
        Ok(requests)
    }
}

/// How many denials a record stands for.
fn weight(decision: &Value) -> usize {
    decision["count"]
        .as_u64()
        .and_then(|count| usize::try_from(count).ok())
        .unwrap_or(1)
}
