//! Decisions that are written together: the first to come leads, the others get their receipts by it.
//!
//! Each thread has a queue of its own. Who finds it without a leader leads: lets the other calls of
//! its thread that are ready come too, and writes for all in one `write`. Outcomes wait here for the
//! next decision, or for the keeper. In doubt (the leader's call is given up, the journal fails) what
//! is queued is tried at once, and who waits is told.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Instant, SystemTime};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::chain::MAX_LINE;
use super::journal::MAX_TORN;
use super::record::{DecisionId, Outcome};
use super::shared::{OUTCOME_DELAY, Shared};
use super::state::PENDING_BYTES;
use super::{Receipt, Unrecorded, line};

/// Queues; threads beyond so many share them.
const LANES: usize = 8;

/// What a queue holds before it is written whoever leads: some hundred records.
const LANE_BYTES: usize = 256 * 1024;

/// What an empty queue keeps of its memory.
const KEPT_BYTES: usize = 64 * 1024;

/// What sealing adds to a record's body: event, id, number, time and two hashes.
pub(super) const SEAL_BYTES: usize = 384;

const _: () = assert!(
    (PENDING_BYTES + LANE_BYTES + MAX_LINE) as u64 + 4096 <= MAX_TORN,
    "a batch must not be longer than what is looked through for its beginning"
);

/// Who waits is told whether the record is as safe as it has to be.
pub(super) type Told = oneshot::Sender<Result<(), Unrecorded>>;

/// The queues of all threads.
#[derive(Debug, Default)]
pub(super) struct Lanes([Mutex<Queue>; LANES]);

/// What one thread's calls want written.
#[derive(Debug, Default)]
pub(super) struct Queue {
    pub(super) entries: Vec<Queued>,
    /// The bodies, one behind the other.
    pub(super) bytes: Vec<u8>,
    /// Somebody will write it.
    led: bool,
    /// An outcome waits since.
    pub(super) since: Option<Instant>,
}

/// A record that waits.
#[derive(Debug)]
pub(super) struct Queued {
    pub(super) event: &'static str,
    pub(super) id: DecisionId,
    pub(super) at: SystemTime,
    pub(super) length: usize,
    /// Who waits for it; nobody waits for an outcome.
    pub(super) told: Option<Told>,
}

/// A decision on its way into the journal.
pub(super) struct Asked {
    shared: Arc<Shared>,
    id: DecisionId,
    lane: usize,
    leads: bool,
    answer: Option<oneshot::Receiver<Result<(), Unrecorded>>>,
}

thread_local! {
    static LANE: Cell<Option<usize>> = const { Cell::new(None) };
}

/// This thread's queue.
pub(super) fn lane() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    LANE.get().unwrap_or_else(|| {
        let lane = NEXT.fetch_add(1, Ordering::Relaxed) % LANES;
        LANE.set(Some(lane));
        lane
    })
}

// === impl Lanes ===

impl Lanes {
    pub(super) fn all() -> std::ops::Range<usize> {
        0..LANES
    }

    /// Takes what a lane holds; `spare` gives its memory in exchange and must be empty.
    pub(super) fn take(&self, lane: usize, spare: &mut Queue) {
        std::mem::swap(&mut *self.0[lane].lock(), spare);
    }

    /// When the outcomes that wait are to be written.
    pub(super) fn due(&self) -> Option<Instant> {
        let since = self.0.iter().filter_map(|lane| lane.lock().since).min();
        since.map(|since| since + OUTCOME_DELAY)
    }
}

// === impl Queue ===

impl Queue {
    /// Empties it and keeps its memory.
    pub(super) fn clear(&mut self) {
        self.entries.clear();
        self.bytes.clear();
        // One burst must not hold its memory for ever.
        self.bytes.shrink_to(KEPT_BYTES);
        self.led = false;
        self.since = None;
    }

    fn is_full(&self) -> bool {
        self.bytes.len() + self.entries.len() * SEAL_BYTES >= LANE_BYTES
    }

    fn push(
        &mut self,
        event: &'static str,
        id: DecisionId,
        told: Option<Told>,
        body: impl FnOnce(&mut Vec<u8>),
    ) {
        let before = self.bytes.len();
        body(&mut self.bytes);
        self.entries.push(Queued {
            event,
            id,
            at: SystemTime::now(),
            length: self.bytes.len() - before,
            told,
        });
    }
}

// === impl Shared ===

impl Shared {
    /// Queues a decision.
    pub(super) fn ask(
        self: &Arc<Self>,
        event: &'static str,
        id: DecisionId,
        body: impl FnOnce(&mut Vec<u8>),
    ) -> Asked {
        let lane = lane();
        let (told, answer) = oneshot::channel();
        let mut queue = self.lanes.0[lane].lock();
        if queue.is_full() {
            drop(queue);
            self.write(lane);
            queue = self.lanes.0[lane].lock();
        }
        queue.push(event, id, Some(told), body);
        let leads = !std::mem::replace(&mut queue.led, true);
        Asked {
            shared: Arc::clone(self),
            id,
            lane,
            leads,
            answer: Some(answer),
        }
    }

    /// Puts an outcome where the next write takes it along.
    pub(super) fn pend(&self, event: &'static str, outcome: &Outcome) {
        let lane = lane();
        let mut queue = self.lanes.0[lane].lock();
        if queue.is_full() {
            drop(queue);
            self.write(lane);
            queue = self.lanes.0[lane].lock();
        }
        queue.push(event, DecisionId::new(), None, |body| {
            line::outcome(body, &self.principal, outcome);
        });
        if queue.since.is_none() {
            let now = Instant::now();
            queue.since = Some(now);
            drop(queue);
            self.keeper_by(now + OUTCOME_DELAY);
        }
    }

    /// Writes what a lane holds.
    fn write(&self, lane: usize) {
        let mut state = self.state.lock();
        self.write_lane(lane, &mut state);
    }
}

// === impl Asked ===

impl Asked {
    /// Waits until the decision is on record.
    pub(super) async fn receipt(mut self) -> Result<Receipt, Unrecorded> {
        if self.leads && self.shared.calls.load(Ordering::Relaxed) > 0 {
            // Others are under way: those who are ready to be judged come along.
            tokio::task::yield_now().await;
        }
        self.lead();
        let Some(answer) = &mut self.answer else {
            return Err(Unrecorded::Closed);
        };
        // Without an answer its leader and the keeper are gone, so nobody can say.
        let answered = answer.await.unwrap_or(Err(Unrecorded::Closed));
        self.answer = None;
        answered.map(|()| Receipt::new(self.id))
    }

    fn lead(&mut self) {
        if std::mem::take(&mut self.leads) {
            self.shared.write(self.lane);
        }
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        // Others rely on who leads, also when its own call was given up.
        self.lead();
        let Some(mut answer) = self.answer.take() else {
            return;
        };
        // From here on the answer can't be given: either it was, or who gives it sees this.
        answer.close();
        if let Ok(Ok(())) = answer.try_recv() {
            self.shared
                .pend(super::shared::OUTCOME, &Outcome::abandoned(self.id));
        }
    }
}
