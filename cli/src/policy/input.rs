//! Policy files and labels from the command line.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, bail};
use exeat_policy::Source;

/// What the compiler takes of one file; read a byte more, so that it can say so.
const MAX_POLICY: u64 = 1024 * 1024 + 1;
/// More than any rule looks at.
const MAX_BODY: u64 = 64 * 1024 * 1024;

/// Reads policy files.
pub(super) fn sources(files: &[std::path::PathBuf]) -> anyhow::Result<Vec<Source>> {
    files
        .iter()
        .map(|file| {
            let bytes = read(file, MAX_POLICY)?;
            let text = String::from_utf8(bytes)
                .with_context(|| format!("{} is not UTF-8", file.display()))?;
            Ok(Source::new(file.display().to_string(), text))
        })
        .collect()
}

/// Reads the body of a call.
pub(super) fn body(file: &Path) -> anyhow::Result<Vec<u8>> {
    read(file, MAX_BODY)
}

fn read(file: &Path, limit: u64) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let describe = || format!("can't read {}", file.display());
    File::open(file)
        .with_context(describe)?
        .take(limit)
        .read_to_end(&mut bytes)
        .with_context(describe)?;
    Ok(bytes)
}

/// `--label k=v`, none at all meaning that every policy applies.
pub(super) fn labels(given: &[String]) -> anyhow::Result<Option<BTreeMap<String, String>>> {
    if given.is_empty() {
        return Ok(None);
    }
    let mut labels = BTreeMap::new();
    for label in given {
        let Some((key, value)) = label.split_once('=') else {
            bail!("the label {label:?} is not KEY=VALUE");
        };
        labels.insert(key.to_owned(), value.to_owned());
    }
    Ok(Some(labels))
}
