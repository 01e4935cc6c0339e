//! What can go wrong, each with its own exit code, its cause in one line and what to do about it.
//!
//! Whatever it is, the deny that is already in place stays.

use thiserror::Error;

use crate::plan::PlanError;

/// Why the namespace is not known to be confined.
#[derive(Debug, Error)]
pub enum InitError {
    /// Asked for something that makes no sense.
    #[error("{0}")]
    Usage(String),
    /// `CAP_NET_ADMIN` is missing, or a security module stands before it.
    #[error("the kernel refuses to let us change the packet filter: {0}")]
    Capability(String),
    /// No program that could write rules.
    #[error("no packet filter program found: looked for {0}")]
    Backend(String),
    /// The kernel lacks a part that the rules need.
    #[error("the kernel lacks what the rules need: {0}")]
    Module(String),
    /// IPv4 could be confined and IPv6 not.
    #[error("IPv6 can't be confined: {0}")]
    Ipv6(String),
    /// Somebody else's rules are asked before ours.
    #[error("other rules stand before ours: {0}")]
    Foreign(String),
    /// What the kernel has is not what we wrote.
    #[error("the rules in the kernel are not the ones planned: {0}")]
    Readback(String),
    /// Something got out.
    #[error("the confinement leaks: {0}")]
    Leak(String),
    /// Somebody else holds the lock on the rules.
    #[error("the packet filter is locked by another process: {0}")]
    Locked(String),
    /// The filter's program failed in a way not listed here.
    #[error("{program} failed: {message}")]
    Program {
        /// Which.
        program: String,
        /// What it said.
        message: String,
    },
    /// The legacy programs talk to the kernel through a raw socket, and there is none to be had.
    #[error(
        "no raw sockets are allowed here, and legacy iptables can't ask the kernel without: {0}"
    )]
    RawSockets(String),
    /// The kernel allows what the chosen rules can't hold against.
    #[error("these rules are not enough in this kernel: {0}")]
    Unsuited(String),
    /// The proof could not be carried out, so nothing is proven.
    #[error("the escape attempts could not be made: {0}")]
    Unproven(String),
    /// The machine itself.
    #[error("{doing}: {source}")]
    System {
        /// What we were about.
        doing: String,
        /// What the kernel answered.
        source: std::io::Error,
    },
}

// === impl InitError ===

impl InitError {
    /// The exit status: stable, one for each cause.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 64,
            Self::System { .. } => 71,
            Self::Capability(_) => 77,
            Self::Backend(_) => 80,
            Self::Module(_) => 81,
            Self::Ipv6(_) => 82,
            Self::Foreign(_) => 83,
            Self::Readback(_) => 84,
            Self::Leak(_) => 85,
            Self::Locked(_) => 86,
            Self::Program { .. } => 87,
            Self::Unproven(_) => 88,
            Self::RawSockets(_) => 89,
            Self::Unsuited(_) => 90,
        }
    }

    /// The cause in one word, for programs.
    #[must_use]
    pub fn cause(&self) -> &'static str {
        match self {
            Self::Usage(_) => "usage",
            Self::System { .. } => "system",
            Self::Capability(_) => "missing_capability",
            Self::Backend(_) => "missing_backend",
            Self::Module(_) => "missing_kernel_support",
            Self::Ipv6(_) => "ipv6_not_programmable",
            Self::Foreign(_) => "foreign_rules",
            Self::Readback(_) => "readback_mismatch",
            Self::Leak(_) => "leak",
            Self::Locked(_) => "locked",
            Self::Program { .. } => "backend_failed",
            Self::Unproven(_) => "unproven",
            Self::RawSockets(_) => "raw_sockets",
            Self::Unsuited(_) => "unsuited_kernel",
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Usage(_) => "see `exeat-init --help`",
            Self::System { .. } => "run it as root in the namespace that it is to confine",
            Self::Capability(_) => {
                "give the init container NET_ADMIN, and check SELinux, AppArmor and seccomp on the node"
            }
            Self::Backend(_) => {
                "put `nft`, or `iptables` and `ip6tables`, into the image of exeat-init"
            }
            Self::Module(_) => {
                "load the module into the kernel that the pod runs on, which is the guest's with Kata (nf_tables, nft_fib_inet, nft_reject_inet, nft_redir; or xt_owner, \
                 xt_conntrack, xt_connmark, xt_addrtype, xt_REDIRECT, ipt_REJECT), or try another `--backend`"
            }
            Self::Ipv6(_) => {
                "load ip6_tables, ip6table_filter, ip6table_nat and nf_reject_ipv6 on the node, or use `--backend nft`"
            }
            Self::Foreign(_) => {
                "run exeat-init before whatever wrote them, or remove it from the pod: a mesh sidecar and the gate \
                 can't share one"
            }
            Self::Readback(_) => {
                "another process changes the rules: find it, then run `exeat-init apply` again"
            }
            Self::Leak(_) => {
                "do not start the agent here; report the attempt, the kernel and the backend"
            }
            Self::Locked(_) => {
                "find out who holds /run/xtables.lock, then run `exeat-init apply` again"
            }
            Self::Program { .. } => {
                "read the message above; `exeat-init plan` prints the rules that were to be written"
            }
            Self::Unproven(_) => {
                "let exeat-init keep SETUID and SETGID, so that it can try as somebody without rights"
            }
            Self::RawSockets(_) => {
                "with gVisor: start runsc with `--net-raw` (in its runtime's options: net-raw = \"true\"), and give \
                 NET_RAW to the init container, to no other"
            }
            Self::Unsuited(_) => "use another `--backend`; these rules are for gVisor",
        }
    }
}

impl From<PlanError> for InitError {
    fn from(error: PlanError) -> Self {
        Self::Usage(error.to_string())
    }
}
