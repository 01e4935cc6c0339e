//! TLS with the agent, ended here under a leaf of the pod's own authority.
//!
//! A client that does not accept the leaf gets nothing else: there is no way from a failed handshake
//! to a tunnel. Early data is not accepted (a request in it could be replayed), and every session is
//! bound to the name it was made for.

use std::{net::IpAddr, sync::Arc, time::Duration};

use bytes::{Buf as _, BytesMut};
use rustls::{ServerConfig, server::Accepted};
use tokio_rustls::{StartHandshake, server::TlsStream};

use super::{
    leaf::{Authority, Leaves},
    sniff::Hello,
    stream::{Stream, Transport},
};

/// How long the agent's side of the handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// TLS sessions kept for resumption.
const SESSION_LIMIT: usize = 1024;

/// Ends the agent's TLS.
#[derive(Debug)]
pub struct Terminator {
    authority: Arc<Authority>,
    named: Arc<ServerConfig>,
}

/// The agent's side of the handshake failed.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// It refused, broke off, or sent what is no handshake.
    #[error(
        "the TLS handshake with the client failed: {0}; a client that does not trust the gate's \
         certificate authority needs it in its trust store"
    )]
    Failed(std::io::Error),
    /// It took too long.
    #[error("the client did not finish its TLS handshake within {} s", HANDSHAKE_TIMEOUT.as_secs())]
    Timeout,
}

// === impl Terminator ===

impl Terminator {
    /// Ends TLS with leaves of this authority.
    #[must_use]
    pub fn new(authority: Arc<Authority>) -> Self {
        let named = config(&authority, None);
        Self {
            authority,
            named: Arc::new(named),
        }
    }

    /// The authority.
    #[must_use]
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Completes a handshake whose ClientHello was read into `ahead`. A hello without a server name
    /// gets the leaf for `address`.
    pub async fn accept(
        &self,
        hello: Box<Hello>,
        mut ahead: BytesMut,
        transport: Transport,
        address: Option<IpAddr>,
    ) -> Result<TlsStream<Stream>, HandshakeError> {
        ahead.advance(hello.consumed);
        let accepted: Accepted = hello.accepted;
        let config = match (accepted.client_hello().server_name(), address) {
            (None, Some(address)) => Arc::new(config(&self.authority, Some(address))),
            _ => Arc::clone(&self.named),
        };
        let handshake = StartHandshake::from_parts(accepted, Stream::new(ahead, transport));
        match tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake.into_stream(config)).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(HandshakeError::Failed(error)),
            Err(_) => Err(HandshakeError::Timeout),
        }
    }
}

fn config(authority: &Arc<Authority>, address: Option<IpAddr>) -> ServerConfig {
    let mut config = ServerConfig::builder()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Leaves {
            authority: Arc::clone(authority),
            address,
        }));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.session_storage = rustls::server::ServerSessionMemoryCache::new(SESSION_LIMIT);
    config.max_early_data_size = 0;
    // One ticket is enough for a client that comes again; each costs an encryption per handshake.
    config.send_tls13_tickets = 1;
    config
}
