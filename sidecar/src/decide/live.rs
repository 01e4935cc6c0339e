//! Every call that is under way, so that a tightened policy can end it.
//!
//! A call is entered here before it may leave. Whoever enters while a new generation comes in is
//! judged again by that one: [`Calls::enter`] gives a call that was entered, and the caller then
//! asks whether the generation is still the one it was judged by.

use std::{
    future::poll_fn,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use exeat_policy::{Call, Destination, HttpCall, Plan, Protocol, Verdict};
use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// The facts a call was judged by, kept for as long as it lives.
#[derive(Debug)]
pub struct Facts {
    /// Where to.
    pub destination: Destination,
    /// What it speaks.
    pub protocol: FactsProtocol,
}

/// The owned twin of [`Protocol`].
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "almost all calls are the large one"
)]
pub enum FactsProtocol {
    /// Declared TCP.
    Tcp,
    /// Declared TLS passthrough.
    Tls,
    /// One HTTP request.
    Http(HttpCall),
}

/// The parts of a call that can wait for its end at the same time.
#[derive(Clone, Copy, Debug)]
pub enum Waiter {
    /// What carries the call: dialling, waiting for an answer, relaying opaque bytes.
    Flow = 0,
    /// The request's body on its way out.
    Request = 1,
    /// The answer's body on its way in.
    Answer = 2,
}

/// One call under way.
#[derive(Debug)]
pub struct LiveCall {
    facts: Arc<Facts>,
    revoked: AtomicBool,
    wakers: [AtomicWaker; 3],
    line: OnceLock<Arc<Line>>,
}

/// A connection of the agent's, which can be cut. An agent that does not read its answer keeps the
/// answer from being looked at, and so from noticing that it is over.
#[derive(Debug, Default)]
pub struct Line {
    cut: Notify,
}

/// All calls under way.
#[derive(Debug, Default)]
pub struct Calls {
    slots: Mutex<Slots>,
}

#[derive(Debug, Default)]
struct Slots {
    calls: Vec<Option<Arc<LiveCall>>>,
    free: Vec<usize>,
}

/// A place among the calls under way; dropping it leaves.
#[derive(Debug)]
pub struct Entered {
    calls: Arc<Calls>,
    call: Arc<LiveCall>,
    slot: usize,
}

// === impl Facts ===

impl Facts {
    /// As the policy takes them.
    #[must_use]
    pub fn call(&self) -> Call<'_> {
        Call {
            destination: &self.destination,
            protocol: match &self.protocol {
                FactsProtocol::Tcp => Protocol::Tcp,
                FactsProtocol::Tls => Protocol::Tls,
                FactsProtocol::Http(http) => Protocol::Http(http),
            },
        }
    }
}

// === impl Calls ===

impl Calls {
    /// Enters a call.
    #[must_use]
    pub fn enter(self: &Arc<Self>, facts: Arc<Facts>) -> Entered {
        let call = Arc::new(LiveCall {
            facts,
            revoked: AtomicBool::new(false),
            wakers: Default::default(),
            line: OnceLock::new(),
        });
        let mut slots = self.slots.lock();
        let slot = if let Some(slot) = slots.free.pop() {
            slots.calls[slot] = Some(Arc::clone(&call));
            slot
        } else {
            slots.calls.push(Some(Arc::clone(&call)));
            slots.calls.len() - 1
        };
        drop(slots);
        Entered {
            calls: Arc::clone(self),
            call,
            slot,
        }
    }

    /// How many calls are under way.
    #[must_use]
    pub fn count(&self) -> usize {
        let slots = self.slots.lock();
        slots.calls.len() - slots.free.len()
    }

    /// Judges every call by a new plan, and ends those that it does not allow. Returns how many.
    pub fn rejudge(&self, plan: &Plan) -> usize {
        let calls: Vec<_> = self.slots.lock().calls.iter().flatten().cloned().collect();
        calls.iter().filter(|call| call.rejudge(plan)).count()
    }

    /// Cuts the connections of calls that were revoked and are still here.
    pub fn cut_stalled(&self) {
        let slots = self.slots.lock();
        for call in slots
            .calls
            .iter()
            .flatten()
            .filter(|call| call.is_revoked())
        {
            if let Some(line) = call.line.get() {
                line.cut.notify_one();
            }
        }
    }
}

// === impl Line ===

impl Line {
    /// Completes when the connection is to be cut.
    pub async fn cut(&self) {
        self.cut.notified().await;
    }
}

// === impl LiveCall ===

impl LiveCall {
    fn rejudge(&self, plan: &Plan) -> bool {
        let denied = matches!(plan.decide(&self.facts.call()), Verdict::Deny(_));
        if denied {
            self.revoked.store(true, Ordering::Release);
            self.wakers.iter().for_each(AtomicWaker::wake);
        }
        denied
    }

    /// Whether the policy no longer allows this call.
    #[must_use]
    pub fn is_revoked(&self) -> bool {
        self.revoked.load(Ordering::Acquire)
    }

    /// Tells on which connection the answer is on its way.
    pub fn answered_on(&self, line: &Arc<Line>) {
        // Set once: a call has one answer.
        drop(self.line.set(Arc::clone(line)));
    }

    /// Ready once the policy no longer allows this call. Each waiter has one task at a time.
    pub fn poll_revoked(&self, waiter: Waiter, cx: &Context<'_>) -> Poll<()> {
        if self.is_revoked() {
            return Poll::Ready(());
        }
        self.wakers[waiter as usize].register(cx.waker());
        // Again: it may have been revoked between the look and the registration.
        if self.is_revoked() {
            return Poll::Ready(());
        }
        Poll::Pending
    }

    /// Completes once the policy no longer allows this call.
    pub async fn revoked(&self) {
        poll_fn(|cx| self.poll_revoked(Waiter::Flow, cx)).await;
    }
}

// === impl Entered ===

impl Entered {
    /// The call itself.
    #[must_use]
    pub fn call(&self) -> &Arc<LiveCall> {
        &self.call
    }

    /// Judges this call again where `current` is not the plan it was judged by. To be called after
    /// entering: a policy that came in between decision and entry is seen here.
    #[must_use]
    pub fn still_allowed(&self, judged_by: &Plan, current: &Plan) -> bool {
        judged_by.generation() == current.generation() || !self.call.rejudge(current)
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let mut slots = self.calls.slots.lock();
        slots.calls[self.slot] = None;
        slots.free.push(self.slot);
    }
}
