//! Where the cluster is: its folders, its namespace, its addresses. Nothing else on the machine is
//! called so.

use std::path::PathBuf;

use crate::shell::cache;

/// The node's network namespace.
pub(super) const NAMESPACE: &str = "exeat-node";
/// The machine's end of the cable to it.
pub(super) const CABLE: &str = "exeat-host";
/// The machine's address on that cable.
pub(super) const HOST_V4: &str = "203.0.113.1";
/// The node's.
pub(super) const NODE_V4: &str = "203.0.113.77";
/// The node's, IPv6.
pub(super) const NODE_V6: &str = "fd00:203::77";
/// The pods'.
pub(super) const PODS_V4: &str = "10.99.0.0/24";
/// The pods', IPv6.
pub(super) const PODS_V6: &str = "fd99::/64";
/// The services'.
pub(super) const SERVICES: &str = "10.97.0.0/16,fd97::/108";
/// Held by whoever starts, holds or ends the cluster.
pub(super) const LOCK: &str = "/run/exeat-cluster.lock";

/// A socket's path has 108 bytes at most, so the state can't be wherever the project is.
const STATE: &str = "/tmp/exeat-cluster";

/// The cluster's folders.
#[derive(Debug)]
pub(super) struct Place {
    /// The programs.
    pub(super) bin: PathBuf,
    /// The resources that they come with.
    pub(super) resources: PathBuf,
    /// All that is there while it runs.
    pub(super) state: PathBuf,
}

// === impl Place ===

impl Place {
    pub(super) fn new() -> Self {
        let cluster = cache().join("cluster");
        Self {
            bin: cluster.join("bin"),
            resources: cluster.join("resources"),
            state: PathBuf::from(STATE),
        }
    }

    pub(super) fn kubeconfig(&self) -> PathBuf {
        self.state.join("admin.kubeconfig")
    }

    pub(super) fn containerd(&self) -> PathBuf {
        self.state.join("containerd.sock")
    }
}

/// The node's network namespace, as a path.
pub(super) fn netns() -> String {
    format!("/run/netns/{NAMESPACE}")
}
