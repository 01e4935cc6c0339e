//! Folders that the gate holds on to.
//!
//! Policies, credentials and labels are read for as long as the gate lives, by name, in a folder
//! opened once at the start. A folder that was opened stays the same folder, whatever is renamed
//! above it; symbolic links are followed only as long as they stay inside (the way kubelet swaps
//! its mounts). In doubt nothing is read: what is no regular file, leads out, or is too large is an
//! error.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

/// Kubelet's links are two deep (`name` to `..data/name`, `..data` to `..2024_…`); more than this
/// is a loop or a trap.
const MAX_LINKS: usize = 8;

/// A folder of a mounted volume has tens of entries; a listing beyond this is refused.
const MAX_ENTRIES: usize = 4096;

/// An open folder.
#[derive(Debug)]
pub struct Folder {
    fd: OwnedFd,
    path: PathBuf,
}

/// A file by its name in a folder that is held: what is at that name now is what is read.
#[derive(Debug)]
pub struct HeldFile {
    folder: Folder,
    name: OsString,
    path: PathBuf,
}

/// Why a file or folder could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// There is nothing at that name.
    #[error("`{}` does not exist", .0.display())]
    Missing(PathBuf),
    /// It is a folder, a pipe, a device or a socket.
    #[error("`{}` is not a regular file", .0.display())]
    NotAFile(PathBuf),
    /// A symbolic link on the way leaves the folder, or goes in circles.
    #[error("`{}` leads out of its folder through a symbolic link", .0.display())]
    LeadsOut(PathBuf),
    /// More bytes than expected of such a file.
    #[error("`{}` is larger than {limit} bytes", path.display())]
    TooLarge {
        /// Which file.
        path: PathBuf,
        /// What was allowed.
        limit: usize,
    },
    /// Anything else that the system says.
    #[error("`{}` cannot be read: {cause}", path.display())]
    Failed {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        cause: String,
    },
}

impl ReadError {
    /// Is the file simply not there?
    #[must_use]
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Missing(_))
    }

    fn from_errno(path: &Path, errno: Errno) -> Self {
        match errno {
            Errno::NOENT => Self::Missing(path.to_owned()),
            Errno::LOOP => Self::LeadsOut(path.to_owned()),
            errno => Self::Failed {
                path: path.to_owned(),
                cause: errno.to_string(),
            },
        }
    }
}

// === impl Folder ===

