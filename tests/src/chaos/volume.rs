//! A folder that changes as kubelet changes a mounted `ConfigMap` or Secret: a new folder beside the
//! old, and one renamed link between them.

use std::{
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

/// The folder.
#[derive(Debug)]
pub struct Volume {
    path: PathBuf,
    /// How often it was swapped.
    swaps: u64,
    /// The names that are shown.
    shown: Vec<String>,
}

// === impl Volume ===

impl Volume {
    /// An empty one.
    pub fn new(path: PathBuf) -> io::Result<Self> {
        fs::create_dir(&path)?;
        let mut volume = Self {
            path,
            swaps: 0,
            shown: Vec::new(),
        };
        volume.publish(&[])?;
        Ok(volume)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Replaces the content, all at once.
    pub fn publish(&mut self, files: &[(&str, &str)]) -> io::Result<()> {
        let bytes: Vec<_> = files
            .iter()
            .map(|(name, text)| (*name, text.as_bytes()))
            .collect();
        self.publish_bytes(&bytes)
    }

    /// Replaces the content, all at once.
    pub fn publish_bytes(&mut self, files: &[(&str, &[u8])]) -> io::Result<()> {
        let old = format!("..{}", self.swaps);
        self.swaps += 1;
        let new = format!("..{}", self.swaps);
        let folder = self.path.join(&new);
        fs::create_dir(&folder)?;
        for (name, bytes) in files {
            fs::write(folder.join(name), bytes)?;
        }
        let next = self.path.join("..data_tmp");
        symlink(&new, &next)?;
        fs::rename(&next, self.path.join("..data"))?;
        for (name, _) in files {
            if !self.shown.iter().any(|shown| shown == name) {
                symlink(format!("..data/{name}"), self.path.join(name))?;
            }
        }
        for gone in &self.shown {
            if !files.iter().any(|(name, _)| name == gone) {
                fs::remove_file(self.path.join(gone))?;
            }
        }
        self.shown = files.iter().map(|(name, _)| (*name).to_owned()).collect();
        match fs::remove_dir_all(self.path.join(old)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}
