//! Many variants of one attack, all tried before the test says which of them got through.

use std::fmt::Display;

use anyhow::Result;

/// What went wrong so far. A test that drops it unasked has seen nothing.
#[derive(Debug, Default)]
#[must_use]
pub struct Faults {
    faults: Vec<String>,
    tried: usize,
}

// === impl Faults ===

impl Faults {
    /// Tries one variant.
    pub fn check<T>(&mut self, variant: impl Display, attempt: impl FnOnce() -> Result<T>) {
        self.tried += 1;
        if let Err(error) = attempt() {
            self.faults.push(format!("{variant}: {error:#}"));
        }
    }

    /// Ends the test.
    ///
    /// # Panics
    /// If any variant failed, or none was tried.
    pub fn none(self) {
        let (faults, tried) = (self.faults, self.tried);
        assert!(tried > 0, "no variant was tried");
        let shown: Vec<_> = faults.iter().take(12).collect();
        assert!(
            faults.is_empty(),
            "{} of {tried} variants: {shown:#?}",
            faults.len()
        );
    }
}
