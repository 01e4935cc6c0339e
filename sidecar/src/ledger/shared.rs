//! What all writers share: the open journal under one lock, and what could not be written yet.
//!
//! Every write goes through `State::commit`: what waits first, then the records at hand, in one
//! `write`. What fails is counted, and the count is written as soon as anything can be. In doubt the
//! caller gets no receipt.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use parking_lot::{Condvar, Mutex, MutexGuard};
use tokio::sync::broadcast;

use super::denials::Denials;
use super::journal::{AppendError, Journal};
use super::line::{self, Field};
use super::queue::{Lanes, Queue, SEAL_BYTES, Told};
use super::record::{DecisionId, Outcome};
use super::sign::{self, Signer};
use super::{Durability, Lost, Unrecorded};

pub(super) const DECISION: &str = "exeat.egress.decision";
pub(super) const OUTCOME: &str = "exeat.egress.outcome";
pub(super) const OPENED: &str = "exeat.journal.opened";
pub(super) const RECOVERED: &str = "exeat.journal.recovered";
pub(super) const RESUMED: &str = "exeat.journal.resumed";
pub(super) const FULL: &str = "exeat.journal.full";
pub(super) const CLOSED: &str = "exeat.journal.closed";
pub(super) const EXPORT_GAP: &str = "exeat.export.gap";

/// Outcomes wait at most so long for a decision to be written with.
pub(super) const OUTCOME_DELAY: Duration = Duration::from_millis(100);

/// A journal that can't be written is tried again so often, also when no call asks for it.
pub(super) const RETRY_DELAY: Duration = Duration::from_millis(500);

/// Outcomes that wait take no more memory than this. Those beyond are lost, and counted.
pub(super) const PENDING_BYTES: usize = 1024 * 1024;

/// So many records are written, at most, before a head is signed …
pub(super) const SIGN_RECORDS: u64 = 8192;

/// … and so long does a record wait for its signature: what a gate that is killed leaves unsigned.
pub(super) const SIGN_DELAY: Duration = Duration::from_secs(10);

/// Kept of the size limit for outcomes and the journal's own records: some 6000 open calls.
const RESERVE: u64 = 4 * 1024 * 1024;

/// Of a small journal the reserve is only this part.
const RESERVE_PART: u64 = 10;

#[derive(Debug)]
pub(super) struct Shared {
    /// What is to be written next. Who has a lane's lock never takes `state`'s.
    pub(super) lanes: Lanes,
    pub(super) state: Mutex<State>,
    pub(super) wake: Condvar,
    /// The keeper looks by then, in microseconds since `began`. Waking it for each outcome would cost
    /// every call a switch of threads.
    keeper_due: AtomicU64,
    began: Instant,
    /// Calls that are on record and under way.
    pub(super) calls: AtomicUsize,
    pub(super) durability: Durability,
    pub(super) principal: Vec<u8>,
    /// Up to here the file is whole, for readers that take no lock.
    pub(super) length: AtomicU64,
    pub(super) writable: AtomicBool,
    pub(super) lines: broadcast::Sender<Arc<str>>,
    pub(super) max_bytes: u64,
    pub(super) signer: Signer,
}

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
    spare: Queue,
    /// Writing fails since.
    pub(super) outage: Option<Outage>,
    /// Nothing will be written again by this gate.
    ruin: Option<Unrecorded>,
    full: bool,
    pub(super) closed: bool,
    pub(super) stop: bool,
    pub(super) lost: Lost,
    /// Up to this record all are signed, or are the checkpoint of those that are.
    covered: u64,
    /// Since when there are others.
    unsigned_since: Option<Instant>,
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

// === impl Shared ===

impl Shared {
    pub(super) fn new(
        journal: Journal,
        durability: Durability,
        principal: Vec<u8>,
        max_bytes: u64,
        lines: broadcast::Sender<Arc<str>>,
        signer: Signer,
    ) -> Self {
        Self {
            length: AtomicU64::new(journal.len()),
            lanes: Lanes::default(),
            keeper_due: AtomicU64::new(0),
            began: Instant::now(),
            calls: AtomicUsize::new(0),
            state: Mutex::new(State {
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
            }),
            wake: Condvar::new(),
            durability,
            principal,
            writable: AtomicBool::new(true),
            lines,
            max_bytes,
            signer,
        }
    }

    /// Writes what a lane holds, and tells those who wait.
    pub(super) fn write_lane(&self, lane: usize, state: &mut State) {
        let mut queue = std::mem::take(&mut state.spare);
        self.lanes.take(lane, &mut queue);
        let mut waiting = Vec::new();
        let mut entries = Vec::new();
        let mut from = 0;
        for queued in &mut queue.entries {
            let body = &queue.bytes[from..from + queued.length];
            from += queued.length;
            let entry = Entry {
                event: queued.event,
                id: queued.id,
                at: queued.at,
                body,
            };
            match queued.told.take() {
                Some(told) => {
                    waiting.push((queued.id, told));
                    entries.push(entry);
                }
                None => state.keep(self, &entry, queue.since),
            }
        }
        if entries.is_empty() {
            // What was kept is written by who called for it.
        } else if state.closed {
            state.tell(self, waiting, &Err(Unrecorded::Closed));
        } else {
            let mut result = state.commit(self, &entries, Room::Ordinary);
            if result == Err(Unrecorded::Full) && entries.len() > 1 {
                // Some of them may still have room.
                for (entry, waiter) in entries.iter().zip(waiting.drain(..)) {
                    result = state.commit(self, std::slice::from_ref(entry), Room::Ordinary);
                    state.settle(self, vec![waiter], &result);
                }
            } else {
                state.settle(self, waiting, &result);
            }
        }
        drop(entries);
        queue.clear();
        state.spare = queue;
    }

