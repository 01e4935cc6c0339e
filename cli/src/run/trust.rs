//! The files that tell the command's clients to trust the gate.
//!
//! The bundle is the system's roots (as this user's tools would see them) with the gate's beside
//! them, so that a destination which passes through unread is trusted as before.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use super::environment::{BUNDLE, JAVA, ROOT};

/// Where systems keep all their roots in one file: Debian, Ubuntu, Arch; Fedora, Red Hat; SUSE;
/// Alpine, OpenBSD; and what Fedora's is made from.
const SYSTEM_BUNDLES: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
];

/// Where systems keep them for Java.
const SYSTEM_JAVA: &[&str] = &[
    "/etc/ssl/certs/java/cacerts",
    "/etc/pki/ca-trust/extracted/java/cacerts",
    "/etc/pki/java/cacerts",
];

/// In doubt about the order: nobody has more roots than this, and each is read whole.
const MAX_BUNDLE: u64 = 8 << 20;

/// Which files of the system are to be replaced, by which of ours.
#[derive(Debug, Default)]
pub(super) struct Places {
    pub(super) replaced: Vec<(PathBuf, String)>,
    /// A Java that reads its roots from somewhere else must be told.
    pub(super) tell_java: bool,
}

// === impl Places ===

impl Places {
    /// Looks where this system keeps its roots.
    pub(super) fn find() -> Self {
        let real = |path: &&str| fs::canonicalize(path).ok().filter(|real| real.is_file());
        let mut places = Self::default();
        for path in SYSTEM_BUNDLES.iter().filter_map(real) {
            places.add(path, BUNDLE);
        }
        for path in SYSTEM_JAVA.iter().filter_map(real) {
            places.add(path, JAVA);
        }
        for home in java_homes() {
            match fs::canonicalize(home.join("lib/security/cacerts")) {
                Ok(path) if path.is_file() => places.add(path, JAVA),
                _ => places.tell_java = true,
            }
        }
        places
    }

    fn add(&mut self, path: PathBuf, ours: &str) {
        if !self.replaced.iter().any(|(known, _)| *known == path) {
            self.replaced.push((path, ours.to_owned()));
        }
    }

    fn want_java(&self) -> bool {
        self.tell_java || self.replaced.iter().any(|(_, ours)| ours == JAVA)
    }
}

/// Writes the public files into `folder`.
pub(super) fn write(
    folder: &Path,
    gate: &str,
    extra: &[PathBuf],
    places: &Places,
) -> io::Result<()> {
    let mut bundle = system_roots();
    let mut add = |pem: &[u8]| {
        if bundle.last().is_some_and(|last| *last != b'\n') {
            bundle.push(b'\n');
        }
        bundle.extend_from_slice(pem);
    };
    for file in extra {
        add(&fs::read(file)?);
    }
    add(gate.as_bytes());
    fs::write(folder.join(ROOT), gate)?;
    fs::write(folder.join(BUNDLE), &bundle)?;
    if places.want_java() {
        fs::write(folder.join(JAVA), java_store(&bundle)?)?;
    }
    Ok(())
}

/// The first bundle there is, the user's own choice first.
#[expect(
    clippy::disallowed_methods,
    reason = "the roots that the user's own tools would take"
)]
fn system_roots() -> Vec<u8> {
    let chosen = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    chosen
        .into_iter()
        .chain(SYSTEM_BUNDLES.iter().map(PathBuf::from))
        .filter(|path| fs::metadata(path).is_ok_and(|found| found.len() <= MAX_BUNDLE))
        .find_map(|path| fs::read(path).ok())
        .unwrap_or_default()
}

/// Where a `java` that the command would start has its home.
#[expect(
    clippy::disallowed_methods,
    reason = "the Java that the user's own shell would find"
)]
fn java_homes() -> Vec<PathBuf> {
    let home = std::env::var_os("JAVA_HOME").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .filter_map(|folder| fs::canonicalize(folder.join("java")).ok())
        // …/bin/java
        .filter_map(|java| Some(java.parent()?.parent()?.to_owned()));
    home.into_iter().chain(found).collect()
}

/// A key store in Java's oldest format (JKS): the one that every version reads, and that holds
/// certificates without a password.
fn java_store(bundle: &[u8]) -> io::Result<Vec<u8>> {
    /// What the format mixes into its checksum, after the password.
    const WHITENER: &[u8] = b"Mighty Aphrodite";
    /// The password that Java assumes for its own store.
    const PASSWORD: &str = "changeit";

    let roots: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(bundle)
        .collect::<Result<_, _>>()
        .map_err(|error| io::Error::other(format!("a root certificate is malformed: {error:?}")))?;
    let count = u32::try_from(roots.len()).map_err(|_| io::ErrorKind::InvalidData)?;
    let mut store = Vec::with_capacity(bundle.len());
    store.write_all(&0xfeed_feed_u32.to_be_bytes())?;
    store.write_all(&2_u32.to_be_bytes())?;
    store.write_all(&count.to_be_bytes())?;
    for (index, root) in roots.iter().enumerate() {
        // A trusted certificate, and when it was added.
        store.write_all(&2_u32.to_be_bytes())?;
        text(&mut store, &format!("root-{index}"))?;
        store.write_all(&0_u64.to_be_bytes())?;
        text(&mut store, "X.509")?;
        let length = u32::try_from(root.len()).map_err(|_| io::ErrorKind::InvalidData)?;
        store.write_all(&length.to_be_bytes())?;
        store.write_all(root)?;
    }
    let mut checksum =
        aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY);
    for unit in PASSWORD.encode_utf16() {
        checksum.update(&unit.to_be_bytes());
    }
    checksum.update(WHITENER);
    checksum.update(&store);
    store.extend_from_slice(checksum.finish().as_ref());
    Ok(store)
}

fn text(store: &mut Vec<u8>, text: &str) -> io::Result<()> {
    let length = u16::try_from(text.len()).map_err(|_| io::ErrorKind::InvalidData)?;
    store.write_all(&length.to_be_bytes())?;
    store.write_all(text.as_bytes())
}
