//! What the arguments mean.

use anyhow::{Context as _, Result};
use exeat_inject::{Durability, Image, PullPolicy};

use crate::args::Arguments;

/// What admission needs to know.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) inject: exeat_inject::Settings,
}

// === impl Settings ===

impl Settings {
    /// Refuses what no pod could run with, for one an image that its name does not pin.
    pub(crate) fn new(arguments: &Arguments) -> Result<Self> {
        let image = |text: &str, flag: &str| Image::parse(text).with_context(|| flag.to_owned());
        let mut inject = exeat_inject::Settings::new(
            image(&arguments.sidecar_image, "--sidecar-image")?,
            image(&arguments.init_image, "--init-image")?,
        );
        inject.pull_policy =
            PullPolicy::parse(&arguments.image_pull_policy).context("--image-pull-policy")?;
        inject.otlp.clone_from(&arguments.otlp);
        inject.name_servers.clone_from(&arguments.nameserver);
        inject.upstream_ca = arguments.upstream_ca;
        inject.require_run_as_user = arguments.require_run_as_user;
        inject.durability = arguments
            .durability
            .as_deref()
            .map(Durability::parse)
            .transpose()
            .context("--durability")?;
        Ok(Self { inject })
    }
}
