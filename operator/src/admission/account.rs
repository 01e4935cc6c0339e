//! What a pod's `ServiceAccount` may do in its namespace. An account that can change or go around
//! its own gate makes the gate pointless.

use futures_util::future::join_all;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use kube::api::PostParams;
use kube::{Api, Client};

/// Verb, group, resource, subresource, and why that is too much.
const TOO_MUCH: &[(&str, &str, &str, &str, &str)] = &[
    ("get", "", "secrets", "", "read Secrets"),
    ("list", "", "secrets", "", "read Secrets"),
    ("watch", "", "secrets", "", "read Secrets"),
    (
        "create",
        "exeat.dev",
        "toolpolicies",
        "",
        "write ToolPolicies",
    ),
    (
        "update",
        "exeat.dev",
        "toolpolicies",
        "",
        "write ToolPolicies",
    ),
    (
        "patch",
        "exeat.dev",
        "toolpolicies",
        "",
        "write ToolPolicies",
    ),
    ("create", "", "pods", "", "create pods"),
    ("create", "", "pods", "exec", "exec into pods"),
    ("get", "", "pods", "exec", "exec into pods"),
    ("create", "", "pods", "attach", "attach to pods"),
    ("patch", "", "pods", "", "patch pods"),
    ("update", "", "pods", "", "patch pods"),
    ("patch", "", "pods", "ephemeralcontainers", "patch pods"),
    (
        "create",
        "",
        "serviceaccounts",
        "token",
        "issue tokens of other accounts",
    ),
];

/// What the account may do that it should not. An API server that does not answer is an error, and
/// so a refusal.
pub(super) async fn powers(
    client: &Client,
    namespace: &str,
    account: &str,
) -> Result<Vec<&'static str>, kube::Error> {
    let reviews: Api<SubjectAccessReview> = Api::all(client.clone());
    let asked = TOO_MUCH
        .iter()
        .map(|(verb, group, resource, subresource, power)| {
            let review = SubjectAccessReview {
                spec: SubjectAccessReviewSpec {
                    user: Some(format!("system:serviceaccount:{namespace}:{account}")),
                    groups: Some(vec![
                        "system:serviceaccounts".to_owned(),
                        format!("system:serviceaccounts:{namespace}"),
                        "system:authenticated".to_owned(),
                    ]),
                    resource_attributes: Some(ResourceAttributes {
                        namespace: Some(namespace.to_owned()),
                        verb: Some((*verb).to_owned()),
                        group: Some((*group).to_owned()),
                        resource: Some((*resource).to_owned()),
                        subresource: (!subresource.is_empty()).then(|| (*subresource).to_owned()),
                        ..ResourceAttributes::default()
                    }),
                    ..SubjectAccessReviewSpec::default()
                },
                ..SubjectAccessReview::default()
            };
            let reviews = reviews.clone();
            async move {
                let answer = reviews.create(&PostParams::default(), &review).await?;
                let allowed = answer.status.is_some_and(|status| status.allowed);
                Ok::<_, kube::Error>(allowed.then_some(*power))
            }
        });
    let mut powers = Vec::new();
    for answer in join_all(asked).await {
        if let Some(power) = answer?
            && !powers.contains(&power)
        {
            powers.push(power);
        }
    }
    Ok(powers)
}
