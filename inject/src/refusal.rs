//! Why a pod is refused: the field at fault, what is wrong with it, and what to do.

use std::fmt;

use serde::Serialize;

/// One thing that a governed pod may not have, or lacks.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Refusal {
    /// The field at fault, from the object's root: `spec.containers[0].securityContext.privileged`.
    pub field: String,
    /// What is wrong with it.
    pub message: String,
    /// What to do.
    pub remedy: String,
}

/// All that was found.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Refusals(pub Vec<Refusal>);

/// More are counted, not listed: a pod can be as large as the API server takes.
const MAX_SHOWN: usize = 20;

// === impl Refusal ===

impl Refusal {
    pub(crate) fn new(
        field: impl Into<String>,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            field: field.into(),
            message: message.into(),
            remedy: remedy.into(),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.field, self.message, self.remedy)
    }
}

// === impl Refusals ===

impl std::error::Error for Refusals {}

impl fmt::Display for Refusals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, refusal) in self.0.iter().take(MAX_SHOWN).enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{refusal}")?;
        }
        match self.0.len().checked_sub(MAX_SHOWN) {
            Some(more) if more > 0 => write!(f, "\nand {more} more"),
            _ => Ok(()),
        }
    }
}
