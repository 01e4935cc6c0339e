//! From files to a plan: read all, report all that is wrong, and only if nothing is, select and
//! put together.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::call::Treatment;
use crate::diagnostics::Diagnostics;
use crate::document::{self, Document, PolicyKind, Written};
use crate::plan::rule::{Kind, Rule};
use crate::plan::{Parts, Plan, treatment_of};
use crate::source::Source;
use crate::tree::{File, Span};
use crate::verdict::Mode;

/// More policies than one pod has.
const MAX_DOCUMENTS: usize = 1024;

/// Compiles policies. With `labels`, those that select a pod with them apply; without, all do.
/// Guardrails apply whatever namespaces they select: which those are, the operator knows.
///
/// Any fault in any file, selected or not, is an error: a set of policies is taken whole or not
/// at all.
pub fn compile(
    sources: &[Source],
    labels: Option<&BTreeMap<String, String>>,
    generation: u64,
) -> Result<Plan, Diagnostics> {
    let mut read = Read::new(sources);
    read.documents
        .retain(|(_, document)| labels.is_none_or(|labels| document.selector.selects(labels)));
    conflicts(&read.files, &read.documents);
    let documents = read.finish()?;
    Ok(Plan::new(parts(documents), generation))
}

/// Files, and the policies in them.
pub(crate) struct Read {
    files: Vec<File>,
    /// Each with the number of its file.
    documents: Vec<(usize, Document)>,
}

impl Read {
    pub(crate) fn new(sources: &[Source]) -> Self {
        let files: Vec<File> = sources.iter().map(File::new).collect();
        let mut documents: Vec<(usize, Document)> = Vec::new();
        for (at, file) in files.iter().enumerate() {
            let nodes = file.documents();
            if nodes.is_empty() && !file.is_faulty() {
                file.refuse(
                    &Span::default(),
                    "the file holds no policy",
                    "write a ToolPolicy, or remove the file",
                );
            }
            for node in &nodes {
                if let Some(document) = document::read(file, node) {
                    documents.push((at, document));
                }
            }
        }
        unique(&files, &documents);
        if let Some((at, document)) = documents.get(MAX_DOCUMENTS) {
            files[*at].refuse(
                &document.name_span,
                format!("there are more than {MAX_DOCUMENTS} policies"),
                "remove some",
            );
        }
        Self { files, documents }
    }

    /// The policies, if nothing was found to be wrong.
    pub(crate) fn finish(self) -> Result<Vec<Document>, Diagnostics> {
        let mut found = Diagnostics::default();
        for file in self.files {
            for diagnostic in &file.found() {
                found.push(diagnostic.clone());
            }
        }
        if found.is_empty() {
            Ok(self.documents.into_iter().map(|(_, d)| d).collect())
        } else {
            found.sort();
            Err(found)
        }
    }
}

fn unique(files: &[File], documents: &[(usize, Document)]) {
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    for (at, document) in documents {
        if !seen.insert(&document.name) {
            files[*at].refuse(
                &document.name_span,
                format!("there already is a policy `{}`", document.name),
                "give each policy its own name",
            );
        }
    }
}

/// Two rules that want one connection handled in two ways.
fn conflicts(files: &[File], documents: &[(usize, Document)]) {
    let rules: Vec<(usize, &Written)> = documents
        .iter()
        .flat_map(|(at, document)| document.allow.iter().map(move |written| (*at, written)))
        .collect();
    // Most rules intercept; only the others can conflict with anything.
    for (at, written) in &rules {
        let own = treatment_of(&written.rule);
        if own == Treatment::Intercept {
            continue;
        }
        for (_, other) in &rules {
            let theirs = treatment_of(&other.rule);
            if theirs != own && overlap(&written.rule, &other.rule) {
                files[*at].refuse(
                    &written.span,
                    format!(
                        "rule `{}` and rule `{}` want the same host and port handled differently",
                        written.rule.name, other.rule.name
                    ),
                    format!("this one wants {}, the other {}", noun(own), noun(theirs)),
                );
                break;
            }
        }
    }
    // A denial of some requests says nothing about a connection that nobody reads.
    // A guardrail is not refused for it: it then denies the connection.
    let policies = documents
        .iter()
        .filter(|(_, document)| document.kind == PolicyKind::ToolPolicy);
    for (at, document) in policies {
        for denial in &document.deny {
            let rule = &denial.rule;
            if rule.is_total() || rule.scope.hosts.is_empty() || matches!(rule.kind, Kind::Tcp) {
                continue;
            }
            let unread = rules.iter().find(|(_, other)| {
                treatment_of(&other.rule) != Treatment::Intercept && overlap(rule, &other.rule)
            });
            if let Some((_, other)) = unread {
                files[*at].refuse(
                    &denial.span,
                    format!(
                        "rule `{}` lets connections there pass unread, so this can't be judged",
                        other.rule.name
                    ),
                    "deny the host as a whole, or have its TLS terminated",
                );
            }
        }
    }
}

fn overlap(a: &Rule, b: &Rule) -> bool {
    let ports = a.scope.ports.is_empty()
        || b.scope.ports.is_empty()
        || a.scope
            .ports
            .iter()
            .any(|port| b.scope.ports.contains(port));
    ports
        && a.scope
            .hosts
            .iter()
            .any(|mine| b.scope.hosts.iter().any(|theirs| mine.overlaps(theirs)))
}

fn noun(treatment: Treatment) -> &'static str {
    match treatment {
        Treatment::Intercept => "requests judged one by one",
        Treatment::Tcp => "bytes passed as tcp",
        Treatment::Passthrough => "TLS passed unread",
    }
}

fn parts(documents: Vec<Document>) -> Parts {
    // The policies that are enforced decide; those that only watch decide if they are alone.
    let mut policies = documents
        .iter()
        .filter(|document| document.kind == PolicyKind::ToolPolicy)
        .peekable();
    let shadow = policies.peek().is_some() && policies.all(|d| d.mode == Mode::Shadow);
    let mut parts = Parts {
        shadow,
        ..Parts::default()
    };
    for document in documents {
        let rules = |written: Vec<Written>| written.into_iter().map(|w| w.rule);
        let name = Arc::clone(&document.name);
        if document.kind == PolicyKind::ClusterToolPolicy {
            parts.guardrails.push(name);
            match document.mode {
                Mode::Enforce => parts.guard.extend(rules(document.deny)),
                Mode::Shadow => parts.shadow_deny.extend(rules(document.deny)),
            }
            continue;
        }
        parts.policies.push(name);
        if shadow || document.mode == Mode::Enforce {
            parts.allow.extend(rules(document.allow));
            parts.deny.extend(rules(document.deny));
        } else {
            parts.shadow_deny.extend(rules(document.deny));
        }
    }
    parts
}
