//! How clients are told whom to trust: the one list for pods and for `exeat run`.
//!
//! Every family of clients has another way. What leads a client past the bundle or past the gate is
//! taken away, or every call of that client would fail.

/// Variables that name a file with all roots: OpenSSL, Go and Python; Python requests; curl; git;
/// gRPC; pip; npm; the AWS tools; cargo; Nix; Ruby's bundler; gcloud; Elixir's hex; Python httplib2;
/// Perl's LWP; yarn.
pub const BUNDLE_VARIABLES: &[&str] = &[
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
pub const ROOT_VARIABLES: &[&str] = &["NODE_EXTRA_CA_CERTS", "DENO_CERT"];

/// The variable that every Java takes options from.
pub const JAVA_VARIABLE: &str = "JAVA_TOOL_OPTIONS";

/// Variables that name other roots than the bundle's: folders, and proxies' own. In any case.
pub const OTHER_ROOTS: &[&str] = &["ssl_cert_dir", "git_ssl_capath", "git_proxy_ssl_cainfo"];

/// Variables that send a client to a proxy, which the gate is not told of. In any case.
pub const PROXIES: &[&str] = &[
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

/// The property that names a store of roots; those of its type and password begin with it too.
const JAVA_STORE: &str = "-Djavax.net.ssl.trustStore";
/// What a store of the gate's needs where an author's own says otherwise.
const JAVA_KIND: &str =
    "-Djavax.net.ssl.trustStoreType=JKS -Djavax.net.ssl.trustStorePassword=changeit";

/// The value of [`JAVA_VARIABLE`] that keeps what `theirs` says and trusts `store`. Of two options of
/// one name Java takes the last.
#[must_use]
pub fn java_options(theirs: &str, store: &str) -> String {
    let ours = java_option(store);
    let theirs = theirs.trim();
    if theirs.is_empty() {
        return ours;
    }
    if without_java_options(theirs, store).is_some() {
        return theirs.to_owned();
    }
    if names_java_store(theirs) {
        format!("{theirs} {ours} {JAVA_KIND}")
    } else {
        format!("{theirs} {ours}")
    }
}

/// Whether Java is told of a store of its author's.
#[must_use]
pub fn names_java_store(options: &str) -> bool {
    options.contains(JAVA_STORE)
}

/// What was there before [`java_options`]; none where ours are not the last.
#[must_use]
pub fn without_java_options<'a>(options: &'a str, store: &str) -> Option<&'a str> {
    let ours = java_option(store);
    let options = options
        .strip_suffix(JAVA_KIND)
        .map_or(options, str::trim_end);
    let theirs = options.strip_suffix(ours.as_str())?;
    (theirs.is_empty() || theirs.ends_with(' ')).then(|| theirs.trim_end())
}

fn java_option(store: &str) -> String {
    format!("{JAVA_STORE}={store}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn java_keeps_its_authors_options_and_ours_are_the_last_word() {
        let ours = "-Djavax.net.ssl.trustStore=/s";
        assert_eq!(java_options("", "/s"), ours);
        assert_eq!(java_options(" -Xmx1g ", "/s"), format!("-Xmx1g {ours}"));
        let own = "-Djavax.net.ssl.trustStore=/own -Djavax.net.ssl.trustStorePassword=x";
        let both = java_options(own, "/s");
        assert_eq!(both, format!("{own} {ours} {JAVA_KIND}"));
        for theirs in ["", "-Xmx1g", own] {
            let given = java_options(theirs, "/s");
            assert_eq!(java_options(&given, "/s"), given, "set twice");
            assert_eq!(without_java_options(&given, "/s"), Some(theirs));
        }
        assert_eq!(without_java_options(own, "/s"), None);
        assert_eq!(
            without_java_options("-Dx-Djavax.net.ssl.trustStore=/s", "/s"),
            None
        );
    }
}
