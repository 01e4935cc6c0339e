//! Whether the API server believes the operator's certificate: verified as it verifies it. Pure.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

/// Whether it does.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Trust {
    Yes,
    /// And why not.
    No(String),
}

/// The certificates in base64 of PEM, as `caBundle` and Secrets have them; none if it is not that.
pub(super) fn authorities(text: &str) -> Vec<CertificateDer<'static>> {
    let Ok(pem) = STANDARD.decode(text) else {
        return Vec::new();
    };
    CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .unwrap_or_default()
}

/// Judges `chain` under `authority`, both as [`authorities`] reads them.
pub(super) fn trust(authority: &str, chain: &str, name: &str, at: UnixTime) -> Trust {
    verify(authority, chain, name, at).map_or_else(Trust::No, |()| Trust::Yes)
}

fn verify(authority: &str, chain: &str, name: &str, at: UnixTime) -> Result<(), String> {
    let mut roots = RootCertStore::empty();
    for root in authorities(authority) {
        roots
            .add(root)
            .map_err(|error| format!("the caBundle holds what is no authority: {error}"))?;
    }
    let chain = authorities(chain);
    let Some((own, rest)) = chain.split_first() else {
        return Err("the Secret holds no certificate".to_owned());
    };
    let verifier =
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::new(default_provider()))
            .build()
            .map_err(|error| format!("the webhook configuration has no authority: {error}"))?;
    let name = ServerName::try_from(name).map_err(|error| error.to_string())?;
    verifier
        .verify_server_cert(own, rest, &name, &[], at)
        .map(drop)
        .map_err(|error| error.to_string())
}
