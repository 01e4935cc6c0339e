//! The policy asked about one call: facts in, permit or refusal out.

pub mod live;
pub mod permit;

pub use permit::{Permit, Refusal, judge, refuse};
