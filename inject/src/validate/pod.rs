//! What the pod as a whole may not have.

use serde_json::Value;

use crate::mutate::steering_annotations;
use crate::names::SIDECAR_ID;
use crate::refusal::Refusal;
use crate::settings::Settings;
use crate::walk::{array, get, members, text};

/// Annotations by which networks are added to a pod: not all of their traffic passes the kernel.
const NETWORK_ANNOTATIONS: &[&str] = &[
    "k8s.v1.cni.cncf.io/networks",
    "v1.multus-cni.io/default-network",
    "networking.gke.io/interfaces",
    "k8s.ovn.org/pod-networks",
];

/// A number however it is written: `64100`, `64100.0`.
#[expect(clippy::cast_precision_loss, reason = "IDs are 32 bits")]
pub(super) fn is_sidecar_id(value: &Value) -> bool {
    value.as_i64() == Some(SIDECAR_ID) || value.as_f64() == Some(SIDECAR_ID as f64)
}

pub(super) fn steering(key: &str) -> Refusal {
    Refusal::new(
        format!("metadata.annotations[{key}]"),
        "would change a container of Exeat's",
        "remove it",
    )
}

pub(super) fn judge(pod: &Value, settings: &Settings, refusals: &mut Vec<Refusal>) {
    let mut refuse = |field: String, message: &str, remedy: &str| {
        refusals.push(Refusal::new(field, message, remedy));
    };
    for (field, why) in [
        ("hostNetwork", "the node's network is not confined"),
        (
            "hostPID",
            "the node's processes, the gate's too, could be traced",
        ),
        ("hostIPC", "the node's shared memory leads to other pods"),
        (
            "shareProcessNamespace",
            "the gate's process could be seen and traced",
        ),
    ] {
        if get(pod, &["spec", field]).is_some_and(|set| set != &Value::Bool(false)) {
            refuse(format!("spec.{field}"), why, "remove it or set it to false");
        }
    }
    if text(pod, &["spec", "os", "name"]).is_some_and(|os| os != "linux") {
        refuse(
            "spec.os.name".into(),
            "the gate confines Linux only",
            "use linux",
        );
    }
    let context = |key: &str| get(pod, &["spec", "securityContext", key]);
    for field in ["runAsUser", "runAsGroup", "fsGroup"] {
        if context(field).is_some_and(is_sidecar_id) {
            refuse(
                format!("spec.securityContext.{field}"),
                "64100 is the sidecar's own",
                "use another number",
            );
        }
    }
    let groups = array(pod, &["spec", "securityContext", "supplementalGroups"]);
    for (index, _) in groups
        .iter()
        .enumerate()
        .filter(|(_, id)| is_sidecar_id(id))
    {
        refuse(
            format!("spec.securityContext.supplementalGroups[{index}]"),
            "64100 is the sidecar's own",
            "use another number",
        );
    }
    let sysctls = array(pod, &["spec", "securityContext", "sysctls"]);
    for (index, sysctl) in sysctls.iter().enumerate() {
        let name = text(sysctl, &["name"]).unwrap_or_default();
        if name.starts_with("net.") || name.starts_with("net/") {
            refuse(
                format!("spec.securityContext.sysctls[{index}].name"),
                &format!("{name} changes the network that is confined"),
                "remove it",
            );
        }
    }
    if text(pod, &["spec", "securityContext", "seccompProfile", "type"]) == Some("Unconfined") {
        refuse(
            "spec.securityContext.seccompProfile.type".into(),
            "Unconfined opens kernel interfaces that runtimes close",
            "use RuntimeDefault or a Localhost profile",
        );
    }
    if !settings.resource_claims && !array(pod, &["spec", "resourceClaims"]).is_empty() {
        refuse(
            "spec.resourceClaims".into(),
            "a claim can hand the pod a network device that passes by the kernel",
            "remove it, or have the operator allow claims",
        );
    }
    for key in NETWORK_ANNOTATIONS {
        if get(pod, &["metadata", "annotations", key]).is_some() {
            refuse(
                format!("metadata.annotations[{key}]"),
                "adds networks whose traffic may pass by the kernel",
                "remove it",
            );
        }
    }
    refusals.extend(steering_annotations(pod).map(|key| steering(key)));
    for (name, _) in members(pod, &["spec", "overhead"]).filter(|(name, _)| is_network_device(name))
    {
        refusals.push(Refusal::new(
            format!("spec.overhead[{name}]"),
            "is a network device that passes by the kernel",
            "remove it",
        ));
    }
}

/// Extended resources that are network devices driven past the kernel.
pub(super) fn is_network_device(resource: &str) -> bool {
    let name = resource.to_ascii_lowercase();
    name.contains('/')
        && ["rdma", "sriov", "dpdk", "infiniband", "roce"]
            .iter()
            .any(|kind| name.contains(kind))
}
