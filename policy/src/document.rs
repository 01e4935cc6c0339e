//! The written form of a policy, read from a tree into rules.
//!
//! Every field is checked here or refused here; what comes out is meant as it stands. All faults
//! of a document are reported, not only the first.

mod credentials;
mod destination;
mod http;
mod inference;
mod mcp;
mod rule;
mod selector;
mod tcp;

use std::collections::BTreeSet;
use std::sync::Arc;

pub(crate) use selector::Selector;

use crate::limits::{MAX_OBJECT_NAME, MAX_RULES};
use crate::plan::rule::Rule;
use crate::tree::{Fields, File, Kind, Node, Span};
use crate::verdict::Mode;

pub(crate) const API_VERSION: &str = "exeat.dev/v1alpha1";

/// What a document is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PolicyKind {
    /// Of a namespace: allows and denies.
    ToolPolicy,
    /// Of the cluster: a guardrail, which can only take away.
    ClusterToolPolicy,
}

/// A policy as written.
#[derive(Debug)]
pub(crate) struct Document {
    pub(crate) kind: PolicyKind,
    pub(crate) namespace: Option<Arc<str>>,
    /// The name alone.
    pub(crate) short: Arc<str>,
    /// `namespace/name`, or the name alone.
    pub(crate) name: Arc<str>,
    pub(crate) name_span: Span,
    /// Of guardrails.
    pub(crate) namespaces: Selector,
    pub(crate) selector: Selector,
    pub(crate) mode: Mode,
    pub(crate) allow: Vec<Written>,
    pub(crate) deny: Vec<Written>,
}

/// A rule and where it stands.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) rule: Rule,
    pub(crate) span: Span,
}

/// Reads one document; `None` if it is too broken to go on with. Faults are noted either way.
pub(crate) fn read(file: &File, node: &Node) -> Option<Document> {
    let top = Fields::open(
        file,
        node,
        "a policy",
        // The status is written by the operator, and no policy.
        &["apiVersion", "kind", "metadata", "spec", "status"],
        &[],
    )?;
    let kind = kind(file, &top);
    let version = version(file, &top);
    let metadata = metadata(file, top.need("metadata")?, kind)?;
    let spec = top.need("spec")?;
    if !version {
        return None;
    }
    match kind? {
        PolicyKind::ToolPolicy => tool_policy(file, spec, metadata),
        PolicyKind::ClusterToolPolicy => guardrail(file, spec, metadata),
    }
}

fn tool_policy(file: &File, spec: &Node, metadata: Metadata) -> Option<Document> {
    let spec = Fields::open(
        file,
        spec,
        "`spec`",
        &[
            "podSelector",
            "mode",
            "tools",
            "inference",
            "deny",
            "credentials",
        ],
        &["limits"],
    )?;
    let credentials = spec
        .get("credentials")
        .map(|node| credentials::read(file, node, &metadata.short))
        .unwrap_or_default();
    let cx = rule::Context {
        file,
        policy: &metadata.full,
        credentials: &credentials,
    };
    let mut allow = rules(&cx, &spec, "tools", rule::tool);
    allow.extend(rules(&cx, &spec, "inference", rule::inference));
    let deny = rules(&cx, &spec, "deny", rule::deny);
    unique(file, &allow, &deny);
    Some(Document {
        kind: PolicyKind::ToolPolicy,
        namespaces: Selector::default(),
        selector: selector(file, &spec, "podSelector"),
        mode: mode(&spec),
        allow,
        deny,
        namespace: metadata.namespace,
        short: metadata.short,
        name: metadata.full,
        name_span: metadata.span,
    })
}

fn guardrail(file: &File, spec: &Node, metadata: Metadata) -> Option<Document> {
    let known = ["namespaceSelector", "podSelector", "mode", "deny"];
    let spec = Fields::open(file, spec, "`spec` of a guardrail", &known, &[])?;
    let cx = rule::Context {
        file,
        policy: &metadata.full,
        credentials: &[],
    };
    spec.need("deny")?;
    let deny = rules(&cx, &spec, "deny", rule::deny);
    unique(file, &[], &deny);
    Some(Document {
        kind: PolicyKind::ClusterToolPolicy,
        namespaces: selector(file, &spec, "namespaceSelector"),
        selector: selector(file, &spec, "podSelector"),
        mode: mode(&spec),
        allow: Vec::new(),
        deny,
        namespace: None,
        short: metadata.short,
        name: metadata.full,
        name_span: metadata.span,
    })
}

fn selector(file: &File, spec: &Fields<'_>, field: &'static str) -> Selector {
    spec.get(field)
        .map_or_else(Selector::default, |node| selector::read(file, node, field))
}

