//! Where a value stands: its bytes in the file, and the field that it is.
//!
//! People look at lines and columns; whoever has only the object (an API server, a form) looks at
//! the field.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use crate::diagnostics::Place;

/// Where a value stands.
#[derive(Debug, Clone, Default)]
pub(crate) struct Span {
    /// In the file.
    pub(crate) bytes: Range<usize>,
    /// In the object.
    pub(crate) field: Field,
    /// In the value, if it is about a part of one.
    pub(crate) within: Option<Place>,
}

/// A field by its way from the top: `spec.tools[0].when`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Field(Option<Arc<Step>>);

#[derive(Debug)]
struct Step {
    above: Field,
    name: Name,
}

#[derive(Debug)]
enum Name {
    Key(Box<str>),
    Item(usize),
}

// === impl Span ===

impl Span {
    /// A part of a value.
    pub(crate) fn part(&self, bytes: Range<usize>, within: Place) -> Self {
        Self {
            bytes,
            field: self.field.clone(),
            within: Some(within),
        }
    }
}

impl From<Range<usize>> for Span {
    fn from(bytes: Range<usize>) -> Self {
        Self {
            bytes,
            ..Self::default()
        }
    }
}

// === impl Field ===

impl Field {
    pub(super) fn child(&self, name: &str) -> Self {
        self.step(Name::Key(name.into()))
    }

    pub(super) fn item(&self, at: usize) -> Self {
        self.step(Name::Item(at))
    }

    fn step(&self, name: Name) -> Self {
        let above = self.clone();
        Self(Some(Arc::new(Step { above, name })))
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(step) = &self.0 else {
            return Ok(());
        };
        step.above.fmt(f)?;
        match &step.name {
            Name::Item(at) => write!(f, "[{at}]"),
            // A label's key has dots of its own.
            Name::Key(key) if !key.bytes().all(|b| b.is_ascii_alphanumeric()) => {
                write!(f, "[{key}]")
            }
            Name::Key(key) if step.above.0.is_none() => f.write_str(key),
            Name::Key(key) => write!(f, ".{key}"),
        }
    }
}
