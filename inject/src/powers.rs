//! What the account of a governed pod may not be able to do in its namespace: each undoes a gate, or
//! goes around it.
//!
//! Admission asks the API server about each before a pod is let in, `exeat check` for the pods that
//! are there.

/// One right that is too much.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Power {
    /// As RBAC has it.
    pub verb: &'static str,
    /// The API group; empty for the core.
    pub group: &'static str,
    /// As RBAC has it.
    pub resource: &'static str,
    /// Empty where there is none.
    pub subresource: &'static str,
    /// What it comes to, after "may".
    pub meaning: &'static str,
}

const fn power(
    verb: &'static str,
    group: &'static str,
    resource: &'static str,
    subresource: &'static str,
    meaning: &'static str,
) -> Power {
    Power {
        verb,
        group,
        resource,
        subresource,
        meaning,
    }
}

/// All of them.
pub const TOO_MUCH: [Power; 14] = [
    power("get", "", "secrets", "", "read Secrets"),
    power("list", "", "secrets", "", "read Secrets"),
    power("watch", "", "secrets", "", "read Secrets"),
    power(
        "create",
        "exeat.dev",
        "toolpolicies",
        "",
        "write ToolPolicies",
    ),
    power(
        "update",
        "exeat.dev",
        "toolpolicies",
        "",
        "write ToolPolicies",
    ),
    power(
        "patch",
        "exeat.dev",
        "toolpolicies",
        "",
        "write ToolPolicies",
    ),
    power("create", "", "pods", "", "create pods"),
    power("create", "", "pods", "exec", "exec into pods"),
    power("get", "", "pods", "exec", "exec into pods"),
    power("create", "", "pods", "attach", "attach to pods"),
    power("patch", "", "pods", "", "patch pods"),
    power("update", "", "pods", "", "patch pods"),
    power("patch", "", "pods", "ephemeralcontainers", "patch pods"),
    power(
        "create",
        "",
        "serviceaccounts",
        "token",
        "issue tokens of other accounts",
    ),
];
