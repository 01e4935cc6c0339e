//! A flood of denials is counted, not written line by line.
//!
//! An agent can be denied faster than anyone would read, and each denial costs it nothing. Up to
//! the limits here each denial has its own record; beyond, equal ones (reason, destination,
//! protocol, caller, policy, rule) of one second become one record with a count. Allowed calls never come
//! here. In doubt a denial is counted under a wider heading; none is left out.

use std::collections::HashMap;
use std::collections::hash_map::{Entry, RandomState};
use std::hash::BuildHasher as _;
use std::time::{Duration, Instant, SystemTime};

use super::record::{Decision, DecisionId};

/// How long equal denials are gathered: a live view is never later than this.
const WINDOW: Duration = Duration::from_secs(1);

/// Denials of one kind that get their own records in a window: more than any honest client retries.
const PER_KIND: u32 = 100;

/// Denials of all kinds that get their own records in a window: 1 MB of journal a second at most.
const IN_ALL: u32 = 1000;

/// Kinds told apart in a window; beyond, the destination is left open. Bounds memory and output.
const KINDS: usize = 128;

/// The denials of this window.
#[derive(Debug, Default)]
pub(super) struct Denials {
    began: Option<Instant>,
    recorded: u32,
    /// How many kinds hold some.
    holding: usize,
    kinds: HashMap<u64, Kind>,
    hasher: RandomState,
}

#[derive(Debug, Default)]
struct Kind {
    recorded: u32,
    held: Option<Held>,
}

/// Denials that wait to be written as one.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) id: DecisionId,
    pub(super) body: Vec<u8>,
    pub(super) count: u64,
    pub(super) first: SystemTime,
    pub(super) last: SystemTime,
}

/// What becomes of a denial.
pub(super) enum Fate {
    /// It gets its own record.
    Recorded,
    /// It is counted in the record of this id.
    Counted(DecisionId),
}

// === impl Denials ===

impl Denials {
    /// Judges one denial. `body` renders the first of those that are counted together; it is given
    /// true when the destination has to be left open.
    pub(super) fn admit(
        &mut self,
        decision: &Decision,
        now: Instant,
        body: impl FnOnce(bool) -> Vec<u8>,
    ) -> Fate {
        let began = *self.began.get_or_insert(now);
        if self.holding == 0 && now.duration_since(began) >= WINDOW {
            self.restart(now);
        }
        let (key, wide) = self.key(decision);
        let kind = self.kinds.entry(key).or_default();
        if !wide && kind.held.is_none() && kind.recorded < PER_KIND && self.recorded < IN_ALL {
            kind.recorded += 1;
            self.recorded += 1;
            return Fate::Recorded;
        }
        let at = SystemTime::now();
        let held = kind.held.get_or_insert_with(|| {
            self.holding += 1;
            Held {
                id: decision.id,
                body: body(wide),
                count: 0,
                first: at,
                last: at,
            }
        });
        held.count += 1;
        held.last = at;
        Fate::Counted(held.id)
    }

    /// When the gathered ones are to be written.
    pub(super) fn due(&self) -> Option<Instant> {
        let began = self.began?;
        (self.holding > 0).then_some(began + WINDOW)
    }

    /// Takes the gathered ones and starts anew.
    pub(super) fn take(&mut self, now: Instant) -> Vec<Held> {
        let mut held: Vec<_> = self
            .kinds
            .drain()
            .filter_map(|(_, kind)| kind.held)
            .collect();
        held.sort_by_key(|held| held.id);
        self.restart(now);
        held
    }

    fn restart(&mut self, now: Instant) {
        self.kinds.clear();
        self.recorded = 0;
        self.holding = 0;
        self.began = Some(now);
    }

    /// The heading of a denial, and whether it is one that leaves the destination open.
    fn key(&mut self, it: &Decision) -> (u64, bool) {
        let destination = &it.destination;
        let narrow = self.hasher.hash_one((
            &it.reason,
            &destination.host,
            destination.port,
            destination.address,
            it.protocol,
            it.caller_uid,
            &it.policy,
            &it.rule,
            it.generation,
        ));
        let full = self.kinds.len() >= KINDS;
        if !full || self.kinds.contains_key(&narrow) {
            return (narrow, false);
        }
        let wide = self
            .hasher
            .hash_one((&it.reason, it.protocol, it.generation, "any"));
        // Reasons and protocols are closed sets, so these few more stay few.
        if let Entry::Vacant(vacant) = self.kinds.entry(wide) {
            vacant.insert(Kind::default());
        }
        (wide, true)
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::Destination;
    use super::*;

    fn denial(host: &str) -> Decision {
        let destination = Destination {
            host: Some(host.into()),
            port: 443,
            address: None,
        };
        Decision::denied("h2", destination, "no_rule")
    }

    #[test]
    fn a_flood_becomes_one_record_and_none_is_left_out() {
        let mut denials = Denials::default();
        let now = Instant::now();
        let mut recorded = 0;
        for _ in 0..100_000 {
            if let Fate::Recorded = denials.admit(&denial("a"), now, |_| b"a".to_vec()) {
                recorded += 1;
            }
        }
        let held = denials.take(now);
        assert_eq!(held.len(), 1);
        assert_eq!(recorded + held[0].count, 100_000);
        assert_eq!(recorded, u64::from(PER_KIND));
    }

    #[test]
    fn many_destinations_stay_bounded() {
        let mut denials = Denials::default();
        let now = Instant::now();
        let mut recorded = 0;
        for n in 0..10_000 {
            let fate = denials.admit(&denial(&format!("h{n}")), now, |wide| vec![u8::from(wide)]);
            recorded += u64::from(matches!(fate, Fate::Recorded));
        }
        let held = denials.take(now);
        assert_eq!(recorded + held.iter().map(|h| h.count).sum::<u64>(), 10_000);
        assert!(recorded <= u64::from(IN_ALL) && held.len() <= KINDS + 8);
        assert!(held.iter().any(|h| h.body == [1]));
    }

    #[test]
    fn a_quiet_second_forgets() {
        let mut denials = Denials::default();
        let now = Instant::now();
        for _ in 0..PER_KIND {
            assert!(matches!(
                denials.admit(&denial("a"), now, |_| vec![]),
                Fate::Recorded
            ));
        }
        assert!(denials.due().is_none());
        assert!(matches!(
            denials.admit(&denial("a"), now + WINDOW, |_| vec![]),
            Fate::Recorded
        ));
    }
}
