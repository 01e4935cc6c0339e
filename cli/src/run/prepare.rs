//! Everything that can be refused before anything is started.
//!
//! The files a run was given are looked at once: what is missing, unreadable, not understood, or
//! could be changed by the command in spite of all covers, ends the run here.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use exeat_policy::{Diagnostics, Source};
use rustix::fs::{Access, AtFlags, CWD};

use super::files::{PUBLIC, Plan};
use super::trust::{self, Places};
use super::{Arguments, Durability};

/// A policy of ten thousand rules is a megabyte.
pub(super) const MAX_POLICY: u64 = 16 << 20;

/// What a run needs to know.
#[derive(Debug)]
pub(super) struct Prepared {
    /// The gate's own folder; gone when this is dropped.
    pub(super) private: tempfile::TempDir,
    /// Where the command is to run.
    pub(super) folder: PathBuf,
    pub(super) policies: Vec<PathBuf>,
    pub(super) labels: Option<BTreeMap<String, String>>,
    pub(super) audit: PathBuf,
    pub(super) durability: Durability,
    pub(super) credentials: BTreeMap<String, PathBuf>,
    pub(super) upstream_ca: Vec<PathBuf>,
    /// Folders in which the command may change nothing.
    pub(super) read_only: Vec<PathBuf>,
    pub(super) resolve: Vec<(exeat_policy::Host, std::net::IpAddr)>,
    pub(super) otlp: Option<String>,
    pub(super) places: Places,
    /// What a person should know before it starts.
    pub(super) remarks: Vec<String>,
}

/// Why a run can't be started.
#[derive(Debug, thiserror::Error)]
pub(super) enum PrepareError {
    #[error("{what} `{}` can't be used: {error}", path.display())]
    Unusable {
        what: &'static str,
        path: PathBuf,
        error: io::Error,
    },
    #[error("{what} `{}` is not a regular file", path.display())]
    NotAFile { what: &'static str, path: PathBuf },
    #[error(
        "{what} `{}` has other names (hard links), through which the command could reach it\n  \
         hint: give the run a copy of it",
        path.display()
    )]
    OtherNames { what: &'static str, path: PathBuf },
    #[error("the policy `{}` is larger than {MAX_POLICY} bytes", .0.display())]
    TooLarge(PathBuf),
    #[error("the policy is not understood\n{0}")]
    Policy(Diagnostics),
    #[error("the credential `{0}` is given twice")]
    Twice(String),
    #[error("the label `{0}` is given twice")]
    LabelTwice(String),
    #[error("the working folder can't be told: {0}")]
    Folder(io::Error),
    #[error("a folder for the gate's own files could not be made: {0}\n  hint: set TMPDIR")]
    Private(io::Error),
}

// === impl Prepared ===

impl Prepared {
    pub(super) fn new(arguments: &Arguments) -> Result<Self, PrepareError> {
        let folder = std::env::current_dir().map_err(PrepareError::Folder)?;
        let policies = real_files("the policy", &arguments.policy)?;
        let labels = labels(&arguments.label)?;
        let plan = compile(&arguments.policy, labels.as_ref())?;

        let mut credentials = BTreeMap::new();
        for (name, file) in &arguments.credential {
            let file = real_file("the credential file", file)?;
            if credentials.insert(name.clone(), file).is_some() {
                return Err(PrepareError::Twice(name.clone()));
            }
        }
        let remarks = remarks(&plan, &credentials);
        let upstream_ca = real_files("the certificate file", &arguments.upstream_ca)?;

        let read_only = folders(&arguments.read_only)?;

        let private = tempfile::Builder::new()
            .prefix("exeat-")
            .tempdir()
            .map_err(PrepareError::Private)?;
        fs::create_dir(private.path().join(PUBLIC)).map_err(PrepareError::Private)?;
        let audit = match &arguments.audit {
            Some(path) => journal(path)?,
            None => private.path().join("journal.jsonl"),
        };
        Ok(Self {
            private,
            folder,
            policies,
            labels,
            audit,
            durability: arguments.durability,
            credentials,
            upstream_ca,
            read_only,
            resolve: arguments.resolve.clone(),
            otlp: arguments.otlp.clone(),
            places: Places::find(),
            remarks,
        })
    }

    /// Writes what the command may read of the gate.
    pub(super) fn publish(&self, ca: &str) -> io::Result<()> {
        let public = self.private.path().join(PUBLIC);
        trust::write(&public, ca, &self.upstream_ca, &self.places)
    }

    /// What is to be protected from the command, once the gate has made its journal.
    pub(super) fn files(&self) -> io::Result<Plan> {
        let private = fs::canonicalize(self.private.path())?;
        let mut hidden: Vec<_> = self.credentials.values().cloned().collect();
        if !self.audit.starts_with(self.private.path()) {
            hidden.push(fs::canonicalize(&self.audit)?);
        }
        let mut emptied = self.folders_of_secrets();
        emptied.sort();
        emptied.dedup();
        hidden.retain(|file| !emptied.iter().any(|folder| file.starts_with(folder)));
        hidden.sort();
        hidden.dedup();
        let mut read_only = [
            &self.read_only[..],
            &self.policies[..],
            &self.upstream_ca[..],
        ]
        .concat();
        read_only.sort();
        read_only.dedup();
        Ok(Plan {
            private,
            pinned: pinned(hidden.iter().chain(&read_only).chain(&emptied)),
            emptied,
            hidden,
            read_only,
            replaced: self.places.replaced.clone(),
        })
    }
}

