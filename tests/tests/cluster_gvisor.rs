//! One way out of a pod in gVisor: the attempts that `confinement.rs` makes on Linux, made inside a
//! real `runsc` sandbox, judged by what an observer outside sees.
//!
//! They need no Kubernetes node, but `runsc`, which is built with the node's programs: root, Go and
//! some minutes the first time. `cargo xtask test --without cluster` leaves them out, and says so.
#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub)]

#[path = "gvisor/attempts.rs"]
mod attempts;
#[path = "gvisor/failures.rs"]
mod failures;
#[path = "gvisor/lifecycle.rs"]
mod lifecycle;
#[path = "gvisor/mutations.rs"]
mod mutations;
#[path = "gvisor/support.rs"]
mod support;
