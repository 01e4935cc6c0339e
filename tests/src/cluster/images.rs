//! The images under test, as `cargo xtask images` writes them.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};

use crate::governed::program;

/// Where they are, and how they are referred to: by digest.
#[derive(Clone, Debug)]
pub struct Images {
    /// The archives.
    pub archives: Vec<PathBuf>,
    /// `name@sha256:…` of each.
    references: Vec<String>,
}

// === impl Images ===

impl Images {
    /// Builds and writes them.
    pub fn build() -> Result<Self> {
        let out = "target/images-for-tests";
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let root = root.parent().unwrap_or(root);
        let output = Command::new(program("xtask")?)
            .args(["images", "--profile=dev", "--tests", "--out", out])
            .current_dir(root)
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .context("could not start xtask")?;
        ensure!(output.status.success(), "`xtask images` failed");
        let text = String::from_utf8(output.stdout)?;
        let references: Vec<String> = text.lines().map(str::to_owned).collect();
        let archives = references
            .iter()
            .filter_map(|reference| reference.rsplit('/').next()?.split('@').next())
            .map(|name| root.join(out).join(format!("exeat-{name}.tar")))
            .collect();
        Ok(Self {
            archives,
            references,
        })
    }

    /// `name@sha256:…`
    ///
    /// # Panics
    ///
    /// If there is no such image.
    #[must_use]
    pub fn reference(&self, name: &str) -> &str {
        let wanted = format!("/{name}@");
        let found = self.references.iter().find(|it| it.contains(&wanted));
        found.unwrap_or_else(|| panic!("there is no image `{name}` in {:?}", self.references))
    }
}
