//! The last word on a pod, after every webhook has had its way with it.

mod others;
mod ours;
mod pod;
mod volumes;

use serde_json::Value;

use crate::mutate::{named_secret, token_is_mounted};
use crate::names::{GUARD, SIDECAR};
use crate::parts::Shape;
use crate::refusal::Refusal;
use crate::runtime::is_gvisor;
use crate::settings::Settings;
use crate::walk::{LISTS, containers, misshapen, text};

/// Why the final `pod` may not be created; empty when it may.
#[must_use]
pub fn validate(pod: &Value, settings: &Settings) -> Vec<Refusal> {
    judge(pod, settings, true)
}

/// The same for a template, which may leave the credentials to admission.
#[must_use]
pub fn validate_template(template: &Value, settings: &Settings) -> Vec<Refusal> {
    judge(template, settings, named_secret(template).is_some())
}

/// Why a pod may not be changed from `old` to `new`. What is not ours may be: Kubernetes itself
/// keeps almost all of it as it was, and a pod older than the namespace's label must stay removable.
#[must_use]
pub fn validate_update(old: &Value, new: &Value) -> Vec<Refusal> {
    let mut refusals = Vec::new();
    if let Some(refusal) = shapeless(new) {
        return vec![refusal];
    }
    for name in [GUARD, SIDECAR] {
        let find = |pod| containers(pod, "initContainers").find(|found| found.name() == name);
        let (Some(before), after) = (find(old), find(new)) else {
            continue;
        };
        if after.is_none_or(|after| after.value != before.value) {
            refusals.push(Refusal::new(
                before.path(),
                format!("{name} may not be changed in a running pod"),
                "make a new pod; the operator's settings say what its image and resources are",
            ));
        }
    }
    // Added since: what is new is judged as at creation.
    let known = |name: &str| containers(old, "ephemeralContainers").any(|old| old.name() == name);
    for container in containers(new, "ephemeralContainers").filter(|new| !known(new.name())) {
        others::judge(container, new, None, &mut refusals);
    }
    for key in crate::mutate::steering_annotations(new) {
        let before = old
            .pointer("/metadata/annotations")
            .and_then(|map| map.get(key));
        if before.is_none() {
            refusals.push(pod::steering(key));
        }
    }
    refusals
}

/// Why the ephemeral containers of `pod` may not be there.
#[must_use]
pub fn validate_ephemeral(pod: &Value) -> Vec<Refusal> {
    if let Some(refusal) = shapeless(pod) {
        return vec![refusal];
    }
    let mut refusals = Vec::new();
    for container in containers(pod, "ephemeralContainers") {
        others::judge(container, pod, None, &mut refusals);
    }
    refusals
}

/// Whether the guard and the sidecar are there at all, whatever they look like.
#[must_use]
pub fn is_injected(pod: &Value) -> bool {
    let named = |name| containers(pod, "initContainers").any(|found| found.name() == name);
    named(GUARD) && named(SIDECAR)
}

fn judge(pod: &Value, settings: &Settings, credentials: bool) -> Vec<Refusal> {
    if let Some(refusal) = shapeless(pod) {
        return vec![refusal];
    }
    let mut refusals = Vec::new();
    let named = named_secret(pod);
    let any = crate::settings::SecretName::of_pod(0);
    let shape = Shape {
        settings,
        secret: credentials.then(|| named.as_ref().unwrap_or(&any)),
        token: token_is_mounted(pod),
        gvisor: is_gvisor(pod, settings),
    };
    ours::judge(pod, shape, &mut refusals);
    pod::judge(pod, settings, &mut refusals);
    volumes::judge(pod, shape, &mut refusals);
    for list in LISTS {
        for container in containers(pod, list) {
            let name = text(container.value, &["name"]);
            let own = list == "initContainers" && container.index < 2;
            // Judged above, whatever it is named.
            if !(own && matches!(name, Some(GUARD | SIDECAR))) {
                others::judge(container, pod, Some(settings), &mut refusals);
            }
        }
    }
    refusals
}

fn shapeless(pod: &Value) -> Option<Refusal> {
    misshapen(pod).map(|field| {
        Refusal::new(
            field,
            "has a shape that no pod has",
            "write it as `kubectl explain pod` says",
        )
    })
}
