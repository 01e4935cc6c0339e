//! What a pod's `ServiceAccount` may do in its namespace. An account that can change or go around
//! its own gate makes the gate pointless.

use exeat_inject::powers::TOO_MUCH;
use futures_util::future::join_all;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use kube::api::PostParams;
use kube::{Api, Client};

/// What the account may do that it should not. An API server that does not answer is an error, and
/// so a refusal.
pub(super) async fn powers(
    client: &Client,
    namespace: &str,
    account: &str,
) -> Result<Vec<&'static str>, kube::Error> {
    let reviews: Api<SubjectAccessReview> = Api::all(client.clone());
    let asked = TOO_MUCH.iter().map(|power| {
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
                    verb: Some(power.verb.to_owned()),
                    group: Some(power.group.to_owned()),
                    resource: Some(power.resource.to_owned()),
                    subresource: (!power.subresource.is_empty())
                        .then(|| power.subresource.to_owned()),
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
            Ok::<_, kube::Error>(allowed.then_some(power.meaning))
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
