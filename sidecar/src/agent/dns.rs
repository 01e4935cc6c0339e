//! The agent's DNS: answers only names that a rule could allow, and asks nobody.
//!
//! The kernel brings every question here, whichever server it was meant for. A name that the policy
//! could let out gets its virtual addresses; everything else does not exist, at once, so that search
//! domains cost nothing and nothing that the agent writes into a question leaves the pod. In doubt a
//! question is not answered: floods are dropped, what is no DNS closes the connection.

mod message;
mod packet;
mod search;
mod tcp;
mod throttle;
mod udp;

use std::borrow::Cow;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use exeat_policy::{Host, Plan, Reason};

use super::names::{AssignError, VirtualNames};
use crate::ledger::{Decision, Destination, Dns, Ledger};
use crate::process::metrics::Metrics;
use crate::process::reload::Policies;

pub use tcp::serve_tcp;
pub use udp::serve_udp;

use message::{Answer, Kind, Malformed, Question};
use search::SearchDomains;
use throttle::{Pairs, Throttle};

/// What every question is answered from.
pub struct DnsContext {
    policies: Arc<Policies>,
    names: Arc<VirtualNames>,
    ledger: Arc<Ledger>,
    metrics: Arc<Metrics>,
    search: SearchDomains,
    throttle: Throttle,
    pairs: Pairs,
}

/// What becomes of the bytes of one question.
enum Reply {
    /// These bytes go back.
    Send(Vec<u8>),
    /// It is no DNS question; over TCP the connection ends.
    Malformed(Option<Vec<u8>>),
    /// Nothing goes back.
    Drop,
}

/// What a name is to the agent.
#[derive(Debug, PartialEq, Eq)]
enum Meaning {
    /// A rule could allow it: these are its addresses.
    Addresses(Ipv4Addr, Ipv6Addr),
    /// A rule could allow it, but not now.
    Refused(Reason, &'static str),
    /// It does not exist. `told`: that goes on record.
    Nothing { told: bool },
}

// === impl DnsContext ===

impl DnsContext {
    /// Answers by the policy in force, records what is denied.
    #[must_use]
    pub fn new(policies: &Arc<Policies>, names: &Arc<VirtualNames>, ledger: &Arc<Ledger>) -> Self {
        Self {
            policies: Arc::clone(policies),
            names: Arc::clone(names),
            ledger: Arc::clone(ledger),
            metrics: Arc::default(),
            search: SearchDomains::from_system(),
            throttle: Throttle::default(),
            pairs: Pairs::default(),
        }
    }

    /// Counts here.
    #[must_use]
    pub fn with_metrics(mut self, metrics: &Arc<Metrics>) -> Self {
        self.metrics = Arc::clone(metrics);
        self
    }

    /// The reply to one message.
    fn reply(&self, bytes: &[u8]) -> Reply {
        if !self.throttle.admit() {
            self.metrics.dns.throttled.increment();
            return Reply::Drop;
        }
        let question = match Question::read(bytes) {
            Ok(question) => question,
            Err(Malformed::NotAQuestion) => return Reply::Drop,
            Err(Malformed::Told(reply)) => {
                self.metrics.dns.malformed.increment();
                return Reply::Malformed(reply);
            }
        };
        let plan = self.policies.current();
        let answer = match meaning(&plan, &self.names, &self.search, &question) {
            Meaning::Addresses(v4, v6) => {
                self.metrics.dns.answered.increment();
                question.addresses(v4, v6)
            }
            Meaning::Refused(reason, message) => {
                self.deny(&plan, &question, reason, message);
                Answer::Refused
            }
            Meaning::Nothing { told } => {
                if told {
                    let message = "no rule could allow this name";
                    self.deny(&plan, &question, Reason::NameNotAllowed, message);
                }
                Answer::NoSuchName
            }
        };
        question.reply(&answer).map_or(Reply::Drop, Reply::Send)
    }

    fn deny(&self, plan: &Plan, question: &Question, reason: Reason, message: &'static str) {
        self.metrics.dns.denied.increment();
        // The two families of one look-up are one attempt, and one record.
        if !self.pairs.is_first(question) {
            return;
        }
        let name = question.shown();
        let destination = Destination {
            host: Some(name.clone()),
            ..Destination::default()
        };
        let mut decision = Decision::denied("dns", destination, reason.code());
        decision.judged_by(plan);
        decision.message = Some(message.to_owned());
        decision.dns = Some(Dns {
            name,
            kind: Cow::Owned(question.kind_shown()),
        });
        if let Err(error) = self.ledger.deny(&decision) {
            // It stays denied; the ledger counts what it could not write.
            tracing::debug!(%error, "a denied name could not be recorded");
        }
    }

    /// Bytes that are no DNS, sent where DNS is captured.
    fn deny_stream(&self) {
        let plan = self.policies.current();
        let destination = Destination {
            port: 53,
            ..Destination::default()
        };
        let reason = Reason::UnrecognisedProtocol;
        let mut decision = Decision::denied("dns", destination, reason.code());
        decision.judged_by(&plan);
        decision.message = Some("a connection to a DNS port did not speak DNS".to_owned());
        if let Err(error) = self.ledger.deny(&decision) {
            tracing::debug!(%error, "a denied connection could not be recorded");
        }
    }
}

/// What the name of a question means under a plan.
fn meaning(
    plan: &Plan,
    names: &VirtualNames,
    search: &SearchDomains,
    question: &Question,
) -> Meaning {
    let Some(host) = question.host() else {
        return Meaning::Nothing { told: true };
    };
    if is_localhost(host) {
        return Meaning::Addresses(Ipv4Addr::LOCALHOST, Ipv6Addr::LOCALHOST);
    }
    if host.ip().is_some() {
        // An address is no name; some clients ask all the same before they dial it.
        return Meaning::Nothing { told: false };
    }
    if !plan.resolves(host) {
        let appended = search
            .without(host)
            .is_some_and(|bare| plan.resolves(&bare));
        return Meaning::Nothing {
            told: !appended && question.kind() != Kind::Reverse,
        };
    }
    match names.assign(host) {
        Ok(given) => Meaning::Addresses(given.v4, given.v6),
        Err(AssignError::NotAName) => Meaning::Nothing { told: false },
        Err(AssignError::TooFast) => {
            Meaning::Refused(Reason::LimitExceeded, "too many new names in a short time")
        }
        Err(AssignError::Full) => {
            Meaning::Refused(Reason::LimitExceeded, "too many names in use at once")
        }
    }
}

/// RFC 6761: `localhost` and all below it is this machine.
fn is_localhost(host: &Host) -> bool {
    host.as_str() == "localhost" || host.as_str().ends_with(".localhost")
}

/// Reads and answers `bytes` as if they had come in, for the fuzzer and its corpus.
#[doc(hidden)]
#[must_use]
pub fn answer_bytes(plan: &Plan, names: &VirtualNames, bytes: &[u8]) -> Option<Vec<u8>> {
    match Question::read(bytes) {
        Ok(question) => {
            let answer = match meaning(plan, names, &SearchDomains::default(), &question) {
                Meaning::Addresses(v4, v6) => question.addresses(v4, v6),
                Meaning::Refused(..) => Answer::Refused,
                Meaning::Nothing { .. } => Answer::NoSuchName,
            };
            question.reply(&answer)
        }
        Err(Malformed::Told(reply)) => reply,
        Err(Malformed::NotAQuestion) => None,
    }
}

#[cfg(test)]
mod tests;
