//! A secret is in the request that it is for, and nowhere else.
//!
//! It is looked for in every spelling that a program could have given it, in all that the agent can
//! reach and all that the gate leaves behind: answers, logs at their most talkative, the journal, what
//! is exported, health, metrics, `/proc`, core dumps, and the printed form of whatever may hold it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "secrets/holders.rs"]
mod holders;
#[path = "secrets/requests.rs"]
mod requests;
#[path = "secrets/support.rs"]
mod support;
#[path = "secrets/traces.rs"]
mod traces;
