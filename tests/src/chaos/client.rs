//! An agent's HTTP client that is simple enough to be sure of: blocking, one request at a time,
//! every wait bounded.

use std::{
    fmt, fs,
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};

/// No answer takes longer in these tests; one that does hangs.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// A stream of either kind.
pub trait Wire: Read + Write + Send {}
impl<T: Read + Write + Send> Wire for T {}

/// A connection of the agent's.
pub struct Client {
    stream: Box<dyn Wire>,
    tcp: TcpStream,
    ahead: Vec<u8>,
}

/// An answer with its body.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The head as it came.
    pub head: String,
    /// The body.
    pub body: Vec<u8>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("tcp", &self.tcp)
            .finish_non_exhaustive()
    }
}

// === impl Client ===

impl Client {
    /// Connects in plaintext.
    pub fn plain(to: SocketAddr) -> io::Result<Self> {
        let tcp = TcpStream::connect_timeout(&to, PATIENCE)?;
        tcp.set_read_timeout(Some(PATIENCE))?;
        tcp.set_write_timeout(Some(PATIENCE))?;
        tcp.set_nodelay(true)?;
        Ok(Self {
            stream: Box::new(tcp.try_clone()?),
            tcp,
            ahead: Vec::new(),
        })
    }

    /// Connects with TLS to a name, trusting one authority.
    pub fn tls(to: SocketAddr, name: &str, authority: &Path) -> Result<Self> {
        Self::plain(to)?.secured(name, authority)
    }

    /// The same, offering these protocols.
    pub fn tls_with(
        to: SocketAddr,
        name: &str,
        authority: &Path,
        protocols: &[&[u8]],
    ) -> Result<Self> {
        Self::plain(to)?.secured_with(name, authority, protocols)
    }

    /// Puts TLS on what is connected already.
    pub fn secured(self, name: &str, authority: &Path) -> Result<Self> {
        self.secured_with(name, authority, &[b"http/1.1"])
    }

    fn secured_with(self, name: &str, authority: &Path, protocols: &[&[u8]]) -> Result<Self> {
        let tcp = self.tcp.try_clone()?;
        let config = Arc::new(config(authority, protocols)?);
        let session = ClientConnection::new(config, ServerName::try_from(name.to_owned())?)?;
        let mut stream = StreamOwned::new(session, self.stream);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(Self {
            stream: Box::new(stream),
            tcp,
            ahead: Vec::new(),
        })
    }

    /// Sends a request with no body, and reads the answer whole.
    pub fn get(&mut self, host: &str, path: &str, fields: &str) -> io::Result<Answer> {
        self.send(format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n{fields}\r\n").as_bytes())?;
        self.answer()
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)?;
        self.stream.flush()
    }

    /// Reads a head and the body that it announces.
    pub fn answer(&mut self) -> io::Result<Answer> {
        let head = self.head()?;
        let length = head
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
            .and_then(|(_, length)| length.trim().parse().ok());
        let body = match length {
            Some(length) => self.exactly(length)?,
            None if head
                .to_ascii_lowercase()
                .contains("transfer-encoding: chunked") =>
            {
                self.through(b"0\r\n\r\n")?
            }
            None => Vec::new(),
        };
        let status = head
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok())
            .ok_or_else(|| io::Error::other(format!("no status: {head}")))?;
        Ok(Answer { status, head, body })
    }

    /// Reads up to the end of a head.
    pub fn head(&mut self) -> io::Result<String> {
        let head = self.through(b"\r\n\r\n")?;
        Ok(String::from_utf8_lossy(&head).into_owned())
    }

    /// Reads some bytes; none is the end.
    pub fn some(&mut self) -> io::Result<Vec<u8>> {
        if !self.ahead.is_empty() {
            return Ok(std::mem::take(&mut self.ahead));
        }
        let mut buffer = vec![0; 16 * 1024];
        let length = self.stream.read(&mut buffer)?;
        buffer.truncate(length);
        Ok(buffer)
    }

    /// Reads until the other side ends it, in whatever way, and says how.
    pub fn drain(&mut self) -> io::Result<()> {
        let begun = Instant::now();
        while !self.some()?.is_empty() {
            if begun.elapsed() > PATIENCE {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
        Ok(())
    }

    /// The TCP connection itself.
    #[must_use]
    pub fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    fn through(&mut self, end: &[u8]) -> io::Result<Vec<u8>> {
        let mut read = std::mem::take(&mut self.ahead);
        loop {
            if let Some(at) = read.windows(end.len()).position(|window| window == end) {
                self.ahead = read.split_off(at + end.len());
                return Ok(read);
            }
            let more = self.some()?;
            if more.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            read.extend(more);
        }
    }

    fn exactly(&mut self, length: usize) -> io::Result<Vec<u8>> {
        let mut read = std::mem::take(&mut self.ahead);
        while read.len() < length {
            let more = self.some()?;
            if more.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            read.extend(more);
        }
        self.ahead = read.split_off(length);
        Ok(read)
    }
}

fn config(authority: &Path, protocols: &[&[u8]]) -> Result<ClientConfig> {
    let pem = fs::read(authority).with_context(|| format!("reading {}", authority.display()))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        roots.add(certificate?)?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    Ok(config)
}

// === impl Answer ===

impl Answer {
    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}
