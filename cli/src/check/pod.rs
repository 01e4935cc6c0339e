//! One pod: whether it has a gate, whether the gate holds, and what it allows. Pure.
//!
//! Injection is judged by the same code as at admission. What a pod says of itself (its metrics) is
//! the agent's word too, while its gate is down, and is said to be that.

mod enforcement;
mod parts;

use exeat_inject::names::{CREDENTIALS_VOLUME, GOVERNED_LABEL};
use exeat_inject::{Refusal, Settings, is_injected, validate};
use exeat_policy::bundle::Bundle;
use serde_json::Value;

use super::finding::{Finding, Findings, Look, Scope};
use super::policies;
use super::read::Read;
use super::settings;
pub(super) use parts::{guard, serves, sidecar};

/// Faults that are named one by one.
const MAX_REFUSALS: usize = 5;

/// What was read of it.
#[derive(Debug)]
pub(super) struct Facts<'a> {
    pub(super) pod: &'a Read,
    pub(super) namespace: &'a Read,
    /// When the mutating webhook was made.
    pub(super) installed: Option<&'a str>,
    /// What the operator injects now.
    pub(super) settings: Option<&'a Settings>,
    pub(super) bundle: Option<&'a Bundle>,
    pub(super) policies: &'a Read,
    /// The pod's own Secret.
    pub(super) secret: &'a Read,
    /// The gate's page of metrics.
    pub(super) metrics: &'a Read,
}

/// What there is to say about it.
pub(super) fn judge(facts: &Facts<'_>) -> Vec<Finding> {
    let mut findings = Findings::of(Scope::Pod);
    let pod = match findings.read("pod", "the pod", facts.pod) {
        Look::There(pod) => pod,
        Look::Absent => {
            findings.problem(
                "pod",
                "there is no such pod",
                "its name is mistyped, it has ended, or it is in another namespace",
                "kubectl get pods",
            );
            return findings.done();
        }
        Look::Unread => return findings.done(),
    };
    if !alive(pod) {
        findings.warning(
            "pod",
            "it has ended or is being ended",
            pod["status"]["phase"].as_str().unwrap_or("deleted"),
            "what follows is about what it was",
        );
    }
    if !is_injected(pod) {
        let (cause, remedy) = bare(pod, facts.namespace, facts.installed);
        findings.problem("gate", "it has no gate", cause, remedy);
        return findings.done();
    }
    injection(pod, facts.settings, &mut findings);
    guard(pod, &mut findings);
    sidecar(pod, &mut findings);
    let labels = policies::labels(pod);
    if let Some(bundle) = facts.bundle {
        enforcement::selected(bundle, &labels, &mut findings);
        enforcement::lagging(pod, facts.policies, &mut findings);
        enforcement::current(bundle, facts.metrics, &mut findings);
        enforcement::credentials(pod, bundle, facts.secret, &mut findings);
    }
    findings.done()
}

/// It runs, or is about to.
pub(super) fn alive(pod: &Value) -> bool {
    !matches!(
        pod["status"]["phase"].as_str(),
        Some("Succeeded" | "Failed")
    ) && pod["metadata"]["deletionTimestamp"].is_null()
}

/// Its name.
pub(super) fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

/// Why a pod has no gate, and what to do.
pub(super) fn bare(pod: &Value, namespace: &Read, installed: Option<&str>) -> (String, String) {
    let again =
        "start it anew: kubectl rollout restart, or delete it where something makes it again";
    let born = pod["metadata"]["creationTimestamp"]
        .as_str()
        .unwrap_or_default();
    if !pod["metadata"]["annotations"]["kubernetes.io/config.mirror"].is_null() {
        return (
            "it is the node's own: the kubelet runs it from a file, and asks nobody".to_owned(),
            "move it out of the node's folder of manifests, into a Deployment".to_owned(),
        );
    }
    if let Read::Found(namespace) = namespace {
        if namespace["metadata"]["labels"][GOVERNED_LABEL] != "true" {
            return (
                format!("its namespace has no label {GOVERNED_LABEL}=true"),
                format!(
                    "kubectl label --overwrite namespace {} {GOVERNED_LABEL}=true, then {again}",
                    name(namespace)
                ),
            );
        }
        // Times of the API server are all of one form, so they sort as text.
        if let Some(labelled) = labelled(namespace)
            && born < labelled
        {
            return (
                format!("it was made at {born}, before its namespace was labelled ({labelled})"),
                again.to_owned(),
            );
        }
    }
    match installed {
        Some(installed) if born < installed => (
            format!("it was made at {born}, before Exeat's webhook was there ({installed})"),
            again.to_owned(),
        ),
        _ => (
            "it was made while the webhook was not asked: bypassed, away, or another object's rules"
                .to_owned(),
            format!("see what is said about the cluster, then {again}"),
        ),
    }
}

/// When the label was last written, as far as the API server keeps track.
fn labelled(namespace: &Value) -> Option<&str> {
    let managers = namespace["metadata"]["managedFields"].as_array()?;
    let field = format!("f:{GOVERNED_LABEL}");
    let wrote = |it: &&Value| !it["fieldsV1"]["f:metadata"]["f:labels"][&field].is_null();
    managers
        .iter()
        .filter(wrote)
        .filter_map(|it| it["time"].as_str())
        .max()
}

/// As admission judges it.
fn injection(pod: &Value, now: Option<&Settings>, findings: &mut Findings) {
    const SUBJECT: &str = "injection";
    const ANEW: &str = "make a new pod; admission writes these parts";
    let own = settings::of_pod(pod);
    let faults = |settings: Option<&Settings>| settings.map(|settings| validate(pod, settings));
    match (faults(now), faults(own.as_ref())) {
        (Some(faults), _) if faults.is_empty() => {
            findings.ok(SUBJECT, "guard, gate and the rest of the pod are as admission wants them");
        }
        (Some(faults), Some(as_made)) if as_made.is_empty() => findings.warning(
            SUBJECT,
            "it was injected with other settings than the operator has now",
            listed(&faults),
            ANEW,
        ),
        (None, Some(as_made)) if as_made.is_empty() => findings.unknown(
            SUBJECT,
            "its parts are whole, but whether their images are the operator's could not be found out",
            "neither the operator's Deployment nor a dry run could be read",
            "kubectl auth can-i get deployments.apps -n exeat-system",
        ),
        (_, Some(faults)) | (Some(faults), None) => findings.problem(
            SUBJECT,
            "admission would refuse it today",
            listed(&faults),
            ANEW,
        ),
        (None, None) => findings.problem(
            SUBJECT,
            "its gate's images are not pinned by digest",
            "whoever may push to the registry could exchange the gate",
            ANEW,
        ),
    }
}

fn listed(faults: &[Refusal]) -> String {
    let mut text: Vec<String> = faults
        .iter()
        .take(MAX_REFUSALS)
        .map(|fault| format!("{}: {}", fault.field, fault.message))
        .collect();
    if faults.len() > MAX_REFUSALS {
        text.push(format!("and {} more", faults.len() - MAX_REFUSALS));
    }
    text.join("; ")
}

/// The name of the pod's own Secret.
pub(super) fn secret_of(pod: &Value) -> Option<&str> {
    let list = pod["spec"]["volumes"].as_array();
    list.into_iter()
        .flatten()
        .find(|volume| volume["name"] == CREDENTIALS_VOLUME)?["secret"]["secretName"]
        .as_str()
}

#[cfg(test)]
mod tests;
