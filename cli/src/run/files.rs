//! What the command sees of the file system: everything the user sees, but for the gate's files.
//!
//! Secrets and the journal are covered with an empty file that can't be opened, policies with
//! themselves, read-only. A covered name can't be removed or renamed, and neither can the folders
//! above it: each is made a mount of its own, which the kernel holds fast. When someone outside
//! replaces a covered file by renaming another over it, the kernel drops the cover with the old
//! file; so the covers are looked after for as long as the command runs. A folder that has
//! nothing but secrets in it is covered as a whole: what is renamed in it is never seen. In doubt (a cover that
//! can't be laid) the command does not start, or is ended.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::fs::{StatVfsMountFlags, statvfs};
use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MountPropagationFlags, mount, mount_bind, mount_bind_recursive, mount_change,
    mount_move, mount_remount,
};

/// In the private folder outside: what the command may read of it.
pub(super) const PUBLIC: &str = "public";

/// Certificate bundles are half a megabyte; this leaves room for users' own.
const PRIVATE_SIZE: &std::ffi::CStr = c"size=32m,nr_inodes=64,mode=0755";

/// The empty file that covers what is hidden. Nobody but root may open it, and that root has no
/// capability left to do so.
const NOTHING: &str = ".nothing";

/// The empty folder that covers folders of secrets.
const EMPTY: &str = ".empty";

/// Devices that speak to something outside without a socket.
const OUTWARD: &[&str] = &["/dev/vhost-net", "/dev/vhost-vsock", "/dev/vsock"];

/// Where a small `/dev` is furnished.
const STAGE: &str = ".dev";

/// A rename takes microseconds; many of these, and it is none.
const MOMENT: Duration = Duration::from_micros(200);

/// How often a cover is tried again.
const MOMENTS: usize = 100;

/// What the command may change nothing of when it is root: places from which the host's own
/// services (cron, the loader, logins) take what they run, outside the gate.
const SYSTEM: &[&str] = &[
    "/boot",
    "/etc",
    "/lib/modules",
    "/sys",
    "/usr/bin",
    "/usr/lib",
    "/usr/lib64",
    "/usr/libexec",
    "/usr/sbin",
    "/var/spool",
];

/// The same within `/proc`: kernel settings, some of which name programs that the kernel starts.
const SYSTEM_PROC: &[&str] = &[
    "/proc/sys",
    "/proc/sysrq-trigger",
    "/proc/irq",
    "/proc/bus",
    "/proc/fs",
];

/// The devices that root's command keeps; without the others it can't reach the disks past the
/// file system.
const DEVICES: &[&str] = &[
    "full", "null", "random", "tty", "urandom", "zero", "shm", "mqueue", "fd", "stdin", "stdout",
    "stderr", "dri", "kfd",
];

/// What is done to which path. Paths are absolute and free of links.
#[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize)]
pub(super) struct Plan {
    /// The gate's own folder. The command sees its public files in it, and nothing else.
    pub(super) private: PathBuf,
    /// Folders above the protected files, from the root downwards.
    pub(super) pinned: Vec<PathBuf>,
    /// Folders of nothing but secrets: the command sees none of what is or comes into them.
    pub(super) emptied: Vec<PathBuf>,
    /// Files that the command can't open.
    pub(super) hidden: Vec<PathBuf>,
    /// Files that the command can't change.
    pub(super) read_only: Vec<PathBuf>,
    /// System files, and the public file that takes their place.
    pub(super) replaced: Vec<(PathBuf, String)>,
}

/// A path could not be protected.
#[derive(Debug, thiserror::Error)]
#[error("`{}` could not be {done}: {error}", path.display())]
pub(super) struct FilesError {
    path: PathBuf,
    done: &'static str,
    error: io::Error,
}

// === impl Plan ===

