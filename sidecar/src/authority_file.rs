//! Where clients find the pod's authority: a file that is replaced whole, never followed elsewhere.

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use anyhow::Context as _;
use exeat_sidecar::upstream::tls::SYSTEM_BUNDLES;

/// The system's roots as PEM; empty where it has none.
pub(crate) fn system_roots() -> String {
    SYSTEM_BUNDLES
        .iter()
        .find_map(|path| fs::read_to_string(path).ok())
        .unwrap_or_default()
}

/// `parts` one after the other, each ended by a line's end.
pub(crate) fn joined(parts: &[&str]) -> String {
    let mut text = String::new();
    for part in parts {
        text.push_str(part);
        if !part.is_empty() && !part.ends_with('\n') {
            text.push('\n');
        }
    }
    text
}

/// Writes `content` to `path`, world-readable, in one step. The file is made beside it first and must
/// not exist: a link that somebody put there is not followed.
pub(crate) fn write(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}", std::process::id()));
    let beside = path.with_file_name(name);
    let told = || format!("writing certificates to {}", path.display());
    drop(fs::remove_file(&beside));
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(&beside)
        .with_context(told)?;
    file.write_all(content).with_context(told)?;
    file.sync_all().with_context(told)?;
    fs::rename(&beside, path).with_context(told)
}
