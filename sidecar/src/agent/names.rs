//! Virtual addresses: what the agent is told instead of a name's real ones.
//!
//! Each name gets an address of its own, IPv4 from `198.18.0.0/15` and IPv6 from
//! `fd65:7865:6174::/64` (the prefix spells "exeat"), so a connection to it carries its name for any
//! protocol. The address follows from the name, so it survives a restart of the gate. In doubt there
//! is no address: the table is bounded, an address that was used lately is not given to another
//! name, and new names are limited by their length, because a name that nobody asked for before is a
//! message to whoever owns the zone.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use exeat_policy::Host;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

/// The base of the IPv4 range, which is set aside for benchmarks and routed nowhere.
const BASE_V4: u32 = u32::from_be_bytes([198, 18, 0, 0]);

/// A /15 has this many addresses.
const RANGE_V4: u32 = 1 << 17;

/// The base of the IPv6 range; the IPv4 address of the same name is its last 32 bits.
const BASE_V6: u128 = 0xfd65_7865_6174_0000 << 64;

/// How much is remembered, and how much may be new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameLimits {
    /// Names that have an address at one time. Far fewer than there are addresses, so that one is
    /// found in a few steps.
    pub names: usize,
    /// An address that was asked for or dialled this lately keeps its name: longer than resolvers
    /// and runtimes remember an answer.
    pub hold: Duration,
    /// So many bytes of new names at once: an application with hundreds of hosts starts unhindered.
    pub burst_bytes: u32,
    /// And so many a second from then on: some hundred names a minute, and no channel worth having.
    pub bytes_per_second: u32,
}

/// The table of names and their addresses.
#[derive(Debug)]
pub struct VirtualNames {
    limits: NameLimits,
    table: Mutex<Table>,
}

/// Both addresses of one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VirtualAddresses {
    /// For A.
    pub v4: Ipv4Addr,
    /// For AAAA.
    pub v6: Ipv6Addr,
}

/// Why a name gets no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AssignError {
    /// It is an address itself.
    #[error("an address has no virtual address")]
    NotAName,
    /// Too many bytes of new names in a short time.
    #[error(
        "too many new names in a short time; names that were asked for before are still answered"
    )]
    TooFast,
    /// All places are held by names in use.
    #[error("too many names in use at once")]
    Full,
}

#[derive(Debug)]
struct Table {
    by_name: HashMap<Host, Entry>,
    by_slot: HashMap<u32, Host>,
    /// Bytes of new names that may still come, as of `counted`.
    budget: f64,
    counted: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    slot: u32,
    used: Instant,
}

// === impl NameLimits ===

impl Default for NameLimits {
    fn default() -> Self {
        Self {
            names: 8192,
            hold: Duration::from_mins(15),
            burst_bytes: 16 * 1024,
            bytes_per_second: 128,
        }
    }
}

// === impl VirtualNames ===

impl VirtualNames {
    /// An empty table.
    #[must_use]
    pub fn new(limits: NameLimits) -> Self {
        let table = Table {
            by_name: HashMap::new(),
            by_slot: HashMap::new(),
            budget: f64::from(limits.burst_bytes),
            counted: Instant::now(),
        };
        Self {
            limits,
            table: Mutex::new(table),
        }
    }

    /// The addresses of `host`, given to it now if it has none yet.
    pub fn assign(&self, host: &Host) -> Result<VirtualAddresses, AssignError> {
        if host.ip().is_some() {
            return Err(AssignError::NotAName);
        }
        let now = Instant::now();
        let mut table = self.table.lock();
        if let Some(entry) = table.by_name.get_mut(host) {
            entry.used = now;
            return Ok(addresses(entry.slot));
        }
        table.spend(host, &self.limits, now)?;
        if table.by_name.len() >= self.limits.names {
            table.forget_one(self.limits.hold, now)?;
        }
        let slot = table.free_slot(host).ok_or(AssignError::Full)?;
        table.by_slot.insert(slot, host.clone());
        table
            .by_name
            .insert(host.clone(), Entry { slot, used: now });
        Ok(addresses(slot))
    }

