//! `cargo xtask soak`: the sidecar killed under load, many more times than in the tests.
//!
//! Its last line is the figures of docs/OPERATIONS.md. In doubt it fails: one call without its record,
//! or one packet past the gate, ends it.

use anyhow::{Result, bail};
use clap::Args;

use crate::shell::{cargo, is_root, run};

/// What `cargo xtask soak` takes.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// How often the sidecar is killed
    #[arg(long, default_value_t = 1000)]
    rounds: u32,
}

pub(crate) fn main(arguments: &Arguments) -> Result<()> {
    if !is_root() {
        bail!(
            "the soak makes network namespaces of its own, which only root can\n\
             hint: sudo -E env \"PATH=$PATH\" cargo xtask soak"
        );
    }
    run(cargo().args(["build", "--workspace", "--all-targets"]))?;
    run(cargo()
        .args([
            "test",
            "-p",
            "exeat-tests",
            "--test",
            "crash",
            "--",
            "--nocapture",
        ])
        .env("EXEAT_ROUNDS", arguments.rounds.to_string()))
}
