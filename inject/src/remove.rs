//! Taking our parts out of a manifest again. What was replaced at injection is not brought back.

use serde_json::{Map, Value};

use crate::environment;
use crate::mutate::ca_mounts;
use crate::names::{GUARD, SIDECAR, VOLUMES};
use crate::walk::text;

/// The pod or template without the guard, the sidecar, their volumes, and what shows the gate's
/// certificate to other containers. Hardened settings stay: they do no harm.
#[must_use]
pub fn remove(pod: &Value) -> Value {
    let mut pod = pod.clone();
    let Some(spec) = pod.get_mut("spec").and_then(Value::as_object_mut) else {
        return pod;
    };
    retain(spec, "initContainers", |container| {
        !matches!(text(container, &["name"]), Some(GUARD | SIDECAR))
    });
    retain(spec, "volumes", |volume| {
        !text(volume, &["name"]).is_some_and(|name| VOLUMES.contains(&name))
    });
    for list in ["initContainers", "containers"] {
        let containers = spec.get_mut(list).and_then(Value::as_array_mut);
        let objects = containers
            .into_iter()
            .flatten()
            .filter_map(Value::as_object_mut);
        for container in objects {
            if let Some(variables) = container.get_mut("env").and_then(Value::as_array_mut) {
                environment::unset(variables);
            }
            retain(container, "env", |_| true);
            retain(container, "volumeMounts", |mount| {
                !ca_mounts().contains(mount)
            });
        }
    }
    pod
}

/// Keeps what `keep` says of a list, and the list only if something is left.
fn retain(map: &mut Map<String, Value>, key: &str, keep: impl Fn(&Value) -> bool) {
    let Some(list) = map.get_mut(key).and_then(Value::as_array_mut) else {
        return;
    };
    list.retain(keep);
    if list.is_empty() {
        map.shift_remove(key);
    }
}
