//! Secrets from files, and nothing about them to see.
//!
//! A credential is a file: one of a folder, by the credential's name (as kubelet mounts a Secret),
//! or one that was named. The files are read at the start and again when they change; a request
//! gets the value of its moment, with a version, so that connections opened under an older one are
//! not reused. In doubt there is no secret: missing, empty, oversize or malformed files are errors
//! which name the file and never what is in it, and a file that is gone takes its secret along.
//!
//! Where the operator fills the folder, it says beside the secrets what each was given for; then a
//! secret is only used for that ([`exeat_policy::sources`]).

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::{ArcSwap, ArcSwapOption};
use aws_lc_rs::hmac;
use exeat_policy::credential::key;
use exeat_policy::sources::{self, Mismatch, Sources};
use exeat_policy::status::KEY_FILE;
use exeat_policy::{Credential, Host};
use secrecy::{ExposeSecret, SecretBox, SecretString};
use zeroize::Zeroizing;

use crate::process::held::{Folder, HeldFile, ReadError};
use crate::process::watch::{Watch, watch};

/// No token is longer; a larger file is a mistake, and would not fit a header.
pub const MAX_SECRET_BYTES: usize = 64 * 1024;

/// A Kubernetes Secret holds a megabyte at most; so many keys of it are looked at.
const MAX_SECRETS: usize = 256;

/// A few hundred bytes for each secret; more than a Kubernetes Secret holds is none.
const MAX_SOURCES_BYTES: usize = 1 << 20;

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
    /// What signs the gate's answers about itself. Never a credential.
    status_key: ArcSwapOption<hmac::Key>,
    next_version: AtomicU64,
}

/// What the files held at one moment.
#[derive(Default)]
struct Loaded {
    secrets: BTreeMap<String, Result<Arc<Secret>, CredentialError>>,
    /// What the operator says about those of the folder; absent where nobody but people fill it.
    sources: Option<Result<Sources, CredentialError>>,
}

/// A file's content, and where it is.
type Raw = (Zeroizing<Vec<u8>>, PathBuf);

