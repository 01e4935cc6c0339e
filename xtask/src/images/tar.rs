//! A tar archive, as POSIX has it: names in their order, no times, no owners but root.

use anyhow::{Result, bail};

use super::tree::{Node, Tree};

/// Everything in a tar archive is in pieces of this size.
const BLOCK: usize = 512;

/// The longest name that a header's first field takes.
const NAME: usize = 100;

/// What may stand before it, in another field.
const PREFIX: usize = 155;

/// An image's files as one layer.
pub(super) fn layer(tree: &Tree) -> Result<Vec<u8>> {
    let mut archive = Vec::new();
    for (path, node) in tree.nodes() {
        let path = path.trim_start_matches('/');
        match node {
            Node::Folder { mode } => {
                entry(&mut archive, &format!("{path}/"), *mode, b'5', "", &[])?;
            }
            Node::File { mode, bytes } => entry(&mut archive, path, *mode, b'0', "", bytes)?,
            Node::Link { to } => entry(&mut archive, path, 0o777, b'2', to, &[])?,
        }
    }
    Ok(ended(archive))
}

/// Files with names, in the order given.
pub(super) fn files(files: &[(String, &[u8])]) -> Result<Vec<u8>> {
    let mut archive = Vec::new();
    for (name, bytes) in files {
        entry(&mut archive, name, 0o644, b'0', "", bytes)?;
    }
    Ok(ended(archive))
}

/// Two empty blocks say that this is all.
fn ended(mut archive: Vec<u8>) -> Vec<u8> {
    archive.resize(archive.len() + 2 * BLOCK, 0);
    archive
}

fn entry(
    archive: &mut Vec<u8>,
    path: &str,
    mode: u32,
    kind: u8,
    link: &str,
    bytes: &[u8],
) -> Result<()> {
    let (prefix, name) = split(path)?;
    if link.len() > NAME {
        bail!("the link {path} leads too far: {link}");
    }
    let mut header = [0_u8; BLOCK];
    let mut put = |at: usize, text: &[u8]| {
        if let Some(field) = header.get_mut(at..at + text.len()) {
            field.copy_from_slice(text);
        }
    };
    put(0, name.as_bytes());
    put(100, format!("{mode:07o}").as_bytes());
    put(108, b"0000000");
    put(116, b"0000000");
    put(124, format!("{:011o}", bytes.len()).as_bytes());
    put(136, b"00000000000");
    put(148, b"        "); // as spaces, when the sum is made
    put(156, &[kind]);
    put(157, link.as_bytes());
    put(257, b"ustar\x0000");
    put(329, b"0000000");
    put(337, b"0000000");
    put(345, prefix.as_bytes());
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());

    archive.extend_from_slice(&header);
    archive.extend_from_slice(bytes);
    archive.resize(archive.len().next_multiple_of(BLOCK), 0);
    Ok(())
}

/// A long name is cut at a slash.
fn split(path: &str) -> Result<(&str, &str)> {
    if path.len() <= NAME {
        return Ok(("", path));
    }
    path.match_indices('/')
        .map(|(at, _)| (&path[..at], &path[at + 1..]))
        .find(|(prefix, name)| prefix.len() <= PREFIX && name.len() <= NAME && !name.is_empty())
        .map_or_else(|| bail!("the name {path} is too long for an archive"), Ok)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::process::Command;

    use super::*;

    #[test]
    fn tar_reads_what_is_written() {
        let mut tree = Tree::default();
        let long = format!("/{}/{}/file", "a".repeat(90), "b".repeat(60));
        tree.file(&long, b"long".to_vec(), 0o644);
        tree.file("/bin/program", vec![7; 1000], 0o755);
        tree.link("/sbin", "bin");
        let archive = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(archive.path(), layer(&tree).unwrap()).unwrap();
        let output = Command::new("tar")
            .arg("-tvf")
            .arg(archive.path())
            .output()
            .unwrap();
        let listed = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{listed}");
        for line in [
            "-rwxr-xr-x 0/0            1000 1970-01-01 00:00 bin/program",
            "sbin -> bin",
            long.trim_start_matches('/'),
        ] {
            assert!(listed.contains(line), "`{line}` is not in:\n{listed}");
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert!(split(&"a".repeat(101)).is_err());
        assert!(files(&[("x".repeat(300), b"")]).is_err());
    }
}
