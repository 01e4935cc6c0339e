//! The gate of a run: the sidecar's own, with the listeners that the keeper made.

use super::network::Kind;
use super::prepare::Prepared;
use std::io;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

#[derive(Debug, thiserror::Error)]
#[error("x")]
pub(super) struct StartError;

#[derive(Default)]
pub(super) struct Listeners {
    transparent: Vec<TcpListener>,
    explicit: Vec<TcpListener>,
    dns_udp: Vec<UdpSocket>,
    dns_tcp: Vec<TcpListener>,
}

pub(super) struct Gate {
    _l: Listeners,
    tx: tokio::sync::broadcast::Sender<Arc<str>>,
}
impl Gate {
    pub(super) fn ca_pem(&self) -> &str {
        ""
    }
    pub(super) fn events(&self) -> tokio::sync::broadcast::Receiver<Arc<str>> {
        self.tx.subscribe()
    }
    pub(super) async fn shutdown(self, _grace: Duration) {}
}

/// Sorts what the keeper sent.
pub(super) fn listeners(kinds: Vec<Kind>, fds: Vec<OwnedFd>) -> io::Result<Listeners> {
    if kinds.len() != fds.len() {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut listeners = Listeners::default();
    for (kind, fd) in kinds.into_iter().zip(fds) {
        match kind {
            Kind::Transparent => listeners.transparent.push(fd.into()),
            Kind::Explicit => listeners.explicit.push(fd.into()),
            Kind::DnsUdp => listeners.dns_udp.push(fd.into()),
            Kind::DnsTcp => listeners.dns_tcp.push(fd.into()),
        }
    }
    Ok(listeners)
}

/// Opens the gate.
pub(super) async fn start(prepared: &Prepared, listeners: Listeners) -> Result<Gate, StartError> {
    std::fs::File::options()
        .append(true)
        .create(true)
        .open(&prepared.audit)
        .map_err(|_| StartError)?;
    Ok(Gate {
        _l: listeners,
        tx: tokio::sync::broadcast::channel(16).0,
    })
}
