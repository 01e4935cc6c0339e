//! Reading a mapping field by field. A key that is not of the mapping's vocabulary is a fault
//! with the nearest known key as remedy; a key of a later version is a fault that says so.

use super::{File, Kind, Node, Span};
use crate::limits::MAX_ITEMS;

/// A mapping whose every key is known.
pub(crate) struct Fields<'n> {
    file: &'n File,
    what: &'static str,
    span: &'n Span,
    entries: &'n [(Node, Node)],
}

// === impl Fields ===

impl<'n> Fields<'n> {
    /// Opens a mapping that may hold `known` keys; `later` are those that this version does not
    /// enforce yet, and therefore refuses.
    pub(crate) fn open(
        file: &'n File,
        node: &'n Node,
        what: &'static str,
        known: &[&str],
        later: &[&str],
    ) -> Option<Self> {
        let Kind::Map(entries) = &node.kind else {
            let fields = known.join(", ");
            file.refuse(
                &node.span,
                format!("{what} is a mapping, not {}", node.noun()),
                format!("its fields are: {fields}"),
            );
            return None;
        };
        for (key, _) in entries {
            let Some(name) = key.text(file, "a key") else {
                continue;
            };
            if known.contains(&name) {
                continue;
            }
            if later.contains(&name) {
                file.refuse(
                    &key.span,
                    format!("`{name}` in {what} is not supported by this version"),
                    "remove it: nothing is accepted that is not enforced",
                );
                continue;
            }
            file.fault(
                &key.span,
                format!("{what} has no field `{name}`"),
                suggest(name, known),
            );
        }
        Some(Self {
            file,
            what,
            span: &node.span,
            entries,
        })
    }

    /// The value of a field, if it is there. Null is as good as absent nowhere: it is refused.
    pub(crate) fn get(&self, name: &str) -> Option<&'n Node> {
        let node = self.entries.iter().find_map(|(key, value)| {
            matches!(&key.kind, Kind::Text(text) if text == name).then_some(value)
        })?;
        if matches!(node.kind, Kind::Null) {
            self.file.refuse(
                &node.span,
                format!("`{name}` in {} has no value", self.what),
                "write a value or remove the field",
            );
            return None;
        }
        Some(node)
    }

    /// Whether the field is there, with whatever value.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.entries
            .iter()
            .any(|(key, _)| matches!(&key.kind, Kind::Text(text) if text == name))
    }

    /// The value of a field that must be there.
    pub(crate) fn need(&self, name: &str) -> Option<&'n Node> {
        if !self.has(name) {
            self.file.refuse(
                self.span,
                format!("{} has no `{name}`", self.what),
                format!("add `{name}`"),
            );
        }
        self.get(name)
    }

    /// The text of a field.
    pub(crate) fn text(&self, name: &str) -> Option<&'n str> {
        self.get(name)?.text(self.file, &format!("`{name}`"))
    }

    /// The text of a field that must be there.
    pub(crate) fn need_text(&self, name: &str) -> Option<&'n str> {
        self.need(name)?.text(self.file, &format!("`{name}`"))
    }

    /// One of a closed set of words.
    pub(crate) fn word<T: Copy>(&self, name: &str, words: &[(&str, T)]) -> Option<T> {
        let node = self.get(name)?;
        let text = node.text(self.file, &format!("`{name}`"))?;
        let found = words.iter().find(|(word, _)| *word == text);
        if found.is_none() {
            let all: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            self.file.fault(
                &node.span,
                format!("`{name}` can't be `{}`", short(text)),
                suggest(text, &all),
            );
        }
        found.map(|(_, value)| *value)
    }

    /// The texts of a list.
    pub(crate) fn texts(&self, name: &str) -> Option<Vec<(&'n str, &'n Node)>> {
        let node = self.get(name)?;
        let what = format!("`{name}`");
        let list = node.list_of(self.file, &what, MAX_ITEMS);
        if list.is_empty() && matches!(node.kind, Kind::List(_)) {
            self.file.refuse(
                &node.span,
                format!("`{name}` in {} is empty", self.what),
                "name at least one, or remove the field",
            );
        }
        Some(
            list.iter()
                .filter_map(|item| {
                    Some((item.text(self.file, &format!("an item of {what}"))?, item))
                })
                .collect(),
        )
    }

    pub(crate) fn entries(&self) -> &'n [(Node, Node)] {
        self.entries
    }

    pub(crate) fn span(&self) -> &'n Span {
        self.span
    }
}

/// The nearest of some words, or all of them where none is near.
pub(crate) fn suggest(wrong: &str, words: &[&str]) -> Option<String> {
    let near = words
        .iter()
        .map(|word| (distance(wrong, word), *word))
        .min()
        .filter(|(distance, word)| *distance <= 2.max(word.len() / 3));
    match near {
        Some((_, word)) => Some(format!("did you mean `{word}`?")),
        None if words.is_empty() => None,
        None => Some(format!("it can be: {}", words.join(", "))),
    }
}

fn short(text: &str) -> String {
    text.chars().take(60).collect()
}

/// Edit distance, case ignored; long words are not near anything.
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().take(48).map(|c| c.to_ascii_lowercase()).collect();
    let b: Vec<char> = b.chars().take(48).map(|c| c.to_ascii_lowercase()).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(ca != cb);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
