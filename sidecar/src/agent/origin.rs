//! Where a connection was meant to go before the kernel brought it here.
//!
//! A connection whose original destination can't be told, or is the gate itself, is refused: there
//! is no default destination.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use exeat_policy::Host;
use socket2::SockRef;
use tokio::net::TcpStream;

use crate::agent::{caller::Callers, names::VirtualNames};

/// Where the agent wanted to go, as far as the network tells.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The address the agent dialled; a virtual one where the gate's DNS gave it.
    pub address: Option<SocketAddr>,
    /// The port the agent dialled, or named in `CONNECT`.
    pub port: u16,
    /// The name that the virtual address stands for, or that `CONNECT` gave.
    pub name: Option<Host>,
    /// The user that owns the agent's end, where the kernel tells. For the record only.
    pub caller: Option<u32>,
}

/// Why a connection has no origin.
#[derive(Debug, thiserror::Error)]
pub enum OriginError {
    /// The kernel did not redirect it: somebody dialled the listener.
    #[error("not a redirected connection: the gate's own port was dialled")]
    SelfCall,
    /// The socket option failed in another way.
    #[error("reading the original destination: {0}")]
    Io(io::Error),
}

/// The original destination of a redirected connection (`SO_ORIGINAL_DST`, netfilter).
pub fn original(
    tcp: &TcpStream,
    names: &VirtualNames,
    callers: &Callers,
) -> Result<Origin, OriginError> {
    let local = tcp.local_addr().map_err(OriginError::Io)?;
    let socket = SockRef::from(tcp);
    // An IPv4 connection that arrives on an IPv6 socket has a mapped address and answers the IPv4
    // option only.
    let answer = if local.ip().to_canonical().is_ipv4() {
        socket.original_dst_v4()
    } else {
        socket.original_dst_v6()
    };
    let address = match answer {
        Ok(address) => address.as_socket(),
        // No conntrack entry, or one without NAT: the listener itself was dialled.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound) => None,
        Err(error) if error.raw_os_error() == Some(nix::errno::Errno::ENOPROTOOPT as i32) => None,
        Err(error) => return Err(OriginError::Io(error)),
    };
    let address = address.ok_or(OriginError::SelfCall)?;
    let address = SocketAddr::new(address.ip().to_canonical(), address.port());
    if is_self(address, local) {
        return Err(OriginError::SelfCall);
    }
    Ok(Origin {
        address: Some(address),
        port: address.port(),
        name: names.name_of(address.ip()),
        // The agent's end knows nothing of the redirect.
        caller: caller(tcp, callers, address),
    })
}

/// Who made a connection that, to whom made it, goes to `to`.
pub fn caller(tcp: &TcpStream, callers: &Callers, to: SocketAddr) -> Option<u32> {
    let own = tcp.peer_addr().ok()?;
    callers.owner(own, to)
}

/// Whether a destination is the gate: its own listener, under this or any loopback address.
fn is_self(destination: SocketAddr, local: SocketAddr) -> bool {
    let ours: IpAddr = local.ip().to_canonical();
    destination.port() == local.port()
        && (destination.ip() == ours
            || destination.ip().is_loopback()
            || destination.ip().is_unspecified())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_gate_is_not_a_destination() {
        let local = "127.0.0.1:15001".parse().unwrap();
        for own in [
            "127.0.0.1:15001",
            "127.9.9.9:15001",
            "[::1]:15001",
            "0.0.0.0:15001",
        ] {
            assert!(is_self(own.parse().unwrap(), local), "{own}");
        }
        assert!(is_self(
            "10.1.2.3:15001".parse().unwrap(),
            "10.1.2.3:15001".parse().unwrap()
        ));
        assert!(!is_self("192.0.2.1:443".parse().unwrap(), local));
    }
}
