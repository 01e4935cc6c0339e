//! Confines a network namespace so that nothing but the gate can leave it, and proves it.
//!
//! A [`Plan`] says what must hold; a [`Ruleset`] is that plan as a list of typed rules; the
//! renderings in [`render`] write the list down for the packet filter that the kernel has. Those
//! three are pure. [`apply()`], [`verify()`], [`prove()`] and [`clean()`] are what touches the machine.
//!
//! In doubt this crate refuses: a packet that no rule names is not sent, a rule set that can't be
//! read back exactly is an error, and nothing but [`clean()`] ever takes the deny away.

pub mod apply;
pub mod args;
pub mod clean;
pub mod command;
pub mod error;
pub mod plan;
pub mod prove;
pub mod render;
pub mod report;
pub mod ruleset;
mod survey;
mod tool;
pub mod verify;

pub use apply::{Step, apply, apply_observed};
pub use clean::clean;
pub use error::InitError;
pub use plan::{Backend, Plan, Ports, Uid};
pub use prove::{Attempt, Outcome, Proof, attempts, prove, prove_watching};
pub use report::Report;
pub use ruleset::{Ruleset, Surroundings};
pub use verify::verify;