/// Files as they were read.
struct Found {
    secrets: BTreeMap<String, Result<Raw, CredentialError>>,
    sources: Option<Result<Sources, CredentialError>>,
}

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
    /// What the operator says about the secrets can't be read, so none of them is used.
    #[error("`{}` cannot be used: {cause}", path.display())]
    Sources {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// The secret was given for something else.
    #[error("credential `{name}`: {cause}")]
    Mismatch {
        /// The credential.
        name: String,
        /// What it was given for.
        cause: Mismatch,
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
            status_key: ArcSwapOption::empty(),
            next_version: AtomicU64::new(1),
        };
        credentials.reload();
        Ok(credentials)
    }

    /// The secret of that name, as it is now.
    pub fn get(&self, name: &str) -> Result<Arc<Secret>, CredentialError> {
        match self.loaded.load().secrets.get(name) {
            Some(result) => result.clone(),
            None => Err(self.unknown(name)),
        }
    }

    /// The secret of a policy's credential, to be sent to `host`: in the pod's own Secret it has the
    /// policy's name before its own, in one that was mounted by hand it may stand alone. `policy` may
    /// have its namespace before it. One of the folder must be what the operator says it is, if it
    /// says anything; a file that was named (`--credential`) is nobody's but who named it.
    pub fn of(
        &self,
        policy: &str,
        credential: &Credential,
        host: &Host,
    ) -> Result<Arc<Secret>, CredentialError> {
        let loaded = self.loaded.load();
        let policy = policy.rsplit('/').next().unwrap_or(policy);
        let full = key(policy, &credential.name);
        let (at, secret) = [full.as_str(), &credential.name]
            .into_iter()
            .find_map(|at| Some((at, loaded.secrets.get(at)?)))
            .unzip();
        let at = at.unwrap_or(&full);
        match &loaded.sources {
            Some(sources) if !self.files.contains_key(at) => sources
                .as_ref()
                .map_err(Clone::clone)?
                .check(at, &credential.secret, host)
                .map_err(|cause| CredentialError::Mismatch {
                    name: credential.name.to_string(),
                    cause,
                })?,
            Some(_) | None => {}
        }
        secret.map_or_else(|| Err(self.unknown(&credential.name)), Clone::clone)
    }

    fn unknown(&self, name: &str) -> CredentialError {
        CredentialError::Unknown {
            name: name.to_owned(),
            folder: self.folder.as_ref().map(|folder| folder.path().to_owned()),
        }
    }

    /// What signs the gate's answers about itself, if the folder holds such a key.
    #[must_use]
    pub fn status_key(&self) -> Option<Arc<hmac::Key>> {
        self.status_key.load_full()
    }

    /// Why secrets that have a file can't be used, for people.
    #[must_use]
    pub fn problems(&self) -> Vec<CredentialError> {
        let loaded = self.loaded.load();
        let sources = loaded.sources.iter().filter_map(|one| one.as_ref().err());
        loaded
            .secrets
            .values()
            .filter_map(|one| one.as_ref().err())
            .chain(sources)
            .cloned()
            .collect()
    }

    /// Reads all files again; values that did not change keep their version.
    #[expect(
        clippy::disallowed_methods,
        reason = "compared with the value before, and neither leaves this function"
    )]
    pub fn reload(&self) {
        let before = self.loaded.load_full();
        let found = self.read_all();
        let mut loaded = Loaded {
            secrets: BTreeMap::new(),
            sources: found.sources,
        };
        if let Some(Err(error)) = &loaded.sources
            && !matches!(&before.sources, Some(Err(old)) if old == error)
        {
            tracing::warn!(%error, "no credential can be used; calls that need one are denied");
        }
        for (name, raw) in found.secrets {
            let result = raw
                .and_then(|(raw, path)| check(&name, &raw, &path))
                .map(|value| match before.secrets.get(&name) {
                    Some(Ok(old)) if old.expose() == value.expose_secret() => Arc::clone(old),
                    _ => {
                        let version = self.next_version.fetch_add(1, Ordering::Relaxed);
                        Arc::new(Secret { value, version })
                    }
                });
            if let Err(error) = &result
                && before.secrets.get(&name) != Some(&Err(error.clone()))
            {
                tracing::warn!(%error, "a credential cannot be used; calls that need it are denied");
            }
            loaded.secrets.insert(name, result);
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

    fn read_all(&self) -> Found {
        let mut all = BTreeMap::new();
        let mut sources = None;
        if let Some(folder) = &self.folder {
            // One link is read, then all files of the folder behind it: never half of a swap.
            let data = folder.enter(OsStr::new(KUBELET_DATA));
            let folder = data.as_ref().unwrap_or(folder);
            let names = folder.names().unwrap_or_else(|error| {
                tracing::warn!(%error, "the folder of credentials cannot be listed");
                Vec::new()
            });
            let plain = names.iter().filter_map(|name| name.to_str());
            self.status_key.store(read_status_key(folder).map(Arc::new));
            sources = read_sources(folder);
            for name in plain
                .filter(|name| !name.starts_with('.') && ![KEY_FILE, sources::FILE].contains(name))
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
        Found {
            secrets: all,
            sources,
        }
    }
}

/// What the operator says about the secrets beside it. A file that can't be read is not one that is
/// not there.
fn read_sources(folder: &Folder) -> Option<Result<Sources, CredentialError>> {
    let failed = |cause: String| CredentialError::Sources {
        path: folder.path().join(sources::FILE),
        cause,
    };
    match folder.read(OsStr::new(sources::FILE), MAX_SOURCES_BYTES) {
        Err(error) if error.is_missing() => None,
        Err(error) => Some(Err(failed(error.to_string()))),
        Ok(text) => Some(Sources::read(&text).map_err(|error| failed(error.to_string()))),
    }
}

/// A key of 32 bytes in hexadecimal, or none: without one, no answer is signed.
fn read_status_key(folder: &Folder) -> Option<hmac::Key> {
    let read = folder.read(OsStr::new(KEY_FILE), MAX_SECRET_BYTES);
    let raw = match read {
        Ok(raw) => Zeroizing::new(raw),
        Err(error) => {
            if !error.is_missing() {
                tracing::warn!(%error, "the key for status answers cannot be read; none is given");
            }
            return None;
        }
    };
    let text = std::str::from_utf8(&raw).ok()?.trim_end();
    let mut bytes = Zeroizing::new([0_u8; 32]);
    let fits = text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
    if !fits {
        tracing::warn!("`{KEY_FILE}` is not 32 bytes in hexadecimal; no status answer is given");
        return None;
    }
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(hmac::Key::new(hmac::HMAC_SHA256, &*bytes))
}

fn found(
    name: &str,
    read: Result<Vec<u8>, ReadError>,
    path: PathBuf,
) -> Result<Raw, CredentialError> {
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
