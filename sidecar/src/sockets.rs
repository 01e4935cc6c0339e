//! The sidecar's own sockets. A port that somebody else holds stops the start: the pod then stays
//! closed, which is what a squatter gets.

use std::{
    io,
    net::{IpAddr, SocketAddr, TcpListener, UdpSocket},
};

use exeat_sidecar::gate::Listeners;
use socket2::{Domain, Protocol, Socket, Type};

use crate::args::Serve;

/// Connections that wait to be accepted: the kernel's default limit.
const BACKLOG: i32 = 4096;

/// A socket could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BindError {
    /// Somebody has the port.
    #[error("port {port} for {purpose} is taken on {address}: does another sidecar run here?", port = .address.port())]
    Taken {
        /// What for.
        purpose: &'static str,
        /// Where.
        address: SocketAddr,
    },
    /// Another failure.
    #[error("listening on {address} for {purpose}: {source}")]
    Io {
        /// What for.
        purpose: &'static str,
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

pub(crate) fn bind(arguments: &Serve) -> Result<Listeners, BindError> {
    let local = &arguments.listen_address;
    Ok(Listeners {
        transparent: tcp("redirected connections", local, arguments.transparent_port)?,
        explicit: tcp("proxy clients", local, arguments.explicit_port)?,
        dns_udp: udp(local, arguments.dns_port)?,
        dns_tcp: tcp("DNS", local, arguments.dns_port)?,
        health: tcp("health", &arguments.health_address, arguments.health_port)?,
    })
}

fn tcp(
    purpose: &'static str,
    addresses: &[IpAddr],
    port: u16,
) -> Result<Vec<TcpListener>, BindError> {
    let listen = |socket: &Socket| socket.listen(BACKLOG);
    each(
        purpose,
        addresses,
        port,
        Type::STREAM,
        Protocol::TCP,
        listen,
    )
    .map(|sockets| sockets.into_iter().map(Into::into).collect())
}

fn udp(addresses: &[IpAddr], port: u16) -> Result<Vec<UdpSocket>, BindError> {
    each("DNS", addresses, port, Type::DGRAM, Protocol::UDP, |_| {
        Ok(())
    })
    .map(|sockets| sockets.into_iter().map(Into::into).collect())
}

/// One socket a family, never a dual-stack one: the original destination of a connection is asked
/// for by family. A family that the machine lacks is passed over as long as one is there.
fn each(
    purpose: &'static str,
    addresses: &[IpAddr],
    port: u16,
    kind: Type,
    protocol: Protocol,
    finish: impl Fn(&Socket) -> io::Result<()>,
) -> Result<Vec<Socket>, BindError> {
    let mut sockets = Vec::new();
    let mut absent = None;
    for &address in addresses {
        let address = SocketAddr::new(address, port);
        match open(address, kind, protocol).and_then(|socket| finish(&socket).map(|()| socket)) {
            Ok(socket) => sockets.push(socket),
            Err(source) if source.kind() == io::ErrorKind::AddrInUse => {
                return Err(BindError::Taken { purpose, address });
            }
            Err(source) => {
                let no_family = matches!(
                    source.raw_os_error().map(nix::errno::Errno::from_raw),
                    Some(nix::errno::Errno::EAFNOSUPPORT | nix::errno::Errno::EADDRNOTAVAIL)
                );
                let error = BindError::Io {
                    purpose,
                    address,
                    source,
                };
                if !no_family {
                    return Err(error);
                }
                absent = Some(error);
            }
        }
    }
    match absent {
        Some(error) if sockets.is_empty() => Err(error),
        _ => Ok(sockets),
    }
}

fn open(address: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if kind == Type::STREAM {
        // Connections of a killed sidecar may linger; its successor must not wait for them.
        socket.set_reuse_address(true)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}
