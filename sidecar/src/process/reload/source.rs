//! The files that policies are read from.
//!
//! Bounded in number and size; a file that is no text, or is too large, is an error and not a
//! smaller policy.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use exeat_policy::bundle::{self, Bundle, BundleError};
use exeat_policy::{Diagnostics, Plan, Source, compile};
use flate2::read::GzDecoder;

use super::{Labels, PolicySource, labels};
use crate::process::held::{Folder, HeldFile, ReadError};

/// A `ConfigMap` holds a megabyte at most.
const MAX_FILE_BYTES: usize = 1 << 20;

/// All policies together; past this, compiling would take longer than anyone means it to.
const MAX_TOTAL_BYTES: usize = 4 << 20;

/// So many policy files are read.
const MAX_FILES: usize = 256;

/// Labels and their values are 63 characters each; this is room for a few hundred.
const MAX_LABEL_BYTES: usize = 64 * 1024;

/// The entry under which kubelet keeps the current content of a mounted volume.
const KUBELET_DATA: &str = "..data";

/// Why the files of a policy can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// A file or folder can't be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A file holds other bytes than text.
    #[error("`{}` is not UTF-8 text", .0.display())]
    NotText(PathBuf),
    /// More than a policy can sensibly be.
    #[error("`{}` holds too many or too large policies (at most {MAX_FILES} files and {MAX_TOTAL_BYTES} bytes)", .0.display())]
    TooMuch(PathBuf),
    /// A line of the labels file is none.
    #[error("line {line} of `{}` is no label: `key=\"value\"` is expected", path.display())]
    Label {
        /// The file.
        path: PathBuf,
        /// Which line, from one.
        line: usize,
    },
    /// The operator's bundle can't be used.
    #[error("`{}` cannot be used: {cause}", path.display())]
    Bundle {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: BundleError,
    },
    /// It is no gzip, or one that would unpack to more than any bundle is.
    #[error("`{}` cannot be unpacked: {cause}", path.display())]
    Unpack {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// Both of the operator's making and by hand: which of them counts, nobody said.
    #[error("`{}` holds a bundle and policy files; remove one of them", .0.display())]
    Both(PathBuf),
    /// There is nothing to read a policy from.
    #[error("{0}")]
    NoPolicy(String),
}

/// The folders and files of a [`PolicySource`], opened once and held on to.
pub(super) struct Held {
    policies: HeldPolicies,
    given: Option<BTreeMap<String, String>>,
    labels: Option<HeldFile>,
}

enum HeldPolicies {
    Files(Vec<HeldFile>),
    Directory(Folder),
}

/// What the files said at one moment.
pub(super) struct Content {
    pub(super) policies: Written,
    pub(super) labels: Option<BTreeMap<String, String>>,
}

/// Policies as they were found.
pub(super) enum Written {
    /// Files.
    Sources(Vec<Source>),
    /// The operator's bundle, checked.
    Bundle(Bundle),
}

// === impl Written ===

impl Written {
    fn is_empty(&self) -> bool {
        match self {
            Self::Sources(sources) => sources.iter().all(|source| source.text.trim().is_empty()),
            Self::Bundle(_) => false,
        }
    }

    pub(super) fn count(&self) -> usize {
        match self {
            Self::Sources(sources) => sources.len(),
            Self::Bundle(bundle) => bundle.policies().len() + bundle.guardrails().len(),
        }
    }

    pub(super) fn compile(
        &self,
        labels: Option<&BTreeMap<String, String>>,
        generation: u64,
    ) -> Result<Plan, Diagnostics> {
        match self {
            Self::Sources(sources) => compile(sources, labels, generation),
            Self::Bundle(bundle) => bundle.compile(labels, generation),
        }
    }
}

// === impl Held ===

impl Held {
    pub(super) fn open(source: &PolicySource, labels: Labels) -> Result<Self, SourceError> {
        let policies = match source {
            PolicySource::Files(paths) => HeldPolicies::Files(
                paths
                    .iter()
                    .map(|path| HeldFile::open(path))
                    .collect::<Result<_, _>>()?,
            ),
            PolicySource::Directory(path) => HeldPolicies::Directory(Folder::open(path)?),
        };
        let file = labels.file.map(|path| HeldFile::open(&path)).transpose()?;
        Ok(Self {
            policies,
            given: labels.given,
            labels: file,
        })
    }

    /// The policies and labels as they are now; `None` if there is no policy.
    pub(super) fn read(&self) -> Result<Option<Content>, SourceError> {
        let policies = match &self.policies {
            HeldPolicies::Files(files) => Written::Sources(from_files(files)?),
            HeldPolicies::Directory(folder) => from_folder(folder)?,
        };
        if policies.is_empty() {
            return Ok(None);
        }
        let labels = self.read_labels()?;
        Ok(Some(Content { policies, labels }))
    }

    /// Where to look for changes.
    pub(super) fn folders(&self) -> Vec<PathBuf> {
        let mut folders: Vec<PathBuf> = match &self.policies {
            HeldPolicies::Files(files) => {
                files.iter().map(|file| file.folder().live_path()).collect()
            }
            HeldPolicies::Directory(folder) => vec![folder.live_path()],
        };
        folders.extend(self.labels.iter().map(|file| file.folder().live_path()));
        folders
    }

