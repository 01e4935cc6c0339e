//! The special-purpose address registries, as a table.
//!
//! From IANA's IPv4 and IPv6 special-purpose and multicast registries, with the metadata services
//! of clouds in front. The first row that contains an address names it. IPv6 outside `2000::/3` is
//! special even where no row says so: nothing there is routed globally.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

/// What a special-purpose address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Special {
    name: &'static str,
    metadata: bool,
}

/// One registered range of addresses of `bits` bits.
struct Row<T> {
    base: T,
    prefix: u8,
    special: Special,
}

/// What an IPv4 address is, if it is special.
pub(super) fn of_v4(address: Ipv4Addr) -> Option<Special> {
    V4.iter()
        .find(|row| {
            let mask = u32::MAX
                .checked_shl(32 - u32::from(row.prefix))
                .unwrap_or(0);
            address.to_bits() & mask == row.base.to_bits() & mask
        })
        .map(|row| row.special)
}

/// What an IPv6 address is, if it is special.
pub(super) fn of_v6(address: Ipv6Addr) -> Option<Special> {
    V6.iter()
        .find(|row| {
            let mask = u128::MAX
                .checked_shl(128 - u32::from(row.prefix))
                .unwrap_or(0);
            address.to_bits() & mask == row.base.to_bits() & mask
        })
        .map(|row| row.special)
        .or_else(|| {
            (address.segments()[0] & 0xe000 != 0x2000)
                .then_some(special("outside the global unicast space"))
        })
}

const fn special(name: &'static str) -> Special {
    Special {
        name,
        metadata: false,
    }
}

const fn metadata(name: &'static str) -> Special {
    Special {
        name,
        metadata: true,
    }
}

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8, special: Special) -> Row<Ipv4Addr> {
    Row {
        base: Ipv4Addr::new(a, b, c, d),
        prefix,
        special,
    }
}

const fn v6(s: [u16; 8], prefix: u8, special: Special) -> Row<Ipv6Addr> {
    Row {
        base: Ipv6Addr::new(s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7]),
        prefix,
        special,
    }
}

static V4: &[Row<Ipv4Addr>] = &[
    // Services that hand credentials or configuration to whoever can reach them. The first /24 also
    // holds clouds' time and name servers, none of them a tool of an agent.
    v4(169, 254, 169, 0, 24, metadata("a cloud's metadata service")),
    v4(
        169,
        254,
        170,
        0,
        23,
        metadata("a container credential service"),
    ),
    v4(
        100,
        100,
        100,
        200,
        32,
        metadata("a cloud's metadata service"),
    ),
    v4(168, 63, 129, 16, 32, metadata("a cloud's host service")),
    v4(192, 0, 0, 192, 32, metadata("a cloud's metadata service")),
    // The registry.
    v4(0, 0, 0, 0, 8, special("\"this network\"")),
    v4(10, 0, 0, 0, 8, special("private")),
    v4(100, 64, 0, 0, 10, special("shared carrier space (CGNAT)")),
    v4(127, 0, 0, 0, 8, special("loopback")),
    v4(169, 254, 0, 0, 16, special("link-local")),
    v4(172, 16, 0, 0, 12, special("private")),
    v4(192, 0, 0, 0, 24, special("reserved for protocols")),
    v4(192, 0, 2, 0, 24, special("documentation")),
    v4(192, 31, 196, 0, 24, special("AS112")),
    v4(192, 52, 193, 0, 24, special("multicast tunnelling (AMT)")),
    v4(192, 88, 99, 0, 24, special("a 6to4 relay")),
    v4(192, 168, 0, 0, 16, special("private")),
    v4(192, 175, 48, 0, 24, special("AS112")),
    v4(
        198,
        18,
        0,
        0,
        15,
        special("benchmarking, and the gate's own virtual addresses"),
    ),
    v4(198, 51, 100, 0, 24, special("documentation")),
    v4(203, 0, 113, 0, 24, special("documentation")),
    v4(224, 0, 0, 0, 4, special("multicast")),
    v4(255, 255, 255, 255, 32, special("broadcast")),
    v4(240, 0, 0, 0, 4, special("reserved")),
];

