//! Where the pod template is in each kind of manifest.

use serde_json::Value;

/// What a manifest is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Workload {
    /// A pod: its own template.
    Pod,
    /// A kind whose pod template is at this path.
    Template(&'static [&'static str]),
    /// A list of manifests.
    List,
}

/// Kinds with the API group that theirs is.
const KINDS: &[(&str, &str, Workload)] = &[
    ("", "Pod", Workload::Pod),
    ("", "List", Workload::List),
    ("", "PodTemplate", Workload::Template(&["template"])),
    (
        "",
        "ReplicationController",
        Workload::Template(&["spec", "template"]),
    ),
    (
        "apps",
        "Deployment",
        Workload::Template(&["spec", "template"]),
    ),
    (
        "apps",
        "ReplicaSet",
        Workload::Template(&["spec", "template"]),
    ),
    (
        "apps",
        "StatefulSet",
        Workload::Template(&["spec", "template"]),
    ),
    (
        "apps",
        "DaemonSet",
        Workload::Template(&["spec", "template"]),
    ),
    ("batch", "Job", Workload::Template(&["spec", "template"])),
    (
        "batch",
        "CronJob",
        Workload::Template(&["spec", "jobTemplate", "spec", "template"]),
    ),
    (
        "agents.x-k8s.io",
        "Sandbox",
        Workload::Template(&["spec", "podTemplate"]),
    ),
    (
        "extensions.agents.x-k8s.io",
        "SandboxTemplate",
        Workload::Template(&["spec", "podTemplate"]),
    ),
];

/// What `manifest` is; none where it holds no pods. The group decides, in any version of it.
#[must_use]
pub fn workload(manifest: &Value) -> Option<Workload> {
    let version = manifest.get("apiVersion")?.as_str()?;
    let kind = manifest.get("kind")?.as_str()?;
    let group = version.split_once('/').map_or("", |(group, _)| group);
    KINDS
        .iter()
        .find(|(known, name, _)| *known == group && *name == kind)
        .map(|(_, _, workload)| *workload)
}
