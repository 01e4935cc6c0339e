//! What the status of a policy says. Pure.
//!
//! A pod counts as enforcing only by its own, right answer; everything else is said to lag, with
//! the reason.

pub(crate) mod answer;
pub(crate) mod poll;

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use crate::desired::check::{Checked, clip};
use crate::desired::{Accepted, InForce, Judged, Policy};

/// Pods that are named; the count says how many there are.
const MAX_LAGGING: usize = 10;

/// How a pod stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It has answered that it enforces this bundle.
    Enforces,
    /// It has not, and why.
    Lags(String),
}

/// Something turned: told as an Event.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Transition {
    pub(crate) condition: &'static str,
    pub(crate) good: bool,
    pub(crate) reason: String,
    pub(crate) message: String,
}

/// A status, and what turned with it.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) status: Value,
    pub(crate) transitions: Vec<Transition>,
}

struct Condition {
    kind: &'static str,
    status: &'static str,
    reason: &'static str,
    message: String,
}

// === impl Standing ===

impl Standing {
    pub(crate) fn lags(why: impl Into<String>) -> Self {
        Self::Lags(why.into())
    }
}

/// The status of a policy. `in_force` is generation and digest of the bundle.
pub(crate) fn of(
    judged: &Judged,
    governed: bool,
    standings: &BTreeMap<&str, Standing>,
    names: &BTreeMap<&str, &str>,
    in_force: Option<&(u64, String)>,
    now: Timestamp,
) -> Made {
    let selected = judged.selected.len();
    let mut lagging: Vec<(&str, &str)> = Vec::new();
    for uid in &judged.selected {
        let uid = uid.as_str();
        if let Some(Standing::Lags(why)) = standings.get(uid) {
            lagging.push((names.get(uid).copied().unwrap_or(uid), why));
        }
    }
    lagging.sort_unstable();
    // What is not in the bundle is enforced nowhere, whatever pods answer.
    let enforced = if judged.in_force == InForce::Not {
        0
    } else {
        selected - lagging.len()
    };
    let conditions = [
        accepted(&judged.accepted),
        enforced_condition(judged, governed, enforced, selected, &lagging),
    ];
    let previous = &judged.policy.status;
    let (conditions, transitions) = settle(&conditions, previous, judged.policy.generation, now);
    let mut status = json!({
        "observedGeneration": judged.policy.generation,
        "conditions": conditions,
        "selected": selected,
        "enforcing": enforced,
        "enforced": format!("{enforced}/{selected}"),
    });
    if let Some((generation, digest)) = in_force
        && judged.in_force != InForce::Not
    {
        status["generation"] = json!(generation);
        status["digest"] = json!(digest);
    }
    let lagging: Vec<Value> = lagging
        .iter()
        .take(MAX_LAGGING)
        .map(|(pod, why)| json!({"pod": pod, "reason": why}))
        .collect();
    if !lagging.is_empty() {
        status["lagging"] = Value::Array(lagging);
    }
    Made {
        status,
        transitions,
    }
}

/// The status of a guardrail: it has no pods of its own.
pub(crate) fn of_guardrail(policy: &Policy, checked: &Checked, now: Timestamp) -> Made {
    let accepted = accepted(&match checked {
        Ok(_) => Accepted {
            yes: true,
            reason: "Accepted",
            message: "the policy compiles".to_owned(),
        },
        Err(message) => Accepted {
            yes: false,
            reason: "Invalid",
            message: message.clone(),
        },
    });
    let (conditions, transitions) = settle(&[accepted], &policy.status, policy.generation, now);
    Made {
        status: json!({
            "observedGeneration": policy.generation,
            "conditions": conditions,
        }),
        transitions,
    }
}

fn accepted(accepted: &Accepted) -> Condition {
    Condition {
        kind: "Accepted",
        status: truth(accepted.yes),
        reason: accepted.reason,
        message: accepted.message.clone(),
    }
}

fn enforced_condition(
    judged: &Judged,
    governed: bool,
    enforced: usize,
    selected: usize,
    lagging: &[(&str, &str)],
) -> Condition {
    let count = format!("{enforced} of {selected}");
    let (status, reason, message) = match judged.in_force {
        InForce::Not if !governed => (
            "False",
            "NotGoverned",
            "the namespace is not governed; label it exeat.dev/governed=true".to_owned(),
        ),
        InForce::Not => (
            "False",
            "NotAccepted",
            format!("{count}: the policy is not accepted"),
        ),
        InForce::Last => (
            "False",
            "LastAccepted",
            format!("{count} enforce what was accepted last; what is written now is not accepted"),
        ),
        InForce::Now if selected == 0 => (
            "Unknown",
            "NoPods",
            "0 of 0: the policy selects no pod".to_owned(),
        ),
        InForce::Now if lagging.is_empty() => ("True", "Enforced", count),
        InForce::Now => {
            let mut message = count;
            if let Some((pod, why)) = lagging.first() {
                message = format!("{message}: {pod}: {why}");
            }
            ("False", "Lagging", message)
        }
    };
    Condition {
        kind: "Enforced",
        status,
        reason,
        message: clip(message),
    }
}

fn truth(yes: bool) -> &'static str {
    if yes { "True" } else { "False" }
}

/// Conditions with their times: the time stays until the status turns.
fn settle(
    conditions: &[Condition],
    previous: &Value,
    generation: i64,
    now: Timestamp,
) -> (Vec<Value>, Vec<Transition>) {
    let mut settled = Vec::new();
    let mut transitions = Vec::new();
    for condition in conditions {
        let before = previous
            .get("conditions")
            .and_then(Value::as_array)
            .and_then(|list| list.iter().find(|c| c["type"] == condition.kind));
        let same = before.filter(|before| before["status"] == condition.status);
        let time = same
            .and_then(|before| before["lastTransitionTime"].as_str())
            .map_or_else(|| seconds(now), str::to_owned);
        let turned = same.is_none_or(|before| before["reason"] != condition.reason);
        if turned && condition.status != "Unknown" {
            transitions.push(Transition {
                condition: condition.kind,
                good: condition.status == "True",
                reason: if condition.status == "True" || condition.kind == "Accepted" {
                    condition.reason.to_owned()
                } else {
                    format!("Not{}", condition.kind)
                },
                message: condition.message.clone(),
            });
        }
        settled.push(json!({
            "type": condition.kind,
            "status": condition.status,
            "reason": condition.reason,
            "message": condition.message,
            "observedGeneration": generation,
            "lastTransitionTime": time,
        }));
    }
    (settled, transitions)
}

fn seconds(now: Timestamp) -> String {
    Timestamp::from_second(now.as_second())
        .unwrap_or(now)
        .to_string()
}

#[cfg(test)]
mod tests;