static V6: &[Row<Ipv6Addr>] = &[
    v6(
        [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0],
        32,
        metadata("a cloud's metadata service"),
    ),
    v6(
        [0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254],
        128,
        metadata("a cloud's metadata service"),
    ),
    v6(
        [0xfd00, 0xc1, 0, 0, 0, 0, 0xa9fe, 0xa9fe],
        128,
        metadata("a cloud's metadata service"),
    ),
    v6(
        [0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42],
        128,
        metadata("a cloud's metadata service"),
    ),
    v6(
        [0xfe80, 0, 0, 0, 0, 0, 0xa9fe, 0xa9fe],
        128,
        metadata("a cloud's metadata service"),
    ),
    v6([0, 0, 0, 0, 0, 0, 0, 1], 128, special("loopback")),
    v6(
        [0, 0, 0, 0, 0, 0, 0, 0],
        128,
        special("the unspecified address"),
    ),
    v6([0, 0, 0, 0, 0, 0xffff, 0, 0], 96, special("IPv4-mapped")),
    v6(
        [0, 0, 0, 0, 0xffff, 0, 0, 0],
        96,
        special("IPv4-translated"),
    ),
    v6([0, 0, 0, 0, 0, 0, 0, 0], 96, special("IPv4-compatible")),
    v6([0x64, 0xff9b, 0, 0, 0, 0, 0, 0], 96, special("NAT64")),
    v6(
        [0x64, 0xff9b, 1, 0, 0, 0, 0, 0],
        48,
        special("local-use NAT64"),
    ),
    v6([0x100, 0, 0, 0, 0, 0, 0, 0], 64, special("discard-only")),
    v6([0x100, 0, 0, 1, 0, 0, 0, 0], 64, special("a dummy prefix")),
    v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 32, special("Teredo")),
    v6([0x2001, 2, 0, 0, 0, 0, 0, 0], 48, special("benchmarking")),
    v6(
        [0x2001, 3, 0, 0, 0, 0, 0, 0],
        32,
        special("multicast tunnelling (AMT)"),
    ),
    v6([0x2001, 4, 0x112, 0, 0, 0, 0, 0], 48, special("AS112")),
    v6([0x2001, 0x10, 0, 0, 0, 0, 0, 0], 28, special("ORCHID")),
    v6([0x2001, 0x20, 0, 0, 0, 0, 0, 0], 28, special("ORCHIDv2")),
    v6(
        [0x2001, 0x30, 0, 0, 0, 0, 0, 0],
        28,
        special("drone remote identification"),
    ),
    v6(
        [0x2001, 0, 0, 0, 0, 0, 0, 0],
        23,
        special("reserved for protocols"),
    ),
    v6(
        [0x2001, 0xdb8, 0, 0, 0, 0, 0, 0],
        32,
        special("documentation"),
    ),
    v6([0x2002, 0, 0, 0, 0, 0, 0, 0], 16, special("6to4")),
    v6([0x2620, 0x4f, 0x8000, 0, 0, 0, 0, 0], 48, special("AS112")),
    v6([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20, special("documentation")),
    v6(
        [0x5f00, 0, 0, 0, 0, 0, 0, 0],
        16,
        special("segment routing"),
    ),
    v6([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7, special("unique local")),
    v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10, special("link-local")),
    v6([0xfec0, 0, 0, 0, 0, 0, 0, 0], 10, special("site-local")),
    v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8, special("multicast")),
];

// === impl Special ===

impl Special {
    /// What the range is for, as a person reads it.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.name
    }

    /// Does it hand out credentials or configuration of the machine below?
    #[must_use]
    pub fn is_metadata(self) -> bool {
        self.metadata
    }
}

impl fmt::Display for Special {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// Every base of the table, for the tests that walk it.
#[cfg(test)]
pub(super) fn rows() -> Vec<(std::net::IpAddr, u8)> {
    let v4 = V4
        .iter()
        .map(|row| (std::net::IpAddr::V4(row.base), row.prefix));
    let v6 = V6
        .iter()
        .map(|row| (std::net::IpAddr::V6(row.base), row.prefix));
    v4.chain(v6).collect()
}
