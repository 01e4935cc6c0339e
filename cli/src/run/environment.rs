//! The variables that the command gets beside the user's own.
//!
//! They are those of pods too ([`exeat_inject::clients`]). What the user's shell says of proxies is
//! taken away: the way out is the gate, which such clients would miss.

use std::path::Path;
use std::process::Command;

use exeat_inject::clients::{
    BUNDLE_VARIABLES, JAVA_VARIABLE, OTHER_ROOTS, PROXIES, ROOT_VARIABLES, java_options,
};

/// The system's roots, the gate's own, and those of `--upstream-ca`, as PEM.
pub(super) const BUNDLE: &str = "ca-bundle.pem";

/// The gate's own root alone, as PEM: for clients that add it to roots of their own.
pub(super) const ROOT: &str = "ca.pem";

/// The bundle as Java reads it.
pub(super) const JAVA: &str = "cacerts.jks";

/// Sets the command's variables. `folder` is where it finds the gate's public files.
#[expect(
    clippy::disallowed_methods,
    reason = "the command's environment is the user's, and is added to"
)]
pub(super) fn set(command: &mut Command, folder: &Path, java: bool) {
    for name in PROXIES.iter().chain(OTHER_ROOTS) {
        command.env_remove(name);
        command.env_remove(name.to_uppercase());
    }
    // Headers for the gate's collector can hold its key.
    for name in [
        "OTEL_EXPORTER_OTLP_HEADERS",
        "OTEL_EXPORTER_OTLP_LOGS_HEADERS",
    ] {
        command.env_remove(name);
    }
    for name in BUNDLE_VARIABLES {
        command.env(name, folder.join(BUNDLE));
    }
    for name in ROOT_VARIABLES {
        command.env(name, folder.join(ROOT));
    }
    if java {
        let theirs = std::env::var(JAVA_VARIABLE).unwrap_or_default();
        let store = folder.join(JAVA);
        command.env(
            JAVA_VARIABLE,
            java_options(&theirs, &store.to_string_lossy()),
        );
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::disallowed_methods,
        reason = "a test"
    )]

    use super::*;
    use std::ffi::OsStr;

    #[test]
    fn proxies_are_taken_away_and_roots_are_named() {
        let mut command = Command::new("true");
        command.env("https_proxy", "http://elsewhere:3128");
        set(&mut command, Path::new("/tmp/x"), true);
        let get = |name: &str| {
            command
                .get_envs()
                .find(|(key, _)| *key == OsStr::new(name))
                .map(|(_, value)| value.map(OsStr::to_owned))
        };
        assert_eq!(get("https_proxy"), Some(None));
        assert_eq!(get("HTTPS_PROXY"), Some(None));
        assert_eq!(get("SSL_CERT_DIR"), Some(None));
        assert_eq!(
            get("SSL_CERT_FILE"),
            Some(Some("/tmp/x/ca-bundle.pem".into()))
        );
        let java = get("JAVA_TOOL_OPTIONS").flatten().unwrap();
        assert!(
            java.to_str()
                .unwrap()
                .ends_with("trustStore=/tmp/x/cacerts.jks")
        );
    }
}
