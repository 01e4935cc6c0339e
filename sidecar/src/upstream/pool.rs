//! Connections to upstreams, kept for the next call that may use the very same one.
//!
//! Two calls share a connection only where destination, trust, allowed addresses and credential are
//! the same: an address that one rule allows, or an authentication that a connection has seen, is
//! never lent to another.

use std::{collections::HashMap, net::SocketAddr, sync::Arc, time::Duration};

use exeat_policy::{CaSource, Denial, Host, Reason, Scheme};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use ipnet::IpNet;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{
    authorize::Authorized,
    dial::{self, DialError},
    relay::Outgoing,
    resolve::Resolver,
    tls::UpstreamTls,
};
use crate::process::workers;

/// HTTP/1 connections kept idle for one destination: enough for the concurrency of a busy agent.
const IDLE_LIMIT: usize = 128;

/// Destinations with idle connections kept at most.
const KEY_LIMIT: usize = 512;

/// An idle connection is closed after this long: shorter than the 60 s and more that servers and
/// NAT gateways keep one, so that few calls meet one that is closing.
const IDLE_TIME: Duration = Duration::from_secs(45);

/// HTTP/2 windows: a stream may have this much in flight, for 100 ms paths at 20 Mbit/s.
const STREAM_WINDOW: u32 = 256 * 1024;
/// All streams of one connection together.
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// Fields of an answer at most, and their bytes: what browsers and proxies accept.
const ANSWER_FIELDS: usize = 128;
const ANSWER_HEAD_BYTES: usize = 64 * 1024;

/// What must be the same for two calls to share a connection.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Key {
    host: Host,
    port: u16,
    scheme: Scheme,
    ca: Option<CaSource>,
    http2: bool,
    credential: Option<(Arc<str>, u64)>,
    addresses: Arc<[IpNet]>,
    /// A connection is served by the thread that opened it: lent to another thread's call, each of
    /// them would wake the other all the time.
    worker: usize,
}

/// The pool.
pub struct Pool {
    resolver: Arc<Resolver>,
    tls: UpstreamTls,
    buckets: Mutex<HashMap<Key, Bucket>>,
}

#[derive(Debug, Default)]
struct Bucket {
    idle: Vec<Idle>,
    shared: Option<(http2::SendRequest<Outgoing>, SocketAddr)>,
    /// One dials, the others wait for what comes of it, until it is known to be HTTP/1 only.
    dialling: Arc<tokio::sync::Mutex<()>>,
    http1_only: bool,
}

#[derive(Debug)]
struct Idle {
    sender: http1::SendRequest<Outgoing>,
    address: SocketAddr,
    since: Instant,
}

/// A connection that is in use.
#[derive(Debug)]
pub struct Checkout {
    pool: Arc<Pool>,
    key: Key,
    /// The address at the other end.
    pub address: SocketAddr,
    /// What takes the request.
    pub sender: Sender,
    /// Whether it has served a call before, and so may just be closing.
    pub reused: bool,
}

/// What takes a request.
#[derive(Debug)]
pub enum Sender {
    /// One request at a time.
    Http1(http1::SendRequest<Outgoing>),
    /// Many.
    Http2(http2::SendRequest<Outgoing>),
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool")
            .field("kept", &self.kept())
            .finish_non_exhaustive()
    }
}

// === impl Key ===

impl Key {
    /// The key of a call, which came over HTTP/2 or not.
    #[must_use]
    pub fn new(authorized: &Authorized, scheme: Scheme, http2: bool) -> Self {
        let destination = authorized.destination();
        Self {
            host: destination.host.clone(),
            port: destination.port,
            scheme,
            ca: authorized.grant().upstream_tls.ca.clone(),
            http2,
            credential: authorized.credential_identity(),
            addresses: Arc::clone(&authorized.grant().addresses),
            worker: workers::number(),
        }
    }
}

// === impl Pool ===

impl Pool {
    /// An empty pool.
    #[must_use]
    pub fn new(resolver: Arc<Resolver>, tls: UpstreamTls) -> Self {
        Self {
            resolver,
            tls,
            buckets: Mutex::new(HashMap::new()),
        }
    }

    /// The resolver that connections are dialled with.
    #[must_use]
    pub fn resolver(&self) -> &Resolver {
        &self.resolver
    }

    /// A connection for `key`: an idle or shared one, or a new one.
    pub async fn checkout(
        self: &Arc<Self>,
        key: &Key,
        authorized: &Authorized,
        fresh: bool,
    ) -> Result<Checkout, Denial> {
        if !fresh && let Some(checkout) = self.reuse(key).await {
            return Ok(checkout);
        }
        if !self.may_share(key) {
            return Ok(Box::pin(self.connect(key, authorized)).await?);
        }
        let dialling = Arc::clone(&self.buckets.lock().entry(key.clone()).or_default().dialling);
        let turn = dialling.lock().await;
        if !fresh && let Some(checkout) = self.reuse(key).await {
            return Ok(checkout);
        }
        let checkout = Box::pin(self.connect(key, authorized)).await;
        drop(turn);
        Ok(checkout?)
    }

    /// A connection that no other call will share, HTTP/1 only, for a change of protocol.
    pub async fn exclusive(
        self: &Arc<Self>,
        authorized: &Authorized,
        scheme: Scheme,
    ) -> Result<Checkout, Denial> {
        Ok(self
            .connect(&Key::new(authorized, scheme, false), authorized)
            .await?)
    }

