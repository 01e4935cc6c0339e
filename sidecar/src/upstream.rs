//! See the crate's documentation.
pub mod address;
pub mod credential;
pub mod resolve;
