//! Why a call is judged as it is: the verdict, and every rule of the host with why it did not
//! match.

use std::sync::Arc;

use super::rule::Rule;
use super::{Plan, judge, message};
use crate::call::Call;
use crate::reason::Reason;
use crate::verdict::Verdict;

/// More rules than anyone reads.
const MAX_SHOWN: usize = 50;

/// A verdict, and the rules that could have made another.
#[derive(Debug)]
pub struct Explanation {
    /// The verdict.
    pub verdict: Verdict,
    /// The other rules that name the host, and why they did not match.
    pub near: Vec<NearMiss>,
}

/// A rule that names the host and did not match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NearMiss {
    /// Its policy.
    pub policy: Arc<str>,
    /// Its name.
    pub rule: Arc<str>,
    /// Whether it is a denial.
    pub denies: bool,
    /// What a call that only this rule could allow would be refused with.
    pub reason: Option<Reason>,
    /// Why it did not match, or what it allows.
    pub message: String,
}

impl Plan {
    /// Judges one call and says why not otherwise.
    #[must_use]
    pub fn explain(&self, call: &Call<'_>) -> Explanation {
        let host = &call.destination.host;
        let governed = self.is_governed(call);
        let mut near = Vec::new();
        for rule in self.allow.on_host(host).take(MAX_SHOWN) {
            if let Err(miss) = judge::allowed(rule, call, governed) {
                near.push(near_miss(
                    rule,
                    false,
                    Some(miss.reason()),
                    message::hint(&miss, rule),
                ));
            }
        }
        let denials = self.guard.on_host(host).chain(self.deny.on_host(host));
        for rule in denials.take(MAX_SHOWN) {
            if let Ok(false) = judge::denies(rule, call) {
                near.push(near_miss(
                    rule,
                    true,
                    None,
                    format!("rule {} does not deny this", rule.name),
                ));
            }
        }
        Explanation {
            verdict: self.decide(call),
            near,
        }
    }
}

fn near_miss(rule: &Rule, denies: bool, reason: Option<Reason>, message: String) -> NearMiss {
    NearMiss {
        policy: Arc::clone(&rule.policy),
        rule: Arc::clone(&rule.name),
        denies,
        reason,
        message,
    }
}
