//! YAML as a tree that knows where each value stands.
//!
//! Duplicate keys, unknown tags, deep nesting and alias bombs are errors; so is more than one fits
//! a policy. Reading goes through [`Fields`], which refuses every key that nobody asked for.

mod fields;
mod span;
mod yaml;

use std::cell::RefCell;
use std::ops::Range;
use std::sync::Arc;

pub(crate) use fields::{Fields, suggest};
pub(crate) use span::Span;

use crate::diagnostics::{Diagnostic, Diagnostics, Place};
use crate::source::Source;

/// One source while it is read, and what was found wrong with it.
#[derive(Debug)]
pub(crate) struct File {
    name: String,
    text: Arc<str>,
    found: RefCell<Diagnostics>,
}

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    /// What it is.
    pub(crate) kind: Kind,
    /// Where it stands.
    pub(crate) span: Span,
}

/// What a value is.
#[derive(Debug, Clone)]
pub(crate) enum Kind {
    Null,
    Bool(bool),
    Int(i64),
    Float,
    Text(String),
    List(Vec<Node>),
    Map(Vec<(Node, Node)>),
}

// === impl File ===

impl File {
    pub(crate) fn new(source: &Source) -> Self {
        Self {
            name: source.name.clone(),
            text: source.text.as_str().into(),
            found: RefCell::default(),
        }
    }

    /// The documents that are not empty. Errors are noted.
    pub(crate) fn documents(&self) -> Vec<Node> {
        match yaml::read(&self.text) {
            Ok(mut documents) => {
                documents.iter_mut().for_each(Node::name_fields);
                documents
            }
            Err(fault) => {
                self.fault(&fault.span, fault.message, fault.remedy);
                Vec::new()
            }
        }
    }

    /// Notes what is wrong here, and what to do about it.
    pub(crate) fn fault(&self, span: &Span, message: impl Into<String>, remedy: Option<String>) {
        let diagnostic = Diagnostic::new(&self.name, &self.text, span, message, remedy);
        self.found.borrow_mut().push(diagnostic);
    }

    /// As [`Self::fault`], with a remedy.
    pub(crate) fn refuse(
        &self,
        span: &Span,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.fault(span, message, Some(remedy.into()));
    }

    pub(crate) fn found(self) -> Diagnostics {
        self.found.into_inner()
    }

    pub(crate) fn is_faulty(&self) -> bool {
        !self.found.borrow().is_empty()
    }

    /// Where bytes of a scalar's value stand in the file. A block scalar is indented and a quoted
    /// one escaped, so the value is followed through the source, skipping what it does not hold.
    pub(crate) fn within(&self, scalar: &Node, value: &str, part: &Range<usize>) -> Span {
        let mut at = scalar.span.bytes.start;
        let (mut start, mut end) = (None, None);
        for (offset, wanted) in value.char_indices() {
            let rest = self.text.get(at..).unwrap_or_default();
            let found = rest
                .char_indices()
                .take(512)
                .find(|(_, c)| *c == wanted || (wanted.is_whitespace() && c.is_whitespace()));
            let Some((skip, c)) = found else {
                break;
            };
            at += skip;
            if offset >= part.start && start.is_none() {
                start = Some(at);
            }
            at += c.len_utf8();
            if offset < part.end {
                end = Some(at);
            }
        }
        let start = start.or(end).unwrap_or(scalar.span.bytes.start);
        let bytes = start..end.unwrap_or(start).max(start);
        scalar.span.part(bytes, Place::of(value, part.start))
    }
}

// === impl Node ===

impl Node {
    /// Gives every value, and every key, the name of the field that it is.
    fn name_fields(&mut self) {
        match &mut self.kind {
            Kind::List(items) => {
                for (at, item) in items.iter_mut().enumerate() {
                    item.span.field = self.span.field.item(at);
                    item.name_fields();
                }
            }
            Kind::Map(entries) => {
                for (key, value) in entries {
                    let field = match &key.kind {
                        Kind::Text(name) => self.span.field.child(name),
                        _ => self.span.field.clone(),
                    };
                    key.span.field = field.clone();
                    value.span.field = field;
                    value.name_fields();
                }
            }
            Kind::Null | Kind::Bool(_) | Kind::Int(_) | Kind::Float | Kind::Text(_) => {}
        }
    }

    /// What kind of value it is, for messages.
    pub(crate) fn noun(&self) -> &'static str {
        match self.kind {
            Kind::Null => "nothing",
            Kind::Bool(_) => "true or false",
            Kind::Int(_) | Kind::Float => "a number",
            Kind::Text(_) => "a text",
            Kind::List(_) => "a list",
            Kind::Map(_) => "a mapping",
        }
    }

    /// The text, or a note of what stands here instead.
    pub(crate) fn text(&self, file: &File, what: &str) -> Option<&str> {
        match &self.kind {
            Kind::Text(text) if !text.is_empty() => Some(text),
            Kind::Text(_) => {
                file.refuse(&self.span, format!("{what} is empty"), "write a text");
                None
            }
            Kind::Int(_) | Kind::Float | Kind::Bool(_) => {
                file.refuse(
                    &self.span,
                    format!("{what} is a text, not {}", self.noun()),
                    "put it in quotes",
                );
                None
            }
            _ => {
                file.refuse(
                    &self.span,
                    format!("{what} is a text, not {}", self.noun()),
                    "write a text",
                );
                None
            }
        }
    }

    /// The list, or a note of what stands here instead.
    pub(crate) fn list(&self, file: &File, what: &str) -> &[Self] {
        if let Kind::List(list) = &self.kind {
            return list;
        }
        file.refuse(
            &self.span,
            format!("{what} is a list, not {}", self.noun()),
            "put it in square brackets, or each item after a dash",
        );
        &[]
    }

    /// The list, or a note that it is none or longer than `most`.
    pub(crate) fn list_of(&self, file: &File, what: &str, most: usize) -> &[Self] {
        let list = self.list(file, what);
        if list.len() <= most {
            return list;
        }
        file.refuse(
            &self.span,
            format!("{what} has more than {most} items"),
            "split the rule or the policy",
        );
        &[]
    }
}

#[cfg(test)]
mod tests;
