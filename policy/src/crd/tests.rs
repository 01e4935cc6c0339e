#![allow(clippy::unwrap_used, clippy::expect_used)]
#![expect(
    clippy::disallowed_methods,
    reason = "the person who runs the test says whether the manifests are written anew"
)]

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Map;

use super::*;
use crate::tree::seen_fields;
use crate::{Source, check};

/// Policies in which every field occurs.
const EVERYTHING: &[&str] = &[
    "kind: ToolPolicy\nspec:\n  podSelector: {matchLabels: {a: b}, matchExpressions: [{key: a, operator: Exists}]}\n  mode: Enforce\n  \
     tools:\n  - {name: a, http: {hosts: [a.example], tls: {mode: Terminate}}, credential: a}\n  \
     - {name: b, mcp: {server: 'https://b.example/mcp', tools: [x], tls: {}}}\n  - {name: c, tcp: {host: c.example, port: 1}}\n  \
     inference: [{name: d, provider: openai, models: {allow: [x]}, tls: {}}]\n  \
     deny: [{name: e, http: {}}, {name: f, mcp: {}}, {name: g, tcp: {port: 1}}]\n  \
     credentials: [{name: a, secret: {name: a, key: a}, inject: {bearer: {}}}, {name: b, secret: {name: a, key: a}, inject: {basic: {username: x}}}, \
     {name: c, secret: {name: a, key: a}, inject: {header: {name: x}}}, {name: d, secret: {name: a, key: a}, inject: {query: {name: x}}}]\n",
    "kind: ClusterToolPolicy\nspec:\n  namespaceSelector: {matchLabels: {a: b}, matchExpressions: [{key: a, operator: Exists}]}\n  \
     podSelector: {matchLabels: {a: b}, matchExpressions: [{key: a, operator: Exists}]}\n  mode: Shadow\n  \
     deny: [{name: e, http: {}}, {name: f, mcp: {}}, {name: g, tcp: {port: 1}}]\n",
];

/// The fields of each object of a schema, by its way from the top. Free maps have none to name.
fn fields(schema: &Value, way: &str, all: &mut BTreeMap<String, BTreeSet<String>>) {
    assert!(
        schema.get("x-kubernetes-preserve-unknown-fields").is_none(),
        "{way}"
    );
    if schema["type"] == "array" {
        assert!(schema["maxItems"].is_u64(), "{way} is unbounded");
        fields(&schema["items"], &format!("{way}[]"), all);
    }
    if schema["type"] == "string" {
        let bounded = schema["maxLength"].is_u64() || schema["enum"].is_array();
        assert!(bounded, "{way} is unbounded");
    }
    if schema["type"] != "object" || schema.get("additionalProperties").is_some() {
        return;
    }
    let none = Map::new();
    let properties = schema["properties"].as_object().unwrap_or(&none);
    all.insert(way.to_owned(), properties.keys().cloned().collect());
    for (name, schema) in properties {
        fields(schema, &format!("{way}.{name}"), all);
    }
}

#[test]
fn reader_and_schema_know_the_same_fields() {
    for (text, manifest) in EVERYTHING
        .iter()
        .zip([tool_policy(), cluster_tool_policy()])
    {
        let text = format!("apiVersion: exeat.dev/v1alpha1\nmetadata: {{name: x}}\n{text}");
        seen_fields(); // What other tests of this thread left.
        check(&Source::new("everything", text)).unwrap();
        let read: BTreeMap<String, BTreeSet<String>> = seen_fields()
            .into_iter()
            .filter(|(way, _)| way.starts_with("spec"))
            .collect();
        let mut known = BTreeMap::new();
        let schema = &manifest["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        fields(&schema["properties"]["spec"], "spec", &mut known);
        assert_eq!(known, read);
    }
}

#[test]
fn manifests_in_the_tree_are_these() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/crds");
    for (name, manifest) in [
        ("toolpolicies.yaml", tool_policy()),
        ("clustertoolpolicies.yaml", cluster_tool_policy()),
    ] {
        let made = yaml(&manifest);
        let path = format!("{root}/{name}");
        if std::env::var_os("EXEAT_WRITE_CRDS").is_some() {
            std::fs::create_dir_all(root).unwrap();
            std::fs::write(&path, &made).unwrap();
        }
        let there = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            there == made,
            "{path} is not what `exeat crd` prints; write it anew with EXEAT_WRITE_CRDS=1"
        );
        // What is YAML here is the same JSON there.
        let back: Value = serde_saphyr::from_str(&made).unwrap();
        assert_eq!(back, manifest);
    }
}
