//! Volumes of the pod's own.
//!
//! A volume through which the kubelet, and not the gate, talks to a server that the pod names is a
//! way out; so is a socket of the node's. Known kinds pass, others are refused.

use serde_json::Value;

use crate::names::{POLICY_CONFIG_MAP, RESERVED_PREFIX, VOLUMES};
use crate::parts::Shape;
use crate::refusal::Refusal;
use crate::settings::SecretName;
use crate::walk::{array, get, text};

/// What Pod Security's restricted level lets through, and images, which are fetched as containers'.
const KINDS: [&str; 8] = [
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
];

pub(super) fn judge(pod: &Value, shape: Shape<'_>, refusals: &mut Vec<Refusal>) {
    let wanted = shape.volumes();
    let needed = |name: &str| {
        wanted
            .iter()
            .any(|volume| text(volume, &["name"]) == Some(name))
    };
    let mut seen: Vec<&str> = Vec::new();
    for (index, volume) in array(pod, &["spec", "volumes"]).iter().enumerate() {
        let path = format!("spec.volumes[{index}]");
        let name = text(volume, &["name"]).unwrap_or_default();
        let own = VOLUMES.contains(&name) && needed(name);
        if own && !seen.contains(&name) {
            // Compared with ours where ours are judged.
            seen.push(name);
            continue;
        }
        if name.starts_with(RESERVED_PREFIX) {
            refusals.push(Refusal::new(
                format!("{path}.name"),
                format!("names that begin with {RESERVED_PREFIX} belong to Exeat"),
                "use another name",
            ));
        }
        kinds(volume, &path, shape, refusals);
        contents(volume, &path, refusals);
    }
}

fn kinds(volume: &Value, path: &str, shape: Shape<'_>, refusals: &mut Vec<Refusal>) {
    let Some(members) = volume.as_object() else {
        return;
    };
    for (kind, source) in members {
        if kind == "name" || source.is_null() || kind == "secret" {
            continue;
        }
        if !KINDS.contains(&kind.as_str()) {
            let why = if kind == "hostPath" {
                "the node's files hold sockets, processes and other pods' volumes"
            } else {
                "the kubelet would talk to a server for it, past the gate"
            };
            refusals.push(Refusal::new(
                format!("{path}.{kind}"),
                why,
                "use a PersistentVolumeClaim, a ConfigMap, a Secret or an emptyDir",
            ));
        } else if kind == "csi" {
            let driver = text(source, &["driver"]).unwrap_or_default();
            let known = &shape.settings.inline_csi_drivers;
            if !known.iter().any(|known| known == driver) {
                refusals.push(Refusal::new(
                    format!("{path}.csi.driver"),
                    format!("{driver:?} may talk to a server that the pod names, past the gate"),
                    "use a PersistentVolumeClaim, or have the operator allow this driver",
                ));
            }
        }
    }
}

/// Nobody else reads what the sidecar reads.
fn contents(volume: &Value, path: &str, refusals: &mut Vec<Refusal>) {
    let mut judge = |path: String, name: Option<&str>, config_map: bool| {
        let Some(name) = name else { return };
        let ours = if config_map {
            name == POLICY_CONFIG_MAP
        } else {
            is_ours(name)
        };
        if ours {
            refusals.push(Refusal::new(
                path,
                format!("{name} is for the gate only"),
                "remove it",
            ));
        }
    };
    judge(
        format!("{path}.secret.secretName"),
        text(volume, &["secret", "secretName"]),
        false,
    );
    judge(
        format!("{path}.configMap.name"),
        text(volume, &["configMap", "name"]),
        true,
    );
    for (index, source) in array(volume, &["projected", "sources"]).iter().enumerate() {
        let path = format!("{path}.projected.sources[{index}]");
        for (kind, config_map) in [("secret", false), ("configMap", true)] {
            judge(
                format!("{path}.{kind}.name"),
                text(source, &[kind, "name"]),
                config_map,
            );
        }
    }
    for field in ["nodePublishSecretRef", "nodeStageSecretRef"] {
        if get(volume, &["csi", field]).is_some() {
            judge(
                format!("{path}.csi.{field}.name"),
                text(volume, &["csi", field, "name"]),
                false,
            );
        }
    }
}

/// Whether a Secret of this name is Exeat's.
pub(super) fn is_ours(secret: &str) -> bool {
    SecretName::is_of_pod(secret) || secret.starts_with(RESERVED_PREFIX)
}
