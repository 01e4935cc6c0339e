//! The gate: one connection or request from the agent's words to the world and back.
//!
//! The directories sort in the order of the flow: `agent` (who calls, where to, what it speaks),
//! `decide` (the policy asked), `ledger` (the decision written down), `upstream` (credential, dial,
//! relay); `process` is what runs beside it. [`flow`] is the whole of it on one page. In doubt every
//! part of it refuses.

pub mod agent;
pub mod decide;
pub mod flow;
pub mod gate;
pub mod ledger;
pub mod process;
pub mod serve;
pub mod upstream;
