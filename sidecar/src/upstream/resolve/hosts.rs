//! A hosts file, as people write it.
//!
//! Honoured so that the names of one machine work there. What a line holds that is no address or
//! no name is passed over; a file that can't be read has no names.

use std::collections::HashMap;
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use exeat_policy::Host;
use parking_lot::Mutex;
use tokio::time::Instant;

/// Whether the file has changed is looked at this often at most.
const LOOK: Duration = Duration::from_secs(5);

/// A hosts file that blocks advertisements has some megabytes; one beyond this is not read.
const MAX_BYTES: u64 = 8 << 20;

/// A hosts file, read again when it has changed.
pub(super) struct HostsFile {
    path: PathBuf,
    state: Mutex<State>,
}

struct State {
    names: HashMap<Host, Arc<[IpAddr]>>,
    looked: Instant,
    version: Option<Version>,
}

/// What tells one content of the file from the next: inode, size, and time of change.
type Version = (u64, u64, i64, i64);

// === impl HostsFile ===

impl HostsFile {
    pub(super) fn new(path: PathBuf) -> Self {
        let (version, names) = read(&path, None).unwrap_or_default();
        let looked = Instant::now();
        let state = Mutex::new(State {
            names,
            looked,
            version,
        });
        Self { path, state }
    }

    /// The addresses that the file gives for `host`.
    pub(super) fn get(&self, host: &Host) -> Option<Arc<[IpAddr]>> {
        let mut state = self.state.lock();
        if state.looked.elapsed() >= LOOK {
            state.looked = Instant::now();
            if let Some((version, names)) = read(&self.path, state.version) {
                state.version = version;
                state.names = names;
            }
        }
        state.names.get(host).cloned()
    }
}

/// The names in the file, unless it is still the one of `before`.
#[allow(clippy::type_complexity)]
fn read(
    path: &PathBuf,
    before: Option<Version>,
) -> Option<(Option<Version>, HashMap<Host, Arc<[IpAddr]>>)> {
    let Ok(meta) = fs::metadata(path) else {
        return Some((None, HashMap::new()));
    };
    let version = (meta.ino(), meta.size(), meta.mtime(), meta.mtime_nsec());
    if before == Some(version) {
        return None;
    }
    if !meta.is_file() || meta.size() > MAX_BYTES {
        return Some((Some(version), HashMap::new()));
    }
    let text = fs::read(path).unwrap_or_default();
    Some((Some(version), parse(&String::from_utf8_lossy(&text))))
}

fn parse(text: &str) -> HashMap<Host, Arc<[IpAddr]>> {
    let mut names: HashMap<Host, Vec<IpAddr>> = HashMap::new();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default();
        let mut words = line.split_ascii_whitespace();
        let Some(Ok(address)) = words.next().map(str::parse::<IpAddr>) else {
            continue;
        };
        for name in words.filter_map(|word| Host::parse(word).ok()) {
            let all = names.entry(name).or_default();
            if !all.contains(&address) {
                all.push(address);
            }
        }
    }
    names
        .into_iter()
        .map(|(name, all)| (name, all.into()))
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    #[test]
    fn lines_are_read_as_people_write_them() {
        let names = parse(
            "# x\n10.0.0.1\tone One.Example. # two\n\nfe80::1%lo x\nnonsense\n::1 one\n10.0.0.1 one\n",
        );
        let get = |name: &str| {
            names
                .get(&Host::parse(name).unwrap())
                .map(|all| all.to_vec())
        };
        assert_eq!(
            get("one").unwrap(),
            [
                "10.0.0.1".parse::<IpAddr>().unwrap(),
                "::1".parse().unwrap()
            ]
        );
        assert_eq!(get("one.example").unwrap().len(), 1);
        assert_eq!(get("two"), None);
        assert_eq!(get("x"), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_changed_file_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hosts");
        fs::write(&path, "10.0.0.1 one\n").unwrap();
        let hosts = HostsFile::new(path.clone());
        let one = Host::parse("one").unwrap();
        assert_eq!(hosts.get(&one).unwrap()[0].to_string(), "10.0.0.1");
        fs::write(&path, "10.0.0.22 one\n").unwrap();
        tokio::time::advance(LOOK).await;
        assert_eq!(hosts.get(&one).unwrap()[0].to_string(), "10.0.0.22");
        fs::remove_file(&path).unwrap();
        tokio::time::advance(LOOK).await;
        assert_eq!(hosts.get(&one), None);
    }
}
