//! The open journal, what waits to be written, and what went wrong.
//!
//! Every write goes through `State::commit`: what waits first, then the records at hand, in one
//! `write`. What fails is counted, and the count is written as soon as anything can be. In doubt the
//! caller gets no receipt.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::broadcast;

use super::denials::Denials;
use super::journal::{AppendError, Journal};
use super::line::{self, Field};
use super::queue::{Queue, SEAL_BYTES, Told};
use super::record::{DecisionId, Outcome};
use super::shared::{DECISION, FULL, OUTCOME, RESUMED, Shared};
use super::{Durability, Lost, Unrecorded};

/// Kept of the size limit for outcomes and the journal's own records: some 6000 open calls.
const RESERVE: u64 = 4 * 1024 * 1024;

/// Of a small journal the reserve is only this part.
const RESERVE_PART: u64 = 10;

/// Outcomes that wait take no more memory than this. Those beyond are lost, and counted.
pub(super) const PENDING_BYTES: usize = 1024 * 1024;

/// So many records are written, at most, before a head is signed …
pub(super) const SIGN_RECORDS: u64 = 8192;

/// … and so long does a record wait for its signature: what a gate that is killed leaves unsigned.
pub(super) const SIGN_DELAY: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct State {
    pub(super) journal: Journal,
    pub(super) pending: Vec<Pending>,
    pending_bytes: Vec<u8>,
    pub(super) pending_since: Option<Instant>,
    pub(super) denials: Denials,
    /// Those whose record is written and not yet synced.
    pub(super) waiters: Vec<(DecisionId, Told)>,
    batch: Vec<u8>,
    /// An empty queue, for its memory.
    pub(super) spare: Queue,
    /// Writing fails since.
    pub(super) outage: Option<Outage>,
    /// Nothing will be written again by this gate.
    ruin: Option<Unrecorded>,
    full: bool,
    pub(super) closed: bool,
    pub(super) stop: bool,
    pub(super) lost: Lost,
    /// Up to this record all are signed, or are the checkpoint of those that are.
    pub(super) covered: u64,
    /// Since when there are others.
    pub(super) unsigned_since: Option<Instant>,
}

/// A record that waits; its body is in `pending_bytes`.
#[derive(Debug)]
pub(super) struct Pending {
    event: &'static str,
    id: DecisionId,
    at: SystemTime,
    length: usize,
}

#[derive(Debug)]
pub(super) struct Outage {
    since: SystemTime,
    error: String,
    before: Lost,
}

/// A record to be written now.
pub(super) struct Entry<'a> {
    pub(super) event: &'static str,
    pub(super) id: DecisionId,
    pub(super) at: SystemTime,
    pub(super) body: &'a [u8],
}

/// How much of the size limit a record may use.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    /// Decisions: not the reserve.
    Ordinary,
    /// Outcomes and the journal's own.
    Reserve,
}

// === impl Room ===

impl Room {
    /// Up to where it goes in a journal of at most `max_bytes`.
    fn of(self, max_bytes: u64) -> u64 {
        match self {
            Self::Ordinary => max_bytes - RESERVE.min(max_bytes / RESERVE_PART),
            Self::Reserve => max_bytes,
        }
    }
}

// === impl State ===

impl State {
    pub(super) fn new(journal: Journal) -> Self {
        Self {
            journal,
            pending: Vec::new(),
            pending_bytes: Vec::new(),
            pending_since: None,
            denials: Denials::default(),
            waiters: Vec::new(),
            batch: Vec::new(),
            spare: Queue::default(),
            outage: None,
            ruin: None,
            full: false,
            closed: false,
            stop: false,
            lost: Lost::default(),
            covered: 0,
            unsigned_since: None,
        }
    }

