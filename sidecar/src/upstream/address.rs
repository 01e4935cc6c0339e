//! Which addresses may be dialled.
//!
//! A name that a rule allows still resolves to whatever its owner (or whoever poisoned the answer)
//! likes: the node's metadata service, the API server, the gate itself. So every address is judged
//! here, by what it is and by every IPv4 address hidden inside it, and nothing special-purpose is
//! dialled unless the rule names its range. [`vet`] is the only maker of a [`Vetted`] address. In
//! doubt it refuses: what lies outside the globally routed space counts as special.

mod registry;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;

pub use registry::Special;

/// An IPv4 range must be at least this narrow to name a metadata service: `0.0.0.0/0` or
/// `169.254.0.0/16` say "anything", not "the node's credentials".
const METADATA_PREFIX_V4: u8 = 24;

/// The same for IPv6, where one network is a /64.
const METADATA_PREFIX_V6: u8 = 64;

/// No more than this many addresses of one name are judged or tried; a longer answer is cut.
const MAX_ADDRESSES: usize = 32;

/// An address and port that was judged fit to be dialled for one rule. Only [`vet`] makes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Vetted(SocketAddr);

/// Why no address of a name may be dialled: the first of them, and what it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressForbidden {
    /// The name has no address at all.
    #[error("the name has no address")]
    None,
    /// Every address is of a range that the rule does not name.
    #[error(
        "{address} is {special}{}; `addresses` of the rule must name its range to allow it",
        plural(*others)
    )]
    Special {
        /// The first address refused.
        address: IpAddr,
        /// What it is.
        special: Special,
        /// How many more were refused.
        others: usize,
    },
}

/// The addresses of `addresses` that may be dialled on `port`, in their order, special-purpose ones
/// only where `allowed` names them.
///
/// In a mixed answer the forbidden ones are dropped and the others kept; if none is left the reason
/// of the first is the error.
pub fn vet(
    addresses: &[IpAddr],
    port: u16,
    allowed: &[IpNet],
) -> Result<Vec<Vetted>, AddressForbidden> {
    let mut vetted: Vec<Vetted> = Vec::with_capacity(addresses.len().min(MAX_ADDRESSES));
    let mut refused: Option<(IpAddr, Special)> = None;
    let mut others = 0;
    for address in addresses.iter().take(MAX_ADDRESSES) {
        match judge(*address, allowed) {
            Ok(address) => {
                let one = Vetted(SocketAddr::new(address, port));
                if !vetted.contains(&one) {
                    vetted.push(one);
                }
            }
            Err(special) if refused.is_none() => refused = Some((*address, special)),
            Err(_) => others += 1,
        }
    }
    match refused {
        _ if !vetted.is_empty() => Ok(vetted),
        Some((address, special)) => Err(AddressForbidden::Special {
            address,
            special,
            others,
        }),
        None => Err(AddressForbidden::None),
    }
}

/// What `address` is, if it is anything but ordinary globally routed unicast: itself or by an IPv4
/// address embedded in it.
#[must_use]
pub fn classify(address: IpAddr) -> Option<Special> {
    judge(address, &[]).err()
}

/// One address against the ranges a rule names: the address to dial, or what stands against it.
fn judge(address: IpAddr, allowed: &[IpNet]) -> Result<IpAddr, Special> {
    // The kernel dials a mapped address over IPv4, so it is that IPv4 address from here on.
    let address = address.to_canonical();
    let special = match address {
        IpAddr::V4(v4) => registry::of_v4(v4),
        IpAddr::V6(v6) => registry::of_v6(v6),
    };
    if let Some(special) = special
        && !names(allowed, address, special)
    {
        return Err(special);
    }
    if let IpAddr::V6(v6) = address {
        let exact = allowed
            .iter()
            .any(|net| net.prefix_len() == 128 && net.contains(&address));
        for hidden in embedded(v6).into_iter().flatten() {
            if let Some(special) = registry::of_v4(hidden)
                && !names(allowed, IpAddr::V4(hidden), special)
                && !exact
            {
                return Err(special);
            }
        }
    }
    Ok(address)
}

/// Does one of the ranges name this address, narrowly enough for what it is?
fn names(allowed: &[IpNet], address: IpAddr, special: Special) -> bool {
    let narrow = match (special.is_metadata(), address) {
        (false, _) => 0,
        (true, IpAddr::V4(_)) => METADATA_PREFIX_V4,
        (true, IpAddr::V6(_)) => METADATA_PREFIX_V6,
    };
    allowed
        .iter()
        .any(|net| net.prefix_len() >= narrow && net.contains(&address))
}

/// The IPv4 addresses that a translator or tunnel on the way could make of an IPv6 address.
///
/// The well-known NAT64 prefix, IPv4-compatible and -translated forms, 6to4, both ends of Teredo,
/// ISATAP, and every position RFC 6052 allows under the local-use NAT64 prefix.
fn embedded(address: Ipv6Addr) -> [Option<Ipv4Addr>; 5] {
    let bytes = address.octets();
    let at = |a: usize, b: usize, c: usize, d: usize| {
        Some(Ipv4Addr::new(bytes[a], bytes[b], bytes[c], bytes[d]))
    };
    let last = at(12, 13, 14, 15);
    let segments = address.segments();
    // ISATAP is of the interface identifier, so it comes on top of what the prefix says.
    let isatap = match segments {
        [_, _, _, _, 0 | 0x200, 0x5efe, ..] => last,
        _ => None,
    };
    match segments {
        [0x64, 0xff9b, 0, 0, 0, 0, ..] | [0, 0, 0, 0, 0xffff, 0, ..] => {
            [last, None, None, None, isatap]
        }
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 || low > 1 => [last, None, None, None, isatap],
        // A reading that lies in 0.0.0.0/8 is padding of another reading.
        [0x64, 0xff9b, 1, ..] => {
            let readings = [at(6, 7, 9, 10), at(7, 9, 10, 11), at(9, 10, 11, 12), last];
            let [a, b, c, d] = readings.map(|one| one.filter(|v4| v4.octets()[0] != 0));
            [a, b, c, d, isatap]
        }
        [0x2002, ..] => [at(2, 3, 4, 5), None, None, None, isatap],
        [0x2001, 0, ..] => {
            let client = last.map(|v4| Ipv4Addr::from_bits(!v4.to_bits()));
            [at(4, 5, 6, 7), client, None, None, isatap]
        }
        _ => [isatap, None, None, None, None],
    }
}

fn plural(others: usize) -> String {
    match others {
        0 => String::new(),
        n => format!(" (and {n} more like it)"),
    }
}

// === impl Vetted ===

impl Vetted {
    /// The address to dial.
    #[must_use]
    pub fn addr(self) -> SocketAddr {
        self.0
    }
}

impl fmt::Display for Vetted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests;
