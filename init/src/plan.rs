//! What must hold in the namespace, as a value that can't be wrong once it exists.
//!
//! There is nothing here that could widen the way out: no excluded port, address, interface or
//! group. Exceptions are policy, judged and recorded by the gate, never a rule in the kernel.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;
use thiserror::Error;

/// The sidecar's UID unless told otherwise: above the ranges that distributions hand out and
/// below 65 536, so that it exists in every user namespace a runtime maps.
pub const DEFAULT_UID: u32 = 64_100;

/// How a namespace is to be confined.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Plan {
    /// The one UID whose TCP and UDP may leave. `None` when the gate lives outside the namespace:
    /// then nobody's may, and every address is expected to be local (`exeat run`).
    pub exempt: Option<Uid>,
    /// Where the gate listens.
    pub ports: Ports,
}

/// A user whose traffic can be told apart: never root, never the «nobody» of unmapped users.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct Uid(u32);

/// The gate's listening ports.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub struct Ports {
    /// Takes redirected TCP.
    pub transparent: u16,
    /// Takes clients that were told of a proxy.
    pub explicit: u16,
    /// Takes every DNS question, UDP and TCP.
    pub dns: u16,
    /// Health and metrics: for the kubelet and for collectors, not for the agent.
    pub health: u16,
}

/// Which packet filter writes the rules.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Backend {
    /// nft where it works, else iptables over `nf_tables`, else legacy iptables, else the rules for
    /// gVisor where the kernel is such a one.
    #[default]
    Auto,
    /// Native nftables: both families in one transaction.
    Nft,
    /// Whichever iptables works, `nf_tables` first.
    Iptables,
    /// `iptables-nft-restore` and its IPv6 twin.
    IptablesNft,
    /// `iptables-legacy-restore` and its IPv6 twin.
    IptablesLegacy,
    /// The same programs with rules that need neither flow states nor marks: gVisor's network
    /// stack knows owner, destination and port, and nothing else.
    Gvisor,
}

/// A plan that can't be kept.
#[derive(Debug, Error, Eq, PartialEq)]
pub enum PlanError {
    /// Root, or a UID that stands for «unknown».
    #[error(
        "uid {0} can't be exempt: choose one from 1 to 65533 that no container of the pod runs as"
    )]
    Uid(u32),
    /// Zero, or given twice.
    #[error("port {0} can't be used: the gate's ports must differ and not be 0 or 53")]
    Port(u16),
    /// An unknown word.
    #[error(
        "unknown backend `{0}`, expected auto, nft, iptables, iptables-nft, iptables-legacy or gvisor"
    )]
    Backend(String),
}

// === impl Plan ===

impl Plan {
    /// The gate is in the namespace, under a UID of its own.
    #[must_use]
    pub fn sidecar(uid: Uid) -> Self {
        Self {
            exempt: Some(uid),
            ports: Ports::default(),
        }
    }

    /// The gate is outside; the namespace has nothing but loopback, and routes that make every
    /// address local. Its listeners are sockets inside the namespace.
    #[must_use]
    pub fn outside() -> Self {
        Self {
            exempt: None,
            ports: Ports::default(),
        }
    }

    /// The same plan with other ports.
    #[must_use]
    pub fn with_ports(self, ports: Ports) -> Self {
        Self { ports, ..self }
    }
}

impl Default for Plan {
    fn default() -> Self {
        Self::sidecar(Uid(DEFAULT_UID))
    }
}

// === impl Uid ===

impl Uid {
    /// Takes a UID that may be exempt.
    pub fn new(uid: u32) -> Result<Self, PlanError> {
        // 65534 is what every unmapped user looks like: exempting it would exempt strangers.
        if (1..=65_533).contains(&uid) {
            Ok(Self(uid))
        } else {
            Err(PlanError::Uid(uid))
        }
    }

    /// As the kernel counts it.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

// === impl Ports ===

impl Ports {
    /// Takes four ports that differ and don't collide with DNS itself.
    pub fn new(transparent: u16, explicit: u16, dns: u16, health: u16) -> Result<Self, PlanError> {
        let all = [transparent, explicit, dns, health];
        for (index, port) in all.iter().enumerate() {
            if *port == 0 || *port == 53 || all[..index].contains(port) {
                return Err(PlanError::Port(*port));
            }
        }
        Ok(Self {
            transparent,
            explicit,
            dns,
            health,
        })
    }
}

impl Default for Ports {
    fn default() -> Self {
        Self {
            transparent: 15_001,
            explicit: 15_002,
            dns: 15_053,
            health: 15_021,
        }
    }
}

// === impl Backend ===

impl Backend {
    /// As it is written on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Nft => "nft",
            Self::Iptables => "iptables",
            Self::IptablesNft => "iptables-nft",
            Self::IptablesLegacy => "iptables-legacy",
            Self::Gvisor => "gvisor",
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Backend {
    type Err = PlanError;

    fn from_str(word: &str) -> Result<Self, PlanError> {
        [
            Self::Auto,
            Self::Nft,
            Self::Iptables,
            Self::IptablesNft,
            Self::IptablesLegacy,
            Self::Gvisor,
        ]
        .into_iter()
        .find(|backend| backend.as_str() == word)
        .ok_or_else(|| PlanError::Backend(word.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn root_and_nobody_are_never_exempt() {
        for uid in [0, 65_534, 65_535, u32::MAX] {
            assert_eq!(Uid::new(uid), Err(PlanError::Uid(uid)));
        }
        assert_eq!(Uid::new(DEFAULT_UID).map(Uid::get), Ok(DEFAULT_UID));
    }

    #[test]
    fn ports_must_differ() {
        assert_eq!(
            Ports::new(15001, 15002, 15001, 15021),
            Err(PlanError::Port(15001))
        );
        assert_eq!(Ports::new(15001, 0, 15053, 15021), Err(PlanError::Port(0)));
        assert_eq!(
            Ports::new(15001, 15002, 53, 15021),
            Err(PlanError::Port(53))
        );
        assert_eq!(Ports::new(15001, 15002, 15053, 15021), Ok(Ports::default()));
    }

    #[test]
    fn every_backend_reads_back_as_itself() {
        for word in [
            "auto",
            "nft",
            "iptables",
            "iptables-nft",
            "iptables-legacy",
            "gvisor",
        ] {
            assert_eq!(word.parse::<Backend>().unwrap().to_string(), word);
        }
        assert!("sh".parse::<Backend>().is_err());
    }
}
