//! Whether this kernel is one that the rules for gVisor hold in, told by what it does and never by
//! its name; and what those rules must know of the namespace.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use nix::ifaddrs::getifaddrs;
use socket2::{Domain, Protocol, Socket, Type};

use crate::error::InitError;

/// TEST-NET-1 and its IPv6 twin: nobody's addresses, and so not this namespace's.
const FOREIGN: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
];

/// `IPPROTO_RAW`: what the iptables programs talk to the kernel through.
const RAW: i32 = 255;

/// States in `/proc/net/tcp` of sockets that send nothing more by themselves, or nothing yet that
/// is let out: `SYN_SENT`, `TIME_WAIT`, `CLOSE`, `LISTEN`.
const QUIET: [u8; 4] = [0x02, 0x06, 0x07, LISTENING];
const LISTENING: u8 = 0x0a;

/// Fails in a kernel that lets a process send in another's name. There the gate's answers could be
/// led out of the pod, and only the state of flows tells such a question from an honest one.
pub(crate) fn suits() -> Result<(), InitError> {
    for address in FOREIGN {
        let domain = match address {
            IpAddr::V4(_) => Domain::IPV4,
            IpAddr::V6(_) => Domain::IPV6,
        };
        // A family that is not there sends nothing.
        let Ok(socket) = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP)) else {
            continue;
        };
        // A kernel without the option refuses below what one with it would then grant.
        let _unknown_option = match address {
            IpAddr::V4(_) => socket.set_freebind_v4(true),
            IpAddr::V6(_) => socket.set_freebind_v6(true),
        };
        if socket.bind(&SocketAddr::new(address, 0).into()).is_ok() {
            return Err(InitError::Unsuited(format!(
                "a socket could be bound to {address}, which is not an address of this namespace"
            )));
        }
    }
    Ok(())
}

/// Fails where the iptables programs could not even ask.
pub(crate) fn raw_sockets() -> Result<(), InitError> {
    Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(RAW)))
        .map(drop)
        .map_err(|error| InitError::RawSockets(error.to_string()))
}

/// Every address of the namespace but loopback's, sorted.
pub(crate) fn addresses() -> Result<Vec<IpAddr>, InitError> {
    let listed = getifaddrs().map_err(|errno| InitError::System {
        doing: "listing the addresses".to_owned(),
        source: errno.into(),
    })?;
    let all: BTreeSet<IpAddr> = listed
        .filter_map(|entry| {
            let address = entry.address?;
            let v4 = address.as_sockaddr_in().map(|it| IpAddr::V4(it.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|it| IpAddr::V6(it.ip())))
        })
        .filter(|address| !address.is_loopback())
        .collect();
    Ok(all.into_iter().collect())
}

/// Connections to elsewhere that somebody other than the gate has open. Without states of flows the
/// rules can't tell them from answers to a caller, so none may be there when they are first written.
pub(crate) fn open_flows(gate: u32, own: &[IpAddr]) -> Vec<String> {
    let read = |name: &str| {
        fs::read_to_string(format!("/proc/thread-self/net/{name}"))
            .or_else(|_| fs::read_to_string(format!("/proc/net/{name}")))
            .unwrap_or_default()
    };
    flows(&(read("tcp") + &read("tcp6")), gate, own)
}

fn flows(listing: &str, gate: u32, own: &[IpAddr]) -> Vec<String> {
    let sockets: Vec<Listed> = listing.lines().filter_map(Listed::read).collect();
    let served: BTreeSet<u16> = sockets
        .iter()
        .filter(|socket| socket.state == LISTENING)
        .map(|socket| socket.local.port())
        .collect();
    sockets
        .iter()
        .filter(|socket| {
            let to = socket.remote.ip().to_canonical();
            !QUIET.contains(&socket.state)
                && socket.uid != gate
                && !to.is_loopback()
                && !own.contains(&to)
                && !served.contains(&socket.local.port())
        })
        .map(|socket| {
            format!(
                "uid {} has a connection from {} to {}",
                socket.uid, socket.local, socket.remote
            )
        })
        .collect()
}

/// One line of `/proc/net/tcp` or `tcp6`.
struct Listed {
    local: SocketAddr,
    remote: SocketAddr,
    state: u8,
    uid: u32,
}

// === impl Listed ===

impl Listed {
    fn read(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace().skip(1);
        Some(Self {
            local: address(words.next()?)?,
            remote: address(words.next()?)?,
            state: u8::from_str_radix(words.next()?, 16).ok()?,
            uid: words.nth(3)?.parse().ok()?,
        })
    }
}

/// `0100007F:3A99`: words of four bytes in this machine's order, then the port.
fn address(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let mut bytes = Vec::new();
    for at in (0..address.len()).step_by(8) {
        let word = u32::from_str_radix(address.get(at..at + 8)?, 16).ok()?;
        bytes.extend(word.to_ne_bytes());
    }
    let address = if let Ok(v4) = <[u8; 4]>::try_from(bytes.as_slice()) {
        IpAddr::from(v4)
    } else {
        IpAddr::from(<[u8; 16]>::try_from(bytes.as_slice()).ok()?)
    };
    Some(SocketAddr::new(address, port))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    /// Linux lets anybody do it, so the rules for gVisor must not be taken for enough here.
    #[test]
    fn linux_is_told_apart_by_what_it_allows() {
        assert_eq!(suits().unwrap_err().cause(), "unsuited_kernel");
    }

    #[test]
    fn what_was_open_before_is_found_and_what_is_answered_is_not() {
        // Little-endian machines' order, as every machine here has it.
        let listing = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid\n\
             0: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000 0 1\n\
             1: 02004D0A:1F90 01004D0A:C350 01 00000000:00000000 00:00000000 00000000  1000 0 2\n\
             2: 02004D0A:9C40 01004D0A:0FA0 01 00000000:00000000 00:00000000 00000000  1000 0 3\n\
             3: 02004D0A:9C41 01004D0A:0FA0 01 00000000:00000000 00:00000000 00000000 64100 0 4\n\
             4: 02004D0A:9C42 02004D0A:0FA0 01 00000000:00000000 00:00000000 00000000  1000 0 5\n\
             5: 02004D0A:9C43 01004D0A:0FA0 02 00000000:00000000 00:00000000 00000000  1000 0 6\n\
             6: 0000000000000000FFFF000002004D0A:9C44 0000000000000000FFFF000001004D0A:0FA0 01 \
             00000000:00000000 00:00000000 00000000  7 0 7\n";
        let own = ["10.77.0.2".parse().unwrap()];
        let found = flows(listing, 64_100, &own);
        assert_eq!(
            found,
            [
                "uid 1000 has a connection from 10.77.0.2:40000 to 10.77.0.1:4000",
                "uid 7 has a connection from [::ffff:10.77.0.2]:40004 to [::ffff:10.77.0.1]:4000"
            ]
        );
    }

    #[test]
    fn nonsense_is_survived() {
        for line in ["", "1:", "1: 0:0 0:0 1 1 1 1", "1: x:y", "1: 0100007F 1"] {
            assert!(flows(line, 0, &[]).is_empty());
        }
    }
}
