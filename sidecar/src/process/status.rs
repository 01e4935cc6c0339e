//! What the gate says about itself to the operator, signed, so that the agent can't say it in its place.
//!
//! The agent shares the pod's addresses and may answer on this port while the gate is down. So an answer
//! repeats the question's nonce and carries a code that needs a key which only the gate and the operator
//! have. Without that key there is no answer.

use std::sync::Arc;

use aws_lc_rs::hmac;
use serde_json::{Value, json};

use super::reload::{Policies, PolicyState};
use super::selftest::SelfTest;
use crate::ledger::Ledger;
use crate::upstream::credential::Credentials;

/// Where it is asked for.
pub const PATH: &str = "/status";
/// Fewer characters could be guessed or repeated, and more say no more.
const NONCE: std::ops::RangeInclusive<usize> = 32..=128;
/// What stands against a policy is told whole in the log; here, its beginning.
const MAX_PROBLEM: usize = 2000;
/// The names of so many policies: the answer stays below what the operator reads.
const MAX_NAMES: usize = 128;

/// What answers are made from.
pub struct Status {
    credentials: Arc<Credentials>,
    pod_uid: String,
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StatusError {
    /// The question is none.
    #[error("ask with ?nonce= and 32 to 128 hexadecimal characters")]
    Nonce,
    /// The pod's own Secret is not there, or not yet.
    #[error("there is no key to sign an answer with")]
    NoKey,
}

// === impl Status ===

impl Status {
    /// Answers for this pod, signed with the key beside these credentials.
    #[must_use]
    pub fn new(credentials: &Arc<Credentials>, pod_uid: Option<&str>) -> Self {
        Self {
            credentials: Arc::clone(credentials),
            pod_uid: pod_uid.unwrap_or_default().to_owned(),
        }
    }

    /// The answer to a query.
    pub fn answer(
        &self,
        query: Option<&str>,
        policies: &Policies,
        ledger: &Ledger,
        self_test: Option<&SelfTest>,
    ) -> Result<String, StatusError> {
        let nonce = query
            .and_then(|query| query.strip_prefix("nonce="))
            .filter(|nonce| NONCE.contains(&nonce.len()))
            .filter(|nonce| nonce.bytes().all(|b| b.is_ascii_hexdigit()))
            .ok_or(StatusError::Nonce)?;
        let key = self.credentials.status_key().ok_or(StatusError::NoKey)?;
        let status = policies.status();
        let (state, problem) = match &status.state {
            PolicyState::Enforcing => ("enforcing", None),
            PolicyState::KeptLastGood(problem) => ("kept-last-good", Some(problem)),
            PolicyState::DenyAll(problem) => ("deny-all", Some(problem)),
        };
        let problem = problem.map(|text| text.chars().take(MAX_PROBLEM).collect::<String>());
        let plan = policies.current();
        let names: Vec<&str> = plan
            .policies()
            .iter()
            .take(MAX_NAMES)
            .map(AsRef::as_ref)
            .collect();
        let finding = self_test.and_then(SelfTest::latest);
        let body = json!({
            "nonce": nonce,
            "pod_uid": self.pod_uid,
            "bundle": status.bundle.map(|b| json!({"generation": b.generation, "digest": &*b.digest})),
            "state": state,
            "problem": problem,
            "policies": names,
            "self_test": {
                "passed": finding.as_ref().is_some_and(|finding| finding.passed),
                "detail": finding.as_ref().map_or("not run", |finding| finding.detail.as_str()),
                "at": finding.as_ref().map_or(Value::Null, |finding| finding.at_text().into()),
            },
            "journal": {"writable": ledger.writable(), "seq": ledger.head().seq},
        });
        Ok(signed(body.to_string(), &key))
    }
}

/// The text of an object with its code as the last member.
fn signed(mut text: String, key: &hmac::Key) -> String {
    let mac = hmac::sign(key, text.as_bytes());
    text.pop();
    text.push_str(",\"mac\":\"");
    for byte in mac.as_ref() {
        let digits = format!("{byte:02x}");
        text.push_str(&digits);
    }
    text.push_str("\"}");
    text
}

impl std::fmt::Debug for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Status").finish_non_exhaustive()
    }
}