    /// Closes what has been idle for too long. Called at intervals.
    pub fn sweep(&self) {
        self.buckets.lock().retain(|_, bucket| {
            bucket
                .idle
                .retain(|idle| idle.since.elapsed() < IDLE_TIME && !idle.sender.is_closed());
            bucket.shared.take_if(|(sender, _)| sender.is_closed());
            !bucket.idle.is_empty()
                || bucket.shared.is_some()
                || Arc::strong_count(&bucket.dialling) > 1
        });
    }

    /// How many connections are kept.
    #[must_use]
    pub fn kept(&self) -> usize {
        self.buckets
            .lock()
            .values()
            .map(|bucket| bucket.idle.len() + usize::from(bucket.shared.is_some()))
            .sum()
    }

    fn may_share(&self, key: &Key) -> bool {
        key.http2
            && !self
                .buckets
                .lock()
                .get(key)
                .is_some_and(|bucket| bucket.http1_only)
    }

    async fn reuse(self: &Arc<Self>, key: &Key) -> Option<Checkout> {
        loop {
            let (sender, address) = self.take(key)?;
            let sender = match sender {
                Sender::Http1(mut sender) => {
                    // Given back with its answer's last byte, it is ready in a moment or broken.
                    if !sender.is_ready() && sender.ready().await.is_err() {
                        continue;
                    }
                    Sender::Http1(sender)
                }
                shared @ Sender::Http2(_) => shared,
            };
            return Some(Checkout {
                pool: Arc::clone(self),
                key: key.clone(),
                address,
                sender,
                reused: true,
            });
        }
    }

    fn take(&self, key: &Key) -> Option<(Sender, SocketAddr)> {
        let mut buckets = self.buckets.lock();
        let bucket = buckets.get_mut(key)?;
        if let Some((sender, address)) = &bucket.shared {
            if !sender.is_closed() {
                return Some((Sender::Http2(sender.clone()), *address));
            }
            bucket.shared = None;
        }
        while let Some(idle) = bucket.idle.pop() {
            if idle.since.elapsed() < IDLE_TIME && !idle.sender.is_closed() {
                return Some((Sender::Http1(idle.sender), idle.address));
            }
        }
        None
    }

    async fn connect(
        self: &Arc<Self>,
        key: &Key,
        authorized: &Authorized,
    ) -> Result<Checkout, DialError> {
        let (tcp, address) = dial::tcp(authorized, &self.resolver).await?;
        let sender = match key.scheme {
            Scheme::Http if key.http2 => {
                // Prior knowledge, as the agent had it.
                Sender::Http2(handshake_http2(TokioIo::new(tcp)).await?)
            }
            Scheme::Http => Sender::Http1(handshake_http1(TokioIo::new(tcp)).await?),
            Scheme::Https => {
                let config = self
                    .tls
                    .config(key.ca.as_ref(), key.http2)
                    .map_err(|error| DialError {
                        reason: Reason::UpstreamUntrusted,
                        message: error.to_string(),
                    })?;
                let tls = dial::tls(tcp, authorized.destination(), config).await?;
                if tls.get_ref().1.alpn_protocol() == Some(b"h2") {
                    Sender::Http2(handshake_http2(TokioIo::new(tls)).await?)
                } else {
                    Sender::Http1(handshake_http1(TokioIo::new(tls)).await?)
                }
            }
        };
        self.note(key, &sender, address);
        Ok(Checkout {
            pool: Arc::clone(self),
            key: key.clone(),
            address,
            sender,
            reused: false,
        })
    }

    fn note(&self, key: &Key, sender: &Sender, address: SocketAddr) {
        let mut buckets = self.buckets.lock();
        match sender {
            Sender::Http2(sender) => {
                buckets.entry(key.clone()).or_default().shared = Some((sender.clone(), address));
            }
            Sender::Http1(_) if key.http2 => {
                buckets.entry(key.clone()).or_default().http1_only = true;
            }
            Sender::Http1(_) => {}
        }
    }
}

// === impl Checkout ===

impl Checkout {
    /// Offers the connection to the next call. What is not given back is closed.
    pub fn give_back(self) {
        let Sender::Http1(sender) = self.sender else {
            return;
        };
        if sender.is_closed() {
            return;
        }
        let mut buckets = self.pool.buckets.lock();
        if buckets.len() >= KEY_LIMIT && !buckets.contains_key(&self.key) {
            return;
        }
        let bucket = buckets.entry(self.key).or_default();
        if bucket.idle.len() < IDLE_LIMIT {
            bucket.idle.push(Idle {
                sender,
                address: self.address,
                since: Instant::now(),
            });
        }
    }
}

async fn handshake_http1<I>(io: I) -> Result<http1::SendRequest<Outgoing>, DialError>
where
    I: hyper::rt::Read + hyper::rt::Write + Send + Unpin + 'static,
{
    let (sender, connection) = http1::Builder::new()
        .max_headers(ANSWER_FIELDS)
        .max_buf_size(ANSWER_HEAD_BYTES)
        .handshake(io)
        .await
        .map_err(handshake_failed)?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "upstream connection ended");
        }
    });
    Ok(sender)
}

async fn handshake_http2<I>(io: I) -> Result<http2::SendRequest<Outgoing>, DialError>
where
    I: hyper::rt::Read + hyper::rt::Write + Send + Unpin + 'static,
{
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(u32::try_from(ANSWER_HEAD_BYTES).unwrap_or(u32::MAX))
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20))
        .handshake(io)
        .await
        .map_err(handshake_failed)?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "upstream connection ended");
        }
    });
    Ok(sender)
}

fn handshake_failed(error: hyper::Error) -> DialError {
    DialError {
        reason: Reason::UpstreamUnreachable,
        message: format!("beginning HTTP: {error}"),
    }
}
