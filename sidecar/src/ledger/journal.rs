//! The file: append only, one gate's alone, whole or refused.
//!
//! Opening proves the last record and cuts a torn tail; appending writes one batch or nothing. In
//! doubt the file is left as it is and the gate does not start, or does not write. Rotation, when
//! it comes, is a new `Journal` under the same `Chain`.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use nix::libc;

use super::chain::{Chain, Flaw, MAX_LINE, Sealed};
use super::line;

/// The most that one write can leave torn: a full batch of outcomes and one of decisions.
pub(super) const MAX_TORN: u64 = 2 * 1024 * 1024;

/// An open journal, proven up to its end.
#[derive(Debug)]
pub(super) struct Journal {
    file: Arc<File>,
    /// Up to here it is whole. Beyond may be the remains of a failed write.
    len: u64,
    /// A failed write could not be taken back.
    soiled: bool,
    chain: Chain,
}

/// What a torn write had left at the end, and was cut.
#[derive(Debug)]
pub(super) struct Torn {
    pub(super) bytes: u64,
    pub(super) sha256: String,
}

/// The operating system refused an append. Nothing of it is in the file.
#[derive(Debug, Clone, Copy)]
pub(super) struct AppendError(pub(super) ErrorKind);

/// The journal could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// The operating system refused.
    #[error("can't open the journal {}: {source}{}", path.display(), hint(source))]
    Open {
        /// The file.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// Not a file.
    #[error("the journal {} is not a regular file; name a file of its own for it", .0.display())]
    NotAFile(PathBuf),
    /// It has several names.
    #[error(
        "the journal {} has more than one hard link, so it can be changed under another name; \
         remove the others or start a new file",
        .0.display()
    )]
    Linked(PathBuf),
    /// Others may write to it.
    #[error(
        "the journal {} can be written by others than its owner, so it proves nothing; check it, \
         then `chmod 600` it or start a new file",
        .0.display()
    )]
    Loose(PathBuf),
    /// Another gate has it.
    #[error("the journal {} is in use by another gate; give each gate its own file", .0.display())]
    InUse(PathBuf),
    /// What is there is not a journal's end.
    #[error(
        "the journal {} is broken at its end: {what}; see `exeat audit verify`, keep the file as \
         evidence and start a new one",
        path.display()
    )]
    Broken {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The first record could not be written.
    #[error("can't write to the journal: {0}")]
    FirstRecord(super::Unrecorded),
    /// No key to sign heads with.
    #[error("can't make the key that signs the journal: the system gives no randomness")]
    Key,
    /// The thread that keeps the journal could not be started.
    #[error("can't start the journal's thread: {0}")]
    Thread(io::Error),
}

// === impl Journal ===

