//! What a connection speaks, from its first bytes.
//!
//! Leans towards refusing: bytes that are neither a TLS ClientHello nor HTTP, silence, and a hello
//! that never ends are errors, and there is no protocol to fall back to. The verdict does not depend
//! on how the bytes were cut into segments: every read only adds to what is looked at.

use std::{io, time::Duration};

use bytes::BytesMut;
use rustls::server::{Accepted, Acceptor};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Bytes read at most before the protocol must be known. A post-quantum ClientHello is 1.4 KiB, and
/// the largest TLS record is 16 KiB; nobody's hello needs more than one.
pub const LIMIT: usize = 16 * 1024 + 5;

/// How long a client may take to show what it speaks. Long enough for a stalled container, short
/// enough that a silent connection does not hold a place.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// The longest method name that is taken for HTTP. The longest registered one is 17 bytes
/// (`UPDATEREDIRECTREF`, RFC 4437).
const METHOD_LIMIT: usize = 24;

/// The HTTP/2 connection preface, RFC 9113 section 3.4.
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The content type of a TLS handshake record, RFC 8446 section 5.1.
const TLS_HANDSHAKE: u8 = 0x16;

/// What a connection speaks.
pub enum Sniffed {
    /// TLS, with its whole ClientHello.
    Tls(Box<Hello>),
    /// HTTP/1.0 or 1.1.
    Http1,
    /// HTTP/2 with prior knowledge, without TLS.
    Http2,
}

/// A ClientHello that was read whole.
pub struct Hello {
    /// What rustls made of it; the handshake can go on from here.
    pub accepted: Accepted,
    /// How many of the bytes read belong to `accepted`; what follows them was not consumed yet.
    pub consumed: usize,
    /// Whether it carries `encrypted_client_hello` (real or GREASE, which look alike by design).
    pub encrypted_hello: bool,
}

/// Why the protocol is not known.
#[derive(Debug, thiserror::Error)]
pub enum SniffError {
    /// Neither TLS nor HTTP.
    #[error("the first bytes are neither TLS nor HTTP; declare a `tcp` rule if this is meant")]
    Unrecognised,
    /// The ClientHello is malformed.
    #[error("malformed TLS ClientHello: {0}")]
    MalformedHello(rustls::Error),
    /// More than [`LIMIT`] bytes and still no end.
    #[error("no complete TLS ClientHello or HTTP method in the first {LIMIT} bytes")]
    TooLong,
    /// Nothing, or not enough, within [`DEADLINE`].
    #[error("the client sent too little to tell what it speaks within {} s", DEADLINE.as_secs())]
    Silent,
    /// The client closed before saying anything at all: no call was made.
    #[error("closed before the first byte")]
    Closed,
    /// The connection broke.
    #[error("reading the first bytes: {0}")]
    Io(#[from] io::Error),
}

/// Reads from `io` into `ahead` until it is known what the connection speaks.
///
/// Everything that was read stays in `ahead`.
pub async fn sniff<I: AsyncRead + Unpin>(
    io: &mut I,
    ahead: &mut BytesMut,
) -> Result<Sniffed, SniffError> {
    tokio::time::timeout(DEADLINE, read_until_known(io, ahead))
        .await
        .unwrap_or(Err(SniffError::Silent))
}

async fn read_until_known<I: AsyncRead + Unpin>(
    io: &mut I,
    ahead: &mut BytesMut,
) -> Result<Sniffed, SniffError> {
    let mut hello = HelloReader::default();
    loop {
        match classify(ahead) {
            Class::Tls => {
                if let Some(hello) = hello.read(ahead)? {
                    return Ok(Sniffed::Tls(Box::new(hello)));
                }
            }
            Class::Http1 => return Ok(Sniffed::Http1),
            Class::Http2 => return Ok(Sniffed::Http2),
            Class::Unknown => return Err(SniffError::Unrecognised),
            Class::More => {}
        }
        if ahead.len() >= LIMIT {
            return Err(SniffError::TooLong);
        }
        let room = LIMIT - ahead.len();
        ahead.reserve(room.min(2048));
        let mut limited = (&mut *io).take(room as u64);
        if limited.read_buf(ahead).await? == 0 {
            return Err(if ahead.is_empty() {
                SniffError::Closed
            } else {
                SniffError::Unrecognised
            });
        }
    }
}

/// What is told of these pieces, one read each: a word, for the fuzzer and its corpus.
#[must_use]
pub fn verdict(pieces: &[&[u8]]) -> &'static str {
    let mut ahead = BytesMut::new();
    let mut hello = HelloReader::default();
    for piece in pieces {
        ahead.extend_from_slice(piece);
        match classify(&ahead) {
            Class::Tls => match hello.read(&ahead) {
                Ok(Some(_)) => return "tls",
                Ok(None) => {}
                Err(_) => return "refused",
            },
            Class::Http1 => return "http1",
            Class::Http2 => return "http2",
            Class::Unknown => return "refused",
            Class::More => {}
        }
    }
    "more"
}

