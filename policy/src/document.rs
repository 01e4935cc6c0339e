//! The written form of a `ToolPolicy`, read from a tree into rules.
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
use std::ops::Range;
use std::sync::Arc;

pub(crate) use selector::Selector;

use crate::plan::rule::Rule;
use crate::tree::{Fields, File, Kind, Node};
use crate::verdict::Mode;

const API_VERSION: &str = "exeat.dev/v1alpha1";
/// More rules than a person can answer for in one policy.
const MAX_RULES: usize = 2000;

/// A policy as written.
#[derive(Debug)]
pub(crate) struct Document {
    /// `namespace/name`, or the name alone.
    pub(crate) name: Arc<str>,
    pub(crate) name_span: Range<usize>,
    pub(crate) selector: Selector,
    pub(crate) mode: Mode,
    pub(crate) allow: Vec<Written>,
    pub(crate) deny: Vec<Written>,
}

/// A rule and where it stands.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) rule: Rule,
    pub(crate) span: Range<usize>,
}

/// Reads one document; `None` if it is too broken to go on with. Faults are noted either way.
pub(crate) fn read(file: &File, node: &Node) -> Option<Document> {
    let top = Fields::open(
        file,
        node,
        "a ToolPolicy",
        &["apiVersion", "kind", "metadata", "spec"],
        &["status"],
    )?;
    let kind = expect(file, &top, "kind", "ToolPolicy");
    let version = expect(file, &top, "apiVersion", API_VERSION);
    let (name, name_span) = metadata(file, top.need("metadata")?)?;
    let spec = top.need("spec")?;
    if !kind || !version {
        return None;
    }
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
    let selector = spec
        .get("podSelector")
        .map_or_else(Selector::default, |node| selector::read(file, node));
    let mode = spec.word(
        "mode",
        &[("Enforce", Mode::Enforce), ("Shadow", Mode::Shadow)],
    );
    let credentials = spec
        .get("credentials")
        .map(|node| credentials::read(file, node))
        .unwrap_or_default();
    let cx = rule::Context {
        file,
        policy: &name,
        credentials: &credentials,
    };
    let mut allow = rules(&cx, &spec, "tools", rule::tool);
    allow.extend(rules(&cx, &spec, "inference", rule::inference));
    let deny = rules(&cx, &spec, "deny", rule::deny);
    unique(file, &allow, &deny);
    Some(Document {
        name,
        name_span,
        selector,
        mode: mode.unwrap_or(Mode::Enforce),
        allow,
        deny,
    })
}

fn expect(file: &File, top: &Fields<'_>, field: &str, wanted: &str) -> bool {
    let Some(node) = top.need(field) else {
        return false;
    };
    let found = node.text(file, &format!("`{field}`"));
    if found.is_some_and(|found| found != wanted) {
        file.refuse(
            &node.span,
            format!("this is no {field} that is known here"),
            format!("write `{field}: {wanted}`"),
        );
    }
    found == Some(wanted)
}

fn metadata(file: &File, node: &Node) -> Option<(Arc<str>, Range<usize>)> {
    // What the API server adds to an object is no policy, and is passed over.
    let known = [
        "name",
        "namespace",
        "labels",
        "annotations",
        "uid",
        "resourceVersion",
        "generation",
        "creationTimestamp",
        "managedFields",
        "ownerReferences",
        "finalizers",
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
    if let Some(namespace) = namespace
        && (!is_dns_name(namespace) || namespace.contains('.'))
    {
        file.refuse(
            fields.span(),
            "this is no name of a namespace",
            "use lower-case letters, digits and `-`",
        );
        return None;
    }
    let full = namespace.map_or_else(
        || name.to_owned(),
        |namespace| format!("{namespace}/{name}"),
    );
    Some((full.into(), span))
}

fn is_dns_name(name: &str) -> bool {
    let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    name.len() <= 253
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
    let list = node.list(cx.file, &format!("`{field}`"));
    if list.len() > MAX_RULES {
        cx.file.refuse(
            &node.span,
            format!("there are more than {MAX_RULES} rules"),
            "split the policy",
        );
        return Vec::new();
    }
    list.iter()
        .filter_map(|item| {
            let span = place(item);
            read(cx, item).map(|rule| Written { rule, span })
        })
        .collect()
}

/// Where a rule is shown: at its name.
fn place(node: &Node) -> Range<usize> {
    if let Kind::Map(entries) = &node.kind {
        for (key, value) in entries {
            if matches!(&key.kind, Kind::Text(text) if text == "name") {
                return value.span.clone();
            }
        }
    }
    node.span.clone()
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