impl Journal {
    /// Opens or makes the file, takes its lock, proves its end.
    pub(super) fn open(path: &Path) -> Result<(Self, Option<Torn>), JournalError> {
        let refused = |source| JournalError::Open {
            path: path.to_owned(),
            source,
        };
        // Reading and writing, so that a FIFO is seen for what it is instead of waited for.
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC)
            .open(path)
            .map_err(refused)?;
        let meta = file.metadata().map_err(refused)?;
        if !meta.is_file() {
            return Err(JournalError::NotAFile(path.to_owned()));
        }
        if meta.nlink() != 1 {
            return Err(JournalError::Linked(path.to_owned()));
        }
        if meta.mode() & 0o022 != 0 {
            return Err(JournalError::Loose(path.to_owned()));
        }
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(JournalError::InUse(path.to_owned())),
            Err(TryLockError::Error(source)) => return Err(refused(source)),
        }
        // The length is read under the lock: before it another gate may still have written.
        let len = file.metadata().map_err(refused)?.len();
        if len == 0 {
            file.sync_all().map_err(refused)?;
            sync_directory(path).map_err(refused)?;
        }
        let mut journal = Self {
            file: Arc::new(file),
            len,
            soiled: false,
            chain: Chain::genesis(),
        };
        let torn = journal.recover(path)?;
        Ok((journal, torn))
    }

    /// Where the chain stands.
    pub(super) fn chain(&self) -> Chain {
        self.chain
    }

    /// How long the file is.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// For syncing and reading outside of the lock.
    pub(super) fn file(&self) -> Arc<File> {
        Arc::clone(&self.file)
    }

    /// Writes whole lines, after which the chain stands at `chain`. All of it or nothing.
    pub(super) fn append(&mut self, batch: &[u8], chain: Chain) -> Result<(), AppendError> {
        if self.soiled {
            self.restore()?;
        }
        let mut rest = batch;
        while !rest.is_empty() {
            let failed = match (&*self.file).write(rest) {
                Ok(0) => ErrorKind::WriteZero,
                Ok(written) => {
                    rest = &rest[written..];
                    continue;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => error.kind(),
            };
            // Half a batch would be taken for a torn tail, and the next for its continuation.
            if rest.len() < batch.len() {
                self.soiled = true;
                self.restore()?;
            }
            return Err(AppendError(failed));
        }
        self.len += batch.len() as u64;
        self.chain = chain;
        Ok(())
    }

    /// Whether the file is still there, and as this gate left it.
    pub(super) fn is_own(&self) -> bool {
        self.soiled
            || self
                .file
                .metadata()
                .is_ok_and(|meta| meta.nlink() == 1 && meta.len() == self.len)
    }

    /// Takes back what a failed write left.
    fn restore(&mut self) -> Result<(), AppendError> {
        self.file
            .set_len(self.len)
            .map_err(|error| AppendError(error.kind()))?;
        self.soiled = false;
        Ok(())
    }

    /// Cuts a torn tail and proves the last record.
    fn recover(&mut self, path: &Path) -> Result<Option<Torn>, JournalError> {
        let refused = |source| JournalError::Open {
            path: path.to_owned(),
            source,
        };
        let broken = |what: String| JournalError::Broken {
            path: path.to_owned(),
            what,
        };
        let whole = match last_newline(&self.file, self.len, MAX_TORN).map_err(refused)? {
            Some(at) => at + 1,
            None if self.len <= MAX_TORN => 0,
            None => return Err(broken("no line ends there; it is not a journal".into())),
        };
        // A file with no whole line holds at most the first record's beginning. Anything else is
        // someone's file, given by mistake: it is not ours to cut.
        if whole == 0 && self.len > 0 {
            let mut start = [0; 10];
            let seen = self.file.read_at(&mut start, 0).map_err(refused)?;
            if !b"{\"event\":\"".starts_with(&start[..seen.min(10)]) && start[0] != 0 {
                return Err(broken("it does not begin as a journal does".into()));
            }
        }
        let last = if whole == 0 {
            None
        } else {
            let start =
                match last_newline(&self.file, whole - 1, MAX_LINE as u64 + 1).map_err(refused)? {
                    Some(at) => at + 1,
                    None if whole - 1 <= MAX_LINE as u64 => 0,
                    None => return Err(broken(Flaw::TooLong.to_string())),
                };
            let length = usize::try_from(whole - 1 - start)
                .unwrap_or(usize::MAX)
                .min(MAX_LINE);
            let mut text = vec![0; length];
            self.file.read_exact_at(&mut text, start).map_err(refused)?;
            let sealed = Sealed::parse(&text).map_err(|flaw| broken(flaw.to_string()))?;
            Some(Chain::after(&sealed))
        };
        // Only a journal whose last record is proven is touched.
        let torn = self.cut(whole).map_err(refused)?;
        if let Some(chain) = last {
            self.chain = chain;
        }
        Ok(torn)
    }

    fn cut(&mut self, whole: u64) -> io::Result<Option<Torn>> {
        if whole == self.len {
            return Ok(None);
        }
        let mut context = Context::new(&SHA256);
        let mut buffer = vec![0; 64 * 1024];
        let mut at = whole;
        while at < self.len {
            let read = self.file.read_at(&mut buffer, at)?;
            if read == 0 {
                break;
            }
            context.update(&buffer[..read]);
            at += read as u64;
        }
        let mut sha256 = Vec::with_capacity(64);
        line::hex(&mut sha256, context.finish().as_ref());
        let torn = Torn {
            bytes: self.len - whole,
            sha256: sha256.into_iter().map(char::from).collect(),
        };
        self.file.set_len(whole)?;
        self.file.sync_all()?;
        self.len = whole;
        Ok(Some(torn))
    }
}

/// Where the last newline before `end` is, looking back at most `limit` bytes.
fn last_newline(file: &File, end: u64, limit: u64) -> io::Result<Option<u64>> {
    let mut buffer = vec![0; 64 * 1024];
    let floor = end.saturating_sub(limit);
    let mut end = end;
    while end > floor {
        let start = end.saturating_sub(buffer.len() as u64).max(floor);
        let length = usize::try_from(end - start)
            .unwrap_or(buffer.len())
            .min(buffer.len());
        let part = &mut buffer[..length];
        file.read_exact_at(part, start)?;
        if let Some(at) = part.iter().rposition(|b| *b == b'\n') {
            return Ok(Some(start + at as u64));
        }
        end = start;
    }
    Ok(None)
}

/// Makes a new file's name as durable as its content.
fn sync_directory(path: &Path) -> io::Result<()> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    match File::open(parent)?.sync_all() {
        // Some file systems have nothing to sync there.
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::InvalidInput | ErrorKind::Unsupported
            ) =>
        {
            Ok(())
        }
        other => other,
    }
}

fn hint(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::ELOOP) => "; it is a symbolic link, name the file itself",
        Some(libc::EROFS) => "; the file system is read-only, mount a writable volume",
        Some(libc::ENOENT) => "; make its directory first",
        Some(libc::EACCES | libc::EPERM) => "; the gate's user needs write access to it",
        Some(libc::ENXIO | libc::EISDIR) => "; name a regular file",
        _ => "",
    }
}

#[cfg(test)]
#[path = "journal/tests.rs"]
mod tests;
