//! `podSelector` and `namespaceSelector`, as Kubernetes has them.

use std::collections::BTreeMap;

use crate::limits::MAX_ITEMS;
use crate::tree::{Fields, File, Kind, Node};

/// Which pods, or namespaces, a policy is for. Without terms: all.
#[derive(Debug, Clone, Default)]
pub(crate) struct Selector {
    terms: Vec<Term>,
}

#[derive(Debug, Clone)]
struct Term {
    key: String,
    operator: Operator,
    values: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
}

// === impl Selector ===

impl Selector {
    pub(crate) fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        self.terms.iter().all(|term| {
            let value = labels.get(&term.key);
            let listed = value.is_some_and(|value| term.values.contains(value));
            match term.operator {
                Operator::In => listed,
                Operator::NotIn => !listed,
                Operator::Exists => value.is_some(),
                Operator::DoesNotExist => value.is_none(),
            }
        })
    }
}

pub(super) fn read(file: &File, node: &Node, what: &'static str) -> Selector {
    let mut selector = Selector::default();
    let Some(fields) = Fields::open(file, node, what, &["matchLabels", "matchExpressions"], &[])
    else {
        return selector;
    };
    if let Some(labels) = fields.get("matchLabels") {
        if let Kind::Map(entries) = &labels.kind {
            if entries.len() > MAX_ITEMS {
                file.refuse(
                    &labels.span,
                    format!("there are more than {MAX_ITEMS} labels"),
                    "name fewer",
                );
                return selector;
            }
            for (key, value) in entries {
                let value = match &value.kind {
                    // An empty label value is a value.
                    Kind::Text(text) => Some(text.as_str()),
                    _ => value.text(file, "a label"),
                };
                if let (Some(key), Some(value)) = (key.text(file, "a label"), value) {
                    selector.terms.push(Term {
                        key: key.to_owned(),
                        operator: Operator::In,
                        values: vec![value.to_owned()],
                    });
                }
            }
        } else {
            file.refuse(
                &labels.span,
                "`matchLabels` is a mapping",
                "write `matchLabels: {app: research}`",
            );
        }
    }
    if let Some(node) = fields.get("matchExpressions") {
        let list = node.list_of(file, "`matchExpressions`", MAX_ITEMS);
        selector
            .terms
            .extend(list.iter().filter_map(|node| term(file, node)));
    }
    selector
}

fn term(file: &File, node: &Node) -> Option<Term> {
    let fields = Fields::open(
        file,
        node,
        "an item of `matchExpressions`",
        &["key", "operator", "values"],
        &[],
    )?;
    let key = fields.need_text("key")?.to_owned();
    fields.need("operator")?;
    let operator = fields.word(
        "operator",
        &[
            ("In", Operator::In),
            ("NotIn", Operator::NotIn),
            ("Exists", Operator::Exists),
            ("DoesNotExist", Operator::DoesNotExist),
        ],
    )?;
    let values: Vec<String> = fields
        .texts("values")
        .unwrap_or_default()
        .into_iter()
        .map(|(text, _)| text.to_owned())
        .collect();
    if matches!(operator, Operator::In | Operator::NotIn) == values.is_empty() {
        file.refuse(
            &node.span,
            "the operator and `values` do not fit",
            "In and NotIn need values, the others have none",
        );
        return None;
    }
    Some(Term {
        key,
        operator,
        values,
    })
}
