//! The bundle of a namespace: each policy that is accepted, and the last accepted form of each that
//! is not.
//!
//! A policy that can't live beside those already in force is refused; those stay. A bundle that
//! does not fit is not written, and nothing is cut to make it fit.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::sync::Arc;

use exeat_policy::bundle::Bundle;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::Value;

use super::accept::{judge, refuse};
use super::check::{self, Checks};
use super::{BundleStep, Current, InForce, Judged, Objects, Policy, name_of, selects};

/// A ConfigMap holds 1 MiB of values and keys; the rest is for keys, annotations and labels.
pub(crate) const MAX_PACKED: usize = 1024 * 1024 - 16 * 1024;

/// A bundle, and what is to be done about it.
#[derive(Debug)]
pub(super) struct Assembled {
    /// What is in force when all is done.
    pub(super) bundle: Option<Arc<Bundle>>,
    pub(super) step: BundleStep,
    pub(super) judged: Vec<Judged>,
}

/// A policy on its way into the bundle.
struct Candidate {
    judged: Judged,
    /// What the bundle in force has of it.
    last: Option<Value>,
    /// What goes in.
    chosen: Option<Value>,
}

pub(super) fn assemble(objects: &Objects, checks: &mut Checks) -> Assembled {
    let (last_policies, last_guardrails) = match &objects.current {
        Current::Ours(bundle) => (bundle.policies(), bundle.guardrails()),
        Current::Absent | Current::Foreign { .. } => (&[][..], &[][..]),
    };
    let mut candidates: Vec<Candidate> = objects
        .policies
        .iter()
        .map(|policy| candidate(objects, policy, last_policies, checks))
        .collect();
    let guardrails = guardrails(objects, last_guardrails, checks);
    settle_conflicts(objects, &mut candidates, &guardrails);
    let (bundle, step) = match fit(objects, &mut candidates, guardrails) {
        Some((bundle, step)) => (Some(bundle), step),
        None => (None, BundleStep::Nothing),
    };
    let mut judged: Vec<Judged> = candidates
        .into_iter()
        .map(|candidate| finish(objects, candidate))
        .collect();
    judged.sort_by(|a, b| a.policy.name.cmp(&b.policy.name));
    Assembled {
        bundle,
        step,
        judged,
    }
}

fn candidate(
    objects: &Objects,
    policy: &Arc<Policy>,
    last: &[Value],
    checks: &mut Checks,
) -> Candidate {
    let accepted = judge(policy, &objects.secrets, checks);
    let last = last
        .iter()
        .find(|document| name_of(document) == policy.name)
        .cloned();
    let chosen = if accepted.yes {
        Some(policy.document.clone())
    } else {
        last.clone()
    };
    Candidate {
        judged: Judged {
            policy: Arc::clone(policy),
            accepted,
            in_force: InForce::Not,
            selected: BTreeSet::new(),
        },
        last,
        chosen,
    }
}

/// Guardrails of the cluster that are for this namespace. One that can't be understood keeps its
/// last accepted form here.
fn guardrails(objects: &Objects, last: &[Value], checks: &mut Checks) -> Vec<Value> {
    objects
        .guardrails
        .iter()
        .filter_map(|guardrail| {
            let checked = checks.of(&guardrail.uid, guardrail.generation, &guardrail.document);
            if checked.is_ok() {
                selects(&guardrail.document, "namespaceSelector", &objects.labels)
                    .then(|| guardrail.document.clone())
            } else {
                last.iter()
                    .find(|document| name_of(document) == guardrail.name)
                    .cloned()
            }
        })
        .collect()
}

/// Adds the policies one by one, those in force first and then the older before the newer, and
/// refuses a new one that a pod could not have together with the others.
fn settle_conflicts(objects: &Objects, candidates: &mut [Candidate], guardrails: &[Value]) {
    candidates.sort_by(|a, b| {
        let key = |c: &Candidate| {
            (
                c.chosen != c.last,
                c.judged.policy.created,
                c.judged.policy.name.clone(),
            )
        };
        key(a).cmp(&key(b))
    });
    for at in 0..candidates.len() {
        if candidates[at].chosen == candidates[at].last {
            continue;
        }
        let Some(problem) = conflict(objects, candidates, at, guardrails) else {
            continue;
        };
        let candidate = &mut candidates[at];
        candidate.judged.accepted = refuse("Conflict", problem);
        candidate.chosen.clone_from(&candidate.last);
    }
}

