//! What runs beside the flow: the policy kept up to date, health, counters, and what the process
//! gives up for itself.

pub mod confine;
pub mod health;
pub mod held;
pub mod java;
pub mod metrics;
pub mod reload;
pub mod selftest;
pub mod status;
pub mod watch;
pub mod workers;
