//! Stub.
use std::collections::BTreeMap;

use crate::diagnostics::Diagnostics;
use crate::plan::Plan;
use crate::source::Source;

/// Compiles policies.
pub fn compile(
    _sources: &[Source],
    _labels: Option<&BTreeMap<String, String>>,
    generation: u64,
) -> Result<Plan, Diagnostics> {
    Ok(Plan::deny_all(generation))
}
