//! Secrets from files, and nothing about them to see.
//!
//! A credential is a file: one of a folder, by the credential's name (as kubelet mounts a Secret),
//! or one that was named. The files are read at the start and again when they change; a request
//! gets the value of its moment, with a version, so that connections opened under an older one are
//! not reused. In doubt there is no secret: missing, empty, oversize or malformed files are errors
//! which name the file and never what is in it, and a file that is gone takes its secret along.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use secrecy::{ExposeSecret, SecretBox, SecretString};
use zeroize::Zeroizing;

use crate::process::held::{Folder, HeldFile, ReadError};
use crate::process::watch::{Watch, watch};

/// No token is longer; a larger file is a mistake, and would not fit a header.
pub const MAX_SECRET_BYTES: usize = 64 * 1024;

/// A Kubernetes Secret holds a megabyte at most; so many keys of it are looked at.
const MAX_SECRETS: usize = 256;

/// The entry under which kubelet keeps the current content of a mounted volume.
const KUBELET_DATA: &str = "..data";

/// One secret as it was at one moment. It has no printable form.
pub struct Secret {
    value: SecretString,
    version: u64,
}

/// All the secrets of the gate.
pub struct Credentials {
    folder: Option<Folder>,
    files: BTreeMap<String, HeldFile>,
    loaded: ArcSwap<Loaded>,
    next_version: AtomicU64,
}

type Loaded = BTreeMap<String, Result<Arc<Secret>, CredentialError>>;

/// Why a credential can't be used. Never says what a file holds.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CredentialError {
    /// Nothing was given for that name.
    #[error("there is no file for the credential `{name}`{}", in_folder(folder.as_deref()))]
    Unknown {
        /// The credential.
        name: String,
        /// Where it was looked for.
        folder: Option<PathBuf>,
    },
    /// The file can't be read.
    #[error("the credential `{name}` cannot be read: {cause}")]
    Unreadable {
        /// The credential.
        name: String,
        /// What went wrong.
        cause: ReadError,
    },
    /// The file is empty.
    #[error("the file `{}` of the credential `{name}` is empty", path.display())]
    Empty {
        /// The credential.
        name: String,
        /// Its file.
        path: PathBuf,
    },
    /// The file holds what no header can carry.
    #[error(
        "the file `{}` of the credential `{name}` is not one line of text without control \
         characters or surrounding spaces",
        path.display()
    )]
    Malformed {
        /// The credential.
        name: String,
        /// Its file.
        path: PathBuf,
    },
    /// The folder of the credentials can't be opened.
    #[error("the folder of credentials cannot be used: {0}")]
    Folder(ReadError),
}

// === impl Secret ===

impl Secret {
    /// The secret itself. Only what puts it into a request may ask.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "the one door, which authorize.rs alone goes through"
    )]
    pub fn expose(&self) -> &str {
        self.value.expose_secret()
    }

    /// Differs between any two values that this process ever read.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not even the length.
        write!(f, "Secret(version {})", self.version)
    }
}

// === impl Credentials ===

impl Credentials {
    /// The secrets of `dir` (a file for each) and of `files`, which come first.
    ///
    /// A folder that can't be opened is an error at once; a file that can't be used is one when its
    /// secret is asked for, and told in the log now.
    pub fn new(
        dir: Option<PathBuf>,
        files: BTreeMap<String, PathBuf>,
    ) -> Result<Self, CredentialError> {
        let folder = dir
            .map(|dir| Folder::open(&dir).map_err(CredentialError::Folder))
            .transpose()?;
        let files = files
            .into_iter()
            .map(|(name, path)| match HeldFile::open(&path) {
                Ok(file) => Ok((name, file)),
                Err(cause) => Err(CredentialError::Unreadable { name, cause }),
            })
            .collect::<Result<_, _>>()?;
        let credentials = Self {
            folder,
            files,
            loaded: ArcSwap::default(),
            next_version: AtomicU64::new(1),
        };
        credentials.reload();
        Ok(credentials)
    }

    /// The secret of that name, as it is now.
    pub fn get(&self, name: &str) -> Result<Arc<Secret>, CredentialError> {
        match self.loaded.load().get(name) {
            Some(result) => result.clone(),
            None => Err(CredentialError::Unknown {
                name: name.to_owned(),
                folder: self.folder.as_ref().map(|folder| folder.path().to_owned()),
            }),
        }
    }

