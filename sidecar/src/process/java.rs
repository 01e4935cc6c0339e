//! The gate's authority as Java reads it.
//!
//! Java takes no PEM: it wants a key store. This is its oldest format (JKS), the one that every
//! version reads, and that holds certificates without anyone having to know a password.

use std::io;

use aws_lc_rs::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

/// The password that Java assumes for its own store. It protects nothing: the format wants one.
pub const PASSWORD: &str = "changeit";

/// What the format mixes into its checksum, after the password.
const WHITENER: &[u8] = b"Mighty Aphrodite";

/// What the file begins with, and the version that has certificates with their type.
const MAGIC: u32 = 0xfeed_feed;
const VERSION: u32 = 2;

/// An entry that is a certificate to trust.
const TRUSTED: u32 = 2;

/// A key store with every certificate of a PEM bundle.
pub fn store(bundle: &[u8]) -> io::Result<Vec<u8>> {
    let roots: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(bundle)
        .collect::<Result<_, _>>()
        .map_err(|error| io::Error::other(format!("a root certificate is malformed: {error:?}")))?;
    let mut store = Vec::with_capacity(bundle.len());
    number(&mut store, MAGIC);
    number(&mut store, VERSION);
    number(&mut store, length(roots.len())?);
    for (index, root) in roots.iter().enumerate() {
        number(&mut store, TRUSTED);
        text(&mut store, &format!("root-{index}"))?;
        // When it was added: the same store of the same roots.
        store.extend_from_slice(&0_u64.to_be_bytes());
        text(&mut store, "X.509")?;
        number(&mut store, length(root.len())?);
        store.extend_from_slice(root);
    }
    let mut checksum = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
    for unit in PASSWORD.encode_utf16() {
        checksum.update(&unit.to_be_bytes());
    }
    checksum.update(WHITENER);
    checksum.update(&store);
    store.extend_from_slice(checksum.finish().as_ref());
    Ok(store)
}

fn number(store: &mut Vec<u8>, number: u32) {
    store.extend_from_slice(&number.to_be_bytes());
}

fn length(length: usize) -> io::Result<u32> {
    u32::try_from(length).map_err(|_| io::ErrorKind::InvalidData.into())
}

fn text(store: &mut Vec<u8>, text: &str) -> io::Result<()> {
    let length = u16::try_from(text.len()).map_err(|_| io::ErrorKind::InvalidData)?;
    store.extend_from_slice(&length.to_be_bytes());
    store.extend_from_slice(text.as_bytes());
    Ok(())
}
