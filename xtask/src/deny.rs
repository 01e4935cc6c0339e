//! `cargo xtask deny`: the licences, sources and bans of everything that is linked.

use std::process::Command;

use anyhow::Result;

use crate::{
    setup,
    shell::{root, run},
};

pub(crate) fn main() -> Result<()> {
    let deny = setup::cargo_tool("cargo-deny")?;
    run(Command::new(deny).current_dir(root()).args([
        "--offline",
        "check",
        "bans",
        "licenses",
        "sources",
    ]))
}
