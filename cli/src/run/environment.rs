//! The variables that the command gets beside the user's own.
//!
//! Every family of clients has another way of being told whom to trust. What the user's shell says
//! of proxies is taken away: the way out is the gate, which such clients would miss.

use std::path::Path;
use std::process::Command;

/// The system's roots, the gate's own, and those of `--upstream-ca`, as PEM.
pub(super) const BUNDLE: &str = "ca-bundle.pem";

/// The gate's own root alone, as PEM: for clients that add it to roots of their own.
pub(super) const ROOT: &str = "ca.pem";

/// The bundle as Java reads it.
pub(super) const JAVA: &str = "cacerts.jks";

/// Variables that name a file with all roots: OpenSSL and Go; Python requests; curl; git; gRPC; pip;
/// npm; the AWS tools; cargo; Nix; Ruby's bundler; gcloud; Elixir's hex; Python httplib2; Perl's LWP;
/// yarn.
const BUNDLE_VARIABLES: &[&str] = &[
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
    "PIP_CERT",
    "npm_config_cafile",
    "AWS_CA_BUNDLE",
    "CARGO_HTTP_CAINFO",
    "NIX_SSL_CERT_FILE",
    "BUNDLE_SSL_CA_CERT",
    "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE",
    "HEX_CACERTS_PATH",
    "HTTPLIB2_CA_CERTS",
    "PERL_LWP_SSL_CA_FILE",
    "YARN_HTTPS_CA_FILE_PATH",
];

/// Variables that name a file with roots to add: node, Deno.
const ROOT_VARIABLES: &[&str] = &["NODE_EXTRA_CA_CERTS", "DENO_CERT"];

/// Variables that would lead a client past the bundle or past the gate. Each also in capitals.
const REMOVED: &[&str] = &[
    "ssl_cert_dir",
    "git_ssl_capath",
    "git_proxy_ssl_cainfo",
    "http_proxy",
    "https_proxy",
    "ftp_proxy",
    "all_proxy",
    "no_proxy",
    "ws_proxy",
    "wss_proxy",
    "socks_proxy",
    "rsync_proxy",
    "npm_config_proxy",
    "npm_config_https_proxy",
    "npm_config_noproxy",
    "cargo_http_proxy",
    "pip_proxy",
    "global_agent_http_proxy",
    "global_agent_https_proxy",
    "node_use_env_proxy",
];

/// Sets the command's variables. `folder` is where it finds the gate's public files.
#[expect(
    clippy::disallowed_methods,
    reason = "the command's environment is the user's, and is added to"
)]
pub(super) fn set(command: &mut Command, folder: &Path, java: bool) {
    for name in REMOVED {
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
        let store = folder.join(JAVA);
        let ours = format!("-Djavax.net.ssl.trustStore={}", store.display());
        let options = match std::env::var("JAVA_TOOL_OPTIONS") {
            Ok(theirs) if !theirs.trim().is_empty() => format!("{theirs} {ours}"),
            _ => ours,
        };
        command.env("JAVA_TOOL_OPTIONS", options);
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