fn mode(spec: &Fields<'_>) -> Mode {
    let words = [("Enforce", Mode::Enforce), ("Shadow", Mode::Shadow)];
    spec.word("mode", &words).unwrap_or(Mode::Enforce)
}

fn kind(file: &File, top: &Fields<'_>) -> Option<PolicyKind> {
    let node = top.need("kind")?;
    match node.text(file, "`kind`")? {
        "ToolPolicy" => Some(PolicyKind::ToolPolicy),
        "ClusterToolPolicy" => Some(PolicyKind::ClusterToolPolicy),
        _ => {
            file.refuse(
                &node.span,
                "this is no kind that is known here",
                "write `kind: ToolPolicy`, or `kind: ClusterToolPolicy` for a guardrail",
            );
            None
        }
    }
}

fn version(file: &File, top: &Fields<'_>) -> bool {
    let Some(node) = top.need("apiVersion") else {
        return false;
    };
    let found = node.text(file, "`apiVersion`");
    if found.is_some_and(|found| found != API_VERSION) {
        file.refuse(
            &node.span,
            "this is no apiVersion that is known here",
            format!("write `apiVersion: {API_VERSION}`"),
        );
    }
    found == Some(API_VERSION)
}

/// Whose policy it is.
struct Metadata {
    namespace: Option<Arc<str>>,
    short: Arc<str>,
    full: Arc<str>,
    span: Span,
}

fn metadata(file: &File, node: &Node, kind: Option<PolicyKind>) -> Option<Metadata> {
    // What the API server adds to an object is no policy, and is passed over.
    let known = [
        "name",
        "namespace",
        "labels",
        "annotations",
        "uid",
        "resourceVersion",
        "generation",
        "generateName",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "managedFields",
        "ownerReferences",
        "finalizers",
        "selfLink",
    ];
    let fields = Fields::open(file, node, "`metadata`", &known, &[])?;
    let span = fields.need("name")?.span.clone();
    let name = fields.need_text("name")?;
    if !is_dns_name(name) {
        file.refuse(
            &span,
            "this is no name of an object",
            "use lower-case letters, digits, `-` and `.`, at most 253",
        );
        return None;
    }
    let namespace = fields.text("namespace");
    let place = fields
        .get("namespace")
        .map_or(fields.span(), |node| &node.span);
    if namespace.is_some() && kind == Some(PolicyKind::ClusterToolPolicy) {
        file.refuse(
            place,
            "a ClusterToolPolicy is of no namespace",
            "remove `namespace`; `spec.namespaceSelector` says which ones it is for",
        );
        return None;
    }
    if let Some(namespace) = namespace
        && (!is_dns_name(namespace) || namespace.contains('.'))
    {
        file.refuse(
            place,
            "this is no name of a namespace",
            "use lower-case letters, digits and `-`",
        );
        return None;
    }
    let full = namespace.map_or_else(
        || name.to_owned(),
        |namespace| format!("{namespace}/{name}"),
    );
    Some(Metadata {
        namespace: namespace.map(Into::into),
        short: name.into(),
        full: full.into(),
        span,
    })
}

pub(crate) fn is_dns_name(name: &str) -> bool {
    let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    name.len() <= MAX_OBJECT_NAME
        && name.starts_with(edge)
        && name.ends_with(edge)
        && name.chars().all(|c| edge(c) || matches!(c, '-' | '.'))
}

fn rules(
    cx: &rule::Context<'_>,
    spec: &Fields<'_>,
    field: &str,
    read: fn(&rule::Context<'_>, &Node) -> Option<Rule>,
) -> Vec<Written> {
    let Some(node) = spec.get(field) else {
        return Vec::new();
    };
    node.list_of(cx.file, &format!("`{field}`"), MAX_RULES)
        .iter()
        .filter_map(|item| {
            let span = place(item);
            read(cx, item).map(|rule| Written { rule, span })
        })
        .collect()
}

/// Where a rule is shown: at its name.
fn place(node: &Node) -> Span {
    if let Kind::Map(entries) = &node.kind {
        for (key, value) in entries {
            if matches!(&key.kind, Kind::Text(text) if text == "name") {
                return value.span.clone();
            }
        }
    }
    node.span.clone()
}

impl PolicyKind {
    /// As it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ToolPolicy => "ToolPolicy",
            Self::ClusterToolPolicy => "ClusterToolPolicy",
        }
    }
}

fn unique(file: &File, allow: &[Written], deny: &[Written]) {
    let mut seen = BTreeSet::new();
    for written in allow.iter().chain(deny) {
        if !seen.insert(&written.rule.name) {
            file.refuse(
                &written.span,
                format!(
                    "there already is a rule `{}` in this policy",
                    written.rule.name
                ),
                "give each rule its own name: records and replies refer to it",
            );
        }
    }
}
