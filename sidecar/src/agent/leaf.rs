//! The pod's own certificate authority, and the leaf certificates it mints.
//!
//! The authority is made at start and its key never leaves this process's memory: a gate that is
//! restarted has a new one, and no pod can use another's. Only the certificate is given out.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use exeat_policy::Host;
use parking_lot::Mutex;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::{crypto::aws_lc_rs::sign::any_ecdsa_type, sign::CertifiedKey};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use time::{Duration, OffsetDateTime};

/// Leaves kept at most. One costs about 1 KiB to keep and 25 µs to mint again, so a flood of names
/// costs the flooder time and us a bounded megabyte.
const CACHE_LIMIT: usize = 1024;

/// Leaves and the authority are valid from this long ago, for clients whose clock is behind.
const BACKDATE: Duration = Duration::hours(1);

/// How long the authority is valid: longer than any pod of an agent lives, and it dies with the
/// process.
const AUTHORITY_LIFETIME: Duration = Duration::days(365);

/// How long a leaf is valid. Clients may refuse more than 398 days; a day is enough, because a leaf
/// is minted again when half of it has passed.
const LEAF_LIFETIME: Duration = Duration::hours(24);

/// The pod's certificate authority.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    pem: String,
    leaf_key: KeyPair,
    signing_key: Arc<dyn rustls::sign::SigningKey>,
    leaves: Mutex<HashMap<Host, Leaf>>,
}

struct Leaf {
    certified: Arc<CertifiedKey>,
    renew_at: OffsetDateTime,
}

/// A certificate could not be made.
#[derive(Debug, thiserror::Error)]
pub enum MintError {
    /// Key generation or signing failed.
    #[error("making a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// rustls does not take the key.
    #[error("using the leaf key: {0}")]
    Key(#[from] rustls::Error),
}

// === impl Authority ===

impl Authority {
    /// Makes a new authority with new keys.
    pub fn generate() -> Result<Self, MintError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        // The serial tells apart the authorities of one pod's restarts in a client's error message.
        params
            .distinguished_name
            .push(DnType::CommonName, "Exeat pod CA");
        params
            .distinguished_name
            .push(DnType::OrganizationName, "Exeat");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_before = OffsetDateTime::now_utc() - BACKDATE;
        params.not_after = params.not_before + AUTHORITY_LIFETIME;
        let certificate = params.self_signed(&key)?;
        let leaf_key = KeyPair::generate()?;
        let signing_key =
            any_ecdsa_type(&PrivatePkcs8KeyDer::from(leaf_key.serialize_der()).into())?;
        Ok(Self {
            certificate: certificate.der().clone(),
            pem: certificate.pem(),
            issuer: Issuer::new(params, key),
            leaf_key,
            signing_key,
            leaves: Mutex::new(HashMap::new()),
        })
    }

    /// The authority's certificate, PEM. It is no secret.
    #[must_use]
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// The leaf for a name or address, from the cache or minted now.
    pub fn leaf(&self, host: &Host) -> Result<Arc<CertifiedKey>, MintError> {
        let now = OffsetDateTime::now_utc();
        if let Some(leaf) = self.leaves.lock().get(host)
            && now < leaf.renew_at
        {
            return Ok(Arc::clone(&leaf.certified));
        }
        let certified = self.mint(host, now)?;
        let mut leaves = self.leaves.lock();
        if leaves.len() >= CACHE_LIMIT {
            // Any one goes: an adversary who can fill the cache could defeat a cleverer choice too.
            let victim = leaves.keys().next().cloned();
            victim.map(|victim| leaves.remove(&victim));
        }
        leaves.insert(
            host.clone(),
            Leaf {
                certified: Arc::clone(&certified),
                renew_at: now + LEAF_LIFETIME / 2,
            },
        );
        Ok(certified)
    }

    fn mint(&self, host: &Host, now: OffsetDateTime) -> Result<Arc<CertifiedKey>, MintError> {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![match host.ip() {
            Some(ip) => SanType::IpAddress(ip),
            None => SanType::DnsName(host.as_str().try_into()?),
        }];
        // A common name longer than 64 bytes is invalid (RFC 5280 appendix A), and names may be.
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, "Exeat leaf");
        params.not_before = now - BACKDATE;
        params.not_after = now + LEAF_LIFETIME;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let leaf = params.signed_by(&self.leaf_key, &self.issuer)?;
        Ok(Arc::new(CertifiedKey::new(
            vec![leaf.der().clone(), self.certificate.clone()],
            Arc::clone(&self.signing_key),
        )))
    }
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

/// The leaf is chosen by the name in the ClientHello; a hello without one gets the leaf of the
/// address it was sent to, where a rule names that address.
#[derive(Debug)]
pub(crate) struct Leaves {
    pub(crate) authority: Arc<Authority>,
    pub(crate) address: Option<IpAddr>,
}

impl rustls::server::ResolvesServerCert for Leaves {
    fn resolve(&self, hello: rustls::server::ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let host = match (hello.server_name(), self.address) {
            (Some(name), _) => Host::parse(name).ok()?,
            (None, Some(address)) => Host::from_ip(address),
            (None, None) => return None,
        };
        self.authority.leaf(&host).ok()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_leaf_is_minted_once_and_the_cache_is_bounded() {
        let authority = Authority::generate().unwrap();
        let host = Host::parse("api.example.com").unwrap();
        let first = authority.leaf(&host).unwrap();
        assert!(Arc::ptr_eq(&first, &authority.leaf(&host).unwrap()));
        for i in 0..CACHE_LIMIT + 50 {
            authority
                .leaf(&Host::parse(&format!("h{i}.example.com")).unwrap())
                .unwrap();
        }
        assert_eq!(authority.leaves.lock().len(), CACHE_LIMIT);
    }

    #[test]
    fn two_gates_never_share_an_authority() {
        let (a, b) = (
            Authority::generate().unwrap(),
            Authority::generate().unwrap(),
        );
        assert_ne!(a.pem(), b.pem());
    }

    #[test]
    fn neither_key_is_printable() {
        let authority = Authority::generate().unwrap();
        assert_eq!(format!("{authority:?}"), "Authority { .. }");
        assert!(!authority.pem().contains("PRIVATE"));
    }
}
