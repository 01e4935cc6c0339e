//! What the gate gives up for itself.
//!
//! A process that holds secrets has no core dumps, can't be traced by its own user, and gains no
//! privilege by anything it might be tricked to run; its files are those it was given. The first
//! three are required. The last is Landlock's, where the kernel has it: what could not be enforced
//! is told, not hidden.

use std::fmt;
use std::path::PathBuf;

use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetStatus, Scope, path_beneath_rules,
};
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};

/// The newest rights asked for; an older kernel enforces those it knows.
const LANDLOCK: ABI = ABI::V6;

/// What every process here reads: libraries' data, trust roots, names, and itself.
const SYSTEM: [&str; 6] = [
    "/etc",
    "/usr/share",
    "/usr/lib/ssl",
    "/proc",
    // A static program asks these where a dynamic one has the system call.
    "/dev/random",
    "/dev/urandom",
];

/// What the process gave up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Confinement {
    /// The most core dump it may leave; always none.
    pub core_bytes: u64,
    /// Whether its memory could be read by its own user; never.
    pub dumpable: bool,
    /// Whether it can gain privileges; never.
    pub no_new_privileges: bool,
}

/// The files a gate needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// Folders and files that are read: policies, labels, credentials, roots.
    pub read: Vec<PathBuf>,
    /// Folders that are written in: the journal's, the certificate's.
    pub write: Vec<PathBuf>,
}

/// How far Landlock holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileConfinement {
    /// As asked.
    Full,
    /// As far as this kernel knows how.
    Partial,
    /// Not at all, and why.
    None(String),
}

/// Why a process can't be confined.
#[derive(Debug, thiserror::Error)]
pub enum ConfineError {
    /// The system refused.
    #[error("the gate cannot give up {what}: {cause}; an odd seccomp profile may be why")]
    Refused {
        /// What it could not give up.
        what: &'static str,
        /// What the system says.
        cause: nix::errno::Errno,
    },
}

/// Gives up core dumps and being traced, for the whole process, and new privileges, for this thread
/// and those it starts.
///
/// To be called before the first secret is read and the first thread started.
pub fn process() -> Result<Confinement, ConfineError> {
    let refused = |what| move |cause| ConfineError::Refused { what, cause };
    setrlimit(Resource::RLIMIT_CORE, 0, 0).map_err(refused("core dumps"))?;
    prctl::set_dumpable(false).map_err(refused("being traced"))?;
    prctl::set_no_new_privs().map_err(refused("new privileges"))?;
    Ok(Confinement {
        core_bytes: 0,
        dumpable: prctl::get_dumpable().map_err(refused("being traced"))?,
        no_new_privileges: prctl::get_no_new_privs().map_err(refused("new privileges"))?,
    })
}

/// Gives up every file but these, for this thread and those it starts.
///
/// Folders are named, not files in them, so what is swapped or renamed inside (as kubelet does)
/// stays in reach. Best effort: where the kernel lacks Landlock, the answer says so.
#[must_use]
pub fn files(files: &Files) -> FileConfinement {
    match restrict(files) {
        Ok(RulesetStatus::FullyEnforced) => FileConfinement::Full,
        Ok(RulesetStatus::PartiallyEnforced) => FileConfinement::Partial,
        Ok(RulesetStatus::NotEnforced) => {
            FileConfinement::None("this kernel has no Landlock, or it is switched off".to_owned())
        }
        Err(error) => FileConfinement::None(error.to_string()),
    }
}

fn restrict(files: &Files) -> Result<RulesetStatus, landlock::RulesetError> {
    let read: BitFlags<AccessFs> = AccessFs::ReadFile | AccessFs::ReadDir;
    let write = AccessFs::from_all(LANDLOCK) & !AccessFs::Execute;
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(LANDLOCK))?
        .scope(Scope::from_all(LANDLOCK))?
        .create()?
        .add_rules(path_beneath_rules(SYSTEM, read))?
        .add_rules(path_beneath_rules(&files.read, read))?
        .add_rules(path_beneath_rules(&files.write, write))?
        .restrict_self()?;
    Ok(status.ruleset)
}

impl fmt::Display for FileConfinement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("files are confined"),
            Self::Partial => f.write_str("files are confined as far as this kernel can"),
            Self::None(why) => write!(f, "files are not confined: {why}"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;
    use std::fs;

    // For the whole process, which tests share; nothing else here needs what is given up.
    #[test]
    fn a_process_gives_up_dumps_and_privileges() {
        let confinement = process().unwrap();
        let expected = Confinement {
            core_bytes: 0,
            dumpable: false,
            no_new_privileges: true,
        };
        assert_eq!(confinement, expected);
        let status = fs::read_to_string("/proc/thread-self/status").unwrap();
        assert!(
            status.lines().any(|line| line == "NoNewPrivs:\t1"),
            "{status}"
        );
        let limits = fs::read_to_string("/proc/self/limits").unwrap();
        let core = limits
            .lines()
            .find(|line| line.starts_with("Max core file size"))
            .unwrap();
        let words: Vec<_> = core.split_ascii_whitespace().collect();
        assert_eq!(words[4..6], ["0", "0"], "{core}");
        // A watched folder is still reached, by the path that outlives renames.
        let dir = tempfile::tempdir().unwrap();
        let folder = crate::process::held::Folder::open(dir.path()).unwrap();
        assert!(fs::read_dir(folder.live_path()).is_ok());
    }

    /// In a thread of its own: Landlock is of a thread, and for good.
    #[test]
    fn files_are_those_that_were_given_or_it_is_told() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["read", "write", "other"] {
            fs::create_dir(dir.path().join(name)).unwrap();
            fs::write(dir.path().join(name).join("file"), "x").unwrap();
        }
        let at = dir.path().to_owned();
        let confined = std::thread::spawn(move || {
            let given = Files {
                read: vec![at.join("read")],
                write: vec![at.join("write")],
            };
            let status = files(&given);
            if let FileConfinement::None(why) = &status {
                assert!(!why.is_empty());
                return;
            }
            assert!(fs::read(at.join("read/file")).is_ok());
            assert!(fs::write(at.join("read/file"), "y").is_err());
            assert!(fs::read(at.join("other/file")).is_err());
            assert!(fs::write(at.join("write/new"), "y").is_ok());
            assert!(fs::rename(at.join("write/new"), at.join("write/file")).is_ok());
            assert!(fs::read("/proc/self/status").is_ok());
        });
        confined.join().unwrap();
    }
}
