//! Placeholder.

use anyhow::Result;
use clap::Args;

use crate::{setup, shell};

/// What `cargo xtask demo` takes.
#[derive(Debug, Args)]
pub(crate) struct Arguments {}

pub(crate) fn main(_arguments: &Arguments) -> Result<()> {
    setup::demo()?;
    shell::built("exeat");
    Ok(())
}
