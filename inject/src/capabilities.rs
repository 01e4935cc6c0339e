//! Capabilities: which a governed container may have.
//!
//! The kernel knows the sidecar by its user, so nobody else may become another user (`SETUID`, `SETGID`,
//! and what grants them: `SETPCAP`, `SETFCAP`), nor send what the packet filter does not judge by user
//! (`NET_RAW`), nor change the filter. What runtimes give by default beside these stays: programs that
//! run as root need it to own their files.

use serde_json::Value;

/// Of the capabilities that runtimes give unasked, those that lead out.
pub const DROPPED: [&str; 5] = ["NET_RAW", "SETFCAP", "SETGID", "SETPCAP", "SETUID"];

/// Those that may be added: what Pod Security's baseline lets through, less [`DROPPED`].
pub const ADDABLE: [&str; 9] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
];

/// Runtimes take any case, with or without the prefix.
fn plain(name: &str) -> String {
    let upper = name.to_ascii_uppercase();
    upper.strip_prefix("CAP_").unwrap_or(&upper).to_owned()
}

/// Whether `name` may be added.
pub(crate) fn is_addable(name: &str) -> bool {
    ADDABLE.contains(&plain(name).as_str())
}

/// Those of [`DROPPED`] that `dropped` leaves.
pub(crate) fn left(dropped: &[Value]) -> Vec<&'static str> {
    // Only the exact word is taken for all of them by every runtime.
    let has = |wanted: &str| dropped.iter().any(|name| name.as_str() == Some(wanted));
    if has("ALL") {
        return Vec::new();
    }
    DROPPED.into_iter().filter(|name| !has(name)).collect()
}

/// Adds those to `dropped`.
pub(crate) fn drop_needed(dropped: &mut Vec<Value>) {
    for name in left(dropped) {
        dropped.push(name.into());
    }
}
