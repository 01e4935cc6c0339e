//! The kinds of Exeat, for a client, and what errors of the API mean.

use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::{Api, Client};

pub(crate) const GROUP: &str = "exeat.dev";
pub(crate) const VERSION: &str = "v1alpha1";
pub(crate) const TOOL_POLICY: &str = "ToolPolicy";
pub(crate) const CLUSTER_TOOL_POLICY: &str = "ClusterToolPolicy";

/// `toolpolicies` of the whole cluster.
pub(crate) fn tool_policies(client: &Client) -> Api<DynamicObject> {
    Api::all_with(client.clone(), &resource(TOOL_POLICY, "toolpolicies"))
}

/// `toolpolicies` of one namespace.
pub(crate) fn tool_policies_in(client: &Client, namespace: &str) -> Api<DynamicObject> {
    Api::namespaced_with(
        client.clone(),
        namespace,
        &resource(TOOL_POLICY, "toolpolicies"),
    )
}

/// `clustertoolpolicies`.
pub(crate) fn cluster_tool_policies(client: &Client) -> Api<DynamicObject> {
    Api::all_with(
        client.clone(),
        &resource(CLUSTER_TOOL_POLICY, "clustertoolpolicies"),
    )
}

fn resource(kind: &str, plural: &str) -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(GROUP, VERSION, kind), plural)
}

/// The object is not there, or no more.
pub(crate) fn is_gone(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_not_found())
}

/// Somebody else changed or made it in the meantime.
pub(crate) fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_conflict() || status.is_already_exists())
}

/// The API server would not have it so, for one because the object is marked immutable.
pub(crate) fn is_invalid(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_invalid())
}
