//! Pods: the patch that adds the gate, the judgement of the final pod, and who may enter it.

use aws_lc_rs::rand;
use exeat_inject::{Refusal, Refusals, SecretName};
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
    // Kept by the patch if the pod names a valid one already.
    let mut random = [0; 8];
    if rand::fill(&mut random).is_err() {
        return Answer::refuse("the operator has no random bytes; try again");
    }
    let secret = SecretName::of_pod(u64::from_be_bytes(random));
    match exeat_inject::mutate(&review.object, &settings.inject, &secret) {
        // What can't be let in is said here, with the fields: of all that judges pods later, the
        // API server asks its own policies first, whose words can't name them.
        Ok(mutation) => match exeat_inject::validate(&mutation.pod, &settings.inject) {
            refusals if refusals.is_empty() => {
                Answer::patch(Value::Array(mutation.patch)).warn(mutation.warnings)
            }
            refusals => Answer::refuse(Refusals(refusals).to_string()),
        },
        Err(refusals) => Answer::refuse(refusals.to_string()),
    }
}

pub(super) async fn validate(review: &Review, admission: &Admission) -> Answer {
    match review.target().as_str() {
        "pods/exec" | "pods/attach" => enter(review),
        "pods" if review.operation == "CREATE" => {
            let answer = judged(exeat_inject::validate(
                &review.object,
                &admission.settings.inject,
            ));
            if answer.allowed() {
                account(review, admission).await
            } else {
                answer
            }
        }
        // A pod that is older than the label has no gate; it is reported, and it has to be possible
        // to end it. What is not the gate's may change: Kubernetes itself keeps most of a pod.
        "pods" | "pods/resize" if review.operation == "UPDATE" => judged(
            exeat_inject::validate_update(&review.old_object, &review.object),
        ),
        "pods/ephemeralcontainers" if review.operation == "UPDATE" => {
            judged(exeat_inject::validate_ephemeral(&review.object))
        }
        "pods" if review.operation == "DELETE" => Answer::allow(),
        other => Answer::refuse(format!("`{other}` is not what is validated here")),
    }
}

fn judged(refusals: Vec<Refusal>) -> Answer {
    if refusals.is_empty() {
        Answer::allow()
    } else {
        Answer::refuse(Refusals(refusals).to_string())
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