    /// The name that has this address, if it is a virtual one that was given.
    #[must_use]
    pub fn name_of(&self, address: IpAddr) -> Option<Host> {
        let slot = slot_of(address)?;
        let mut table = self.table.lock();
        let host = table.by_slot.get(&slot)?.clone();
        if let Some(entry) = table.by_name.get_mut(&host) {
            entry.used = Instant::now();
        }
        Some(host)
    }

    /// Does the address lie in the ranges from which virtual addresses come?
    #[must_use]
    pub fn is_virtual(address: IpAddr) -> bool {
        match address.to_canonical() {
            IpAddr::V4(v4) => v4.to_bits().wrapping_sub(BASE_V4) < RANGE_V4,
            IpAddr::V6(v6) => v6.to_bits() >> 64 == BASE_V6 >> 64,
        }
    }

    /// How many names have an address.
    #[must_use]
    pub fn len(&self) -> usize {
        self.table.lock().by_name.len()
    }

    /// Has no name an address yet?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Default for VirtualNames {
    fn default() -> Self {
        Self::new(NameLimits::default())
    }
}

// === impl Table ===

impl Table {
    /// Takes the name's length out of what may be new.
    fn spend(&mut self, host: &Host, limits: &NameLimits, now: Instant) -> Result<(), AssignError> {
        let passed = now.duration_since(self.counted).as_secs_f64();
        self.counted = now;
        let refilled = self.budget + passed * f64::from(limits.bytes_per_second);
        self.budget = refilled.min(f64::from(limits.burst_bytes));
        // A name is 253 bytes at most, so this holds it.
        let cost = f64::from(u16::try_from(host.as_str().len()).unwrap_or(u16::MAX));
        if cost > self.budget {
            return Err(AssignError::TooFast);
        }
        self.budget -= cost;
        Ok(())
    }

    /// Makes room: the name that was used longest ago, if that is long enough.
    fn forget_one(&mut self, hold: Duration, now: Instant) -> Result<(), AssignError> {
        let oldest = self
            .by_name
            .iter()
            .min_by_key(|(_, entry)| entry.used)
            .filter(|(_, entry)| now.duration_since(entry.used) >= hold)
            .map(|(host, entry)| (host.clone(), entry.slot))
            .ok_or(AssignError::Full)?;
        self.by_name.remove(&oldest.0);
        self.by_slot.remove(&oldest.1);
        Ok(())
    }

    /// Where the name's hash points, or the next free place after it.
    fn free_slot(&self, host: &Host) -> Option<u32> {
        let digest = Sha256::digest(host.as_str().as_bytes());
        let start = u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]);
        (0..RANGE_V4)
            .map(|step| start.wrapping_add(step) % RANGE_V4)
            .find(|slot| is_host_part(*slot) && !self.by_slot.contains_key(slot))
    }
}

/// Addresses that end in 0 or 255 look like networks and broadcasts to some programs.
fn is_host_part(slot: u32) -> bool {
    !matches!(slot & 0xff, 0 | 0xff)
}

fn addresses(slot: u32) -> VirtualAddresses {
    let v4 = BASE_V4 | slot;
    VirtualAddresses {
        v4: Ipv4Addr::from_bits(v4),
        v6: Ipv6Addr::from_bits(BASE_V6 | u128::from(v4)),
    }
}