    /// Writes what all lanes hold.
    pub(super) fn write_lanes(&self, state: &mut State) {
        for lane in Lanes::all() {
            self.write_lane(lane, state);
        }
    }

    /// Wakes the keeper unless it looks by then anyway.
    pub(super) fn keeper_by(&self, due: Instant) {
        if self.keeper_due.load(Ordering::SeqCst) > self.micros(due) {
            // It waits, or is about to: with the lock it can't be in between.
            drop(self.state.lock());
            self.wake.notify_one();
        }
    }

    /// The keeper is about to sleep until then.
    pub(super) fn keeper_sleeps(&self, until: Option<Instant>) {
        let until = until.map_or(u64::MAX, |until| self.micros(until));
        self.keeper_due.store(until, Ordering::SeqCst);
    }

    /// The keeper is awake, and will look at everything before it sleeps.
    pub(super) fn keeper_woke(&self) {
        self.keeper_due.store(0, Ordering::SeqCst);
    }

    fn micros(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.began).as_micros();
        u64::try_from(since).unwrap_or(u64::MAX)
    }

    /// Writes a record of the journal's own.
    pub(super) fn own(
        &self,
        event: &'static str,
        fields: &[(&'static str, Field<'_>)],
    ) -> Result<(), Unrecorded> {
        let mut body = Vec::with_capacity(512);
        line::fields(&mut body, &self.principal, fields);
        let at = SystemTime::now();
        let entry = Entry {
            event,
            id: DecisionId::new(),
            at,
            body: &body,
        };
        self.state.lock().commit(self, &[entry], Room::Reserve)
    }

    /// Names the key that this opening's heads are signed with.
    pub(super) fn name_key(&self) -> Result<(), Unrecorded> {
        let fields = [
            ("algorithm", Field::Own(sign::ALGORITHM)),
            ("public_key", Field::Hex(self.signer.public())),
        ];
        self.own(sign::KEY, &fields)
    }

    /// Signs the head, if there is one that is not. Writers go on meanwhile; a head that they have
    /// left too far behind is signed again while they wait.
    pub(super) fn sign_head(&self, state: &mut MutexGuard<'_, State>) {
        if state.journal.chain().seq == state.covered {
            return;
        }
        state.unsigned_since = None;
        if let Err(error) = self.write_checkpoint(state) {
            tracing::warn!(%error, "a head of the journal could not be signed");
            state.unsigned_since = Some(Instant::now());
        }
    }

    fn write_checkpoint(&self, state: &mut MutexGuard<'_, State>) -> Result<(), Unrecorded> {
        state.commit(self, &[], Room::Reserve)?;
        let mut head = state.journal.chain();
        let mut signature = MutexGuard::unlocked(state, || self.signer.sign(&head));
        state.commit(self, &[], Room::Reserve)?;
        let now = state.journal.chain();
        if now.seq - head.seq >= sign::WINDOW as u64 {
            head = now;
            signature = self.signer.sign(&head);
        }
        let mut body = Vec::with_capacity(512);
        let fields = [
            ("head_seq", Field::Number(head.seq)),
            ("head_hash", Field::Own(&head.hash())),
            ("signature", Field::Hex(signature.as_ref())),
        ];
        line::fields(&mut body, &self.principal, &fields);
        let entry = Entry {
            event: sign::CHECKPOINT,
            id: DecisionId::new(),
            at: SystemTime::now(),
            body: &body,
        };
        state.commit(self, &[entry], Room::Reserve)?;
        // The checkpoint itself is no reason for another; what came in between is.
        if now.seq == head.seq {
            state.covered = state.journal.chain().seq;
            state.unsigned_since = None;
        } else {
            state.covered = head.seq;
        }
        Ok(())
    }
}

// === impl State ===

impl State {
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
                publish(&shared.lines, &batch);
            }
            Err(error) => self.failed(shared, error),
        }
        // One long batch must not hold its memory for ever.
        if batch.capacity() <= 2 * PENDING_BYTES {
            self.batch = batch;
        }
        result
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
        let reserve = match room {
            Room::Ordinary => RESERVE.min(shared.max_bytes / RESERVE_PART),
            Room::Reserve => 0,
        };
        let after = self.journal.len() + batch.len() as u64;
        if after > shared.max_bytes.saturating_sub(reserve) {
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
    fn keep(&mut self, shared: &Shared, entry: &Entry<'_>, since: Option<Instant>) {
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
    fn settle(
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
