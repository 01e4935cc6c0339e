//! The files that tell the command's clients to trust the gate.
//!
//! The bundle is the system's roots (as this user's tools would see them) with the gate's beside
//! them, so that a destination which passes through unread is trusted as before.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use exeat_sidecar::process::java;

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
        fs::write(folder.join(JAVA), java::store(&bundle)?)?;
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
