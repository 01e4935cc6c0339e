//! A flood of questions costs the gate little, and the journal nothing.
//!
//! One bucket for all: a gate serves one pod, whose processes can take any source address there is
//! on loopback, so a bucket for each would be no limit.

use std::collections::VecDeque;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::message::{Kind, Question};

/// Questions a second from then on: far beyond what an application asks without a cache.
const PER_SECOND: f64 = 2000.0;

/// Questions at once: a test suite that starts a hundred clients.
const BURST: f64 = 4000.0;

/// A client asks for both families of a name within this time, or not together.
const PAIR: Duration = Duration::from_secs(1);

/// Look-ups of which one family is awaited; one more is recorded twice.
const PAIRS: usize = 64;

/// How many questions are answered.
#[derive(Debug)]
pub(super) struct Throttle(Mutex<(f64, Instant)>);

/// The denied names of which one family was asked for a moment ago.
#[derive(Debug, Default)]
pub(super) struct Pairs(Mutex<VecDeque<(String, Kind, Instant)>>);

impl Throttle {
    /// Is there room for one more?
    pub(super) fn admit(&self) -> bool {
        let mut state = self.0.lock();
        let now = Instant::now();
        let (left, counted) = *state;
        let left = left + now.duration_since(counted).as_secs_f64() * PER_SECOND;
        let left = left.min(BURST);
        let admitted = left >= 1.0;
        *state = (if admitted { left - 1.0 } else { left }, now);
        admitted
    }
}

impl Default for Throttle {
    fn default() -> Self {
        Self(Mutex::new((BURST, Instant::now())))
    }
}

impl Pairs {
    /// Is it not the second family of a name whose first was just denied?
    pub(super) fn is_first(&self, question: &Question) -> bool {
        let other = match question.kind() {
            Kind::V4 => Kind::V6,
            Kind::V6 => Kind::V4,
            Kind::Reverse | Kind::Other => return true,
        };
        let name = question.shown();
        let now = Instant::now();
        let mut waiting = self.0.lock();
        while waiting
            .front()
            .is_some_and(|(_, _, since)| now.duration_since(*since) >= PAIR)
        {
            waiting.pop_front();
        }
        let second = waiting
            .iter()
            .position(|(n, kind, _)| *kind == other && *n == name);
        if let Some(at) = second {
            waiting.remove(at);
            return false;
        }
        if waiting.len() < PAIRS {
            waiting.push_back((name, question.kind(), now));
        }
        true
    }
}
