//! What a namespace should look like, worked out from what it holds. Pure: no client, no clock.
//!
//! In doubt it takes away: a policy that is not understood, or a Secret that has not agreed, gives
//! nothing. But what was accepted once stays in force until something accepted takes its place, so
//! a slip in an edit neither opens nor closes a gate.

mod accept;
pub(crate) mod assemble;
pub(crate) mod check;
pub(crate) mod consent;
pub(crate) mod pods;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use exeat_policy::SecretRef;
use exeat_policy::bundle::Bundle;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::Selector;
use serde_json::Value;

use crate::desired::check::Checks;

/// A policy of the namespace, or a guardrail of the cluster, as it stands in the API.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Policy {
    pub(crate) name: String,
    pub(crate) uid: String,
    /// `metadata.generation`: grows with each edit of the spec.
    pub(crate) generation: i64,
    /// Seconds since the epoch.
    pub(crate) created: i64,
    /// What goes into a bundle: apiVersion, kind, metadata and spec, nothing else.
    pub(crate) document: Value,
    /// Its status as it was last seen.
    pub(crate) status: Value,
}

/// What is known about a Secret without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SecretFacts {
    pub(crate) name: String,
    pub(crate) version: String,
    /// The annotation `exeat.dev/hosts`.
    pub(crate) hosts: Option<String>,
    /// The label `exeat.dev/pod-uid`: the Secret is a pod's own, made here.
    pub(crate) pod_uid: Option<String>,
}

/// What counts about a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pod {
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) address: Option<String>,
    /// It has the container `exeat-sidecar`.
    pub(crate) injected: bool,
    /// The Secret behind its volume `exeat-credentials`.
    pub(crate) secret: Option<String>,
    /// Its containers have ended for good.
    pub(crate) ended: bool,
    /// It has not ended and is not being ended.
    pub(crate) alive: bool,
    /// The annotation `exeat.dev/bundle`.
    pub(crate) nudged: Option<String>,
    /// The annotation `exeat.dev/credentials`.
    pub(crate) told: Option<String>,
}

/// The bundle that is in the cluster.
#[derive(Debug, Clone)]
pub(crate) enum Current {
    /// There is none.
    Absent,
    /// There is one that this operator did not write, or that was changed since.
    Foreign {
        /// The generation that it claims, if it can be read.
        generation: u64,
    },
    /// Ours.
    Ours(Arc<Bundle>),
}

/// What a namespace holds.
#[derive(Debug)]
pub(crate) struct Objects {
    pub(crate) namespace: String,
    pub(crate) labels: BTreeMap<String, String>,
    /// The namespace has the label that governs.
    pub(crate) governed: bool,
    pub(crate) policies: Vec<Arc<Policy>>,
    /// All of the cluster; their `namespaceSelector` is judged here.
    pub(crate) guardrails: Vec<Arc<Policy>>,
    pub(crate) secrets: BTreeMap<String, Arc<SecretFacts>>,
    pub(crate) pods: Vec<Arc<Pod>>,
    pub(crate) current: Current,
    /// No new bundle may have this generation or one below it.
    pub(crate) floor: u64,
}

/// What is to be done about the bundle.
#[derive(Debug)]
pub(crate) enum BundleStep {
    /// It is right as it is.
    Keep(Arc<Bundle>),
    /// It has to be written.
    Write {
        bundle: Arc<Bundle>,
        packed: Vec<u8>,
    },
    /// The namespace is not governed, and nothing in it still needs one.
    Remove,
    /// There is none of ours, and none is needed.
    Nothing,
}

/// Whether a policy was taken, and why not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Accepted {
    pub(crate) yes: bool,
    /// A word, as conditions have it.
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

/// What the bundle holds of a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InForce {
    /// The policy as it is written now.
    Now,
    /// What was accepted last.
    Last,
    /// Nothing.
    Not,
}

/// A policy, judged.
#[derive(Debug, Clone)]
pub(crate) struct Judged {
    pub(crate) policy: Arc<Policy>,
    pub(crate) accepted: Accepted,
    pub(crate) in_force: InForce,
    /// The UIDs of the pods that it selects, as it is in force.
    pub(crate) selected: BTreeSet<String>,
}

/// What a pod's own Secret should hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PodSecret {
    pub(crate) pod: Arc<Pod>,
    pub(crate) name: String,
    /// Key in the pod's Secret → the source.
    pub(crate) keys: BTreeMap<String, SecretRef>,
}

/// What a namespace should look like.
#[derive(Debug)]
pub(crate) struct Desired {
    pub(crate) bundle: BundleStep,
    pub(crate) judged: Vec<Judged>,
    pub(crate) secrets: Vec<PodSecret>,
    /// Secrets of pods that are no more.
    pub(crate) orphans: Vec<String>,
}

/// Works it out.
pub(crate) fn plan(objects: &Objects, checks: &mut Checks) -> Desired {
    let injected = objects.pods.iter().any(|pod| pod.alive && pod.injected);
    // A namespace that was governed is served until its last gate is gone: taking the label away
    // says that new pods are not to be governed, not that the old ones are to be cut off.
    // Where it never was, a bundle of somebody else's is theirs: gates written in by hand have one.
    let served = objects.governed || (injected && matches!(objects.current, Current::Ours(_)));
    if !served {
        return unserved(objects, checks);
    }
    let assembled = assemble::assemble(objects, checks);
    let secrets = pods::secrets(objects, assembled.bundle.as_deref(), checks);
    let orphans = pods::orphans(objects);
    Desired {
        bundle: assembled.step,
        judged: assembled.judged,
        secrets,
        orphans,
    }
}

/// Where nothing is governed, policies are still judged, and what was made for pods is removed.
fn unserved(objects: &Objects, checks: &mut Checks) -> Desired {
    let judged = objects
        .policies
        .iter()
        .map(|policy| Judged {
            policy: Arc::clone(policy),
            accepted: accept::judge(policy, &objects.secrets, checks),
            in_force: InForce::Not,
            selected: BTreeSet::new(),
        })
        .collect();
    Desired {
        bundle: match objects.current {
            Current::Absent | Current::Foreign { .. } => BundleStep::Nothing,
            Current::Ours(_) => BundleStep::Remove,
        },
        judged,
        secrets: Vec::new(),
        orphans: pods::orphans(objects),
    }
}

/// Whether a label selector of a document selects these labels. One that can't be read selects
/// nothing; one that is not there selects all.
pub(crate) fn selects(document: &Value, field: &str, labels: &BTreeMap<String, String>) -> bool {
    use kube::core::SelectorExt as _;
    let Some(value) = document.get("spec").and_then(|spec| spec.get(field)) else {
        return true;
    };
    serde_json::from_value::<LabelSelector>(value.clone())
        .ok()
        .and_then(|selector| Selector::try_from(selector).ok())
        .is_some_and(|selector| selector.matches(labels))
}

/// The name of a document.
pub(crate) fn name_of(document: &Value) -> &str {
    document
        .pointer("/metadata/name")
        .and_then(Value::as_str)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests;