fn slot_of(address: IpAddr) -> Option<u32> {
    let v4 = match address.to_canonical() {
        IpAddr::V4(v4) => v4.to_bits(),
        IpAddr::V6(v6) => u32::try_from(v6.to_bits().checked_sub(BASE_V6)?).ok()?,
    };
    let slot = v4.wrapping_sub(BASE_V4);
    (slot < RANGE_V4).then_some(slot)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;
    use std::collections::HashSet;

    fn host(name: &str) -> Host {
        Host::parse(name).unwrap()
    }

    fn small(names: usize, burst_bytes: u32) -> VirtualNames {
        let limits = NameLimits {
            names,
            burst_bytes,
            ..NameLimits::default()
        };
        VirtualNames::new(limits)
    }

    #[test]
    fn a_name_has_the_same_addresses_after_a_restart() {
        let given = VirtualNames::default()
            .assign(&host("api.github.com"))
            .unwrap();
        for _ in 0..3 {
            let again = VirtualNames::default();
            again.assign(&host("other.example")).unwrap();
            assert_eq!(again.assign(&host("API.github.com.")).unwrap(), given);
            assert_eq!(again.name_of(given.v4.into()), Some(host("api.github.com")));
            assert_eq!(again.name_of(given.v6.into()), Some(host("api.github.com")));
            let mapped = IpAddr::V6(given.v4.to_ipv6_mapped());
            assert_eq!(again.name_of(mapped), Some(host("api.github.com")));
        }
    }

    #[test]
    fn names_never_share_an_address() {
        let names = small(8192, u32::MAX);
        let mut seen = HashSet::new();
        for n in 0..8192 {
            let host = host(&format!("n{n}.example"));
            let given = names.assign(&host).unwrap();
            assert!(VirtualNames::is_virtual(given.v4.into()));
            assert!(VirtualNames::is_virtual(given.v6.into()));
            assert!(!matches!(given.v4.octets()[3], 0 | 255));
            assert!(seen.insert(given.v4));
            assert_eq!(names.name_of(given.v4.into()), Some(host));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_table_gives_up_only_what_was_not_used_for_long() {
        let names = small(2, u32::MAX);
        let one = names.assign(&host("one.example")).unwrap();
        names.assign(&host("two.example")).unwrap();
        assert_eq!(names.assign(&host("three.example")), Err(AssignError::Full));
        tokio::time::advance(names.limits.hold / 2).await;
        // A connection to it is a use.
        assert!(names.name_of(one.v4.into()).is_some());
        tokio::time::advance(names.limits.hold / 2).await;
        names.assign(&host("three.example")).unwrap();
        assert_eq!(names.name_of(one.v4.into()), Some(host("one.example")));
        assert_eq!(names.len(), 2);
        assert_eq!(names.assign(&host("two.example")), Err(AssignError::Full));
    }

    #[tokio::test(start_paused = true)]
    async fn new_names_are_limited_by_their_length_and_old_ones_are_not() {
        let names = small(8192, 4096);
        names.assign(&host("known.example")).unwrap();
        let label = "x".repeat(60);
        let mut given = 0;
        for n in 0..1000 {
            let long = host(&format!("{n}{label}.{label}.{label}.example"));
            given += usize::from(names.assign(&long).is_ok());
        }
        assert!((15..25).contains(&given), "{given}");
        assert!(names.assign(&host("known.example")).is_ok());
        tokio::time::advance(Duration::from_mins(1)).await;
        assert!(names.assign(&host("fresh.example")).is_ok());
    }

    #[test]
    fn other_addresses_have_no_name() {
        let names = VirtualNames::default();
        names.assign(&host("one.example")).unwrap();
        for address in [
            "198.17.255.255",
            "198.20.0.0",
            "10.0.0.1",
            "::1",
            "fd65:7865:6174::1",
            "fd65:7865:6174:1::c612:1",
            "198.18.0.0",
            "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        ] {
            assert_eq!(names.name_of(address.parse().unwrap()), None, "{address}");
        }
        assert_eq!(names.assign(&host("10.0.0.1")), Err(AssignError::NotAName));
        assert!(!VirtualNames::is_virtual("198.17.255.255".parse().unwrap()));
        assert!(!VirtualNames::is_virtual("198.20.0.0".parse().unwrap()));
        assert!(!VirtualNames::is_virtual(
            "fd65:7865:6174:1::1".parse().unwrap()
        ));
    }
}
