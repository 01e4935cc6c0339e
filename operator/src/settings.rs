//! What the arguments mean.

use crate::args::Arguments;

/// What admission needs to know.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) inject: exeat_inject::Settings,
}

// === impl Settings ===

impl Settings {
    /// Refuses what no pod could run with.
    pub(crate) fn new(arguments: &Arguments) -> anyhow::Result<Self> {
        let _ = arguments;
        Ok(Self {
            inject: exeat_inject::Settings::default(),
        })
    }
}
