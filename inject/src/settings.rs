//! What the operator decides for every pod. Nothing here comes from a pod or its namespace.

use std::fmt;

use crate::names::{RESERVED_PREFIX, SECRET_DIGITS, SECRET_PREFIX};

/// What the operator decides for every pod.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Settings {
    /// The sidecar's image.
    pub sidecar_image: Image,
    /// The guard's image.
    pub init_image: Image,
    /// When the kubelet fetches them.
    pub pull_policy: PullPolicy,
    /// Where records are exported to.
    pub otlp: Option<String>,
    /// The name servers that the sidecar asks; the pod's own where there is none.
    pub name_servers: Vec<String>,
    /// Whether the ConfigMap `exeat-upstream-ca` of the pod's namespace adds roots for upstreams.
    pub upstream_ca: bool,
    /// What a record must survive before its call may go on; the sidecar's default where absent.
    pub durability: Option<Durability>,
    /// What the sidecar may use.
    pub sidecar_resources: Resources,
    /// What the guard may use.
    pub init_resources: Resources,
    /// CSI drivers that may be named in a pod: each is trusted to talk only to servers that its
    /// administrator chose.
    pub inline_csi_drivers: Vec<String>,
    /// Whether pods may hold DRA claims, which can hand them network devices that pass by the kernel.
    pub resource_claims: bool,
    /// The `RuntimeClass`es whose pods run in gVisor: there the guard needs `NET_RAW` as well.
    pub gvisor_runtime_classes: Vec<String>,
    /// Whether every container must say as which user it runs. An image whose own user is the
    /// sidecar's is let out by the kernel, and admission can't look into images.
    pub require_run_as_user: bool,
}

/// An image that can't be changed under its name: `registry/name@sha256:…`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Image(String);

/// When the kubelet fetches an image.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum PullPolicy {
    /// Where it is not on the node yet: by digest there is nothing newer.
    #[default]
    IfNotPresent,
    /// At every start.
    Always,
    /// Never: it is on every node.
    Never,
}

/// What a record must survive before its call may go on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Durability {
    /// `kill -9`.
    Written,
    /// Loss of power.
    Synced,
}

/// What a container asks for and may use.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Resources {
    /// Thousandths of a processor that it is sure of.
    pub cpu_request: u32,
    /// Thousandths of a processor that it may use.
    pub cpu_limit: u32,
    /// MiB that it is sure of.
    pub memory_request: u32,
    /// MiB that it may use.
    pub memory_limit: u32,
}

/// The name of the Secret that the sidecar takes credentials from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SecretName(String);

/// Why a setting was refused.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BadSetting {
    /// An image by tag can be another one tomorrow.
    #[error(
        "image {0:?} is not pinned; give it as NAME@sha256:DIGEST, with 64 lower-case hexadecimal digits"
    )]
    Image(String),
    /// Not a name that Kubernetes takes, or one that Exeat keeps for itself.
    #[error(
        "{0:?} can't be the name of a credentials Secret; use lower-case letters, digits, `-` and `.`, at most 253 of them, and not the prefix `exeat-`"
    )]
    Secret(String),
    /// Not a pull policy.
    #[error("{0:?} is not a pull policy; it is one of IfNotPresent, Always, Never")]
    PullPolicy(String),
    /// Not a level of durability.
    #[error("{0:?} is not a durability; it is one of written, synced")]
    Durability(String),
    /// A level that the sidecar does not have yet: it would end at its start, and every pod with it.
    #[error(
        "durability \"exported\" is not there yet: the sidecar can't wait for the collector; use synced, and --otlp beside it"
    )]
    Exported,
}

/// Drivers that hand out what their own configuration names, not what a pod names.
const INLINE_CSI_DRIVERS: [&str; 3] = [
    "secrets-store.csi.k8s.io",
    "csi.cert-manager.io",
    "csi.spiffe.io",
];

/// As gVisor's own documentation and GKE name it, and as its handler is called.
const GVISOR_RUNTIME_CLASSES: [&str; 2] = ["gvisor", "runsc"];

/// An image reference longer than this is none.
const MAX_IMAGE: usize = 1024;

// === impl Settings ===

impl Settings {
    /// The defaults, with these images.
    #[must_use]
    pub fn new(sidecar_image: Image, init_image: Image) -> Self {
        Self {
            sidecar_image,
            init_image,
            pull_policy: PullPolicy::default(),
            otlp: None,
            name_servers: Vec::new(),
            upstream_ca: false,
            durability: None,
            sidecar_resources: Resources {
                cpu_request: 50,
                cpu_limit: 2000,
                memory_request: 64,
                memory_limit: 256,
            },
            init_resources: Resources {
                cpu_request: 10,
                cpu_limit: 1000,
                memory_request: 16,
                memory_limit: 128,
            },
            inline_csi_drivers: INLINE_CSI_DRIVERS.map(str::to_owned).to_vec(),
            resource_claims: false,
            gvisor_runtime_classes: GVISOR_RUNTIME_CLASSES.map(str::to_owned).to_vec(),
            require_run_as_user: false,
        }
    }
}

