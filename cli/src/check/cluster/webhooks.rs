//! The webhooks: whether each is asked, believed, and can't be passed by. Pure.
//!
//! In doubt a webhook counts as one that lets pods by.

use std::collections::BTreeMap;

use exeat_inject::names::GOVERNED_LABEL;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::{Selector, SelectorExt as _};
use serde_json::{Value, json};

use super::{CONFIGURATION, Cluster, INSTALL, OPERATOR};
use crate::check::certificate;
use crate::check::finding::{Findings, Look};

/// One webhook that has to be there.
struct Wanted {
    subject: &'static str,
    name: &'static str,
    path: &'static str,
    /// It is for pods of governed namespaces; otherwise for policies anywhere.
    pods: bool,
}

const INJECT: Wanted = Wanted {
    subject: "injection",
    name: "inject.exeat.dev",
    path: "/mutate-pod",
    pods: true,
};
const JUDGE: Wanted = Wanted {
    subject: "admission",
    name: "pods.exeat.dev",
    path: "/validate-pod",
    pods: true,
};
const POLICIES: Wanted = Wanted {
    subject: "policy admission",
    name: "policies.exeat.dev",
    path: "/validate-policy",
    pods: false,
};

/// What there is to say about them. `labels` are those of the namespace that is asked about.
pub(super) fn judge(
    cluster: &Cluster,
    labels: Option<&BTreeMap<String, String>>,
    findings: &mut Findings,
) {
    let labels = labels.cloned().unwrap_or_else(some_namespace);
    for (read, kind, wanted) in [
        (
            &cluster.mutating,
            "MutatingWebhookConfiguration",
            &[INJECT][..],
        ),
        (
            &cluster.validating,
            "ValidatingWebhookConfiguration",
            &[JUDGE, POLICIES][..],
        ),
    ] {
        let what = format!("{kind} `{CONFIGURATION}`");
        match findings.read(wanted[0].subject, &what, read) {
            Look::There(found) => {
                for wanted in wanted {
                    webhook(found, wanted, &labels, findings);
                }
            }
            Look::Absent => findings.problem(
                wanted[0].subject,
                format!("there is no {what}"),
                if wanted[0].pods && kind.starts_with('M') {
                    "Exeat is not installed, or somebody removed it: pods start without a gate"
                } else {
                    "Exeat is not installed, or somebody removed it: what is injected is not judged"
                },
                INSTALL,
            ),
            Look::Unread => {}
        }
    }
}

fn some_namespace() -> BTreeMap<String, String> {
    BTreeMap::from([
        (GOVERNED_LABEL.to_owned(), "true".to_owned()),
        (
            "kubernetes.io/metadata.name".to_owned(),
            "agents".to_owned(),
        ),
    ])
}

fn webhook(
    configuration: &Value,
    wanted: &Wanted,
    labels: &BTreeMap<String, String>,
    findings: &mut Findings,
) {
    let list = configuration["webhooks"].as_array();
    let found = list
        .into_iter()
        .flatten()
        .find(|hook| hook["name"] == wanted.name);
    let Some(hook) = found else {
        findings.problem(
            wanted.subject,
            format!("the webhook {} is not there", wanted.name),
            "the configuration was changed after the installation",
            format!("put it back as it was installed: {INSTALL}"),
        );
        return;
    };
    let defects = defects(hook, wanted, labels);
    if defects.is_empty() {
        findings.ok(
            wanted.subject,
            format!("{} is asked, and nothing passes without it", wanted.name),
        );
    } else {
        findings.problem(
            wanted.subject,
            format!("{} does not hold", wanted.name),
            defects.join("; "),
            format!("put it back as it was installed: {INSTALL}"),
        );
    }
}

fn defects(hook: &Value, wanted: &Wanted, labels: &BTreeMap<String, String>) -> Vec<String> {
    let mut defects = Vec::new();
    if hook["failurePolicy"] != "Fail" {
        defects.push("failurePolicy is not Fail: all passes while the operator is away".to_owned());
    }
    let authority = hook["clientConfig"]["caBundle"].as_str();
    if authority.is_none_or(|text| certificate::authorities(text).is_empty()) {
        defects.push(
            "it has no caBundle, so the API server believes no answer and refuses everything; the \
             operator writes it within seconds when it runs"
                .to_owned(),
        );
    }
    let service = &hook["clientConfig"]["service"];
    if service["path"] != wanted.path || service["name"] != OPERATOR {
        defects.push(format!(
            "it does not ask {} of the Service {OPERATOR}",
            wanted.path
        ));
    }
    for field in ["objectSelector", "matchConditions"] {
        let value = &hook[field];
        let empty = value.is_null() || *value == json!({}) || *value == json!([]);
        if !empty {
            defects.push(format!("its {field} lets objects by"));
        }
    }
    let (resource, selected) = if wanted.pods {
        ("pods", selects(&hook["namespaceSelector"], labels))
    } else {
        ("toolpolicies", true)
    };
    if !selected {
        defects.push("its namespaceSelector does not select the namespace".to_owned());
    }
    let has = |rule: &Value, list: &str, word: &str| {
        let list = rule[list].as_array();
        list.into_iter().flatten().any(|it| it == word || it == "*")
    };
    let rules = hook["rules"].as_array();
    let asked = rules.into_iter().flatten().any(|rule| {
        has(rule, "operations", "CREATE")
            && has(rule, "resources", resource)
            && rule["scope"] != "Cluster"
    });
    if !asked {
        defects.push(format!("it is not asked when {resource} are created"));
    }
    defects
}

/// Whether a label selector of the API selects; one that can't be read does not.
fn selects(selector: &Value, labels: &BTreeMap<String, String>) -> bool {
    if selector.is_null() {
        return true;
    }
    serde_json::from_value::<LabelSelector>(selector.clone())
        .ok()
        .and_then(|selector| Selector::try_from(selector).ok())
        .is_some_and(|selector| selector.matches(labels))
}
