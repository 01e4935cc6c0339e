//! See the crate's documentation.
pub mod held;
pub mod metrics;
pub mod reload;
pub mod watch;