    /// Why secrets that have a file can't be used, for people.
    #[must_use]
    pub fn problems(&self) -> Vec<CredentialError> {
        let loaded = self.loaded.load();
        loaded
            .values()
            .filter_map(|one| one.as_ref().err().cloned())
            .collect()
    }

    /// Reads all files again; values that did not change keep their version.
    #[expect(
        clippy::disallowed_methods,
        reason = "compared with the value before, and neither leaves this function"
    )]
    pub fn reload(&self) {
        let before = self.loaded.load_full();
        let mut loaded = Loaded::new();
        for (name, raw) in self.read_all() {
            let result = raw
                .and_then(|(raw, path)| check(&name, &raw, &path))
                .map(|value| match before.get(&name) {
                    Some(Ok(old)) if old.expose() == value.expose_secret() => Arc::clone(old),
                    _ => {
                        let version = self.next_version.fetch_add(1, Ordering::Relaxed);
                        Arc::new(Secret { value, version })
                    }
                });
            if let Err(error) = &result
                && before.get(&name) != Some(&Err(error.clone()))
            {
                tracing::warn!(%error, "a credential cannot be used; calls that need it are denied");
            }
            loaded.insert(name, result);
        }
        self.loaded.store(Arc::new(loaded));
    }

    /// Reads the files again whenever they change, for as long as the result is kept.
    #[must_use]
    pub fn watch(self: &Arc<Self>) -> Watch {
        let folder = self.folder.iter().map(Folder::live_path);
        let files = self.files.values().map(|file| file.folder().live_path());
        let folders: Vec<PathBuf> = folder.chain(files).collect();
        let credentials = Arc::clone(self);
        watch("credentials", &folders, move || {
            credentials.reload();
        })
    }

    #[allow(clippy::type_complexity)]
    fn read_all(&self) -> BTreeMap<String, Result<(Zeroizing<Vec<u8>>, PathBuf), CredentialError>> {
        let mut all = BTreeMap::new();
        if let Some(folder) = &self.folder {
            // One link is read, then all files of the folder behind it: never half of a swap.
            let data = folder.enter(OsStr::new(KUBELET_DATA));
            let folder = data.as_ref().unwrap_or(folder);
            let names = folder.names().unwrap_or_else(|error| {
                tracing::warn!(%error, "the folder of credentials cannot be listed");
                Vec::new()
            });
            let plain = names.iter().filter_map(|name| name.to_str());
            for name in plain
                .filter(|name| !name.starts_with('.'))
                .take(MAX_SECRETS)
            {
                let read = folder.read(OsStr::new(name), MAX_SECRET_BYTES);
                if matches!(read, Err(ReadError::NotAFile(_))) {
                    continue;
                }
                let path = folder.path().join(name);
                all.insert(name.to_owned(), found(name, read, path));
            }
        }
        for (name, file) in &self.files {
            let read = file.read(MAX_SECRET_BYTES);
            all.insert(name.clone(), found(name, read, file.path().to_owned()));
        }
        all
    }
}

fn found(
    name: &str,
    read: Result<Vec<u8>, ReadError>,
    path: PathBuf,
) -> Result<(Zeroizing<Vec<u8>>, PathBuf), CredentialError> {
    match read {
        Ok(raw) => Ok((Zeroizing::new(raw), path)),
        Err(cause) => Err(CredentialError::Unreadable {
            name: name.to_owned(),
            cause,
        }),
    }
}

/// The secret in what a file holds: without the line's end that editors add.
fn check(name: &str, raw: &[u8], path: &Path) -> Result<SecretString, CredentialError> {
    let (name, path) = (name.to_owned(), path.to_owned());
    let Ok(text) = std::str::from_utf8(raw) else {
        return Err(CredentialError::Malformed { name, path });
    };
    let text = text.trim_end_matches(['\r', '\n']);
    if text.is_empty() {
        return Err(CredentialError::Empty { name, path });
    }
    if text.contains(char::is_control) || text.trim() != text {
        return Err(CredentialError::Malformed { name, path });
    }
    Ok(SecretBox::new(Box::from(text)))
}

fn in_folder(folder: Option<&Path>) -> String {
    match folder {
        Some(folder) => format!(" in `{}`", folder.display()),
        None => "; was `--credential NAME=FILE` or `--credentials-dir` forgotten?".to_owned(),
    }
}

// Errors are compared to tell new ones from old; secrets are equal only as one and the same.
impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.version == other.version
    }
}

impl Eq for Secret {}

#[cfg(test)]
mod tests;
