//! Where the pod template is in each kind of manifest.

use serde_json::Value;

use crate::names::RESERVED_PREFIX;
use crate::refusal::Refusal;
use crate::walk::{array, get};

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

/// What a manifest may not say beside its pod template: what agent-sandbox would add to the pods, or
/// let claims add, that leads past the gate. The admission policies refuse the same.
#[must_use]
pub fn judge(manifest: &Value) -> Vec<Refusal> {
    let text = |field: &str| get(manifest, &[field]).and_then(Value::as_str);
    let of_sandboxes = text("apiVersion")
        .is_some_and(|version| version.starts_with("extensions.agents.x-k8s.io/"));
    if !of_sandboxes || text("kind") != Some("SandboxTemplate") {
        return Vec::new();
    }
    let mut refusals = Vec::new();
    let mut refuse = |field: String, message: &str, remedy: &str| {
        refusals.push(Refusal::new(field, message, remedy));
    };
    let set = |field: &str| get(manifest, &["spec", field]);
    if set("networkPolicy").is_none()
        && set("networkPolicyManagement").and_then(Value::as_str) != Some("Unmanaged")
    {
        refuse(
            "spec.networkPolicyManagement".into(),
            "is not Unmanaged: agent-sandbox's default replaces the pod's name servers and opens all of the internet",
            "set it to Unmanaged, or give spec.networkPolicy",
        );
    }
    for (field, why) in [
        ("envVarsInjectionPolicy", "claims could set variables"),
        (
            "volumeClaimTemplatesPolicy",
            "a claim's volume could shadow one of ours",
        ),
    ] {
        if set(field).is_some_and(|policy| policy != "Disallowed") {
            refuse(format!("spec.{field}"), why, "set it to Disallowed");
        }
    }
    let claimed = array(manifest, &["spec", "volumeClaimTemplates"]);
    for (index, template) in claimed.iter().enumerate() {
        let name = get(template, &["metadata", "name"]).and_then(Value::as_str);
        if name.is_some_and(|name| name.starts_with(RESERVED_PREFIX)) {
            refuse(
                format!("spec.volumeClaimTemplates[{index}].metadata.name"),
                "names that begin with exeat- belong to Exeat",
                "use another name",
            );
        }
    }
    refusals
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_template_leaves_no_second_way() {
        let judged = |spec: Value| -> Vec<String> {
            let manifest = json!({
                "apiVersion": "extensions.agents.x-k8s.io/v1beta1",
                "kind": "SandboxTemplate",
                "spec": spec,
            });
            judge(&manifest).into_iter().map(|one| one.field).collect()
        };
        assert_eq!(judged(json!({})), ["spec.networkPolicyManagement"]);
        assert_eq!(
            judged(json!({"networkPolicyManagement": "Managed"})),
            ["spec.networkPolicyManagement"]
        );
        assert!(judged(json!({"networkPolicy": {}})).is_empty());
        assert!(judged(json!({"networkPolicyManagement": "Unmanaged"})).is_empty());
        let open = json!({
            "networkPolicyManagement": "Unmanaged",
            "envVarsInjectionPolicy": "Allowed",
            "volumeClaimTemplatesPolicy": "Overrides",
            "volumeClaimTemplates": [{"metadata": {"name": "a"}}, {"metadata": {"name": "exeat-ca"}}],
        });
        assert_eq!(
            judged(open),
            [
                "spec.envVarsInjectionPolicy",
                "spec.volumeClaimTemplatesPolicy",
                "spec.volumeClaimTemplates[1].metadata.name",
            ]
        );
        assert!(judge(&json!({"apiVersion": "v1", "kind": "Pod"})).is_empty());
    }
}
