//! Literal regular expressions, compiled once when a policy is compiled.
//!
//! The interpreter's functions are plain `fn`s without state, so the table is the process's. It
//! holds weakly: when the last policy that uses a pattern is gone, so is the pattern.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock, Weak};

use cel::ExecutionError;
use cel::common::types::{CelBool, CelString};
use cel::common::value::CowVal;
use regex::{Regex, RegexBuilder};

/// Patterns are written by people.
const MAX_PATTERN: usize = 512;
/// What a compiled pattern may take in memory.
const MAX_COMPILED: usize = 256 * 1024;

static TABLE: RwLock<Option<HashMap<Box<str>, Weak<Regex>>>> = RwLock::new(None);

/// Compiles a pattern and keeps it findable for as long as the result lives.
pub(super) fn intern(pattern: &str) -> Result<Arc<Regex>, String> {
    if pattern.len() > MAX_PATTERN {
        return Err(format!("the pattern is over {MAX_PATTERN} bytes"));
    }
    let mut table = TABLE.write().unwrap_or_else(PoisonError::into_inner);
    let table = table.get_or_insert_default();
    if let Some(known) = table.get(pattern).and_then(Weak::upgrade) {
        return Ok(known);
    }
    let regex = RegexBuilder::new(pattern)
        .size_limit(MAX_COMPILED)
        .dfa_size_limit(MAX_COMPILED)
        .build()
        .map_err(|error| {
            let text = error.to_string();
            let last = text.lines().last().unwrap_or_default().trim();
            last.strip_prefix("error: ").unwrap_or(last).to_owned()
        })?;
    table.retain(|_, weak| weak.strong_count() > 0);
    let regex = Arc::new(regex);
    table.insert(pattern.into(), Arc::downgrade(&regex));
    Ok(regex)
}

/// `matches(text, pattern)`: finds the pattern anywhere, as CEL has it.
#[allow(clippy::needless_pass_by_value)]
pub(super) fn matches<'b, 'v>(
    arguments: Vec<CowVal<'b, 'v>>,
) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let unknown = || ExecutionError::function_error("matches", "the pattern is not known");
    let text = |at: usize| {
        arguments
            .get(at)
            .and_then(|value| value.downcast_ref::<CelString<'_>>())
    };
    let (Some(text), Some(pattern)) = (text(0), text(1)) else {
        return Err(unknown());
    };
    let regex = {
        let table = TABLE.read().unwrap_or_else(PoisonError::into_inner);
        table
            .as_ref()
            .and_then(|table| table.get(pattern.inner()))
            .and_then(Weak::upgrade)
            .ok_or_else(unknown)?
    };
    Ok(CowVal::owned(CelBool::from(regex.is_match(text.inner()))))
}

#[cfg(test)]
pub(super) fn is_known(pattern: &str) -> bool {
    let table = TABLE.read().unwrap_or_else(PoisonError::into_inner);
    table
        .as_ref()
        .and_then(|table| table.get(pattern))
        .is_some_and(|weak| weak.strong_count() > 0)
}
