//! On a real Kubernetes node: what a user does, in the order in which a user does it, and what an
//! agent tries from inside a real pod.
//!
//! These tests need root, Go and some minutes to build the node's programs the first time; without
//! them they fail. `cargo xtask test --without cluster` leaves them out, and says so.
#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub)]

#[path = "cluster/attacks.rs"]
mod attacks;
#[path = "cluster/by_hand.rs"]
mod by_hand;
#[path = "cluster/chart.rs"]
mod chart;
#[path = "cluster/check.rs"]
mod check;
#[path = "cluster/examples.rs"]
mod examples;
#[path = "cluster/lifecycle.rs"]
mod lifecycle;
#[path = "cluster/support.rs"]
mod support;
