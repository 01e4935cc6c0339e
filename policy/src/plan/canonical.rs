//! The canonical form: JSON with sorted keys of what was compiled, and its digest. Two sets of
//! files that mean the same have the same digest.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::rule::{Kind, Rule};
use super::table::Table;
use crate::credential::{Credential, Inject};
use crate::expression::Expression;
use crate::pattern::Glob;
use crate::verdict::{CaSource, Mode};

/// Changes when the same policies come to mean something else.
const SCHEMA: u32 = 1;

pub(super) fn digest(
    mode: Mode,
    policies: &[Arc<str>],
    allow: &Table,
    deny: &Table,
    shadow_deny: &Table,
) -> String {
    let rules = |table: &Table| -> Vec<Value> {
        let mut rules: Vec<&Rule> = table.rules().collect();
        rules.sort_by(|a, b| (&a.policy, &a.name).cmp(&(&b.policy, &b.name)));
        rules.into_iter().map(rule).collect()
    };
    let form = json!({
        "schemaVersion": SCHEMA,
        "mode": mode.as_str(),
        "policies": policies.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "allow": rules(allow),
        "deny": rules(deny),
        "shadowDeny": rules(shadow_deny),
    });
    let mut text = String::new();
    write(&form, &mut text);
    let mut hex = String::from("sha256:");
    for byte in Sha256::digest(text.as_bytes()) {
        for digit in [byte >> 4, byte & 15] {
            hex.push(char::from_digit(u32::from(digit), 16).unwrap_or_default());
        }
    }
    hex
}

fn rule(rule: &Rule) -> Value {
    let scope = &rule.scope;
    let kind = match &rule.kind {
        Kind::Http(http) => json!({"http": {
            "methods": http.methods.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "paths": http.paths.iter().map(ToString::to_string).collect::<Vec<_>>(),
        }}),
        Kind::Mcp(mcp) => json!({"mcp": {
            "path": mcp.path.as_ref().map(ToString::to_string),
            "tools": mcp.tools,
            "methods": mcp.methods,
        }}),
        Kind::Tcp => json!({"tcp": {}}),
        Kind::Inference(inference) => json!({"inference": {
            "provider": inference.provider.as_str(),
            "models": inference.models.iter().map(Glob::as_str).collect::<Vec<_>>(),
        }}),
    };
    json!({
        "policy": &*rule.policy,
        "name": &*rule.name,
        "hosts": scope.hosts.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "ports": scope.ports,
        "scheme": scope.scheme.map(crate::call::Scheme::as_str),
        "addresses": scope.addresses.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "passthrough": scope.passthrough,
        "ca": scope.tls.ca.as_ref().map(|ca| match ca {
            CaSource::Pem(pem) => json!({"pem": &**pem}),
            CaSource::File(file) => json!({"file": &**file}),
        }),
        "kind": kind,
        "when": rule.when.as_ref().map(Expression::source),
        "credential": rule.credential.as_deref().map(credential),
    })
}

fn credential(credential: &Credential) -> Value {
    let inject = match &credential.inject {
        Inject::Bearer => json!({"bearer": {}}),
        Inject::Basic { username } => json!({"basic": {"username": &**username}}),
        Inject::Header { name, prefix } => {
            json!({"header": {"name": name.as_str(), "prefix": prefix.as_deref()}})
        }
        Inject::Query { name } => json!({"query": {"name": &**name}}),
    };
    json!({
        "name": &*credential.name,
        "secret": {"name": &*credential.secret.name, "key": &*credential.secret.key},
        "inject": inject,
    })
}

/// JSON without spaces, keys sorted.
fn write(value: &Value, out: &mut String) {
    match value {
        Value::Object(object) => {
            out.push('{');
            let sorted: BTreeMap<&String, &Value> = object.iter().collect();
            for (at, (key, value)) in sorted.into_iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                out.push_str(&Value::from(key.as_str()).to_string());
                out.push(':');
                write(value, out);
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                write(item, out);
            }
            out.push(']');
        }
        scalar => out.push_str(&scalar.to_string()),
    }
}
