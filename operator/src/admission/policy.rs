//! Policies: the compiler's word, before they are stored.

use super::review::{Answer, Review};
use crate::desired::check::check;

pub(super) fn validate(review: &Review) -> Answer {
    let known = matches!(
        review.resource.resource.as_str(),
        "toolpolicies" | "clustertoolpolicies"
    );
    if !known {
        return Answer::refuse(format!(
            "`{}` is not what is validated here",
            review.target()
        ));
    }
    // The status is the operator's; who may write it is a matter of RBAC.
    if !review.sub_resource.is_empty() || review.operation == "DELETE" {
        return Answer::allow();
    }
    let mut object = review.object.clone();
    // Left by `kubectl apply` or kept by the API server: no policy.
    if let Some(object) = object.as_object_mut() {
        object.remove("status");
        if let Some(metadata) = object.get_mut("metadata").and_then(|m| m.as_object_mut()) {
            metadata.retain(|key, _| key == "name" || key == "namespace");
        }
    }
    match check(&object) {
        Ok(_) => Answer::allow(),
        Err(message) => Answer::refuse(message),
    }
}
