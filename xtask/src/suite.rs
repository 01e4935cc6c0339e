//! `cargo xtask test`: every test of the workspace, with nothing skipped.
//!
//! In doubt it fails: a machine on which some test cannot run is told so before anything is built.

use anyhow::{Result, bail};
use clap::Args;

use crate::{
    setup,
    shell::{cargo, is_root, run},
};

/// What `cargo xtask test` takes.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Passed on to `cargo test`, for instance a test's name
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

pub(crate) fn main(arguments: &Arguments) -> Result<()> {
    if !is_root() {
        bail!(
            "the tests make network namespaces of their own, which only root can\n\
             hint: sudo -E env \"PATH=$PATH\" cargo xtask test\n\
             hint: what needs no root runs with `cargo test -p exeat-policy -p exeat-sidecar`"
        );
    }
    setup::everything()?;
    // The tests run the programs as a user would, so all of them are built first.
    run(cargo().args(["build", "--workspace", "--bins"]))?;
    run(cargo().args(["test", "--workspace"]).args(&arguments.rest))
}
