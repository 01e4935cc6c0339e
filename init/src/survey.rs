//! Looks around before anything is written: interfaces, UIDs, and other people's rules.
//!
//! Rules that we did not write and that are asked where packets leave are refused, whatever they
//! say: to judge them would mean to know every packet filter's every word.

pub(crate) mod gvisor;
pub(crate) mod iptables;
pub(crate) mod nft;

use std::fs;
use std::io::{self, Read as _};

use nix::net::if_::if_nameindex;

use crate::error::InitError;
use crate::ruleset::{Interface, Surroundings};

/// The kernel's number for loopback in every namespace.
const LOOPBACK_INDEX: u32 = 1;

/// The highest UID there is: one more means «unchanged» to the kernel.
const HIGHEST_UID: u32 = u32::MAX - 1;

/// Interfaces and UIDs; the stamp that is in use already, or a new one.
pub(crate) fn surroundings(stamp: Option<u32>) -> Result<Surroundings, InitError> {
    let stamp = match stamp {
        Some(stamp) => stamp,
        None => random_stamp()?,
    };
    Ok(Surroundings {
        interfaces: interfaces()?,
        stamp,
        highest_uid: highest_uid(),
        addresses: Vec::new(),
    })
}

fn interfaces() -> Result<Vec<Interface>, InitError> {
    let listed = if_nameindex().map_err(|errno| InitError::System {
        doing: "listing the interfaces".to_owned(),
        source: errno.into(),
    })?;
    let mut interfaces = Vec::new();
    for entry in &listed {
        if entry.index() == LOOPBACK_INDEX {
            continue;
        }
        let name = entry.name().to_string_lossy().into_owned();
        // The name ends up between quotes in a text that nft reads.
        if !name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-@+:".contains(&byte))
        {
            return Err(InitError::Usage(format!(
                "interface name {name:?} has signs that can't be written down"
            )));
        }
        interfaces.push(Interface {
            index: entry.index(),
            name,
        });
    }
    interfaces.sort();
    Ok(interfaces)
}

/// iptables refuses a range that reaches beyond the user namespace.
fn highest_uid() -> u32 {
    let Ok(map) = fs::read_to_string("/proc/self/uid_map") else {
        return HIGHEST_UID;
    };
    highest_mapped(&map).unwrap_or(HIGHEST_UID)
}

fn highest_mapped(map: &str) -> Option<u32> {
    map.lines()
        .filter_map(|line| {
            let mut numbers = line.split_whitespace().map(str::parse::<u32>);
            let (first, _, count) = (
                numbers.next()?.ok()?,
                numbers.next()?,
                numbers.next()?.ok()?,
            );
            first.checked_add(count.checked_sub(1)?)
        })
        .max()
        .map(|highest| highest.min(HIGHEST_UID))
}

fn random_stamp() -> Result<u32, InitError> {
    let mut bytes = [0; 4];
    let read =
        |bytes: &mut [u8]| -> io::Result<()> { fs::File::open("/dev/urandom")?.read_exact(bytes) };
    read(&mut bytes).map_err(|source| InitError::System {
        doing: "reading /dev/urandom".to_owned(),
        source,
    })?;
    // Zero is what a packet bears that nobody has marked.
    Ok(u32::from_ne_bytes(bytes).max(1))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn the_highest_uid_follows_the_map() {
        assert_eq!(
            highest_mapped("         0          0 4294967295\n"),
            Some(HIGHEST_UID)
        );
        assert_eq!(
            highest_mapped("         0     100000      65536\n"),
            Some(65_535)
        );
        assert_eq!(
            highest_mapped("         0       1000          1\n"),
            Some(0)
        );
        assert_eq!(highest_mapped("0 1000 1\n1 100000 64999\n"), Some(64_999));
        assert_eq!(highest_mapped("nonsense"), None);
        assert_eq!(highest_mapped("4294967295 0 4294967295\n"), None);
    }
}
