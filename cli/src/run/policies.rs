//! The policies that the gate may believe.
//!
//! Policies are reloaded when they change, and the command can't change them: they are covered. But
//! a cover lies on a file, not on its name. A file that someone renames over it, or makes anew at
//! its name, may have been written by the command, which can write to the same folder: it can wait
//! for an editor's temporary file there. So the gate reads copies, made here: of the file that was
//! given, whatever is written into it; of another file at its name only where the command can't
//! write. In doubt the last good policy stays.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use exeat_sidecar::process::held::{Folder, ReadError};
use exeat_sidecar::process::reload::PolicySource;
use exeat_sidecar::process::watch::{Watch, watch};
use rustix::fs::{Access, AtFlags, CWD};
use tokio::sync::mpsc;

use super::prepare::MAX_POLICY;

/// The policies of a run, and the copies that the gate reads.
#[derive(Debug)]
pub(super) struct Policies {
    copies: PathBuf,
    files: Vec<Policy>,
}

#[derive(Debug)]
struct Policy {
    /// As the user wrote it.
    shown: PathBuf,
    folder: Folder,
    name: OsString,
    copy: PathBuf,
    /// The file itself; kept open, so that no other gets its number.
    known: File,
    /// Nobody but someone outside could have put another file in its place.
    trusted: bool,
    /// What the copy holds; nothing if there is none.
    content: Option<Vec<u8>>,
    told: bool,
}

// === impl Policies ===

impl Policies {
    /// Copies the policies `(as shown, as it really is)` below `private`. Of the folders in
    /// `read_only`, the command can't change anything.
    pub(super) fn new<'a>(
        private: &Path,
        files: impl Iterator<Item = (&'a PathBuf, &'a PathBuf)>,
        read_only: &[PathBuf],
    ) -> io::Result<Self> {
        let copies = private.join("policies");
        fs::create_dir(&copies)?;
        let files = files
            .enumerate()
            .map(|(index, (shown, real))| {
                let copies = copies.join(index.to_string());
                fs::create_dir(&copies)?;
                Policy::new(shown, real, &copies, read_only)
            })
            .collect::<io::Result<_>>()?;
        let mut policies = Self { copies, files };
        policies.look(&mut |_| ());
        Ok(policies)
    }

    /// Where the gate finds the policies.
    pub(super) fn source(&self) -> PolicySource {
        if self.files.is_empty() {
            // Empty, and stays so: everything is denied.
            return PolicySource::Directory(self.copies.clone());
        }
        PolicySource::Files(self.files.iter().map(|file| file.copy.clone()).collect())
    }

    /// What the gate says of a copy, said of the file.
    pub(super) fn names(&self) -> impl Fn(&str) -> String + use<> {
        let names: Vec<_> = self
            .files
            .iter()
            .map(|file| {
                let name = |path: &Path| path.display().to_string();
                (name(&file.copy), name(&file.shown))
            })
            .collect();
        move |text| {
            names.iter().fold(text.to_owned(), |text, (copy, shown)| {
                text.replace(copy, shown)
            })
        }
    }

    /// Keeps the copies up to date for as long as the result is kept; tells what was refused.
    pub(super) fn watch(mut self, tell: mpsc::UnboundedSender<String>) -> Watch {
        let folders: Vec<_> = self
            .files
            .iter()
            .map(|file| file.folder.live_path())
            .collect();
        // Nobody to tell: the run is over.
        watch("policies", &folders, move || {
            self.look(&mut |refused| drop(tell.send(refused)));
        })
    }

    fn look(&mut self, tell: &mut dyn FnMut(String)) {
        for file in &mut self.files {
            if let Err(problem) = file.look() {
                if !file.told {
                    tell(problem);
                }
                file.told = true;
            } else {
                file.told = false;
            }
        }
    }
}

// === impl Policy ===

impl Policy {
    fn new(shown: &Path, real: &Path, copies: &Path, read_only: &[PathBuf]) -> io::Result<Self> {
        let name = real.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let above = real.parent().ok_or(io::ErrorKind::InvalidInput)?;
        Ok(Self {
            shown: shown.to_owned(),
            folder: Folder::open(above).map_err(io::Error::other)?,
            name: name.to_owned(),
            copy: copies.join(name),
            known: File::open(real)?,
            trusted: beyond_reach(above)?
                || read_only.iter().any(|folder| above.starts_with(folder)),
            content: None,
            told: false,
        })
    }