// Whole folders that can be hidden.
impl Prepared {
    /// The folders of credentials that hold nothing else, names beginning with a dot aside (which is
    /// how tools name a file before they rename it), and that nothing else needs.
    fn folders_of_secrets(&self) -> Vec<PathBuf> {
        let mut needed = vec![self.folder.clone(), std::env::temp_dir()];
        needed.extend(std::env::home_dir());
        needed.extend(
            [
                &self.policies[..],
                &self.read_only[..],
                &self.upstream_ca[..],
            ]
            .concat(),
        );
        needed.push(self.audit.clone());
        needed.push(self.private.path().to_owned());
        let secrets: Vec<&PathBuf> = self.credentials.values().collect();
        let only_secrets = |folder: &Path| {
            fs::read_dir(folder).is_ok_and(|mut entries| {
                entries.all(|entry| {
                    entry.is_ok_and(|entry| {
                        entry.file_name().as_encoded_bytes().starts_with(b".")
                            || secrets.iter().any(|secret| **secret == entry.path())
                    })
                })
            })
        };
        let folders = secrets.iter().filter_map(|secret| secret.parent());
        folders
            .filter(|folder| !needed.iter().any(|path| path.starts_with(folder)))
            .filter(|folder| only_secrets(folder))
            .map(Path::to_owned)
            .collect()
    }
}

/// The folders above `files` that the command could rename, from the root downwards.
fn pinned<'a>(files: impl Iterator<Item = &'a PathBuf>) -> Vec<PathBuf> {
    let mut folders: Vec<_> = files
        .flat_map(|file| file.ancestors().skip(1))
        // Renaming a folder takes the right to write into the one above it.
        .filter(|folder| {
            folder.parent().is_some_and(|above| {
                rustix::fs::accessat(CWD, above, Access::WRITE_OK, AtFlags::EACCESS).is_ok()
            })
        })
        .map(Path::to_owned)
        .collect();
    folders.sort();
    folders.dedup();
    folders
}

fn compile(
    files: &[PathBuf],
    labels: Option<&BTreeMap<String, String>>,
) -> Result<exeat_policy::Plan, PrepareError> {
    let sources = files
        .iter()
        .map(|path| {
            let unusable = |error| PrepareError::Unusable {
                what: "the policy",
                path: path.clone(),
                error,
            };
            if fs::metadata(path).map_err(unusable)?.len() > MAX_POLICY {
                return Err(PrepareError::TooLarge(path.clone()));
            }
            let text = fs::read_to_string(path).map_err(unusable)?;
            Ok(Source::new(path.display().to_string(), text))
        })
        .collect::<Result<Vec<_>, _>>()?;
    exeat_policy::compile(&sources, labels, 1).map_err(PrepareError::Policy)
}

fn remarks(plan: &exeat_policy::Plan, files: &BTreeMap<String, PathBuf>) -> Vec<String> {
    let wanted: Vec<_> = plan
        .credentials()
        .iter()
        .map(|it| it.name.to_string())
        .collect();
    let missing = wanted
        .iter()
        .filter(|name| !files.contains_key(*name))
        .map(|name| {
            format!(
                "no --credential {name}=FILE was given: calls that want this credential are refused"
            )
        });
    let unknown = files
        .keys()
        .filter(|name| !wanted.contains(name))
        .map(|name| {
            format!("no policy has a credential named {name}: its file is hidden, and not used")
        });
    missing.chain(unknown).collect()
}

fn labels(given: &[(String, String)]) -> Result<Option<BTreeMap<String, String>>, PrepareError> {
    let mut labels = BTreeMap::new();
    for (key, value) in given {
        if labels.insert(key.clone(), value.clone()).is_some() {
            return Err(PrepareError::LabelTwice(key.clone()));
        }
    }
    Ok((!labels.is_empty()).then_some(labels))
}

fn folders(paths: &[PathBuf]) -> Result<Vec<PathBuf>, PrepareError> {
    paths
        .iter()
        .map(|path| {
            let unusable = |error| PrepareError::Unusable {
                what: "the folder",
                path: path.clone(),
                error,
            };
            let real = fs::canonicalize(path).map_err(unusable)?;
            if !real.is_dir() {
                return Err(unusable(io::ErrorKind::NotADirectory.into()));
            }
            Ok(real)
        })
        .collect()
}

fn real_files(what: &'static str, paths: &[PathBuf]) -> Result<Vec<PathBuf>, PrepareError> {
    paths.iter().map(|path| real_file(what, path)).collect()
}

/// Where a file really is, if it can be read and has no other name.
fn real_file(what: &'static str, path: &Path) -> Result<PathBuf, PrepareError> {
    let unusable = |error| PrepareError::Unusable {
        what,
        path: path.to_owned(),
        error,
    };
    let real = fs::canonicalize(path).map_err(unusable)?;
    let found = fs::metadata(&real).map_err(unusable)?;
    if !found.is_file() {
        let path = path.to_owned();
        return Err(PrepareError::NotAFile { what, path });
    }
    fs::File::open(&real).map_err(unusable)?;
    if found.nlink() > 1 {
        let path = path.to_owned();
        return Err(PrepareError::OtherNames { what, path });
    }
    Ok(real)
}

/// Where the journal is or will be.
fn journal(path: &Path) -> Result<PathBuf, PrepareError> {
    let what = "the journal";
    let unusable = |error| PrepareError::Unusable {
        what,
        path: path.to_owned(),
        error,
    };
    if path.exists() {
        return real_file(what, path);
    }
    let name = path
        .file_name()
        .ok_or_else(|| unusable(io::ErrorKind::InvalidInput.into()))?;
    let above = match path.parent() {
        Some(above) if above != Path::new("") => above,
        _ => Path::new("."),
    };
    Ok(fs::canonicalize(above).map_err(unusable)?.join(name))
}
