//! Leaving the host's namespaces, and giving up what was needed for it.
//!
//! As an ordinary user a user namespace comes first: in it the command keeps its own user and group
//! id, and this program has the capabilities that the rest of the setup takes. Root needs none, and
//! makes one only where its capabilities were taken away (a container). In doubt nothing runs.

use std::io;

use nix::sched::CloneFlags;
use nix::unistd::{Gid, Uid};
use rustix::thread::{CapabilitiesSecureBits, CapabilitySet, CapabilitySets};

/// Why there is no namespace, and what helps.
#[derive(Debug, thiserror::Error)]
pub(super) enum NamespaceError {
    #[error(
        "user namespaces are forbidden here ({cause})\n  \
         hint: {hint}\n  \
         hint: as root, `exeat run` works without a user namespace"
    )]
    Forbidden { cause: nix::Error, hint: String },
    #[error("the namespaces could not be made: {0}")]
    Unshare(#[from] nix::Error),
    #[error("the user id could not be mapped into the namespace (`{file}`): {error}")]
    Map {
        file: &'static str,
        error: io::Error,
    },
    #[error("the capabilities could not be {what}: {error}")]
    Capabilities {
        what: &'static str,
        error: rustix::io::Errno,
    },
}

/// What is taken from the host: networks, mounts, System V IPC. Process ids follow later
/// (`leave_processes`), because a process that did that can start no more threads.
const NAMESPACES: CloneFlags = CloneFlags::CLONE_NEWNET
    .union(CloneFlags::CLONE_NEWNS)
    .union(CloneFlags::CLONE_NEWIPC);

/// Moves this process (which has one thread) into new namespaces of its own.
pub(super) fn leave() -> Result<(), NamespaceError> {
    let (uid, gid) = (Uid::effective(), Gid::effective());
    if uid.is_root() {
        match nix::sched::unshare(NAMESPACES) {
            Ok(()) => return inherit_capabilities(),
            Err(nix::Error::EPERM) => {}
            Err(error) => return Err(error.into()),
        }
    }
    nix::sched::unshare(CloneFlags::CLONE_NEWUSER | NAMESPACES).map_err(|cause| {
        NamespaceError::Forbidden {
            cause,
            hint: hint(cause),
        }
    })?;
    // Without this, the kernel does not let an ordinary user map a group.
    write("/proc/self/setgroups", "deny")?;
    write("/proc/self/uid_map", &format!("{uid} {uid} 1"))?;
    write("/proc/self/gid_map", &format!("{gid} {gid} 1"))?;
    inherit_capabilities()
}

/// From now on, children are in a process namespace of their own; the first is its init.
pub(super) fn leave_processes() -> Result<(), NamespaceError> {
    Ok(nix::sched::unshare(CloneFlags::CLONE_NEWPID)?)
}

/// Gives up every capability for good: for this process, its children, and whatever they execute.
pub(super) fn give_up_capabilities() -> Result<(), NamespaceError> {
    let failed = |error| NamespaceError::Capabilities {
        what: "given up",
        error,
    };
    rustix::thread::clear_ambient_capability_set().map_err(failed)?;
    // Being root must not mean having capabilities, not even in what is executed.
    let bits = CapabilitiesSecureBits::NO_ROOT
        | CapabilitiesSecureBits::NO_ROOT_LOCKED
        | CapabilitiesSecureBits::NO_SETUID_FIXUP
        | CapabilitiesSecureBits::NO_SETUID_FIXUP_LOCKED
        | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE
        | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE_LOCKED;
    rustix::thread::set_capabilities_secure_bits(bits).map_err(failed)?;
    for capability in known_capabilities() {
        rustix::thread::remove_capability_from_bounding_set(capability).map_err(failed)?;
    }
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    rustix::thread::set_capabilities(None, none).map_err(failed)?;
    rustix::thread::set_no_new_privs(true).map_err(failed)
}

/// Lets what this process executes (`nft`, the next stage) keep the capabilities it has in the
/// namespace: a user who is not root loses them otherwise.
fn inherit_capabilities() -> Result<(), NamespaceError> {
    let failed = |error| NamespaceError::Capabilities {
        what: "kept for the setup",
        error,
    };
    let mut sets = rustix::thread::capabilities(None).map_err(failed)?;
    sets.inheritable = sets.permitted;
    rustix::thread::set_capabilities(None, sets).map_err(failed)?;
    for capability in known_capabilities().filter(|capability| sets.permitted.contains(*capability))
    {
        rustix::thread::configure_capability_in_ambient_set(capability, true).map_err(failed)?;
    }
    Ok(())
}

/// The capabilities that this kernel knows and that are still in the bounding set.
fn known_capabilities() -> impl Iterator<Item = CapabilitySet> {
    (0..u64::BITS)
        .map(|bit| CapabilitySet::from_bits_retain(1 << bit))
        .filter(|capability| {
            rustix::thread::capability_is_in_bounding_set(*capability).unwrap_or(false)
        })
}

fn write(file: &'static str, content: &str) -> Result<(), NamespaceError> {
    std::fs::write(file, content).map_err(|error| NamespaceError::Map { file, error })
}

/// The likeliest reason why an ordinary user gets no namespace, by what the system says of itself.
fn hint(cause: nix::Error) -> String {
    let is = |name: &str, value: &str| {
        std::fs::read_to_string(format!("/proc/sys/{}", name.replace('.', "/")))
            .is_ok_and(|found| found.trim() == value)
    };
    if is("kernel.apparmor_restrict_unprivileged_userns", "1") {
        "AppArmor forbids them to programs without a profile: give exeat one with `userns,`, or \
         set `sysctl kernel.apparmor_restrict_unprivileged_userns=0`"
            .to_owned()
    } else if is("kernel.unprivileged_userns_clone", "0") {
        "`sysctl kernel.unprivileged_userns_clone=1` allows them".to_owned()
    } else if is("user.max_user_namespaces", "0") || cause == nix::Error::ENOSPC {
        "`sysctl user.max_user_namespaces` is too low: set it to 10000".to_owned()
    } else {
        "a container's seccomp filter or a security module may forbid them: allow `unshare` with \
         CLONE_NEWUSER there"
            .to_owned()
    }
}
