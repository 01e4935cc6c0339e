//! The only file that opens a connection to the world.
//!
//! What is dialled is an address that the gate resolved and judged itself ([`Vetted`]), never the
//! one that the agent used.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use exeat_policy::{Denial, Destination, Reason};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{
    address::{self, Vetted},
    authorize::Authorized,
    resolve::Resolver,
};

/// How long one address may take to accept: three SYN retransmissions.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(7);

/// How long a TLS handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Addresses tried for one call at most.
const ATTEMPT_LIMIT: usize = 4;

/// Attempts at one address that refuses: the kernel refuses in its place where the gate happens to
/// dial from a port that the agent used for the same address seconds ago. Another one is free.
const REFUSALS: usize = 4;

/// Idle upstream connections are probed, so that one whose path is gone does not wait for a call.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// Why an upstream could not be reached.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct DialError {
    /// As it is recorded and answered.
    pub reason: Reason,
    /// As it is told.
    pub message: String,
}

/// Connects to the destination that `authorized` was decided for.
pub async fn tcp(
    authorized: &Authorized,
    resolver: &Resolver,
) -> Result<(TcpStream, SocketAddr), DialError> {
    let destination = authorized.destination();
    let addresses = resolver
        .resolve(&destination.host)
        .await
        .map_err(|error| failed(Reason::UpstreamUnreachable, &error))?;
    let vetted = address::vet(&addresses, destination.port, &authorized.grant().addresses)
        .map_err(|error| failed(Reason::AddressForbidden, &error))?;
    let mut last = None;
    for address in vetted.into_iter().take(ATTEMPT_LIMIT).map(Vetted::addr) {
        match connect(address).await {
            Ok(tcp) => return Ok((tcp, address)),
            Err(error) => last = Some((address, error)),
        }
    }
    Err(unreachable_error(destination, last))
}

/// Completes TLS on a connection to `destination`, verifying its certificate for that host.
pub async fn tls(
    tcp: TcpStream,
    destination: &Destination,
    config: Arc<ClientConfig>,
) -> Result<TlsStream<TcpStream>, DialError> {
    let name = match destination.host.ip() {
        Some(ip) => ServerName::from(ip),
        None => ServerName::try_from(destination.host.as_str().to_owned())
            .map_err(|error| failed(Reason::UpstreamUntrusted, &error))?,
    };
    let handshake = TlsConnector::from(config).connect(name, tcp);
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(handshake_error(destination, &error)),
        Err(_) => Err(DialError {
            reason: Reason::UpstreamTimeout,
            message: format!(
                "{} did not finish its TLS handshake within {} s",
                destination.host,
                HANDSHAKE_TIMEOUT.as_secs()
            ),
        }),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "this is the place: what is dialled was resolved and judged here"
)]
async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let connecting = async {
        for _ in 1..REFUSALS {
            match TcpStream::connect(address).await {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                connected => return connected,
            }
        }
        TcpStream::connect(address).await
    };
    let tcp = tokio::time::timeout(CONNECT_TIMEOUT, connecting)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
    tcp.set_nodelay(true)?;
    let keepalive = socket2::TcpKeepalive::new().with_time(KEEPALIVE);
    socket2::SockRef::from(&tcp).set_tcp_keepalive(&keepalive)?;
    Ok(tcp)
}

fn unreachable_error(
    destination: &Destination,
    last: Option<(SocketAddr, io::Error)>,
) -> DialError {
    let host = &destination.host;
    match last {
        Some((address, error)) if error.kind() == io::ErrorKind::TimedOut => DialError {
            reason: Reason::UpstreamTimeout,
            message: format!(
                "{host} ({address}) did not answer within {} s",
                CONNECT_TIMEOUT.as_secs()
            ),
        },
        Some((address, error)) => DialError {
            reason: Reason::UpstreamUnreachable,
            message: format!("connecting to {host} ({address}): {error}"),
        },
        None => DialError {
            reason: Reason::UpstreamUnreachable,
            message: format!("{host} has no address"),
        },
    }
}

/// Tells a certificate that can't be trusted from a connection that broke.
fn handshake_error(destination: &Destination, error: &io::Error) -> DialError {
    let host = &destination.host;
    let tls = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match tls {
        Some(rustls::Error::InvalidCertificate(why)) => DialError {
            reason: Reason::UpstreamUntrusted,
            message: format!(
                "the certificate of {host} can't be trusted: {why}; if its authority is a private \
                 one, give it as --upstream-ca or as the rule's `tls.ca`"
            ),
        },
        _ => DialError {
            reason: Reason::UpstreamUnreachable,
            message: format!("TLS with {host}: {error}"),
        },
    }
}

fn failed(reason: Reason, error: &dyn std::fmt::Display) -> DialError {
    DialError {
        reason,
        message: error.to_string(),
    }
}

impl From<DialError> for Denial {
    fn from(error: DialError) -> Self {
        Self {
            reason: error.reason,
            message: error.message,
            policy: None,
            rule: None,
        }
    }
}
