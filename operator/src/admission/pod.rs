//! Pods: the patch that adds the gate, the judgement of the final pod, and who may enter it.

use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use serde_json::Value;

use super::review::{Answer, Review};
use super::{Admission, account};
use crate::settings::Settings;

/// The parts of a pod that nobody enters.
const OURS: [&str; 2] = ["exeat-sidecar", "exeat-init"];
/// Where it says `warn`, powerful accounts are let through with a warning.
const ACCOUNT_ACCESS: &str = "exeat.dev/service-account-access";

pub(super) fn mutate(review: &Review, settings: &Settings) -> Answer {
    if review.target() != "pods" || review.operation != "CREATE" {
        return Answer::allow();
    }
    match exeat_inject::mutate(&review.object, &review.namespace, &settings.inject) {
        Ok(patch) => Answer::patch(patch),
        Err(refusals) => Answer::refuse(told(&refusals)),
    }
}

pub(super) async fn validate(review: &Review, admission: &Admission) -> Answer {
    match review.target().as_str() {
        "pods/exec" | "pods/attach" => enter(review),
        "pods" if review.operation == "CREATE" => {
            let answer = judge(&review.object, &admission.settings);
            if answer.allowed() {
                account(review, admission).await
            } else {
                answer
            }
        }
        "pods" | "pods/ephemeralcontainers" | "pods/resize" if review.operation == "UPDATE" => {
            // A pod that is older than the label has no gate; it is reported, and it has to be
            // possible to end it.
            if !has_gate(&review.old_object) {
                return Answer::allow();
            }
            judge(&review.object, &admission.settings)
        }
        "pods" if review.operation == "DELETE" => Answer::allow(),
        other => Answer::refuse(format!("`{other}` is not what is validated here")),
    }
}

fn judge(pod: &Value, settings: &Settings) -> Answer {
    let refusals = exeat_inject::validate(pod, &settings.inject);
    if refusals.is_empty() {
        Answer::allow()
    } else {
        Answer::refuse(told(&refusals))
    }
}

/// A shell in the gate is a way out, and a look at its secrets.
fn enter(review: &Review) -> Answer {
    let container = review
        .object
        .get("container")
        .and_then(Value::as_str)
        .unwrap_or_default();
    if OURS.contains(&container) {
        return Answer::refuse(format!(
            "container `{container}` is the pod's gate, which nobody enters; name a container of \
             the agent with -c"
        ));
    }
    Answer::allow()
}

async fn account(review: &Review, admission: &Admission) -> Answer {
    let name = review
        .object
        .pointer("/spec/serviceAccountName")
        .and_then(Value::as_str)
        .filter(|name| !name.is_empty())
        .unwrap_or("default");
    let powers = match account::powers(&admission.client, &review.namespace, name).await {
        Ok(powers) if powers.is_empty() => return Answer::allow(),
        Ok(powers) => powers.join(", "),
        Err(error) => {
            return Answer::refuse(format!(
                "what ServiceAccount `{name}` may do could not be asked: {error}"
            ));
        }
    };
    let problem = format!(
        "spec.serviceAccountName: `{name}` may {powers} in this namespace, and so go around the \
         gate; use an account that may not, or label the namespace {ACCOUNT_ACCESS}=warn"
    );
    let spaces: Api<Namespace> = Api::all(admission.client.clone());
    let warn = spaces
        .get_metadata(&review.namespace)
        .await
        .ok()
        .and_then(|space| space.metadata.labels)
        .is_some_and(|labels| {
            labels
                .get(ACCOUNT_ACCESS)
                .is_some_and(|value| value == "warn")
        });
    if warn {
        Answer::allow().warn(vec![problem])
    } else {
        Answer::refuse(problem)
    }
}

fn has_gate(pod: &Value) -> bool {
    pod.pointer("/spec/initContainers")
        .and_then(Value::as_array)
        .is_some_and(|list| list.iter().any(|container| container["name"] == OURS[0]))
}

fn told(refusals: &[exeat_inject::Refusal]) -> String {
    let each: Vec<String> = refusals
        .iter()
        .map(|refusal| {
            format!(
                "{}: {} (hint: {})",
                refusal.field, refusal.message, refusal.remedy
            )
        })
        .collect();
    each.join("; ")
}
