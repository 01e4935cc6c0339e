//! What rules of all kinds have in common: a name, exactly one kind, `when`, `credential`.

use std::sync::Arc;

use super::credentials::WrittenCredential;
use super::{http, inference, mcp, tcp};
use crate::call::Scheme;
use crate::credential::Credential;
use crate::expression::{Expression, Vocabulary};
use crate::limits::MAX_NAME;
use crate::plan::rule::{Kind, Rule, Scope};
use crate::tree::{Fields, File, Node, suggest};

/// What reading a rule needs to know.
pub(super) struct Context<'a> {
    pub(super) file: &'a File,
    pub(super) policy: &'a Arc<str>,
    pub(super) credentials: &'a [WrittenCredential],
}

/// An item of `tools`.
pub(super) fn tool(cx: &Context<'_>, node: &Node) -> Option<Rule> {
    let kinds = ["http", "mcp", "tcp"];
    let known = ["name", "http", "mcp", "tcp", "when", "credential"];
    let fields = Fields::open(
        cx.file,
        node,
        "a rule",
        &known,
        &["git", "limits", "budgets"],
    )?;
    // What a later version knows was refused above, and needs no second fault.
    let later = ["git"].iter().any(|kind| fields.has(kind));
    let name = name(cx, &fields)?;
    let (scope, kind) = one_kind(cx, node, &fields, &kinds, later, false)?;
    finish(cx, &fields, name, scope, kind)
}

/// An item of `deny`.
pub(super) fn deny(cx: &Context<'_>, node: &Node) -> Option<Rule> {
    let known = ["name", "http", "mcp", "tcp", "when"];
    let fields = Fields::open(cx.file, node, "a denial", &known, &["git", "inference"])?;
    let later = ["git", "inference"].iter().any(|kind| fields.has(kind));
    let name = name(cx, &fields)?;
    let (scope, kind) = one_kind(cx, node, &fields, &["http", "mcp", "tcp"], later, true)?;
    finish(cx, &fields, name, scope, kind)
}

/// An item of `inference`.
pub(super) fn inference(cx: &Context<'_>, node: &Node) -> Option<Rule> {
    let known = [
        "name",
        "provider",
        "hosts",
        "ports",
        "scheme",
        "addresses",
        "tls",
        "models",
        "when",
        "credential",
    ];
    let later = ["maxOutputTokens", "hostedTools", "budgets", "limits"];
    let fields = Fields::open(cx.file, node, "an inference rule", &known, &later)?;
    let name = name(cx, &fields)?;
    let (scope, kind) = inference::read(cx.file, &fields)?;
    finish(cx, &fields, name, scope, kind)
}

fn name(cx: &Context<'_>, fields: &Fields<'_>) -> Option<Arc<str>> {
    let name = fields.need_text("name")?;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '/');
    if name.len() > MAX_NAME || !name.chars().all(plain) {
        let span = fields.get("name").map_or(fields.span(), |node| &node.span);
        cx.file.refuse(
            span,
            "this is no name of a rule",
            "use up to 63 letters, digits, `.`, `-`, `_`, `/`",
        );
        return None;
    }
    Some(name.into())
}

fn one_kind(
    cx: &Context<'_>,
    node: &Node,
    fields: &Fields<'_>,
    kinds: &[&str],
    later: bool,
    wide: bool,
) -> Option<(Scope, Kind)> {
    let given: Vec<&str> = kinds
        .iter()
        .copied()
        .filter(|kind| fields.has(kind))
        .collect();
    match given.as_slice() {
        ["http"] => http::read(cx.file, fields.get("http")?, wide),
        ["mcp"] => mcp::read(cx.file, fields.get("mcp")?, wide),
        ["tcp"] => tcp::read(cx.file, fields.get("tcp")?, wide),
        [] if later => None,
        _ => {
            let what = if given.is_empty() {
                "no kind"
            } else {
                "more than one kind"
            };
            cx.file.refuse(
                &node.span,
                format!("the rule has {what}"),
                format!("give it exactly one of: {}", kinds.join(", ")),
            );
            None
        }
    }
}

