//! What is wrong with a policy: where, what, and what to do about it.
//!
//! Rendered with the offending lines for people, and as JSON for programs.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use serde::Serialize;

use crate::tree::Span;

/// More findings than anyone reads at once.
const MAX_DIAGNOSTICS: usize = 50;
/// Lines longer than this are cut before they are shown.
const MAX_SHOWN_LINE: usize = 4096;

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// The source's name.
    pub file: String,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// The field at fault, as `spec.tools[0].when`; empty where the file as a whole is.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub field: String,
    /// Where in the value of that field, if the value is an expression.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub within: Option<Place>,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub remedy: Option<String>,
    #[serde(skip)]
    text: Arc<str>,
    #[serde(skip)]
    span: Range<usize>,
}

/// A place in a text of several lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Place {
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
}

/// Everything wrong with a set of policies. Never empty when it is an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Default)]
#[serde(transparent)]
pub struct Diagnostics(Vec<Diagnostic>);

// === impl Diagnostic ===

impl Diagnostic {
    /// A finding at these bytes of a source.
    pub(crate) fn new(
        file: &str,
        text: &Arc<str>,
        at: &Span,
        message: impl Into<String>,
        remedy: Option<String>,
    ) -> Self {
        let start = floor(text, at.bytes.start);
        let end = floor(text, at.bytes.end.max(start));
        let place = Place::of(text, start);
        Self {
            file: file.to_owned(),
            line: place.line,
            column: place.column,
            field: at.field.to_string(),
            within: at.within,
            message: message.into(),
            remedy,
            text: Arc::clone(text),
            span: start..end,
        }
    }

    fn render(&self, renderer: &Renderer) -> String {
        // Only the lines at fault are handed over: the renderer reads all of its source.
        let start = self.text[..self.span.start]
            .rfind('\n')
            .map_or(0, |at| at + 1);
        let end = self.text[self.span.start..]
            .find('\n')
            .map_or(self.text.len(), |at| self.span.start + at);
        let end = floor(&self.text, end.min(start + MAX_SHOWN_LINE));
        let line = &self.text[start..end];
        let from = (self.span.start - start).min(line.len());
        let to = (self.span.end.max(self.span.start) - start).clamp(from, line.len());
        let title = Level::ERROR.primary_title(self.message.as_str()).element(
            Snippet::source(line)
                .line_start(self.line)
                .path(self.file.as_str())
                .annotation(AnnotationKind::Primary.span(from..to)),
        );
        let mut report = vec![title];
        if let Some(remedy) = &self.remedy {
            report.push(Group::with_title(
                Level::HELP.secondary_title(remedy.as_str()),
            ));
        }
        renderer.render(&report)
    }
}

// === impl Place ===

impl Place {
    /// The place of a byte.
    pub(crate) fn of(text: &str, at: usize) -> Self {
        let before = &text[..floor(text, at)];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        Self {
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }
}

// === impl Diagnostics ===

impl Diagnostics {
    /// The findings, by file and line.
    pub fn iter(&self) -> std::slice::Iter<'_, Diagnostic> {
        self.0.iter()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As a JSON array.
    #[must_use]
    pub fn json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default()
    }

    /// For people, with or without colour.
    #[must_use]
    pub fn render(&self, colour: bool) -> String {
        let renderer = if colour {
            Renderer::styled()
        } else {
            Renderer::plain()
        }
        .decor_style(DecorStyle::Ascii);
        let shown: Vec<String> = self.0.iter().map(|d| d.render(&renderer)).collect();
        shown.join("\n\n")
    }

    pub(crate) fn push(&mut self, diagnostic: Diagnostic) {
        if self.0.len() < MAX_DIAGNOSTICS && !self.0.contains(&diagnostic) {
            self.0.push(diagnostic);
        }
    }

    pub(crate) fn sort(&mut self) {
        self.0
            .sort_by(|a, b| (&a.file, a.line, a.column).cmp(&(&b.file, b.line, b.column)));
    }
}

impl<'a> IntoIterator for &'a Diagnostics {
    type Item = &'a Diagnostic;
    type IntoIter = std::slice::Iter<'a, Diagnostic>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Diagnostics {}

/// The character boundary at or before this byte.
fn floor(text: &str, at: usize) -> usize {
    text.floor_char_boundary(at.min(text.len()))
}