    /// Writes what waits and then `entries`, all in one write, or nothing of it.
    pub(super) fn commit(
        &mut self,
        shared: &Shared,
        entries: &[Entry<'_>],
        room: Room,
    ) -> Result<(), Unrecorded> {
        if let Some(ruin) = &self.ruin {
            return Err(ruin.clone());
        }
        if self.full && room == Room::Ordinary {
            return Err(Unrecorded::Full);
        }
        let mut batch = std::mem::take(&mut self.batch);
        batch.clear();
        let result = self.fill_and_append(shared, &mut batch, entries, room);
        match &result {
            Ok(()) => {
                shared.length.store(self.journal.len(), Ordering::Release);
                if let Some(lines) = shared.lines.get() {
                    publish(lines, &batch);
                }
            }
            Err(error) => self.failed(shared, error),
        }
        // One long batch must not hold its memory for ever.
        if batch.capacity() <= 2 * PENDING_BYTES {
            self.batch = batch;
        }
        result
    }

    /// Whether all that waits and these certainly fit.
    pub(super) fn has_room(&self, shared: &Shared, entries: &[Entry<'_>]) -> bool {
        let bodies = entries.iter().map(|entry| entry.body.len()).sum::<usize>();
        let seals = (self.pending.len() + entries.len()) * SEAL_BYTES;
        let most = self.journal.len() + (self.pending_bytes.len() + bodies + seals) as u64;
        self.outage.is_none() && most <= Room::Ordinary.of(shared.max_bytes)
    }

    fn fill_and_append(
        &mut self,
        shared: &Shared,
        batch: &mut Vec<u8>,
        entries: &[Entry<'_>],
        room: Room,
    ) -> Result<(), Unrecorded> {
        let mut chain = self.journal.chain();
        let before = chain.seq;
        if let Some(outage) = &self.outage {
            let lost = self.lost.since(outage.before);
            let mut since = Vec::new();
            line::time(&mut since, outage.since);
            let since = String::from_utf8_lossy(&since);
            let mut body = Vec::with_capacity(512);
            line::fields(
                &mut body,
                &shared.principal,
                &[
                    ("since", Field::Text(since.trim_matches('"'))),
                    ("error", Field::Text(&outage.error)),
                    ("refused", Field::Number(lost.refused)),
                    ("denials_lost", Field::Number(lost.denials)),
                    ("outcomes_lost", Field::Number(lost.outcomes)),
                ],
            );
            chain.seal(batch, RESUMED, DecisionId::new(), SystemTime::now(), &body);
        }
        let mut from = 0;
        for pending in &self.pending {
            let body = &self.pending_bytes[from..from + pending.length];
            from += pending.length;
            chain.seal(batch, pending.event, pending.id, pending.at, body);
        }
        for entry in entries {
            chain.seal(batch, entry.event, entry.id, entry.at, entry.body);
        }
        if batch.is_empty() {
            return Ok(());
        }
        let after = self.journal.len() + batch.len() as u64;
        if after > room.of(shared.max_bytes) {
            return Err(Unrecorded::Full);
        }
        if !self.journal.is_own() {
            return Err(Unrecorded::Foreign);
        }
        self.journal
            .append(batch, chain)
            .map_err(|AppendError(kind)| Unrecorded::Write(kind))?;
        let enough = self.covered + SIGN_RECORDS;
        if self.unsigned_since.is_none() || before < enough && chain.seq >= enough {
            self.unsigned_since.get_or_insert_with(Instant::now);
            shared.wake.notify_one();
        }
        self.pending.clear();
        self.pending_bytes.clear();
        self.pending_since = None;
        if self.outage.take().is_some() {
            tracing::warn!("the journal can be written again");
        }
        if !self.full {
            shared.writable.store(true, Ordering::Release);
        }
        Ok(())
    }

    fn failed(&mut self, shared: &Shared, error: &Unrecorded) {
        shared.writable.store(false, Ordering::Release);
        match error {
            Unrecorded::Full if !self.full => {
                self.full = true;
                tracing::error!(%error, "calls are refused");
                let mut body = Vec::with_capacity(512);
                let limit = [("max_bytes", Field::Number(shared.max_bytes))];
                line::fields(&mut body, &shared.principal, &limit);
                let at = SystemTime::now();
                let entry = Entry {
                    event: FULL,
                    id: DecisionId::new(),
                    at,
                    body: &body,
                };
                if self.commit(shared, &[entry], Room::Reserve).is_err() {
                    tracing::error!("no room left in the journal to say that it is full");
                }
            }
            Unrecorded::Foreign | Unrecorded::Sync(_) if self.ruin.is_none() => {
                tracing::error!(%error, "calls are refused until the gate is restarted");
                self.ruin = Some(error.clone());
            }
            Unrecorded::Full | Unrecorded::Foreign | Unrecorded::Sync(_) => {}
            _ if self.outage.is_none() => {
                tracing::error!(%error, "calls are refused until the journal can be written");
                self.outage = Some(Outage {
                    since: SystemTime::now(),
                    error: error.to_string(),
                    before: self.lost,
                });
                shared.wake.notify_one();
            }
            _ => {}
        }
    }

    /// The disk could not promise what was written: it may have forgotten it, and asking again
    /// would be answered as if it had not.
    pub(super) fn sync_failed(&mut self, shared: &Shared, kind: ErrorKind) {
        self.failed(shared, &Unrecorded::Sync(kind));
    }

    /// When the head is to be signed.
    pub(super) fn sign_due(&self) -> Option<Instant> {
        if self.ruin.is_some() || self.outage.is_some() {
            return None;
        }
        let since = self.unsigned_since?;
        Some(
            if self.journal.chain().seq.saturating_sub(self.covered) >= SIGN_RECORDS {
                since
            } else {
                since + SIGN_DELAY
            },
        )
    }

    /// Keeps an outcome for the next write.
    pub(super) fn keep(&mut self, shared: &Shared, entry: &Entry<'_>, since: Option<Instant>) {
        let after = self.pending_bytes.len() + self.pending.len() * SEAL_BYTES;
        if after + entry.body.len() + SEAL_BYTES > PENDING_BYTES
            && self.commit(shared, &[], Room::Reserve).is_err()
        {
            self.lost.outcomes += 1;
            return;
        }
        self.pending_bytes.extend_from_slice(entry.body);
        self.pending.push(Pending {
            event: entry.event,
            id: entry.id,
            at: entry.at,
            length: entry.body.len(),
        });
        self.pending_since = self.pending_since.or(since);
    }

    /// What became of some decisions.
    pub(super) fn settle(
        &mut self,
        shared: &Shared,
        mut waiting: Vec<(DecisionId, Told)>,
        result: &Result<(), Unrecorded>,
    ) {
        if result.is_err() {
            self.lost.refused += waiting.len() as u64;
        } else if shared.durability == Durability::Synced {
            self.waiters.append(&mut waiting);
            shared.wake.notify_one();
        }
        self.tell(shared, waiting, result);
    }

    /// Tells those who wait. Who no longer does has given up a call that is on record: its end is too.
    pub(super) fn tell(
        &mut self,
        shared: &Shared,
        waiting: Vec<(DecisionId, Told)>,
        result: &Result<(), Unrecorded>,
    ) {
        for (id, told) in waiting {
            if told.send(result.clone()).is_err() && result.is_ok() {
                let mut body = Vec::with_capacity(512);
                line::outcome(&mut body, &shared.principal, &Outcome::abandoned(id));
                let entry = Entry {
                    event: OUTCOME,
                    id: DecisionId::new(),
                    at: SystemTime::now(),
                    body: &body,
                };
                self.keep(shared, &entry, Some(Instant::now()));
                shared.wake.notify_one();
            }
        }
    }

    /// Gives up what waits, and counts it.
    pub(super) fn forget_pending(&mut self) {
        self.lost.outcomes += self.pending.len() as u64;
        self.pending.clear();
        self.pending_bytes.clear();
        self.pending_since = None;
    }

    /// Writes the denials that were counted together.
    pub(super) fn write_denials(&mut self, shared: &Shared, now: Instant) {
        for mut held in self.denials.take(now) {
            if held.count > 1 {
                line::count(&mut held.body, held.count, held.first, held.last);
            }
            let entry = Entry {
                event: DECISION,
                id: held.id,
                at: held.last,
                body: &held.body,
            };
            if self.commit(shared, &[entry], Room::Ordinary).is_err() {
                self.lost.denials += held.count;
            }
        }
    }
}

/// Sends each line to whoever watches.
fn publish(lines: &broadcast::Sender<Arc<str>>, batch: &[u8]) {
    if lines.receiver_count() == 0 {
        return;
    }
    for line in batch.split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
        // Lines are ASCII by construction. Nobody listening is no error.
        if let Ok(text) = std::str::from_utf8(line)
            && lines.send(Arc::from(text)).is_err()
        {
            return;
        }
    }
}
