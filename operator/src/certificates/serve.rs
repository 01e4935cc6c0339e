//! The certificate that the webhook server shows, changed while it runs.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use parking_lot::RwLock;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::State;

/// What is served; nothing, before the first certificate was read.
#[derive(Debug, Default)]
pub(crate) struct Served(RwLock<Option<(State, Arc<CertifiedKey>)>>);

// === impl Served ===

impl Served {
    /// Serves this from now on.
    pub(crate) fn load(&self, state: &State) -> Result<()> {
        if self.state().as_ref() == Some(state) {
            return Ok(());
        }
        let chain = vec![
            CertificateDer::from_pem_slice(state.serving.certificate.as_bytes())
                .context("reading the serving certificate")?,
        ];
        let key = PrivateKeyDer::from_pem_slice(state.serving.key.as_bytes())
            .context("reading the serving key")?;
        let key = any_supported_type(&key).context("the serving key is of no known type")?;
        *self.0.write() = Some((state.clone(), Arc::new(CertifiedKey::new(chain, key))));
        tracing::info!(until = state.serving.until, "serving certificate loaded");
        Ok(())
    }

    /// What is served now.
    pub(crate) fn state(&self) -> Option<State> {
        self.0.read().as_ref().map(|(state, _)| state.clone())
    }
}

impl ResolvesServerCert for Served {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.read().as_ref().map(|(_, key)| Arc::clone(key))
    }
}