/// What the compiler says against this policy together with those before it, for some pod.
fn conflict(
    objects: &Objects,
    candidates: &[Candidate],
    at: usize,
    guardrails: &[Value],
) -> Option<String> {
    let chosen = candidates[at].chosen.as_ref()?;
    let mut together: BTreeSet<Vec<usize>> = BTreeSet::new();
    for pod in objects.pods.iter().filter(|pod| pod.alive) {
        if !selects(chosen, "podSelector", &pod.labels) {
            continue;
        }
        together.insert(
            (0..=at)
                .filter(|&other| {
                    candidates[other]
                        .chosen
                        .as_ref()
                        .is_some_and(|document| selects(document, "podSelector", &pod.labels))
                })
                .collect(),
        );
    }
    together.into_iter().find_map(|set| {
        let documents = set
            .into_iter()
            .filter_map(|other| candidates[other].chosen.clone())
            .collect();
        match Bundle::new(&objects.namespace, 1, documents, guardrails.to_vec()) {
            Ok(bundle) => bundle
                .compile(None, 1)
                .err()
                .map(|found| check::message(&found)),
            Err(error) => Some(error.to_string()),
        }
    })
}

/// Makes the bundle. If it does not fit, what is in force stays in force.
fn fit(
    objects: &Objects,
    candidates: &mut [Candidate],
    guardrails: Vec<Value>,
) -> Option<(Arc<Bundle>, BundleStep)> {
    let problem = match make(objects, candidates, guardrails.clone()) {
        Ok(step) => return Some(step),
        Err(problem) => problem,
    };
    for candidate in candidates.iter_mut() {
        if candidate.chosen != candidate.last {
            candidate.judged.accepted = refuse("TooLarge", problem.clone());
            candidate.chosen.clone_from(&candidate.last);
        }
    }
    if let Ok(step) = make(objects, candidates, guardrails) {
        return Some(step);
    }
    // Guardrails alone can outgrow it; then nothing that could be written is complete.
    tracing::error!(namespace = objects.namespace, "{problem}");
    if let Current::Ours(current) = &objects.current {
        return Some((Arc::clone(current), BundleStep::Keep(Arc::clone(current))));
    }
    for candidate in candidates.iter_mut() {
        candidate.chosen = None;
    }
    // No bundle denies everything, and that is all that is left.
    None
}

/// The bundle of what was chosen, unless it does not fit.
fn make(
    objects: &Objects,
    candidates: &[Candidate],
    guardrails: Vec<Value>,
) -> Result<(Arc<Bundle>, BundleStep), String> {
    let policies = candidates.iter().filter_map(|c| c.chosen.clone()).collect();
    let bundle = Bundle::new(
        &objects.namespace,
        next_generation(objects),
        policies,
        guardrails,
    )
    .map_err(|error| format!("{error}; what was in force stays in force"))?;
    if let Some(step) = unchanged(objects, &bundle) {
        return Ok(step);
    }
    let packed = pack(&bundle);
    if packed.len() > MAX_PACKED {
        return Err(format!(
            "the policies of this namespace make a bundle of {} bytes, and a ConfigMap holds \
             {MAX_PACKED}; what was in force stays in force; split the namespace or make the \
             policies smaller",
            packed.len()
        ));
    }
    let bundle = Arc::new(bundle);
    Ok((Arc::clone(&bundle), BundleStep::Write { bundle, packed }))
}

fn unchanged(objects: &Objects, bundle: &Bundle) -> Option<(Arc<Bundle>, BundleStep)> {
    match &objects.current {
        Current::Ours(current) if current.digest() == bundle.digest() => {
            Some((Arc::clone(current), BundleStep::Keep(Arc::clone(current))))
        }
        Current::Absent | Current::Foreign { .. } | Current::Ours(_) => None,
    }
}

fn next_generation(objects: &Objects) -> u64 {
    let current = match &objects.current {
        Current::Absent => 0,
        Current::Foreign { generation } => *generation,
        Current::Ours(bundle) => bundle.generation(),
    };
    current.max(objects.floor).saturating_add(1)
}

/// gzip, always the same bytes for the same bundle.
pub(crate) fn pack(bundle: &Bundle) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    // Writing to memory does not fail.
    encoder.write_all(&bundle.to_bytes()).ok();
    encoder.finish().unwrap_or_default()
}

fn finish(objects: &Objects, candidate: Candidate) -> Judged {
    let mut judged = candidate.judged;
    judged.in_force = match &candidate.chosen {
        None => InForce::Not,
        Some(_) if judged.accepted.yes => InForce::Now,
        Some(chosen) if *chosen == judged.policy.document => InForce::Now,
        Some(_) => InForce::Last,
    };
    let document = candidate.chosen.as_ref().unwrap_or(&judged.policy.document);
    judged.selected = objects
        .pods
        .iter()
        .filter(|pod| pod.alive && selects(document, "podSelector", &pod.labels))
        .map(|pod| pod.uid.clone())
        .collect();
    judged
}
