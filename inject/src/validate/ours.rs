//! Our own parts: each is as we would have injected it, or the pod is refused.

use serde_json::Value;

use crate::names::{CREDENTIALS_VOLUME, GUARD, SIDECAR};
use crate::normal;
use crate::parts::Shape;
use crate::refusal::Refusal;
use crate::settings::SecretName;
use crate::walk::{array, text};

const LEAVE_IT: &str =
    "leave it out and let admission inject it, or write what `exeat inject` prints";

pub(super) fn judge(pod: &Value, shape: Shape<'_>, refusals: &mut Vec<Refusal>) {
    for (index, name, part) in [(0, GUARD, shape.guard()), (1, SIDECAR, shape.sidecar())] {
        let path = format!("spec.initContainers[{index}]");
        let found = array(pod, &["spec", "initContainers"]).get(index);
        match found {
            Some(found) if text(found, &["name"]) == Some(name) => {
                same(
                    &normal::container(found),
                    &normal::container(&part),
                    &path,
                    refusals,
                );
            }
            _ => refusals.push(Refusal::new(
                path,
                format!("is not {name}, so what starts here is not confined yet"),
                "let admission inject it; another webhook must not insert before it",
            )),
        }
    }
    let volumes = array(pod, &["spec", "volumes"]);
    for wanted in shape.volumes() {
        let name = text(&wanted, &["name"]).unwrap_or_default();
        let found = volumes
            .iter()
            .enumerate()
            .find(|(_, volume)| text(volume, &["name"]) == Some(name));
        let Some((index, found)) = found else {
            refusals.push(Refusal::new(
                "spec.volumes",
                format!("the volume {name} is missing"),
                LEAVE_IT,
            ));
            continue;
        };
        let path = format!("spec.volumes[{index}]");
        if name == CREDENTIALS_VOLUME {
            let secret = text(found, &["secret", "secretName"]).unwrap_or_default();
            if SecretName::parse(secret).is_err() {
                refusals.push(Refusal::new(
                    format!("{path}.secret.secretName"),
                    format!("{secret:?} can't be the pod's credentials"),
                    "leave it out: admission chooses a name; or name a Secret outside the prefix `exeat-`",
                ));
                continue;
            }
        }
        same(
            &normal::volume(found),
            &normal::volume(&wanted),
            &path,
            refusals,
        );
    }
}

/// Names each field in which `found` is not what is `wanted`.
fn same(found: &Value, wanted: &Value, path: &str, refusals: &mut Vec<Refusal>) {
    if found == wanted {
        return;
    }
    if let (Value::Object(found), Value::Object(wanted)) = (found, wanted) {
        for (key, value) in wanted {
            let path = format!("{path}.{key}");
            match found.get(key) {
                Some(found) => same(found, value, &path, refusals),
                None => refusals.push(Refusal::new(
                    path,
                    format!("is missing; it must be {value}"),
                    LEAVE_IT,
                )),
            }
        }
        for key in found.keys().filter(|key| !wanted.contains_key(*key)) {
            refusals.push(Refusal::new(
                format!("{path}.{key}"),
                "does not belong to this part of Exeat",
                LEAVE_IT,
            ));
        }
        return;
    }
    refusals.push(Refusal::new(path, format!("must be {wanted}"), LEAVE_IT));
}
