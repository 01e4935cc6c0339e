//! TLS to upstreams: always verified, against the system's roots and the configured ones.
//!
//! There is no setting that turns verification off, neither here nor in a policy: an agent that
//! skips verification on its own leg changes nothing on this one.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use exeat_policy::CaSource;
use parking_lot::Mutex;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};

/// Configurations for rules with their own `ca` kept at most; more are built again when needed.
const CONFIG_LIMIT: usize = 64;

/// TLS sessions remembered for resumption, by server name. Small: every entry holds certificates.
const SESSION_LIMIT: usize = 64;

/// Where distributions keep the system's roots: Debian and Alpine, Fedora, `openSUSE`, BSD. Not from
/// the environment: who can set a variable of the gate's must not choose whom it trusts.
pub const SYSTEM_BUNDLES: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Client configurations for upstreams.
#[derive(Debug)]
pub struct UpstreamTls {
    roots: Arc<RootCertStore>,
    default: Pair,
    by_authority: Mutex<HashMap<CaSource, Pair>>,
}

/// The same trust with and without HTTP/2 on offer.
#[derive(Clone, Debug)]
struct Pair {
    http1: Arc<ClientConfig>,
    http2: Arc<ClientConfig>,
}

/// No trust could be established.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The system has no roots and none were configured.
    #[error("no certificate authorities found: install `ca-certificates`, or give --upstream-ca")]
    NoRoots,
    /// A configured file can't be used.
    #[error("reading certificate authorities from {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rustls_pki_types::pem::Error,
    },
    /// A configured file has no certificate in it.
    #[error("{} holds no PEM certificate", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// A rule's `ca` is no certificate.
    #[error("the rule's `tls.ca` can't be read or holds no usable PEM certificate")]
    RuleAuthority,
}

/// The system's roots and the certificates in `extra`.
pub fn roots(extra: &[PathBuf]) -> Result<RootCertStore, TrustError> {
    let mut roots = RootCertStore::empty();
    let bundle = SYSTEM_BUNDLES
        .iter()
        .map(Path::new)
        .find(|path| path.exists());
    if let Some(bundle) = bundle {
        let system = rustls_native_certs::load_certs_from_paths(Some(bundle), None);
        for error in &system.errors {
            tracing::warn!(%error, "a system certificate could not be read");
        }
        roots.add_parsable_certificates(system.certs);
    }
    for path in extra {
        let certificates = CertificateDer::pem_file_iter(path)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|source| TrustError::File {
                path: path.clone(),
                source,
            })?;
        let (added, _) = roots.add_parsable_certificates(certificates);
        if added == 0 {
            return Err(TrustError::Empty { path: path.clone() });
        }
    }
    if roots.is_empty() {
        return Err(TrustError::NoRoots);
    }
    Ok(roots)
}

// === impl UpstreamTls ===

impl UpstreamTls {
    /// Trusts the system's roots and the certificates in `extra`.
    pub fn new(extra: &[PathBuf]) -> Result<Self, TrustError> {
        let roots = Arc::new(roots(extra)?);
        Ok(Self {
            default: Pair::new(&roots),
            roots,
            by_authority: Mutex::new(HashMap::new()),
        })
    }

    /// The configuration for a rule with this `ca`, or the default one.
    pub fn config(
        &self,
        ca: Option<&CaSource>,
        http2: bool,
    ) -> Result<Arc<ClientConfig>, TrustError> {
        let Some(ca) = ca else {
            return Ok(self.default.pick(http2));
        };
        if let Some(pair) = self.by_authority.lock().get(ca) {
            return Ok(pair.pick(http2));
        }
        let mut roots = RootCertStore::clone(&self.roots);
        let certificates = match ca {
            CaSource::Pem(pem) => CertificateDer::pem_slice_iter(pem.as_bytes()).collect(),
            CaSource::File(path) => CertificateDer::pem_file_iter(&**path)
                .and_then(Iterator::collect::<Result<Vec<_>, _>>),
        }
        .map_err(|_| TrustError::RuleAuthority)?;
        if roots.add_parsable_certificates(certificates).0 == 0 {
            return Err(TrustError::RuleAuthority);
        }
        let pair = Pair::new(&Arc::new(roots));
        let mut by_authority = self.by_authority.lock();
        if by_authority.len() >= CONFIG_LIMIT {
            by_authority.clear();
        }
        by_authority.insert(ca.clone(), pair.clone());
        Ok(pair.pick(http2))
    }
}

// === impl Pair ===

impl Pair {
    fn new(roots: &Arc<RootCertStore>) -> Self {
        let mut http1 = ClientConfig::builder()
            .with_root_certificates(Arc::clone(roots))
            .with_no_client_auth();
        http1.resumption = rustls::client::Resumption::in_memory_sessions(SESSION_LIMIT);
        http1.alpn_protocols = vec![b"http/1.1".to_vec()];
        let mut http2 = http1.clone();
        http2.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Self {
            http1: Arc::new(http1),
            http2: Arc::new(http2),
        }
    }

    fn pick(&self, http2: bool) -> Arc<ClientConfig> {
        Arc::clone(if http2 { &self.http2 } else { &self.http1 })
    }
}
