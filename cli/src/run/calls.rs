//! The system calls that the command is refused.
//!
//! The network namespace stops packets; what is left are the kernel's other ways to reach something
//! outside: Unix sockets of the host, other socket families, `io_uring` (which would open sockets
//! without the calls named here), typing into the terminal. All of them fail with EPERM, as if the
//! machine's administrator had forbidden them. In doubt a way is refused: of the socket families,
//! only those named below exist.

use std::collections::BTreeMap;

use nix::libc;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

/// Added to a number, it is the same call of the x32 ABI, which shares the filter's architecture.
const X32: i64 = 0x4000_0000;

/// The number that `ioctl` has there; the other calls keep theirs.
const X32_IOCTL: i64 = 514;

/// `type` of a socket without its flags (`SOCK_CLOEXEC`, `SOCK_NONBLOCK`).
const TYPE: u64 = 0xf;

/// Calls that are refused whatever their arguments.
const REFUSED: &[i64] = &[
    // Opens and uses sockets past every rule below.
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    // The session's keyring may hold the user's secrets, and a request runs a program outside.
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    // A file by its number instead of its name: past what is mounted over the name.
    libc::SYS_open_by_handle_at,
    // Needed by nobody who runs without privilege; each was a way out of a sandbox before.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
];

/// The filter, ready to be applied.
///
/// Programs of another architecture (32 bit) are killed at their first call.
pub(super) fn filter(unix_sockets: bool) -> Result<BpfProgram, seccompiler::BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for call in REFUSED {
        rules.insert(*call, Vec::new());
    }
    rules.insert(libc::SYS_socket, sockets(unix_sockets)?);
    if !unix_sockets {
        rules.insert(libc::SYS_socketpair, pairs()?);
    }
    // Pushes characters into the terminal, for the shell to run once the gate is gone.
    let typing = [libc::TIOCSTI, libc::TIOCLINUX]
        .into_iter()
        .map(|request| SeccompRule::new(vec![argument(1, SeccompCmpOp::Eq, request)?]))
        .collect::<Result<_, _>>()?;
    rules.insert(libc::SYS_ioctl, typing);

    if cfg!(target_arch = "x86_64") {
        let twins: Vec<_> = rules
            .iter()
            .map(|(call, rule)| {
                let call = if *call == libc::SYS_ioctl {
                    X32_IOCTL
                } else {
                    *call
                };
                (call + X32, rule.clone())
            })
            .collect();
        rules.extend(twins);
    }
    SeccompFilter::new(
        rules,
        SeccompAction::Allow,
        SeccompAction::Errno(libc::EPERM.unsigned_abs()),
        std::env::consts::ARCH.try_into()?,
    )?
    .try_into()
}

/// Refuses `socket` for every family but IP, the kernel's routing tables (to list addresses), and
/// Unix where the user opened it.
fn sockets(unix_sockets: bool) -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    let mut foreign = vec![
        argument(0, SeccompCmpOp::Ne, number(libc::AF_INET))?,
        argument(0, SeccompCmpOp::Ne, number(libc::AF_INET6))?,
        argument(0, SeccompCmpOp::Ne, number(libc::AF_NETLINK))?,
    ];
    if unix_sockets {
        foreign.push(argument(0, SeccompCmpOp::Ne, number(libc::AF_UNIX))?);
    }
    let netlink = vec![
        argument(0, SeccompCmpOp::Eq, number(libc::AF_NETLINK))?,
        argument(2, SeccompCmpOp::Ne, number(libc::NETLINK_ROUTE))?,
    ];
    Ok(vec![SeccompRule::new(foreign)?, SeccompRule::new(netlink)?])
}

/// Refuses pairs of datagram sockets: either end could send to any named socket of the host.
/// Connected pairs (stream and packet) can't.
fn pairs() -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    let is = |kind| argument(1, SeccompCmpOp::MaskedEq(TYPE), number(kind));
    [libc::SOCK_DGRAM, libc::SOCK_RAW]
        .into_iter()
        .map(|kind| SeccompRule::new(vec![is(kind)?]))
        .collect()
}

/// The kernel reads these arguments as 32 bits; so does the filter.
fn argument(
    index: u8,
    operator: SeccompCmpOp,
    value: u64,
) -> Result<SeccompCondition, seccompiler::BackendError> {
    SeccompCondition::new(index, SeccompCmpArgLen::Dword, operator, value)
}

fn number(value: i32) -> u64 {
    u64::from(value.unsigned_abs())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    #[test]
    fn the_filter_compiles() {
        assert!(!super::filter(false).unwrap().is_empty());
        assert!(!super::filter(true).unwrap().is_empty());
    }
}