    /// Brings the copy up to date, or says why not.
    fn look(&mut self) -> Result<(), String> {
        let limit = usize::try_from(MAX_POLICY).unwrap_or(usize::MAX);
        // Looked at before and after: what was read is what was looked at.
        let before = self.is_known();
        let content = match self.folder.read(&self.name, limit) {
            Ok(content) => content,
            Err(ReadError::Missing(_)) => {
                self.content = None;
                drop(fs::remove_file(&self.copy));
                return Ok(());
            }
            Err(error) => return Err(format!("the policy stays as it was: {error}")),
        };
        if !(before && self.is_known()) {
            if !self.trusted {
                return Err(format!(
                    "`{}` was replaced by another file, in a folder that the command can write \
                     to: the policy stays as it was; write into the file itself, or keep it in a \
                     folder that is given with --read-only",
                    self.shown.display()
                ));
            }
            self.adopt().map_err(|error| error.to_string())?;
        }
        if self.content.as_ref() != Some(&content) {
            self.write(&content).map_err(|error| {
                format!("the policy stays as it was: its copy can't be made: {error}")
            })?;
            self.content = Some(content);
        }
        Ok(())
    }

    /// Is the file at the name still the one that is known?
    fn is_known(&self) -> bool {
        let found = rustix::fs::statat(&self.folder, &self.name, AtFlags::SYMLINK_NOFOLLOW);
        let known = rustix::fs::fstat(&self.known);
        match (found, known) {
            (Ok(found), Ok(known)) => (found.st_dev, found.st_ino) == (known.st_dev, known.st_ino),
            _ => false,
        }
    }

    fn adopt(&mut self) -> io::Result<()> {
        self.known = File::open(self.folder.live_path().join(&self.name))?;
        Ok(())
    }

    /// All at once: the gate must not read half a policy.
    fn write(&self, content: &[u8]) -> io::Result<()> {
        let next = self.copy.with_extension("next");
        fs::write(&next, content)?;
        fs::rename(&next, &self.copy)
    }
}

/// Is this folder another user's, with nothing that this user may write?
fn beyond_reach(folder: &Path) -> io::Result<bool> {
    let me = nix::unistd::Uid::effective();
    let found = fs::metadata(folder)?;
    Ok(!me.is_root()
        && found.uid() != me.as_raw()
        && found.permissions().mode() & 0o002 == 0
        && rustix::fs::accessat(CWD, folder, Access::WRITE_OK, AtFlags::EACCESS).is_err())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    struct Case {
        _private: tempfile::TempDir,
        dir: tempfile::TempDir,
        policies: Policies,
    }

    fn case(read_only: bool) -> Case {
        let (private, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let real = dir.path().join("policy.yaml");
        fs::write(&real, "one").unwrap();
        let folders = [dir.path().to_owned()];
        let read_only = if read_only { &folders[..] } else { &[] };
        let files = [(&real, &real)].into_iter();
        let policies = Policies::new(private.path(), files, read_only).unwrap();
        Case {
            _private: private,
            dir,
            policies,
        }
    }

    impl Case {
        fn look(&mut self) -> (Option<String>, Vec<String>) {
            let mut told = Vec::new();
            self.policies.look(&mut |what| told.push(what));
            (fs::read_to_string(&self.policies.files[0].copy).ok(), told)
        }

        fn replace(&self, content: &str) {
            fs::write(self.dir.path().join("next"), content).unwrap();
            fs::rename(
                self.dir.path().join("next"),
                self.dir.path().join("policy.yaml"),
            )
            .unwrap();
        }
    }

    #[test]
    fn what_is_written_into_the_file_is_believed() {
        let mut case = case(false);
        assert_eq!(case.look(), (Some("one".to_owned()), vec![]));
        fs::write(case.dir.path().join("policy.yaml"), "two").unwrap();
        assert_eq!(case.look(), (Some("two".to_owned()), vec![]));
    }

    #[test]
    fn another_file_at_its_name_is_not_believed_and_told_of_once() {
        let mut case = case(false);
        case.replace("forged");
        let (copy, told) = case.look();
        assert_eq!((copy.as_deref(), told.len()), (Some("one"), 1));
        assert!(told[0].contains("replaced by another file"), "{told:?}");
        assert_eq!(case.look(), (Some("one".to_owned()), vec![]));
    }

    #[test]
    fn another_file_is_believed_where_the_command_cannot_write() {
        let mut case = case(true);
        case.replace("two");
        assert_eq!(case.look(), (Some("two".to_owned()), vec![]));
        fs::write(case.dir.path().join("policy.yaml"), "three").unwrap();
        assert_eq!(case.look(), (Some("three".to_owned()), vec![]));
    }

    #[test]
    fn a_policy_that_is_gone_is_gone() {
        let mut case = case(false);
        fs::remove_file(case.dir.path().join("policy.yaml")).unwrap();
        assert_eq!(case.look(), (None, vec![]));
    }
}
