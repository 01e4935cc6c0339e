//! The canonical form: JSON with sorted keys of what was compiled, and its digest. Two sets of
//! files that mean the same have the same digest.

use serde_json::{Value, json};

use super::Plan;
use super::rule::{Kind, Rule};
use super::table::Table;
use crate::canonical;
use crate::credential::{Credential, Inject};
use crate::expression::Expression;
use crate::pattern::Glob;
use crate::verdict::CaSource;

/// Changes when the same policies come to mean something else.
const SCHEMA: u32 = 2;

pub(super) fn digest(plan: &Plan) -> String {
    let rules = |table: &Table| -> Vec<Value> {
        let mut rules: Vec<&Rule> = table.rules().collect();
        rules.sort_by(|a, b| (&a.policy, &a.name).cmp(&(&b.policy, &b.name)));
        rules.into_iter().map(rule).collect()
    };
    let form = json!({
        "schemaVersion": SCHEMA,
        "mode": plan.mode.as_str(),
        "policies": plan.policies.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "guardrails": plan.guardrails.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "allow": rules(&plan.allow),
        "guard": rules(&plan.guard),
        "deny": rules(&plan.deny),
        "shadowDeny": rules(&plan.shadow_deny),
    });
    canonical::digest(&form)
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