impl Folder {
    /// Opens the folder at `path`, following whatever links lead there now.
    pub fn open(path: &Path) -> Result<Self, ReadError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty())
            .map_err(|errno| ReadError::from_errno(path, errno))?;
        let path = path.to_owned();
        Ok(Self { fd, path })
    }

    /// The path it was opened by, for people.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A path that reaches this very folder also after a rename above it, for a watcher.
    #[must_use]
    pub fn live_path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.fd.as_raw_fd()))
    }

    /// The folder that `name` in this folder is or links to, if it is there.
    pub fn enter(&self, name: &OsStr) -> Result<Self, ReadError> {
        let path = self.path.join(name);
        let fd = self.descend(Path::new(name), OFlags::RDONLY | OFlags::DIRECTORY)?;
        Ok(Self { fd, path })
    }

    /// The content of the regular file `name`, of at most `limit` bytes.
    pub fn read(&self, name: &OsStr, limit: usize) -> Result<Vec<u8>, ReadError> {
        let path = self.path.join(name);
        // Not blocking: opening a pipe that someone put there must not wait for a writer.
        let fd = self.descend(Path::new(name), OFlags::RDONLY | OFlags::NONBLOCK)?;
        let stat = rustix::fs::fstat(&fd).map_err(|errno| ReadError::from_errno(&path, errno))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(ReadError::NotAFile(path));
        }
        // Made to size, so that a secret is not left behind in buffers that were outgrown.
        let size = usize::try_from(stat.st_size).unwrap_or(usize::MAX);
        if size > limit {
            return Err(ReadError::TooLarge { path, limit });
        }
        let mut content = Vec::with_capacity(limit.min(size.saturating_add(1)));
        let cap = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
        File::from(fd)
            .take(cap)
            .read_to_end(&mut content)
            .map_err(|error| ReadError::Failed {
                path: path.clone(),
                cause: error.to_string(),
            })?;
        if content.len() > limit {
            return Err(ReadError::TooLarge { path, limit });
        }
        Ok(content)
    }

    /// The names in the folder, sorted, without `.` and `..`.
    pub fn names(&self) -> Result<Vec<OsString>, ReadError> {
        let failed = |errno| ReadError::from_errno(&self.path, errno);
        let dir = Dir::read_from(self.fd.as_fd()).map_err(failed)?;
        let mut names = Vec::new();
        for entry in dir {
            let entry = entry.map_err(failed)?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            if names.len() == MAX_ENTRIES {
                return Err(ReadError::Failed {
                    path: self.path.clone(),
                    cause: format!("more than {MAX_ENTRIES} entries"),
                });
            }
            names.push(name.to_owned());
        }
        names.sort();
        Ok(names)
    }

    /// Opens `relative` under this folder; links are followed by hand, and only those inside it.
    ///
    /// By hand and not with `openat2`, because older container runtimes' filters refuse that call.
    fn descend(&self, relative: &Path, flags: OFlags) -> Result<OwnedFd, ReadError> {
        let whole = self.path.join(relative);
        let failed = |errno| ReadError::from_errno(&whole, errno);
        let out = || ReadError::LeadsOut(whole.clone());
        let mut ahead = components(relative).ok_or_else(out)?;
        let mut links = 0;
        let mut at: Option<OwnedFd> = None;
        while let Some(name) = ahead.pop() {
            let here = at.as_ref().map_or(self.fd.as_fd(), |fd| fd.as_fd());
            match rustix::fs::readlinkat(here, name.as_os_str(), Vec::new()) {
                Ok(target) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(out());
                    }
                    let target = OsString::from_vec(target.into_bytes());
                    let mut target = components(Path::new(&target)).ok_or_else(out)?;
                    ahead.append(&mut target);
                }
                // Not a link: whatever replaces it between the look and the open is not followed.
                Err(Errno::INVAL) => {
                    let step = if ahead.is_empty() {
                        flags
                    } else {
                        OFlags::PATH | OFlags::DIRECTORY
                    };
                    let step = step | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                    let fd = rustix::fs::openat(here, name.as_os_str(), step, Mode::empty())
                        .map_err(failed)?;
                    at = Some(fd);
                }
                Err(errno) => return Err(failed(errno)),
            }
        }
        at.ok_or_else(out)
    }
}

impl AsFd for Folder {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

// === impl HeldFile ===

impl HeldFile {
    /// Holds on to the folder of `path` and to the name in it.
    ///
    /// If that name is a link which leads elsewhere, the folder it leads to now is held instead.
    pub fn open(path: &Path) -> Result<Self, ReadError> {
        let file = Self::in_folder_of(path, path)?;
        match file.folder.descend(Path::new(&file.name), OFlags::PATH) {
            Err(ReadError::LeadsOut(_)) => {
                let real = std::fs::canonicalize(path).map_err(|error| ReadError::Failed {
                    path: path.to_owned(),
                    cause: error.to_string(),
                })?;
                Self::in_folder_of(&real, path)
            }
            _ => Ok(file),
        }
    }

    /// The path it was opened by, for people.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder it is in.
    #[must_use]
    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// What is in the file now.
    pub fn read(&self, limit: usize) -> Result<Vec<u8>, ReadError> {
        self.folder.read(&self.name, limit)
    }

