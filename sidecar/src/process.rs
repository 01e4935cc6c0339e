//! See the crate's documentation.
pub mod held;
pub mod watch;
