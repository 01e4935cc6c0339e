//! What each pod's own Secret should hold: the credentials of the policies that select it, and of
//! these only what the source still agrees to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use exeat_policy::bundle::Bundle;

use super::check::Checks;
use super::{Objects, PodSecret, consent, name_of, selects};

pub(super) fn secrets(
    objects: &Objects,
    bundle: Option<&Bundle>,
    checks: &mut Checks,
) -> Vec<PodSecret> {
    let mut wanted = Vec::new();
    for pod in objects.pods.iter().filter(|pod| pod.alive && pod.injected) {
        let Some(name) = pod.secret.as_deref().filter(|name| is_pod_secret(name)) else {
            continue;
        };
        let mut keys = BTreeMap::new();
        for document in bundle.map(Bundle::policies).unwrap_or_default() {
            if !selects(document, "podSelector", &pod.labels) {
                continue;
            }
            let checked = checks.of_bundled(&objects.namespace, document);
            let Ok(uses) = &*checked else { continue };
            for used in uses {
                let agreed = objects
                    .secrets
                    .get(&*used.secret.name)
                    .is_some_and(|facts| consent::refusal(used, facts).is_none());
                if agreed {
                    keys.insert(used.key(name_of(document)), used.secret.clone());
                }
            }
        }
        wanted.push(PodSecret {
            pod: Arc::clone(pod),
            name: name.to_owned(),
            keys,
        });
    }
    wanted
}

/// Secrets of ours whose pod is gone.
pub(super) fn orphans(objects: &Objects) -> Vec<String> {
    // A pod that is being ended finishes its calls first, and may need them.
    let alive: BTreeSet<&str> = objects
        .pods
        .iter()
        .filter(|pod| !pod.ended)
        .map(|pod| pod.uid.as_str())
        .collect();
    objects
        .secrets
        .values()
        .filter(|facts| {
            is_pod_secret(&facts.name)
                && facts
                    .pod_uid
                    .as_deref()
                    .is_some_and(|uid| !alive.contains(uid))
        })
        .map(|facts| facts.name.clone())
        .collect()
}

/// `exeat-pod-` and sixteen hexadecimal digits: what the webhook draws.
pub(crate) fn is_pod_secret(name: &str) -> bool {
    exeat_inject::SecretName::is_of_pod(name)
}
