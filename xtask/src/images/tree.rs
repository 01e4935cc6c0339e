//! The files of an image, in the order of their names. Those of this machine are taken with every
//! link on the way to them, so that they are found under the same names.

use std::{
    collections::{BTreeMap, VecDeque},
    ffi::OsString,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Component, Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};

/// As the kernel: more links than this on one way are a circle.
const LINKS: usize = 40;

/// What is at a place.
#[derive(Debug)]
pub(super) enum Node {
    Folder { mode: u32 },
    File { mode: u32, bytes: Vec<u8> },
    Link { to: String },
}

/// The files of an image.
#[derive(Debug, Default)]
pub(super) struct Tree(BTreeMap<String, Node>);

// === impl Tree ===

impl Tree {
    pub(super) fn nodes(&self) -> impl Iterator<Item = (&str, &Node)> {
        self.0.iter().map(|(path, node)| (path.as_str(), node))
    }

    pub(super) fn file(&mut self, path: &str, bytes: Vec<u8>, mode: u32) {
        self.above(path);
        self.0.insert(path.to_owned(), Node::File { mode, bytes });
    }

    pub(super) fn folder(&mut self, path: &str, mode: u32) {
        self.above(path);
        self.0.insert(path.to_owned(), Node::Folder { mode });
    }

    pub(super) fn link(&mut self, path: &str, to: &str) {
        self.above(path);
        self.0
            .insert(path.to_owned(), Node::Link { to: to.to_owned() });
    }

    /// Takes a file or folder of this machine, without what is in the folder; says where it really is.
    pub(super) fn take(&mut self, path: &Path) -> Result<PathBuf> {
        let mut ahead: VecDeque<OsString> = names(path);
        let (mut at, mut links) = (PathBuf::from("/"), 0);
        while let Some(name) = ahead.pop_front() {
            if name == ".." {
                at.pop();
                continue;
            }
            let next = at.join(&name);
            let told = || format!("could not take {}", next.display());
            let facts = fs::symlink_metadata(&next).with_context(told)?;
            let place = next.to_str().with_context(told)?.to_owned();
            if facts.is_symlink() {
                links += 1;
                ensure!(links <= LINKS, "{} is a circle of links", path.display());
                let to = fs::read_link(&next).with_context(told)?;
                if to.is_absolute() {
                    at = PathBuf::from("/");
                }
                for name in names(&to).into_iter().rev() {
                    ahead.push_front(name);
                }
                self.link(&place, to.to_str().with_context(told)?);
            } else {
                let mode = facts.permissions().mode() & 0o755;
                if facts.is_dir() {
                    self.0.entry(place).or_insert(Node::Folder { mode });
                } else if facts.is_file() {
                    self.file(&place, fs::read(&next).with_context(told)?, mode);
                }
                at = next;
            }
        }
        Ok(at)
    }

    /// The folders that a path is in.
    fn above(&mut self, path: &str) {
        for (at, _) in path.match_indices('/').skip(1) {
            let folder = path[..at].to_owned();
            self.0.entry(folder).or_insert(Node::Folder { mode: 0o755 });
        }
    }
}

fn names(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter_map(|part| match part {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            _ => None,
        })
        .collect()
}
