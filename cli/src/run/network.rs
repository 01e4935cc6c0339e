//! The command's network: loopback alone, where every address leads to the gate.
//!
//! A default route of type `local` makes every address of both families one's own, so that a
//! connection to anywhere is a connection to this machine, and the same rules that confine a pod
//! turn it to the gate's listeners or refuse it. The listeners are made here, inside, and given to
//! the gate outside. In doubt (a route, a rule or a listener that can't be made) nothing runs.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use rtnetlink::packet_route::route::{RouteMessage, RouteProtocol, RouteScope, RouteType};
use rtnetlink::{LinkUnspec, RouteMessageBuilder};
use socket2::{Domain, Protocol, Socket, Type};

/// Where transparent connections arrive.
const TRANSPARENT: u16 = 15001;

/// Where clients with proxy settings of their own may come.
const EXPLICIT: u16 = 15002;

/// Where questions for names arrive, whichever server they were meant for.
const DNS: u16 = 15053;

/// Connections that wait to be accepted; a burst of a busy agent fits.
const BACKLOG: i32 = 4096;

/// The kernel's table of what is local, looked at before any other.
const TABLE_LOCAL: u32 = 255;

/// Loopback is the first interface of every network namespace.
const LOOPBACK: u32 = 1;

/// Which listener a descriptor is, in the order in which they are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) enum Kind {
    Transparent,
    Explicit,
    DnsUdp,
    DnsTcp,
}

/// Why the network could not be made.
#[derive(Debug, thiserror::Error)]
pub(super) enum NetworkError {
    #[error("the command's network could not be set up: {0}")]
    Netlink(#[from] rtnetlink::Error),
    #[error("the gate's {kind:?} listener on {address} could not be made: {error}")]
    Listen {
        kind: Kind,
        address: SocketAddr,
        error: io::Error,
    },
    #[error("the command's network could not be confined: {0}\n  hint: {hint}", hint = .0.remedy())]
    Confine(#[from] exeat_init::InitError),
    #[error("the command's network could not be set up: {0}")]
    Io(#[from] io::Error),
}

/// Brings loopback up and leads every address to it.
pub(super) async fn lead_everything_here() -> Result<(), NetworkError> {
    let (connection, handle, _) = rtnetlink::new_connection()?;
    let connection = tokio::spawn(connection);
    let up = LinkUnspec::new_with_index(LOOPBACK).up().build();
    handle.link().set(up).execute().await?;
    let everywhere = [
        local(RouteMessageBuilder::<Ipv4Addr>::new()),
        local(RouteMessageBuilder::<Ipv6Addr>::new()),
    ];
    for route in everywhere {
        handle.route().add(route).execute().await?;
    }
    connection.abort();
    Ok(())
}

fn local<T>(builder: RouteMessageBuilder<T>) -> RouteMessage {
    builder
        .output_interface(LOOPBACK)
        .table_id(TABLE_LOCAL)
        .kind(RouteType::Local)
        .scope(RouteScope::Host)
        .protocol(RouteProtocol::Boot)
        .build()
}

/// All listeners, both families each.
///
/// They are bound to the loopback addresses, where redirected packets go: an answer to a DNS
/// question must come from the address that it was redirected to.
pub(super) fn listeners() -> Result<Vec<(Kind, OwnedFd)>, NetworkError> {
    let kinds = [
        (Kind::Transparent, TRANSPARENT),
        (Kind::Explicit, EXPLICIT),
        (Kind::DnsUdp, DNS),
        (Kind::DnsTcp, DNS),
    ];
    let mut made = Vec::new();
    for (kind, port) in kinds {
        for host in [
            IpAddr::from(Ipv4Addr::LOCALHOST),
            IpAddr::from(Ipv6Addr::LOCALHOST),
        ] {
            let address = SocketAddr::new(host, port);
            let fd = listen(kind, address).map_err(|error| NetworkError::Listen {
                kind,
                address,
                error,
            })?;
            made.push((kind, fd));
        }
    }
    Ok(made)
}

/// Lays the rules: to the listeners, or refused.
pub(super) fn confine() -> Result<(), NetworkError> {
    exeat_init::apply(&exeat_init::Plan::outside(), exeat_init::Backend::Auto)?;
    Ok(())
}

fn listen(kind: Kind, address: SocketAddr) -> io::Result<OwnedFd> {
    let domain = Domain::for_address(address);
    let (r#type, protocol) = match kind {
        Kind::DnsUdp => (Type::DGRAM, Protocol::UDP),
        Kind::Transparent | Kind::Explicit | Kind::DnsTcp => (Type::STREAM, Protocol::TCP),
    };
    let socket = Socket::new(domain, r#type, Some(protocol))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    if kind != Kind::DnsUdp {
        socket.listen(BACKLOG)?;
    }
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}
