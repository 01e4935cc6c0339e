//! The proof that a decision is on record, and the promise that its end will be.
//!
//! `Receipt` has no public constructor: only the ledger makes one, after the record was written (and
//! synced, where that is asked for). What adds credentials or dials takes a `Receipt`, so leaving out
//! the record does not compile. `OutcomeGuard` tells the end of a call when it is dropped, however
//! the call ended.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;

use super::Ledger;
use super::record::{DecisionId, Outcome, Usage};

/// The error of a call whose end nobody reported.
pub const ABANDONED: &str = "abandoned";

/// Proof that the decision is in the journal.
///
/// Not `Clone`: one decision lets one call out.
#[derive(Debug)]
#[must_use = "nothing may leave without the receipt of its record"]
pub struct Receipt {
    id: DecisionId,
}

/// Gathers what becomes of an allowed call, and writes it when dropped.
///
/// Everything takes `&self`, so an `Arc` of it can ride in the request's body, the answer's body and
/// the task that joins them; the last one to go writes the outcome. Unless `settled` or `failed` was
/// called the outcome says `abandoned`.
#[derive(Debug)]
pub struct OutcomeGuard {
    ledger: Ledger,
    id: DecisionId,
    started: Instant,
    /// 0 is none: no HTTP status is 0.
    status: AtomicU16,
    sent: AtomicU64,
    received: AtomicU64,
    ending: Mutex<Ending>,
}

#[derive(Debug, Default)]
struct Ending {
    settled: bool,
    address: Option<SocketAddr>,
    usage: Option<Usage>,
    error: Option<Cow<'static, str>>,
}

// === impl Receipt ===

impl Receipt {
    /// Only the ledger calls this, and only after the record was written.
    pub(super) fn new(id: DecisionId) -> Self {
        Self { id }
    }

    /// The decision this is the receipt of.
    #[must_use]
    pub fn id(&self) -> DecisionId {
        self.id
    }
}

// === impl OutcomeGuard ===

impl OutcomeGuard {
    pub(super) fn new(ledger: Ledger, id: DecisionId) -> Self {
        ledger.begun();
        Self {
            ledger,
            id,
            started: Instant::now(),
            status: AtomicU16::new(0),
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
            ending: Mutex::default(),
        }
    }

    /// The decision whose end this is.
    #[must_use]
    pub fn id(&self) -> DecisionId {
        self.id
    }

    /// The address that was dialled.
    pub fn dialled(&self, address: SocketAddr) {
        self.ending.lock().address = Some(address);
    }

    /// The upstream answered with this status.
    pub fn status(&self, status: u16) {
        self.status.store(status, Ordering::Relaxed);
    }

    /// More bytes went upstream.
    pub fn sent(&self, bytes: u64) {
        self.sent.fetch_add(bytes, Ordering::Relaxed);
    }

    /// More bytes came from upstream.
    pub fn received(&self, bytes: u64) {
        self.received.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Tokens, as the provider counted them; the last value stands.
    pub fn usage(&self, usage: Usage) {
        self.ending.lock().usage = Some(usage);
    }

    /// The call ended as it should.
    pub fn settled(&self) {
        self.ending.lock().settled = true;
    }

    /// The call ended in an error. The first error is kept: those after are its consequences.
    pub fn failed(&self, error: impl Into<Cow<'static, str>>) {
        let mut ending = self.ending.lock();
        ending.settled = true;
        ending.error.get_or_insert_with(|| error.into());
    }
}

impl Drop for OutcomeGuard {
    fn drop(&mut self) {
        self.ledger.ended();
        let ending = std::mem::take(self.ending.get_mut());
        let status = *self.status.get_mut();
        self.ledger.outcome(&Outcome {
            decision_id: self.id,
            status: (status != 0).then_some(status),
            bytes_sent: *self.sent.get_mut(),
            bytes_received: *self.received.get_mut(),
            duration: self.started.elapsed(),
            address: ending.address,
            usage: ending.usage,
            error: ending
                .error
                .or_else(|| (!ending.settled).then_some(Cow::Borrowed(ABANDONED))),
        });
    }
}
