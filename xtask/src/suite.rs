//! `cargo xtask test`: every test of the workspace, with nothing skipped.
//!
//! In doubt it fails: a machine on which some test cannot run is told so before anything is built.
//! What was left out because somebody asked for it is the last line that is printed.

use std::{
    fs,
    io::{self, Write as _},
};

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};

use crate::{
    cluster, setup,
    shell::{cargo, is_root, root, run},
};

/// What `cargo xtask test` takes.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Leave these tests out, and say so at the end
    #[arg(long, value_enum)]
    without: Option<Part>,
    /// Passed on to `cargo test`, for instance a test's name
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Part {
    /// Those on a real Kubernetes node and in gVisor, whose programs are built from Go
    Cluster,
}

/// The test programs that need a cluster's programs are called so, and no others.
const CLUSTER: &str = "cluster";

pub(crate) fn main(arguments: &Arguments) -> Result<()> {
    if !is_root() {
        bail!(
            "the tests make network namespaces of their own, which only root can\n\
             hint: sudo -E env \"PATH=$PATH\" cargo xtask test\n\
             hint: what needs no root runs with `cargo test -p exeat-policy -p exeat-sidecar`"
        );
    }
    setup::everything()?;
    if arguments.without.is_none() {
        cluster::programs()?;
    }
    // The tests run the programs as a user would, so all of them are built first.
    run(cargo().args(["build", "--workspace", "--bins"]))?;
    match arguments.without {
        None => run(cargo().args(["test", "--workspace"]).args(&arguments.rest)),
        Some(Part::Cluster) => {
            let done = without_cluster(&arguments.rest);
            writeln!(
                io::stdout(),
                "left out: the tests on a Kubernetes node and in gVisor (--without cluster)"
            )?;
            done
        }
    }
}

/// All packages, and of the cross-part tests each program but those.
fn without_cluster(rest: &[String]) -> Result<()> {
    run(cargo()
        .args(["test", "--workspace", "--exclude=exeat-tests"])
        .args(rest))?;
    let mut programs = Vec::new();
    for entry in fs::read_dir(root().join("tests/tests"))? {
        let path = entry?.path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        if path.extension().is_some_and(|extension| extension == "rs") && !name.starts_with(CLUSTER)
        {
            programs.push(format!("--test={name}"));
        }
    }
    programs.sort();
    run(cargo()
        .args(["test", "--package=exeat-tests", "--lib", "--bins"])
        .args(programs)
        .args(rest))
}
