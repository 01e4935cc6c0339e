//! What reached the upstream: each request as it was understood, each connection as raw bytes.
//!
//! Requests are recorded when their head arrives and completed when their body ends, so that one
//! which was cut off is there too.

use std::{
    fs::File,
    io::{self, Write as _},
    net::SocketAddr,
    path::Path,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use anyhow::Context as _;
use http::{HeaderMap, request::Parts};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// One request as the upstream understood it.
#[derive(Clone, Debug)]
pub struct Received {
    /// Which of [`super::Upstream::connections`] it came on.
    pub connection: usize,
    /// The method.
    pub method: String,
    /// The name in the request itself: `:authority`, or `Host`.
    pub host: String,
    /// The path, without query.
    pub path: String,
    /// The query, if any.
    pub query: Option<String>,
    /// `HTTP/1.1` or `HTTP/2.0`.
    pub version: String,
    /// The header fields as they came.
    pub headers: HeaderMap,
    /// The body as far as it came, up to [`BODY_KEPT`].
    pub body: Vec<u8>,
    /// All bytes of the body, kept or not.
    pub body_length: u64,
    /// The trailers, if any came.
    pub trailers: HeaderMap,
    /// Whether the body came to its end.
    pub complete: bool,
}

/// One connection.
#[derive(Clone, Debug)]
pub struct Connection {
    /// Who connected.
    pub peer: SocketAddr,
    /// Whether it was TLS.
    pub tls: bool,
    /// The name asked for in the TLS handshake.
    pub server_name: Option<String>,
    /// The protocol agreed in the TLS handshake.
    pub alpn: Option<String>,
    /// What came in, after TLS, up to [`BYTES_KEPT`].
    pub bytes: Vec<u8>,
}

/// Enough for any request that a test looks into; large uploads are only counted.
pub const BODY_KEPT: usize = 1 << 20;

/// Enough to see whether a second request was smuggled behind a first.
pub const BYTES_KEPT: usize = 1 << 20;

#[derive(Debug, Default)]
pub(super) struct Log {
    state: Mutex<State>,
    file: Option<Mutex<File>>,
}

#[derive(Debug, Default)]
struct State {
    requests: Vec<Received>,
    connections: Vec<Connection>,
}

/// One request in [`Log`], being read.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    log: Arc<Log>,
    index: usize,
}

/// A stream whose incoming bytes are kept.
#[derive(Debug)]
pub(super) struct Recorded<S> {
    inner: S,
    log: Arc<Log>,
    connection: usize,
}

// === impl Received ===

impl Received {
    /// A header's value as text, the first if there are several.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// Whether the text is anywhere in the request: in query, path, header or kept body.
    #[must_use]
    pub fn mentions(&self, text: &str) -> bool {
        self.path.contains(text)
            || self
                .query
                .as_deref()
                .is_some_and(|query| query.contains(text))
            || super::contains(&self.body, text.as_bytes())
            || self
                .headers
                .iter()
                .chain(&self.trailers)
                .any(|(_, value)| super::contains(value.as_bytes(), text.as_bytes()))
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "connection": self.connection,
            "method": self.method,
            "host": self.host,
            "path": self.path,
            "query": self.query,
            "version": self.version,
            "headers": pairs(&self.headers),
            "body": String::from_utf8_lossy(&self.body),
            "body_length": self.body_length,
            "trailers": pairs(&self.trailers),
            "complete": self.complete,
        })
    }
}

fn pairs(headers: &HeaderMap) -> Vec<[String; 2]> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    headers
        .iter()
        .map(|(name, value)| [name.to_string(), text(value.as_bytes())])
        .collect()
}

// === impl Log ===

impl Log {
    pub(super) fn new(file: Option<&Path>) -> anyhow::Result<Self> {
        let file = match file {
            Some(path) => Some(Mutex::new(File::create(path).with_context(|| {
                format!("the request log {} could not be made", path.display())
            })?)),
            None => None,
        };
        Ok(Self {
            state: Mutex::default(),
            file,
        })
    }

    pub(super) fn requests(&self) -> Vec<Received> {
        self.lock().requests.clone()
    }

    pub(super) fn connections(&self) -> Vec<Connection> {
        self.lock().connections.clone()
    }

    pub(super) fn connect(&self, connection: Connection) -> usize {
        let mut state = self.lock();
        state.connections.push(connection);
        state.connections.len() - 1
    }

    pub(super) fn negotiated(&self, connection: usize, name: Option<String>, alpn: Option<String>) {
        if let Some(connection) = self.lock().connections.get_mut(connection) {
            connection.server_name = name;
            connection.alpn = alpn;
        }
    }

    pub(super) fn begin(self: &Arc<Self>, connection: usize, head: &Parts) -> Entry {
        let host = head.uri.authority().map_or_else(
            || {
                let host = head.headers.get(http::header::HOST);
                String::from_utf8_lossy(host.map_or(b"", http::HeaderValue::as_bytes)).into_owned()
            },
            ToString::to_string,
        );
        let mut state = self.lock();
        state.requests.push(Received {
            connection,
            method: head.method.to_string(),
            host,
            path: head.uri.path().to_owned(),
            query: head.uri.query().map(str::to_owned),
            version: format!("{:?}", head.version),
            headers: head.headers.clone(),
            body: Vec::new(),
            body_length: 0,
            trailers: HeaderMap::new(),
            complete: false,
        });
        Entry {
            log: Arc::clone(self),
            index: state.requests.len() - 1,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, received: &Received) {
        if let Some(file) = &self.file {
            let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
            if let Err(error) = writeln!(file, "{}", received.json()) {
                eprintln!("the request log could not be written: {error}");
            }
        }
    }
}

// === impl Entry ===

impl Entry {
    pub(super) fn data(&self, bytes: &[u8]) {
        self.update(|received| {
            received.body_length += bytes.len() as u64;
            let room = BODY_KEPT.saturating_sub(received.body.len());
            received
                .body
                .extend_from_slice(&bytes[..bytes.len().min(room)]);
        });
    }

    pub(super) fn trailers(&self, trailers: &HeaderMap) {
        self.update(|received| received.trailers.clone_from(trailers));
    }

    /// The body ended; the request goes to the file now.
    pub(super) fn complete(&self) {
        let mut first = false;
        self.update(|received| first = !std::mem::replace(&mut received.complete, true));
        if first {
            self.log.write(&self.get());
        }
    }

    pub(super) fn get(&self) -> Received {
        self.log.lock().requests[self.index].clone()
    }

    fn update(&self, change: impl FnOnce(&mut Received)) {
        if let Some(received) = self.log.lock().requests.get_mut(self.index) {
            change(received);
        }
    }
}

// === impl Recorded ===

impl<S> Recorded<S> {
    pub(super) fn new(inner: S, log: Arc<Log>, connection: usize) -> Self {
        Self {
            inner,
            log,
            connection,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Recorded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.inner).poll_read(context, buffer);
        let new = &buffer.filled()[before..];
        if !new.is_empty()
            && let Some(connection) = self.log.lock().connections.get_mut(self.connection)
        {
            let room = BYTES_KEPT.saturating_sub(connection.bytes.len());
            connection
                .bytes
                .extend_from_slice(&new[..new.len().min(room)]);
        }
        result
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Recorded<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}