impl Plan {
    /// Does all of it, in the mount namespace of this process.
    pub(super) fn apply(&self) -> Result<(), FilesError> {
        self.furnish()?;
        for folder in &self.pinned {
            mount_bind_recursive(folder, folder).map_err(failed("pinned", folder))?;
        }
        for folder in &self.emptied {
            self.empty(folder)?;
        }
        for file in &self.hidden {
            self.hide(file)?;
        }
        for file in &self.read_only {
            make_read_only(file)?;
        }
        for (file, public) in &self.replaced {
            mount_bind(self.private.join(public), file).map_err(failed("replaced", file))?;
        }
        for device in OUTWARD.iter().map(Path::new) {
            if device.exists() {
                self.hide(device)?;
            }
        }
        if nix::unistd::Uid::effective().is_root() {
            devices(&self.private.join(STAGE))?;
            for path in SYSTEM {
                let path = Path::new(path);
                // On most systems some of these are links to others, or absent.
                if path.exists() && !path.is_symlink() {
                    make_read_only(path)?;
                }
            }
        }
        Ok(())
    }

    /// Covers again what lost its cover, and tells which hidden files those are.
    pub(super) fn repair(&self) -> Result<Vec<PathBuf>, FilesError> {
        let nothing = self.private.join(NOTHING);
        let nothing = fs::metadata(&nothing).map_err(failed("looked at", &nothing))?;
        let mut bare = Vec::new();
        let empty = self.private.join(EMPTY);
        let empty = fs::symlink_metadata(&empty).map_err(failed("looked at", &empty))?;
        for folder in &self.emptied {
            match fs::symlink_metadata(folder) {
                Ok(found) if (found.dev(), found.ino()) == (empty.dev(), empty.ino()) => {}
                Ok(_) => {
                    again(folder, || self.empty(folder))?;
                    bare.push(folder.clone());
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(failed("looked at", folder)(error)),
            }
        }
        for file in &self.hidden {
            match fs::metadata(file) {
                Ok(found) if (found.dev(), found.ino()) == (nothing.dev(), nothing.ino()) => {}
                Ok(_) => {
                    again(file, || self.hide(file))?;
                    bare.push(file.clone());
                }
                // Nothing there to be covered; it is looked at again when the next cover falls.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(failed("looked at", file)(error)),
            }
        }
        for file in &self.read_only {
            match statvfs(file) {
                Ok(found) if found.f_flag.contains(StatVfsMountFlags::RDONLY) => {}
                Ok(_) => again(file, || lay_read_only(file, std::slice::from_ref(file)))?,
                Err(Errno::NOENT) => {}
                Err(error) => return Err(failed("looked at", file)(error)),
            }
        }
        Ok(bare)
    }

    /// Puts a small file system over the private folder, with copies of its public files.
    fn furnish(&self) -> Result<(), FilesError> {
        let private = &self.private;
        let copy = || -> io::Result<Vec<(OsString, Vec<u8>)>> {
            fs::read_dir(private.join(PUBLIC))?
                .map(|entry| {
                    let entry = entry?;
                    Ok((entry.file_name(), fs::read(entry.path())?))
                })
                .collect()
        };
        let public = copy().map_err(failed("read", private))?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        mount("tmpfs", private, "tmpfs", flags, PRIVATE_SIZE).map_err(failed("hidden", private))?;
        let fill = || -> io::Result<()> {
            for (name, content) in public {
                fs::write(private.join(name), content)?;
            }
            let mut nothing = OpenOptions::new();
            nothing.write(true).create_new(true).mode(0o000);
            nothing.open(private.join(NOTHING))?.flush()?;
            let mut empty = fs::DirBuilder::new();
            empty.mode(0o000).create(private.join(EMPTY))?;
            fs::create_dir(private.join(STAGE))
        };
        fill().map_err(failed("filled", private))?;
        mount_remount(private, flags | MountFlags::RDONLY, PRIVATE_SIZE)
            .map_err(failed("made read-only", private))
    }

    fn empty(&self, folder: &Path) -> Result<(), FilesError> {
        mount_bind(self.private.join(EMPTY), folder).map_err(failed("hidden", folder))
    }

    fn hide(&self, file: &Path) -> Result<(), FilesError> {
        mount_bind(self.private.join(NOTHING), file).map_err(failed("hidden", file))
    }
}

/// Covers a file that is being replaced: the old one's cover falls a moment before the new one has
/// its name, and until then nothing can be laid there. If there is no file any more, the next event
/// is waited for.
fn again(file: &Path, mut cover: impl FnMut() -> Result<(), FilesError>) -> Result<(), FilesError> {
    let mut tried = 0;
    loop {
        match cover() {
            Err(error) if error.error.kind() == io::ErrorKind::NotFound => {
                tried += 1;
                if tried == MOMENTS {
                    return if file.exists() { Err(error) } else { Ok(()) };
                }
                std::thread::sleep(MOMENT);
            }
            result => return result,
        }
    }
}

/// Keeps what is mounted from now on to this process's namespace.
pub(super) fn part_from_host() -> Result<(), FilesError> {
    let flags = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", flags).map_err(failed("parted from the host", Path::new("/")))
}

/// Mounts the process table of this process's own namespace. For its first process.
pub(super) fn mount_proc() -> Result<(), FilesError> {
    let proc = Path::new("/proc");
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("proc", proc, "proc", flags, None::<&std::ffi::CStr>).map_err(failed("mounted", proc))?;
    if nix::unistd::Uid::effective().is_root() {
        for path in SYSTEM_PROC {
            let path = Path::new(path);
            if path.exists() {
                make_read_only(path)?;
            }
        }
    }
    Ok(())
}

/// Tells when a cover may have fallen: a mount has gone, or a name in a folder has changed.
#[derive(Debug)]
pub(super) struct Events {
    mounts: File,
    names: OwnedFd,
}

// === impl Events ===

impl Events {
    pub(super) fn new(plan: &Plan) -> Result<Self, FilesError> {
        let table = Path::new("/proc/self/mountinfo");
        let mounts = File::open(table).map_err(failed("watched", table))?;
        let names = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)
            .map_err(failed("watched", table))?;
        let covered = plan.hidden.iter().chain(&plan.read_only);
        for file in covered.chain(&plan.emptied) {
            let Some(folder) = file.parent() else {
                continue;
            };
            let flags = WatchFlags::CREATE
                | WatchFlags::DELETE
                | WatchFlags::MOVED_FROM
                | WatchFlags::MOVED_TO;
            inotify::add_watch(&names, folder, flags).map_err(failed("watched", folder))?;
        }
        Ok(Self { mounts, names })
    }

