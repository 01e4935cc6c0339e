//! `exeat run` as a user meets it: what passes through, what the command can't reach, and what is
//! said when the gate can't be built.
//!
//! Every test is run as root and as an ordinary user, whose namespaces are made in another way.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::used_underscore_binding,
    reason = "a test fails by panicking, and says what it does in its own way"
)]

#[path = "run/calls.rs"]
mod calls;
#[path = "run/command.rs"]
mod command;
#[path = "run/reach.rs"]
mod reach;
#[path = "run/reload.rs"]
mod reload;
#[path = "run/support.rs"]
mod support;
