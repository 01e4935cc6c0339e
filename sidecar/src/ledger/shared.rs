//! What all writers share: the queues, the open journal under one lock, and who is to be told.
//!
//! Nobody waits for that lock while the disk is synced or a head is signed. In doubt the caller gets
//! no receipt.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use parking_lot::{Condvar, Mutex, MutexGuard};
use tokio::sync::broadcast;

use super::journal::Journal;
use super::line::{self, Field};
use super::queue::Lanes;
use super::record::DecisionId;
use super::sign::{self, Signer};
use super::state::{Entry, Room, State};
use super::{Durability, Unrecorded};

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
    /// For whoever watches. Made for the first: its room is some hundred KiB.
    pub(super) lines: OnceLock<broadcast::Sender<Arc<str>>>,
    pub(super) max_bytes: u64,
    pub(super) signer: Signer,
}

// === impl Shared ===

impl Shared {
    pub(super) fn new(
        journal: Journal,
        durability: Durability,
        principal: Vec<u8>,
        max_bytes: u64,
        signer: Signer,
    ) -> Self {
        Self {
            length: AtomicU64::new(journal.len()),
            lanes: Lanes::default(),
            keeper_due: AtomicU64::new(0),
            began: Instant::now(),
            calls: AtomicUsize::new(0),
            state: Mutex::new(State::new(journal)),
            wake: Condvar::new(),
            durability,
            principal,
            writable: AtomicBool::new(true),
            lines: OnceLock::new(),
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
            // Near the limit one by one: the last that has room still gets its receipt.
            let at_once = if state.has_room(self, &entries) {
                entries.len()
            } else {
                1
            };
            let mut waiting = waiting.into_iter();
            for together in entries.chunks(at_once) {
                let result = state.commit(self, together, Room::Ordinary);
                let told = waiting.by_ref().take(together.len()).collect();
                state.settle(self, told, &result);
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
