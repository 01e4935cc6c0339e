//! The other side of the gate in every test: a server that answers honestly, or badly on request,
//! and keeps all that reached it, as requests and as raw bytes.
//!
//! It listens on loopback only, with TLS and without, speaks HTTP/1.1 and HTTP/2, and chooses its
//! certificate by the name asked for. What a test then asserts, it asserts on this side: a header
//! that is not in [`Upstream::requests`] was not sent, whatever a client says.

mod answer;
mod body;
mod certificates;
mod front;
mod git;
mod grpc;
mod models;
mod record;
mod serve;
mod stream;
mod websocket;

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
};

use anyhow::{Context as _, Result};
use tokio::{net::TcpListener, task::JoinSet};

pub use self::record::{BODY_KEPT, BYTES_KEPT, Connection, Received};
use self::{certificates::Authority, record::Log};

/// What an upstream is to be.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The address to listen on; the tests' own loopback unless a namespace was made for it.
    pub address: IpAddr,
    /// The TLS port, 0 for any free one.
    pub tls_port: u16,
    /// The plaintext port, 0 for any free one.
    pub plain_port: u16,
    /// The folder with the bare repositories that `/git/` serves.
    pub git_root: Option<PathBuf>,
    /// Names whose requests are handed to a plaintext server on this machine: the TLS front for
    /// servers that have none.
    pub fronts: BTreeMap<String, SocketAddr>,
    /// Where each request is also written, a JSON object a line.
    pub log: Option<PathBuf>,
}

/// A running upstream; it ends when dropped.
#[derive(Debug)]
pub struct Upstream {
    tls: SocketAddr,
    plain: SocketAddr,
    authority: Arc<Authority>,
    log: Arc<Log>,
    _tasks: JoinSet<()>,
}

// === impl Settings ===

impl Default for Settings {
    fn default() -> Self {
        Self {
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            tls_port: 0,
            plain_port: 0,
            git_root: None,
            fronts: BTreeMap::new(),
            log: None,
        }
    }
}

// === impl Upstream ===

impl Upstream {
    /// Starts on loopback with free ports and nothing behind it.
    pub async fn start() -> Result<Self> {
        Self::with(Settings::default()).await
    }

    /// Starts as told.
    pub async fn with(settings: Settings) -> Result<Self> {
        let authority = Arc::new(Authority::new()?);
        let log = Arc::new(Log::new(settings.log.as_deref())?);
        let tls = listen(settings.address, settings.tls_port).await?;
        let plain = listen(settings.address, settings.plain_port).await?;
        let (tls_address, plain_address) = (tls.local_addr()?, plain.local_addr()?);

        let site = Arc::new(serve::Site {
            git_root: settings.git_root,
            fronts: settings.fronts,
            log: Arc::clone(&log),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(serve::tls(
            tls,
            authority.server_config()?,
            Arc::clone(&site),
        ));
        tasks.spawn(serve::plain(plain, site));
        Ok(Self {
            tls: tls_address,
            plain: plain_address,
            authority,
            log,
            _tasks: tasks,
        })
    }

    /// Where TLS is served.
    #[must_use]
    pub fn tls(&self) -> SocketAddr {
        self.tls
    }

    /// Where plaintext HTTP is served.
    #[must_use]
    pub fn plain(&self) -> SocketAddr {
        self.plain
    }

    /// The root that the honest certificates chain to.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        self.authority.pem()
    }

    /// All requests so far, in order of arrival.
    #[must_use]
    pub fn requests(&self) -> Vec<Received> {
        self.log.requests()
    }

    /// The requests whose path starts with `prefix`.
    #[must_use]
    pub fn requests_to(&self, prefix: &str) -> Vec<Received> {
        let mut requests = self.log.requests();
        requests.retain(|request| request.path.starts_with(prefix));
        requests
    }

    /// All connections so far, with the bytes that came in on each (after TLS).
    #[must_use]
    pub fn connections(&self) -> Vec<Connection> {
        self.log.connections()
    }

    /// Whether these bytes came in on any connection, under TLS or not, in clear.
    ///
    /// HTTP/2 compresses its headers: look in [`Self::requests`] for those.
    #[must_use]
    pub fn saw(&self, needle: &[u8]) -> bool {
        self.log
            .connections()
            .iter()
            .any(|connection| contains(&connection.bytes, needle))
    }
}

async fn listen(address: IpAddr, port: u16) -> Result<TcpListener> {
    TcpListener::bind((address, port))
        .await
        .with_context(|| format!("the test upstream could not listen on {address} port {port}"))
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    !needle.is_empty()
        && haystack
            .windows(needle.len())
            .any(|window| window == needle)
}

#[cfg(test)]
mod tests;