#[derive(Debug, PartialEq)]
enum Class {
    Tls,
    Http1,
    Http2,
    Unknown,
    More,
}

/// Tells what `bytes` begin, or that more are needed. Pure, so that every cut gives the same.
fn classify(bytes: &[u8]) -> Class {
    match bytes.first() {
        None => return Class::More,
        Some(&TLS_HANDSHAKE) => return Class::Tls,
        Some(_) => {}
    }
    if bytes.starts_with(HTTP2_PREFACE) {
        return Class::Http2;
    }
    if HTTP2_PREFACE.starts_with(bytes) {
        return Class::More;
    }
    match bytes.iter().position(|&byte| !is_token(byte)) {
        Some(end) if end > 0 && end <= METHOD_LIMIT && bytes[end] == b' ' => Class::Http1,
        None if bytes.len() <= METHOD_LIMIT => Class::More,
        _ => Class::Unknown,
    }
}

/// Whether a byte may stand in a method (`tchar`, RFC 9110 section 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Feeds rustls each byte once, however many reads it takes.
#[derive(Default)]
struct HelloReader {
    acceptor: Acceptor,
    fed: usize,
}

impl HelloReader {
    fn read(&mut self, bytes: &[u8]) -> Result<Option<Hello>, SniffError> {
        while self.fed < bytes.len() {
            let mut rest = &bytes[self.fed..];
            let taken = self.acceptor.read_tls(&mut rest).map_err(SniffError::Io)?;
            if taken == 0 {
                return Err(SniffError::TooLong);
            }
            self.fed += taken;
            match self.acceptor.accept() {
                Ok(Some(accepted)) => {
                    return Ok(Some(Hello {
                        accepted,
                        consumed: self.fed,
                        encrypted_hello: has_encrypted_hello(bytes),
                    }));
                }
                Ok(None) => {}
                Err((error, _alert)) => return Err(SniffError::MalformedHello(error)),
            }
        }
        Ok(None)
    }
}

/// The extension number of `encrypted_client_hello`, RFC 9849.
const ENCRYPTED_CLIENT_HELLO: u16 = 0xfe0d;

/// Whether the ClientHello in these TLS records has the `encrypted_client_hello` extension.
///
/// rustls has parsed the same bytes already and does not tell. Only passthrough asks, where the
/// outer name would otherwise vouch for an inner one that nobody saw. Bytes that can't be walked
/// count as having it: refused.
#[must_use]
pub fn has_encrypted_hello(records: &[u8]) -> bool {
    let handshake = join_records(records);
    walk_extensions(&handshake).is_none_or(|found| found)
}

fn join_records(mut records: &[u8]) -> Vec<u8> {
    let mut handshake = Vec::with_capacity(records.len());
    while let [TLS_HANDSHAKE, _, _, high, low, rest @ ..] = records {
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(rest.len());
        handshake.extend_from_slice(&rest[..length]);
        records = &rest[length..];
    }
    handshake
}

/// `None` where the bytes end too early.
fn walk_extensions(handshake: &[u8]) -> Option<bool> {
    // msg_type 1, length 3, legacy_version 2, random 32: RFC 8446 sections 4 and 4.1.2.
    let rest = handshake.get(38..)?;
    let rest = skip(rest, 1)?; // legacy_session_id
    let rest = skip(rest, 2)?; // cipher_suites
    let rest = skip(rest, 1)?; // legacy_compression_methods
    if rest.is_empty() {
        return Some(false);
    }
    let mut extensions = rest.get(2..)?;
    while let [a, b, rest @ ..] = extensions {
        if u16::from_be_bytes([*a, *b]) == ENCRYPTED_CLIENT_HELLO {
            return Some(true);
        }
        extensions = skip(rest, 2)?;
    }
    Some(false)
}

/// Skips a vector whose length is in its first `prefix` bytes.
fn skip(bytes: &[u8], prefix: usize) -> Option<&[u8]> {
    let length = bytes
        .get(..prefix)?
        .iter()
        .fold(0, |length, &byte| length << 8 | usize::from(byte));
    bytes.get(prefix + length..)
}

#[cfg(test)]
mod tests;
