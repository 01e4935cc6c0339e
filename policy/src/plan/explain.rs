//! Stub.

use crate::verdict::Verdict;

/// A verdict and why not another.
#[derive(Debug)]
pub struct Explanation {
    /// The verdict.
    pub verdict: Verdict,
    /// The rules that did not match.
    pub near: Vec<NearMiss>,
}

/// A rule that did not match.
#[derive(Debug)]
pub struct NearMiss {
    /// Why.
    pub message: String,
}
