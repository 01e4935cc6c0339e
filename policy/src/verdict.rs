//! The answer: a [`Grant`] with its obligations, or a [`Denial`] with its reason.

use std::sync::Arc;

use ipnet::IpNet;

use crate::credential::Credential;
use crate::reason::Reason;

/// What becomes of a call.
#[derive(Debug, Clone)]
pub enum Verdict {
    /// It may pass, with these obligations.
    Allow(Grant),
    /// It may not.
    Deny(Denial),
}

/// Leave for one call, and what the gate must do with it.
#[derive(Debug, Clone)]
pub struct Grant {
    /// The policy, as `namespace/name`, or its name alone where it has no namespace.
    pub policy: Arc<str>,
    /// The rule; empty where a Shadow policy lets pass what no rule allows.
    pub rule: Arc<str>,
    /// Whether the policy is enforced or only watches.
    pub mode: Mode,
    /// What a Shadow policy would have denied.
    pub shadowed: Option<Denial>,
    /// The credential to inject.
    pub credential: Option<Arc<Credential>>,
    /// The special-purpose ranges that may be dialled for this call.
    pub addresses: Arc<[IpNet]>,
    /// How the upstream is verified.
    pub upstream_tls: UpstreamTls,
}

/// A refusal, with what to tell the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// From the closed set.
    pub reason: Reason,
    /// For the person who reads the agent's log: what to change.
    pub message: String,
    /// The policy that decided or came nearest.
    pub policy: Option<Arc<str>>,
    /// The rule that decided or came nearest.
    pub rule: Option<Arc<str>>,
}

/// Whether a policy's denials count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Mode {
    /// They do.
    Enforce,
    /// They are recorded, and the call passes, without credential.
    Shadow,
}

/// How the upstream is verified, beside the system's roots and the gate's own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UpstreamTls {
    /// A certificate authority that only this rule trusts.
    pub ca: Option<CaSource>,
}

/// Where a rule's certificate authority is written.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum CaSource {
    /// Here, as PEM.
    Pem(Arc<str>),
    /// In this file of the gate's.
    File(Arc<str>),
}

// === impl Verdict ===

impl Verdict {
    /// Whether the call may pass.
    #[must_use]
    pub fn is_allowed(&self) -> bool {
        matches!(self, Self::Allow(_))
    }
}

// === impl Denial ===

impl Denial {
    /// A refusal that no rule is behind.
    #[must_use]
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
            policy: None,
            rule: None,
        }
    }
}

// === impl Mode ===

impl Mode {
    /// As it is written in a policy.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Enforce => "Enforce",
            Self::Shadow => "Shadow",
        }
    }
}