// === impl Image ===

impl Image {
    /// Takes a reference that is pinned by digest.
    pub fn parse(text: &str) -> Result<Self, BadSetting> {
        let bad = || BadSetting::Image(text.to_owned());
        let (name, digest) = text.rsplit_once("@sha256:").ok_or_else(bad)?;
        let plain = |c: u8| c.is_ascii_graphic() && c != b'@';
        let hex = |c: u8| matches!(c, b'0'..=b'9' | b'a'..=b'f');
        let good = !name.is_empty()
            && text.len() <= MAX_IMAGE
            && name.bytes().all(plain)
            && digest.len() == 64
            && digest.bytes().all(hex);
        good.then(|| Self(text.to_owned())).ok_or_else(bad)
    }

    /// As a pod has it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether another reference is to an image of the same name, of whichever version.
    pub(crate) fn is_of_the_name_of(&self, reference: &str) -> bool {
        let name = |text: &str| {
            text.split_once('@')
                .map_or(text, |(name, _)| name)
                .to_owned()
        };
        name(&self.0) == name(reference)
    }
}

impl fmt::Display for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// === impl PullPolicy ===

impl PullPolicy {
    /// Takes Kubernetes' word for it.
    pub fn parse(text: &str) -> Result<Self, BadSetting> {
        [Self::IfNotPresent, Self::Always, Self::Never]
            .into_iter()
            .find(|policy| policy.as_str() == text)
            .ok_or_else(|| BadSetting::PullPolicy(text.to_owned()))
    }

    /// Kubernetes' word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::IfNotPresent => "IfNotPresent",
            Self::Always => "Always",
            Self::Never => "Never",
        }
    }
}

// === impl Durability ===

impl Durability {
    /// Takes the sidecar's word for it.
    pub fn parse(text: &str) -> Result<Self, BadSetting> {
        if text == "exported" {
            return Err(BadSetting::Exported);
        }
        [Self::Written, Self::Synced]
            .into_iter()
            .find(|level| level.as_str() == text)
            .ok_or_else(|| BadSetting::Durability(text.to_owned()))
    }

    /// The sidecar's word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Written => "written",
            Self::Synced => "synced",
        }
    }
}

// === impl SecretName ===

impl SecretName {
    /// A pod's own, from 64 random bits.
    #[must_use]
    pub fn of_pod(random: u64) -> Self {
        Self(format!("{SECRET_PREFIX}{random:016x}"))
    }

    /// Takes a name that a pod's author may give: a pod's own, or one outside Exeat's names.
    pub fn parse(name: &str) -> Result<Self, BadSetting> {
        let known = Self::is_of_pod(name) || !name.starts_with(RESERVED_PREFIX);
        (known && is_subdomain(name))
            .then(|| Self(name.to_owned()))
            .ok_or_else(|| BadSetting::Secret(name.to_owned()))
    }

    /// Whether this is the name of some pod's own Secret.
    #[must_use]
    pub fn is_of_pod(name: &str) -> bool {
        name.strip_prefix(SECRET_PREFIX).is_some_and(|digits| {
            let hex = |c: u8| matches!(c, b'0'..=b'9' | b'a'..=b'f');
            digits.len() == SECRET_DIGITS && digits.bytes().all(hex)
        })
    }

    /// As a pod has it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether Kubernetes takes `name` for most kinds of objects (a DNS-1123 subdomain).
fn is_subdomain(name: &str) -> bool {
    let inner = |c: u8| matches!(c, b'a'..=b'z' | b'0'..=b'9' | b'-');
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(inner)
    };
    name.len() <= 253 && name.split('.').all(label)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn images_are_pinned() {
        let digest = "0".repeat(64);
        assert!(Image::parse(&format!("r.example/a/b:1@sha256:{digest}")).is_ok());
        for bad in [
            "r.example/a:latest".to_owned(),
            format!("@sha256:{digest}"),
            format!("a@sha256:{}", &digest[1..]),
            format!("a@sha256:{}A", &digest[1..]),
            format!("a@b@sha256:{digest}"),
            format!("a b@sha256:{digest}"),
        ] {
            assert!(Image::parse(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_what_the_sidecar_can_do_is_promised() {
        for level in ["written", "synced"] {
            assert_eq!(Durability::parse(level).unwrap().as_str(), level);
        }
        let refused = Durability::parse("exported").unwrap_err().to_string();
        assert!(refused.contains("use synced"), "{refused}");
        assert!(Durability::parse("Written").is_err());
    }

    #[test]
    fn secrets_are_a_pods_own_or_nobodys() {
        let own = SecretName::of_pod(0xabc);
        assert_eq!(own.as_str(), "exeat-pod-0000000000000abc");
        assert!(SecretName::parse(own.as_str()).is_ok());
        assert!(SecretName::parse("gh-token").is_ok());
        for bad in [
            "",
            "exeat-pod-1",
            "exeat-operator-tls",
            "A",
            "a/b",
            "-a",
            "a..b",
        ] {
            assert!(SecretName::parse(bad).is_err(), "{bad}");
        }
    }
}
