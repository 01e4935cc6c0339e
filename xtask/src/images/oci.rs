//! An image as the Open Container Initiative has it: one layer, a configuration, a manifest, an index.
//!
//! The index names the image twice: by its version, and by its digest, which is the only name under
//! which Exeat ever refers to one. No time and no machine's name is in it.

use std::{
    fmt::Write as _,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use flate2::{Compression, write::GzEncoder};
use sha2::{Digest as _, Sha256};

use super::{tar, tree::Tree};

/// An image to be written.
#[derive(Debug)]
pub(super) struct Image {
    pub(super) name: &'static str,
    pub(super) user: &'static str,
    pub(super) entrypoint: &'static [&'static str],
    pub(super) tree: Tree,
}

/// One that was.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) archive: PathBuf,
    /// `name@sha256:…`
    pub(super) reference: String,
    /// Of its layer, as it is fetched.
    pub(super) bytes: usize,
}

/// A file of the archive: its digest and itself.
struct Blob {
    digest: String,
    bytes: Vec<u8>,
}

// === impl Image ===

impl Image {
    /// As `FOLDER/exeat-NAME.tar`.
    pub(super) fn write(&self, prefix: &str, version: &str, folder: &Path) -> Result<Written> {
        let archive = folder.join(format!("exeat-{}.tar", self.name));
        self.archive(prefix, version, &archive)
    }

    pub(super) fn archive(&self, prefix: &str, version: &str, archive: &Path) -> Result<Written> {
        let name = format!("{prefix}/{}", self.name);
        let layer = tar::layer(&self.tree)?;
        let unpacked = Blob::digest(&layer);
        let layer = Blob::new(packed(&layer)?);
        let config = Blob::json(&serde_json::json!({
            "architecture": architecture(),
            "config": {
                "Entrypoint": self.entrypoint,
                "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
                "Labels": {"org.opencontainers.image.title": self.name, "org.opencontainers.image.version": version},
                "User": self.user,
                "WorkingDir": "/",
            },
            "created": "1970-01-01T00:00:00Z",
            "os": "linux",
            "rootfs": {"diff_ids": [unpacked], "type": "layers"},
        }))?;
        let manifest = Blob::json(&serde_json::json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config.described("application/vnd.oci.image.config.v1+json"),
            "layers": [layer.described("application/vnd.oci.image.layer.v1.tar+gzip")],
        }))?;
        let reference = format!("{name}@{}", manifest.digest);
        let named = |name: &str, tag: &str| {
            let mut entry = manifest.described("application/vnd.oci.image.manifest.v1+json");
            entry["annotations"] = serde_json::json!({
                "io.containerd.image.name": name, "org.opencontainers.image.ref.name": tag,
            });
            entry["platform"] = serde_json::json!({"architecture": architecture(), "os": "linux"});
            entry
        };
        let index = serde_json::to_vec(&serde_json::json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [named(&format!("{name}:{version}"), version), named(&reference, &manifest.digest)],
        }))?;

        let blob =
            |blob: &Blob| format!("blobs/sha256/{}", blob.digest.trim_start_matches("sha256:"));
        let bytes = tar::files(&[
            (
                "oci-layout".to_owned(),
                br#"{"imageLayoutVersion":"1.0.0"}"#,
            ),
            ("index.json".to_owned(), &index),
            (blob(&manifest), &manifest.bytes),
            (blob(&config), &config.bytes),
            (blob(&layer), &layer.bytes),
        ])?;
        fs::write(archive, bytes)
            .with_context(|| format!("could not write {}", archive.display()))?;
        Ok(Written {
            archive: archive.to_owned(),
            reference,
            bytes: layer.bytes.len(),
        })
    }
}

// === impl Blob ===

impl Blob {
    fn new(bytes: Vec<u8>) -> Self {
        Self {
            digest: Self::digest(&bytes),
            bytes,
        }
    }

    fn digest(bytes: &[u8]) -> String {
        let mut sum = String::from("sha256:");
        for byte in Sha256::digest(bytes) {
            // Writing to a string does not fail.
            let _written = write!(sum, "{byte:02x}");
        }
        sum
    }

    fn json(value: &serde_json::Value) -> Result<Self> {
        Ok(Self::new(serde_json::to_vec(value)?))
    }

    fn described(&self, kind: &str) -> serde_json::Value {
        serde_json::json!({"mediaType": kind, "digest": self.digest, "size": self.bytes.len()})
    }
}

/// As registries keep it and nodes fetch it. Without a time, so that the same layer is the same bytes.
fn packed(layer: &[u8]) -> Result<Vec<u8>> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::default());
    packed.write_all(layer)?;
    Ok(packed.finish()?)
}

/// As Go names it, because everything that reads images does.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