    fn in_folder_of(path: &Path, shown: &Path) -> Result<Self, ReadError> {
        let name = path
            .file_name()
            .ok_or_else(|| ReadError::NotAFile(path.to_owned()))?
            .to_owned();
        let parent = match path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        Ok(Self {
            folder: Folder::open(parent)?,
            name,
            path: shown.to_owned(),
        })
    }
}

/// The names of a relative path that stays inside, last first; `None` for any other path.
fn components(path: &Path) -> Option<Vec<OsString>> {
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => names.push(name.to_owned()),
            Component::CurDir => {}
            Component::Prefix(_) | Component::RootDir | Component::ParentDir => return None,
        }
    }
    names.reverse();
    Some(names)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn read(folder: &Folder, name: &str) -> Result<Vec<u8>, ReadError> {
        folder.read(OsStr::new(name), 64)
    }

    #[test]
    fn kubelets_links_are_followed() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("..1")).unwrap();
        fs::write(dir.path().join("..1/token"), "one").unwrap();
        symlink("..1", dir.path().join("..data")).unwrap();
        symlink("..data/token", dir.path().join("token")).unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        assert_eq!(read(&folder, "token").unwrap(), b"one");
        let data = folder.enter(OsStr::new("..data")).unwrap();
        assert_eq!(data.names().unwrap(), ["token"]);
    }

    #[test]
    fn links_that_lead_out_are_not() {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("secret"), "x").unwrap();
        let dir = tempfile::tempdir().unwrap();
        symlink(outside.path().join("secret"), dir.path().join("absolute")).unwrap();
        symlink("../secret", dir.path().join("upward")).unwrap();
        symlink(outside.path(), dir.path().join("folder")).unwrap();
        symlink("folder/secret", dir.path().join("through")).unwrap();
        symlink("b", dir.path().join("a")).unwrap();
        symlink("a", dir.path().join("b")).unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        for name in ["absolute", "upward", "through", "a"] {
            let error = read(&folder, name).unwrap_err();
            assert!(matches!(error, ReadError::LeadsOut(_)), "{name}: {error}");
        }
    }

    #[test]
    fn only_regular_files_of_a_sane_size_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, Mode::RWXU).unwrap();
        fs::create_dir(dir.path().join("folder")).unwrap();
        fs::write(dir.path().join("exact"), [b'x'; 64]).unwrap();
        fs::write(dir.path().join("large"), [b'x'; 65]).unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        assert!(matches!(read(&folder, "fifo"), Err(ReadError::NotAFile(_))));
        assert!(matches!(
            read(&folder, "folder"),
            Err(ReadError::NotAFile(_))
        ));
        assert!(matches!(read(&folder, "none"), Err(ReadError::Missing(_))));
        assert!(matches!(
            read(&folder, "large"),
            Err(ReadError::TooLarge { .. })
        ));
        assert_eq!(read(&folder, "exact").unwrap().len(), 64);
    }

    #[test]
    fn a_rename_above_does_not_swap_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("folder");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("policy"), "true").unwrap();
        let held = HeldFile::open(&folder.join("policy")).unwrap();

        fs::rename(&folder, dir.path().join("away")).unwrap();
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("policy"), "forged").unwrap();
        assert_eq!(held.read(64).unwrap(), b"true");

        // A new file at the name inside the held folder is seen, as editors replace files.
        fs::write(dir.path().join("away/new"), "newer").unwrap();
        fs::rename(dir.path().join("away/new"), dir.path().join("away/policy")).unwrap();
        assert_eq!(held.read(64).unwrap(), b"newer");
        assert_eq!(
            fs::read(held.folder().live_path().join("policy")).unwrap(),
            b"newer"
        );
    }

    #[test]
    fn a_file_linked_from_elsewhere_is_held_where_it_is() {
        let real = tempfile::tempdir().unwrap();
        fs::write(real.path().join("token"), "one").unwrap();
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("link");
        symlink(real.path().join("token"), &link).unwrap();
        let held = HeldFile::open(&link).unwrap();
        fs::remove_file(&link).unwrap();
        fs::write(&link, "forged").unwrap();
        assert_eq!(held.read(64).unwrap(), b"one");
    }
}