    /// What to wait at.
    pub(super) fn poll(&self) -> [PollFd<'_>; 2] {
        [
            PollFd::new(&self.mounts, PollFlags::PRI),
            PollFd::new(&self.names, PollFlags::IN),
        ]
    }

    /// Forgets what has been told.
    pub(super) fn clear(&self) {
        let mut buffer = [0_u8; 4096];
        while rustix::io::read(&self.names, &mut buffer[..]).is_ok_and(|read| read > 0) {}
    }
}

/// Covers a file or folder with itself, read-only, with all that is mounted in it.
fn make_read_only(path: &Path) -> Result<(), FilesError> {
    let mut mounts = mounts_in(path)?;
    mounts.push(path.to_owned());
    mounts.sort();
    mounts.dedup();
    lay_read_only(path, &mounts)
}

/// Covers a path with itself, and makes these of the mounts that come with it read-only.
fn lay_read_only(path: &Path, mounts: &[PathBuf]) -> Result<(), FilesError> {
    mount_bind_recursive(path, path).map_err(failed("made read-only", path))?;
    for mount in mounts {
        let found = match statvfs(mount) {
            Ok(found) => found.f_flag,
            // Covered by another, not for this user to look at, or mounted by whoever looks first.
            Err(Errno::NOENT | Errno::ACCESS | Errno::LOOP | Errno::NODEV) if mount != path => {
                continue;
            }
            Err(error) => return Err(failed("looked at", mount)(error)),
        };
        // What the mount below forbids stays forbidden; the kernel refuses to take it back.
        let kept = [
            (StatVfsMountFlags::NOSUID, MountFlags::NOSUID),
            (StatVfsMountFlags::NODEV, MountFlags::NODEV),
            (StatVfsMountFlags::NOEXEC, MountFlags::NOEXEC),
            (StatVfsMountFlags::NOATIME, MountFlags::NOATIME),
            (StatVfsMountFlags::NODIRATIME, MountFlags::NODIRATIME),
            (StatVfsMountFlags::RELATIME, MountFlags::RELATIME),
        ];
        let flags = kept
            .into_iter()
            .filter(|(flag, _)| found.contains(*flag))
            .fold(MountFlags::BIND | MountFlags::RDONLY, |flags, (_, flag)| {
                flags | flag
            });
        mount_remount(mount, flags, c"").map_err(failed("made read-only", mount))?;
    }
    Ok(())
}