fn finish(
    cx: &Context<'_>,
    fields: &Fields<'_>,
    name: Arc<str>,
    scope: Scope,
    kind: Kind,
) -> Option<Rule> {
    let when = match fields.get("when") {
        None => None,
        Some(node) => Some(expression(cx.file, node, &scope, &kind)?),
    };
    // A field that is there and could not be read drops the rule; the fault is noted.
    if fields.has("when") && when.is_none() {
        return None;
    }
    let credential = match fields.get("credential") {
        None => None,
        Some(node) => Some(credential(cx, node, &scope, &kind)?),
    };
    Some(Rule {
        policy: Arc::clone(cx.policy),
        name,
        scope,
        kind,
        when,
        credential,
    })
}

fn expression(file: &File, node: &Node, scope: &Scope, kind: &Kind) -> Option<Expression> {
    let source = match &node.kind {
        // `when: true` is YAML's own true.
        crate::tree::Kind::Bool(value) => {
            file.refuse(
                &node.span,
                format!(
                    "a rule with `when: {value}` says {}",
                    if *value { "nothing" } else { "never" }
                ),
                "remove `when`, or the rule",
            );
            return None;
        }
        _ => node.text(file, "`when`")?,
    };
    if matches!(kind, Kind::Tcp) || scope.passthrough {
        file.refuse(
            &node.span,
            "`when` needs a request, and this rule reads none",
            "remove `when`",
        );
        return None;
    }
    let captures = captures(kind);
    let vocabulary = match kind {
        Kind::Http(_) | Kind::Tcp => Vocabulary::Http {
            captures: &captures,
        },
        Kind::Mcp(_) => Vocabulary::Mcp,
        Kind::Inference(_) => Vocabulary::Inference,
    };
    match Expression::compile(source, &vocabulary) {
        Ok(expression) => Some(expression),
        Err(faults) => {
            for fault in faults {
                let span = file.within(node, source, &fault.span);
                file.fault(&span, fault.message, fault.remedy);
            }
            None
        }
    }
}

/// The names that every path of a rule captures.
fn captures(kind: &Kind) -> Vec<String> {
    let Kind::Http(http) = kind else {
        return Vec::new();
    };
    let Some((first, others)) = http.paths.split_first() else {
        return Vec::new();
    };
    first
        .captures()
        .filter(|name| {
            others
                .iter()
                .all(|path| path.captures().any(|other| other == *name))
        })
        .map(str::to_owned)
        .collect()
}

fn credential(
    cx: &Context<'_>,
    node: &Node,
    scope: &Scope,
    kind: &Kind,
) -> Option<Arc<Credential>> {
    let name = node.text(cx.file, "`credential`")?;
    let refusal = if matches!(kind, Kind::Tcp) {
        Some("a tcp rule has no place for a credential")
    } else if scope.passthrough {
        Some("a credential can't be put into what is passed through unread")
    } else if scope.scheme == Some(Scheme::Http) {
        Some("a credential never goes out without TLS")
    } else {
        None
    };
    if let Some(refusal) = refusal {
        cx.file.refuse(
            &node.span,
            refusal,
            "remove `credential`, or have TLS terminated",
        );
        return None;
    }
    let found = cx.credentials.iter().find(|c| &*c.credential.name == name);
    if found.is_none() {
        let names: Vec<&str> = cx.credentials.iter().map(|c| &*c.credential.name).collect();
        let remedy = suggest(name, &names).or_else(|| Some("add it to `credentials`".to_owned()));
        cx.file.fault(
            &node.span,
            format!("there is no credential `{name}` in this policy"),
            remedy,
        );
    }
    found.map(|c| Arc::clone(&c.credential))
}
