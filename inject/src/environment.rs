//! The variables that make a container's clients trust the gate.
//!
//! Every family of clients has another way of being told whom to trust. A value of the pod's author
//! that names other roots would make every call of that client fail, so it is replaced, with a
//! warning; so are proxies taken away, which the gate would refuse to reach.

use serde_json::{Value, json};

use crate::names::{CA_BUNDLE, CA_FILE};

/// Variables that name a file with all roots: OpenSSL, Go and Python; Python requests; curl; git;
/// gRPC; pip; npm; the AWS tools; cargo; Nix; Ruby's bundler; gcloud; Elixir's hex; Python httplib2;
/// Perl's LWP; yarn.
pub(crate) const BUNDLE_VARIABLES: &[&str] = &[
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
pub(crate) const ROOT_VARIABLES: &[&str] = &["NODE_EXTRA_CA_CERTS", "DENO_CERT"];

/// Variables that send a client to a proxy, which the gate is not told of. Compared in any case.
const PROXY_VARIABLES: &[&str] = &[
    "http_proxy",
    "https_proxy",
    "ftp_proxy",
    "all_proxy",
    "no_proxy",
    "ws_proxy",
    "wss_proxy",
    "socks_proxy",
    "npm_config_proxy",
    "npm_config_https_proxy",
    "npm_config_noproxy",
    "cargo_http_proxy",
    "pip_proxy",
    "global_agent_http_proxy",
    "global_agent_https_proxy",
];

/// Every variable of ours with its value.
pub(crate) fn ours() -> impl Iterator<Item = (&'static str, &'static str)> {
    let bundle = BUNDLE_VARIABLES.iter().map(|name| (*name, CA_BUNDLE));
    let root = ROOT_VARIABLES.iter().map(|name| (*name, CA_FILE));
    bundle.chain(root)
}

/// Whether `name` sends a client to a proxy.
fn is_proxy(name: &str) -> bool {
    PROXY_VARIABLES
        .iter()
        .any(|proxy| proxy.eq_ignore_ascii_case(name))
}

/// Sets ours in `variables`. `path` is where they are, for the warnings.
pub(crate) fn set(variables: &mut Vec<Value>, path: &str, warnings: &mut Vec<String>) {
    let name_of = |variable: &Value| {
        variable
            .get("name")
            .and_then(Value::as_str)
            .map(str::to_owned)
    };
    variables.retain(|variable| {
        let Some(name) = name_of(variable).filter(|name| is_proxy(name)) else {
            return true;
        };
        warnings.push(format!(
            "{path}: {name} was taken away; the pod's way out is the gate, not a proxy"
        ));
        false
    });
    for (name, value) in ours() {
        let wanted = json!({"name": name, "value": value});
        let mut found = false;
        for variable in variables.iter_mut() {
            if name_of(variable).as_deref() != Some(name) {
                continue;
            }
            found = true;
            if *variable != wanted {
                warnings.push(format!(
                    "{path}: {name} was replaced by {value}, or this client would not trust the gate"
                ));
                *variable = wanted.clone();
            }
        }
        if !found {
            variables.push(wanted);
        }
    }
}

/// Takes ours away again.
pub(crate) fn unset(variables: &mut Vec<Value>) {
    variables.retain(|variable| {
        !ours().any(|(name, value)| *variable == json!({"name": name, "value": value}))
    });
}
