//! `cargo xtask fuzz`: each fuzz target for a given time, or one of them.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::{
    setup,
    shell::{quietly, root, run},
};

/// What `cargo xtask fuzz` takes.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// How long each target runs
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Only compile the targets
    #[arg(long)]
    build: bool,
    /// One target; without it, all
    target: Option<String>,
}

pub(crate) fn main(arguments: &Arguments) -> Result<()> {
    let folder = root().join("fuzz");
    let mut targets = targets(&folder.join("fuzz_targets"))?;
    if let Some(wanted) = &arguments.target {
        if !targets.contains(wanted) {
            bail!(
                "there is no fuzz target `{wanted}`; there are {}",
                targets.join(", ")
            );
        }
        targets = vec![wanted.clone()];
    }

    nightly()?;
    let fuzz = setup::cargo_tool("cargo-fuzz")?;
    if arguments.build {
        return run(cargo_fuzz(&fuzz, &folder).arg("build"));
    }
    for target in targets {
        eprintln!("fuzz: {target}, {} s", arguments.seconds);
        run(cargo_fuzz(&fuzz, &folder)
            .args(["run", &target, "--"])
            .arg(format!("-max_total_time={}", arguments.seconds))
            .args(["-timeout=10", "-rss_limit_mb=2048", "-print_final_stats=1"]))?;
    }
    Ok(())
}

fn targets(folder: &Path) -> Result<Vec<String>> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("no fuzz targets in {}", folder.display()))?;
    let mut targets = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "rs")
            && let Some(name) = path.file_stem()
        {
            targets.push(name.to_string_lossy().into_owned());
        }
    }
    targets.sort();
    Ok(targets)
}

/// The sanitiser that finds what fuzzing provokes exists in nightly compilers only.
fn nightly() -> Result<()> {
    let there = quietly(Command::new("rustup").args(["run", "nightly", "rustc", "--version"]));
    if there.is_err() {
        eprintln!("setup: the nightly compiler");
        run(Command::new("rustup").args(["toolchain", "install", "nightly", "--profile=minimal"]))
            .context("fuzzing needs a nightly compiler")?;
    }
    Ok(())
}

fn cargo_fuzz(program: &Path, folder: &Path) -> Command {
    let mut command = Command::new("rustup");
    command
        .args(["run", "nightly"])
        .arg(program)
        .arg("fuzz")
        .env_remove("CARGO")
        .current_dir(folder.parent().unwrap_or(folder));
    command
}
