//! What the cross-part tests share: servers to call, networks to be confined in, clients to run.
#![allow(
    clippy::duration_suboptimal_units,
    clippy::format_collect,
    clippy::missing_panics_doc,
    clippy::single_match_else,
    reason = "helpers of tests: they panic to fail, and say so where they do"
)]

pub mod backend;
pub mod chaos;
pub mod cluster;
pub mod gate;
pub mod governed;
pub mod inside;
pub mod netns;
pub mod otlp;
pub mod sink;
pub mod upstream;
