//! On a real Kubernetes node: what a user does, in the order in which a user does it, and what an
//! agent tries from inside a real pod.
//!
//! These tests need root, Go and some minutes to build the node's programs the first time; without
//! them they fail. `cargo xtask test --without cluster` leaves them out, and says so.
#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub)]

#[path = "cluster/api.rs"]
mod api;
#[path = "cluster/attacks.rs"]
mod attacks;
#[path = "cluster/by_hand.rs"]
mod by_hand;
#[path = "cluster/chaos.rs"]
mod chaos;
#[path = "cluster/chart.rs"]
mod chart;
#[path = "cluster/check.rs"]
mod check;
#[path = "cluster/credentials.rs"]
mod credentials;
#[path = "cluster/examples.rs"]
mod examples;
#[path = "cluster/governed.rs"]
mod governed;
#[path = "cluster/lifecycle.rs"]
mod lifecycle;
#[path = "cluster/operator.rs"]
mod operator;
#[path = "cluster/pool.rs"]
mod pool;
#[path = "cluster/refusals.rs"]
mod refusals;
#[path = "cluster/support.rs"]
mod support;
