//! What is set up wrongly, is missing, is full or is gone: each is told with where and what to do
//! about it, or denied with its reason, and nothing is lost.
//!
//! A message is judged by the words that a person needs: the file, the line, the flag, the remedy.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "bad_input/flags.rs"]
mod flags;
#[path = "bad_input/later.rs"]
mod later;
#[path = "bad_input/programs.rs"]
mod programs;
#[path = "bad_input/start.rs"]
mod start;
#[path = "bad_input/support.rs"]
mod support;
