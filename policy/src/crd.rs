//! The custom resources as the API server is told of them: structural schemas that know the fields
//! which the reader knows, and no others.
//!
//! What a schema can't say (a rule for hosts, an expression's types) admission says with the
//! compiler's own diagnostics. Limits are those of the reader; they also keep the API server's own
//! checks within its budget.

mod schema;
mod yaml;

use serde_json::{Value, json};

/// The manifest of `toolpolicies.exeat.dev`.
#[must_use]
pub fn tool_policy() -> Value {
    manifest(
        "ToolPolicy",
        "toolpolicies",
        "toolpolicy",
        "tp",
        "Namespaced",
        "What agents in this namespace may do outside of their pods. Nothing is allowed that no rule allows.",
        schema::tool_policy_spec(),
    )
}

/// The manifest of `clustertoolpolicies.exeat.dev`.
#[must_use]
pub fn cluster_tool_policy() -> Value {
    manifest(
        "ClusterToolPolicy",
        "clustertoolpolicies",
        "clustertoolpolicy",
        "ctp",
        "Cluster",
        "A guardrail: what agents may not do, whatever the ToolPolicies of their namespaces allow.",
        schema::guardrail_spec(),
    )
}

/// A manifest as YAML.
#[must_use]
pub fn yaml(manifest: &Value) -> String {
    yaml::text(manifest)
}

fn manifest(
    kind: &str,
    plural: &str,
    singular: &str,
    short: &str,
    scope: &str,
    what: &str,
    spec: Value,
) -> Value {
    let column = |name: &str, kind: &str, path: &str, what: &str| json!({"name": name, "type": kind, "jsonPath": path, "description": what});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.exeat.dev")},
        "spec": {
            "group": "exeat.dev",
            "names": {"kind": kind, "listKind": format!("{kind}List"), "plural": plural, "singular": singular, "shortNames": [short], "categories": ["exeat"]},
            "scope": scope,
            "versions": [{
                "name": "v1alpha1",
                "served": true,
                "storage": true,
                "subresources": {"status": {}},
                "additionalPrinterColumns": [
                    column("Accepted", "string", ".status.conditions[?(@.type==\"Accepted\")].status", "Whether it compiled and its Secrets consent."),
                    column("Enforced", "string", ".status.enforced", "How many of the selected pods enforce it."),
                    column("Mode", "string", ".spec.mode", "Whether denials count."),
                    column("Age", "date", ".metadata.creationTimestamp", "Since when it is there."),
                ],
                "schema": {"openAPIV3Schema": {
                    "type": "object",
                    "description": what,
                    "required": ["spec"],
                    "properties": {
                        "apiVersion": {"type": "string"},
                        "kind": {"type": "string"},
                        "metadata": {"type": "object"},
                        "spec": spec,
                        "status": schema::status(),
                    },
                }},
            }],
        },
    })
}

#[cfg(test)]
mod tests;