    /// How it is told that there is no policy.
    pub(super) fn gone(&self) -> String {
        match &self.policies {
            HeldPolicies::Files(files) => {
                let missing = files.iter().find(|file| file.read(MAX_FILE_BYTES).is_err());
                match missing.or(files.first()) {
                    Some(file) => {
                        format!(
                            "the policy `{}` does not exist or is empty",
                            file.path().display()
                        )
                    }
                    None => "no policy file is given".to_owned(),
                }
            }
            HeldPolicies::Directory(folder) => {
                format!("there is no policy in `{}`", folder.path().display())
            }
        }
    }

    /// With a labels file there are always labels, if none in it: a pod whose labels are not known
    /// yet is selected only by policies that select every pod.
    fn read_labels(&self) -> Result<Option<BTreeMap<String, String>>, SourceError> {
        let Some(file) = &self.labels else {
            return Ok(self.given.clone());
        };
        let mut all = self.given.clone().unwrap_or_default();
        match file.read(MAX_LABEL_BYTES) {
            Ok(bytes) => {
                let path = file.path();
                let parsed = labels::parse(&text(bytes, path)?);
                let path = path.to_owned();
                all.extend(parsed.map_err(|line| SourceError::Label { path, line })?);
            }
            Err(error) if error.is_missing() => {}
            Err(error) => return Err(error.into()),
        }
        Ok(Some(all))
    }
}

/// All files, or none if one of them is gone: what it denied must not come to be allowed.
fn from_files(files: &[HeldFile]) -> Result<Vec<Source>, SourceError> {
    let mut sources = Vec::with_capacity(files.len());
    let mut total = 0;
    for file in files {
        match file.read(MAX_FILE_BYTES) {
            Ok(bytes) if bytes.trim_ascii().is_empty() => return Ok(Vec::new()),
            Ok(bytes) => push(&mut sources, &mut total, bytes, file.path())?,
            Err(error) if error.is_missing() => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(sources)
}

/// The policies of a folder. Where kubelet keeps it, `..data` is read once and everything behind it,
/// so that what is read is never half of a swap.
fn from_folder(folder: &Folder) -> Result<Written, SourceError> {
    let data = match folder.enter(OsStr::new(KUBELET_DATA)) {
        Ok(data) => Some(data),
        Err(error) if error.is_missing() => None,
        Err(error) => return Err(error.into()),
    };
    let inner = data.as_ref().unwrap_or(folder);
    let mut sources = Vec::new();
    let mut total = 0;
    let names = inner.names()?;
    if names.iter().any(|name| name == bundle::FILE_NAME) {
        if names.iter().any(|name| is_policy(name)) {
            return Err(SourceError::Both(folder.path().to_owned()));
        }
        return from_bundle(inner, &folder.path().join(bundle::FILE_NAME));
    }
    for name in names {
        if !is_policy(&name) {
            continue;
        }
        let shown = folder.path().join(&name);
        match inner.read(&name, MAX_FILE_BYTES) {
            Ok(bytes) => push(&mut sources, &mut total, bytes, &shown)?,
            // Gone since it was listed: a look later, it is not in the list either.
            Err(error) if error.is_missing() => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Written::Sources(sources))
}

/// The operator's bundle. What it unpacks to is counted while it is unpacked: a few kilobytes of gzip
/// can hold gigabytes.
fn from_bundle(folder: &Folder, shown: &Path) -> Result<Written, SourceError> {
    let packed = folder.read(OsStr::new(bundle::FILE_NAME), MAX_FILE_BYTES)?;
    let most = u64::try_from(bundle::MAX_BYTES).unwrap_or(u64::MAX);
    let mut bytes = Vec::new();
    GzDecoder::new(packed.as_slice())
        .take(most.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(|error| SourceError::Unpack {
            path: shown.to_owned(),
            cause: error.to_string(),
        })?;
    match Bundle::read(&bytes) {
        Ok(bundle) => Ok(Written::Bundle(bundle)),
        Err(cause) => Err(SourceError::Bundle {
            path: shown.to_owned(),
            cause,
        }),
    }
}

fn push(
    sources: &mut Vec<Source>,
    total: &mut usize,
    bytes: Vec<u8>,
    path: &Path,
) -> Result<(), SourceError> {
    *total += bytes.len();
    if sources.len() == MAX_FILES || *total > MAX_TOTAL_BYTES {
        return Err(SourceError::TooMuch(path.to_owned()));
    }
    sources.push(Source {
        name: path.display().to_string(),
        text: text(bytes, path)?,
    });
    Ok(())
}

fn text(bytes: Vec<u8>, path: &Path) -> Result<String, SourceError> {
    String::from_utf8(bytes).map_err(|_| SourceError::NotText(path.to_owned()))
}

/// Hidden files are editors' leftovers and kubelet's own.
fn is_policy(name: &OsStr) -> bool {
    let path = Path::new(name);
    let hidden = name.to_str().is_none_or(|name| name.starts_with('.'));
    let known = path.extension().and_then(OsStr::to_str);
    !hidden && matches!(known, Some("yaml" | "yml" | "json"))
}
