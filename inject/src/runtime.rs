//! What a pod's runtime asks of our parts.
//!
//! In doubt a pod is taken for one that runs on the node's kernel: the guard then has fewer rights,
//! and in a sandbox that needs more of them it refuses to confine, with the remedy, and nothing
//! starts.

use serde_json::Value;

use crate::settings::Settings;
use crate::walk::text;

/// The guard's capabilities. `SETGID` and `SETUID` are for its proof: it tries to get out as nobody.
const GUARD: [&str; 3] = ["NET_ADMIN", "SETGID", "SETUID"];

/// The same in gVisor, whose packet filter is asked through a raw socket only, and whose drops the
/// proof can only see with a packet socket.
const GUARD_IN_GVISOR: [&str; 4] = ["NET_ADMIN", "NET_RAW", "SETGID", "SETUID"];

/// Whether the pod asks for a `RuntimeClass` that the operator knows as gVisor's. The name is the
/// cluster's own, so it decides no more than what the guard is given: the rules are chosen in the pod,
/// by what its kernel accepts.
pub(crate) fn is_gvisor(pod: &Value, settings: &Settings) -> bool {
    text(pod, &["spec", "runtimeClassName"]).is_some_and(|name| {
        settings
            .gvisor_runtime_classes
            .iter()
            .any(|known| known == name)
    })
}

/// What the guard is given.
pub(crate) fn guard_capabilities(gvisor: bool) -> &'static [&'static str] {
    if gvisor { &GUARD_IN_GVISOR } else { &GUARD }
}
