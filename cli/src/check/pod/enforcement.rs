//! What a pod's gate enforces: policies, generation, credentials. Pure.

use std::collections::{BTreeMap, BTreeSet};

use exeat_inject::names::SIDECAR;
use exeat_policy::bundle::Bundle;
use serde_json::Value;

use super::name;
use crate::check::finding::{Findings, Look};
use crate::check::policies;
use crate::check::read::Read;

/// The policies that are for it.
pub(super) fn selected(
    bundle: &Bundle,
    labels: &BTreeMap<String, String>,
    findings: &mut Findings,
) {
    const SUBJECT: &str = "policies";
    let list: Vec<String> = policies::selecting(bundle, labels)
        .map(|(name, checked)| format!("{name} ({})", policies::mode(&checked)))
        .collect();
    if list.is_empty() {
        findings.warning(
            SUBJECT,
            "none selects it: it may call nothing",
            "no podSelector of the namespace's policies matches its labels",
            "kubectl get toolpolicies -o custom-columns=NAME:.metadata.name,SELECTOR:.spec.podSelector",
        );
    } else {
        findings.ok(SUBJECT, list.join(", "));
    }
}

/// What the operator heard from the gate, under a key that only the two have.
pub(super) fn lagging(pod: &Value, policies: &Read, findings: &mut Findings) {
    const SUBJECT: &str = "enforcement";
    let Look::There(list) = findings.read_aside(SUBJECT, "what the operator says of it", policies)
    else {
        return;
    };
    let prefix = format!("{}: ", name(pod));
    let behind: BTreeSet<String> = list
        .as_array()
        .into_iter()
        .flatten()
        .flat_map(|policy| policies::lagging(&policy["status"]))
        .filter_map(|text| text.strip_prefix(&prefix).map(str::to_owned))
        .collect();
    for why in behind {
        findings.problem(
            SUBJECT,
            "the operator does not count it as enforcing",
            why,
            "ask again in some seconds; kubelets take up to a minute where nudging them fails",
        );
    }
}

/// By the gate's own word.
pub(super) fn current(bundle: &Bundle, metrics: &Read, findings: &mut Findings) {
    const SUBJECT: &str = "generation";
    let Look::There(Value::String(page)) =
        findings.read_aside(SUBJECT, "which generation it has in force", metrics)
    else {
        return;
    };
    let sample = |name: &str| {
        page.lines()
            .find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok())
    };
    #[expect(clippy::cast_precision_loss, reason = "a generation counts edits")]
    let wanted = bundle.generation() as f64;
    match sample("exeat_policy_generation ") {
        Some(found) if found >= wanted => findings.ok(
            SUBJECT,
            format!("{found}, by its own word, is the current one"),
        ),
        Some(found) => findings.warning(
            SUBJECT,
            format!("{found} by its own word, and the bundle is at {wanted}"),
            "its volume has not been refreshed yet, or it refused the newer bundle",
            format!("ask again in a minute, then look at its log (-c {SIDECAR})"),
        ),
        None => findings.warning(
            SUBJECT,
            "its page of metrics says none",
            "it is of another version, or it is not the gate that answers",
            "trust the status of the policies, which the gate signs",
        ),
    }
}

/// The keys that policies call for; values are never looked at.
pub(super) fn credentials(pod: &Value, bundle: &Bundle, secret: &Read, findings: &mut Findings) {
    const SUBJECT: &str = "credentials";
    let labels = policies::labels(pod);
    let mut wanted = BTreeSet::new();
    for (policy, checked) in policies::selecting(bundle, &labels) {
        wanted.extend(
            checked
                .references
                .iter()
                .map(|used| (used.key(policy), used.credential.to_string())),
        );
    }
    if wanted.is_empty() {
        findings.ok(SUBJECT, "its policies call for none");
        return;
    }
    let found = match findings.read_aside(SUBJECT, "the pod's own Secret", secret) {
        Look::There(found) => found,
        Look::Absent => &Value::Null,
        Look::Unread => return,
    };
    let empty = serde_json::Map::new();
    let data = found["data"].as_object().unwrap_or(&empty);
    let missing: Vec<&str> = wanted
        .iter()
        .filter(|(key, name)| !data.contains_key(key) && !data.contains_key(name))
        .map(|(key, _)| key.as_str())
        .collect();
    if missing.is_empty() {
        findings.ok(
            SUBJECT,
            format!("{} of {} there", wanted.len(), wanted.len()),
        );
    } else {
        findings.problem(
            SUBJECT,
            format!(
                "not there: {}; calls that need them are refused",
                missing.join(", ")
            ),
            "the source Secret or its key is not there, does not consent, or the operator is away",
            "kubectl describe toolpolicies names the Secret at fault",
        );
    }
}