/// The mounts at and below a path.
fn mounts_in(path: &Path) -> Result<Vec<PathBuf>, FilesError> {
    let table = Path::new("/proc/self/mountinfo");
    let lines = fs::read(table).map_err(failed("read", table))?;
    let mounts = lines
        .split(|byte| *byte == b'\n')
        .filter_map(|line| line.split(|byte| *byte == b' ').nth(4))
        .map(|field| PathBuf::from(OsString::from_vec(unescape(field))))
        .filter(|mount| mount.starts_with(path))
        .collect();
    Ok(mounts)
}

/// The kernel writes spaces, tabs, line ends and backslashes as three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [byte, after @ ..] = rest {
        let octal = after
            .get(..3)
            .filter(|_| *byte == b'\\')
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        (plain, rest) = match octal {
            Some(octal) => ([plain, vec![octal]].concat(), &after[3..]),
            None => ([plain, vec![*byte]].concat(), after),
        };
    }
    plain
}

/// Puts a small `/dev` over the host's.
fn devices(stage: &Path) -> Result<(), FilesError> {
    let flags = MountFlags::NOSUID | MountFlags::NOEXEC;
    mount("tmpfs", stage, "tmpfs", flags, c"size=1m,mode=0755")
        .map_err(failed("furnished", stage))?;
    for name in DEVICES {
        let (host, ours) = (Path::new("/dev").join(name), stage.join(name));
        let Ok(found) = fs::symlink_metadata(&host) else {
            continue;
        };
        let make = || -> io::Result<()> {
            if found.is_symlink() {
                return std::os::unix::fs::symlink(fs::read_link(&host)?, &ours);
            } else if found.is_dir() {
                fs::create_dir(&ours)?;
            } else {
                File::create(&ours)?;
            }
            Ok(mount_bind_recursive(&host, &ours)?)
        };
        make().map_err(failed("furnished", &ours))?;
    }
    // Terminals of its own: the host's would let it read what is typed into others.
    let terminals = stage.join("pts");
    let make = || -> io::Result<()> {
        fs::create_dir(&terminals)?;
        let options = c"newinstance,ptmxmode=0666,mode=0620";
        mount("devpts", &terminals, "devpts", flags, options)?;
        std::os::unix::fs::symlink("pts/ptmx", stage.join("ptmx"))
    };
    make().map_err(failed("furnished", &terminals))?;
    mount_move(stage, "/dev").map_err(failed("furnished", Path::new("/dev")))
}

fn failed<E: Into<io::Error>>(done: &'static str, path: &Path) -> impl FnOnce(E) -> FilesError {
    let path = path.to_owned();
    move |error| FilesError {
        path,
        done,
        error: error.into(),
    }
}
