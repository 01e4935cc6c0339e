//! HTTP/1 framing that can be read in one way only (RFC 9112 sections 2.2, 5, 6, 7).
//!
//! hyper reads what it can and writes requests anew, so nothing can be smuggled past it; but it is
//! lenient where a careful server answers 400: both Content-Length and Transfer-Encoding, several
//! lengths, bare LF, chunk extensions. This walks the agent's bytes before hyper has them. At the
//! first byte that is ambiguous it gives hyper a NUL in its place, which no request may contain, and
//! then nothing more: hyper answers 400, and no later byte is read as a request.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use http::{HeaderValue, Method, Request, Version, header};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What hyper is given in place of an ambiguous message.
const POISON: &[u8] = b"\0";

/// Bytes of a field's value that are looked at: lengths and codings that matter are shorter.
const VALUE_LIMIT: usize = 32;

/// Bytes of a chunk's size at most: 16 hex digits are 64 bits.
const SIZE_DIGITS: u32 = 15;

/// An upgrade that clients offer as a matter of course and that the gate never takes: what follows
/// is walked on.
const NEVER_TAKEN: &[u8] = b"h2c";

/// Passes on what an HTTP/1 client sends, as long as it is unambiguous.
#[derive(Debug)]
pub struct Strict<I> {
    io: I,
    walk: Walk,
    poisoned: bool,
}

/// Follows one client's requests.
#[derive(Debug, Default)]
pub struct Walk {
    state: State,
    framing: Framing,
    name: Short,
    value: Short,
}

/// What is wrong.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ambiguous;

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum State {
    /// Before a request: empty lines may stand here (RFC 9112 section 2.2).
    #[default]
    Before,
    BeforeLf,
    RequestLine,
    RequestLineLf,
    FieldStart,
    FieldName,
    FieldValue,
    FieldLf,
    HeadLf,
    Body(u64),
    ChunkStart,
    ChunkSize {
        size: u64,
        digits: u32,
    },
    ChunkSizeLf(u64),
    ChunkData(u64),
    ChunkEnd,
    ChunkEndLf,
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLf,
    TrailerEndLf,
    /// The connection may have switched protocols: what follows is not ours to read.
    Switched,
}

#[derive(Clone, Copy, Debug, Default)]
struct Framing {
    length: Option<u64>,
    chunked: bool,
    upgrade: bool,
    connect: bool,
}

/// The first bytes of a field's name or value, lower case.
#[derive(Clone, Copy, Debug)]
struct Short {
    bytes: [u8; VALUE_LIMIT],
    length: usize,
}

/// Whether what follows a request is not walked, because protocols may be switched. Where they are
/// not, the connection has to end with the answer: a request behind this one was not looked at.
#[must_use]
pub fn may_switch<B>(request: &Request<B>) -> bool {
    let taken = |value: &HeaderValue| !value.as_bytes().eq_ignore_ascii_case(NEVER_TAKEN);
    let mut upgrades = request.headers().get_all(header::UPGRADE).iter();
    request.version() != Version::HTTP_2
        && (request.method() == Method::CONNECT || upgrades.any(taken))
}

// === impl Walk ===

impl Walk {
    /// Walks over the next bytes. On error says how many of them came before the message that is
    /// ambiguous, or before the byte where no message begins among them.
    pub fn walk(&mut self, bytes: &[u8]) -> Result<(), (Ambiguous, usize)> {
        let mut message = 0;
        let mut at = 0;
        while at < bytes.len() {
            if let Some(skipped) = self.skip(bytes.len() - at) {
                at += skipped;
                continue;
            }
            if self.state == State::Before {
                message = at;
            }
            self.step(bytes[at]).map_err(|error| (error, message))?;
            at += 1;
        }
        Ok(())
    }

    /// Skips over content.
    fn skip(&mut self, available: usize) -> Option<usize> {
        let (left, next): (u64, fn(u64) -> State) = match self.state {
            State::Body(left) => (left, |left| match left {
                0 => State::Before,
                left => State::Body(left),
            }),
            State::ChunkData(left) => (left, |left| match left {
                0 => State::ChunkEnd,
                left => State::ChunkData(left),
            }),
            State::Switched => return Some(available),
            _ => return None,
        };
        let taken = left.min(available as u64);
        self.state = next(left - taken);
        Some(usize::try_from(taken).unwrap_or(available))
    }

    fn step(&mut self, byte: u8) -> Result<(), Ambiguous> {
        self.state = match (self.state, byte) {
            (State::Before, b'\r') => State::BeforeLf,
            (State::BeforeLf, b'\n') => State::Before,
            (State::Before, byte) if byte.is_ascii_graphic() => {
                self.framing = Framing::default();
                self.name = Short::default();
                self.name.push(byte);
                State::RequestLine
            }
            (State::RequestLine, b'\r') => {
                self.framing.connect = self.name.starts_with(b"connect ");
                State::RequestLineLf
            }
            (State::RequestLine, byte) if is_line(byte) => {
                self.name.push(byte);
                State::RequestLine
            }
            (State::RequestLineLf | State::FieldLf, b'\n') => State::FieldStart,
            (State::FieldStart, b'\r') => State::HeadLf,
            // A line that begins with white space continues the one before: obs-fold.
            (State::FieldStart, byte) if is_name(byte) => {
                self.name = Short::default();
                self.name.push(byte);
                State::FieldName
            }
            (State::FieldName, b':') => {
                self.value = Short::default();
                State::FieldValue
            }
            (State::FieldName, byte) if is_name(byte) => {
                self.name.push(byte);
                State::FieldName
            }
            (State::FieldValue, b'\r') => {
                self.field()?;
                State::FieldLf
            }
            (State::FieldValue, byte) if is_line(byte) => {
                self.value.push(byte);
                State::FieldValue
            }
            (State::HeadLf, b'\n') => self.content()?,
            (State::ChunkStart, byte) if byte.is_ascii_hexdigit() => State::ChunkSize {
                size: digit(byte),
                digits: 1,
            },
            (State::ChunkSize { size, digits }, byte)
                if byte.is_ascii_hexdigit() && digits < SIZE_DIGITS =>
            {
                State::ChunkSize {
                    size: size << 4 | digit(byte),
                    digits: digits + 1,
                }
            }
            (State::ChunkSize { size, .. }, b'\r') => State::ChunkSizeLf(size),
            (State::ChunkSizeLf(0), b'\n') => State::TrailerStart,
            (State::ChunkSizeLf(size), b'\n') => State::ChunkData(size),
            (State::ChunkEnd, b'\r') => State::ChunkEndLf,
            (State::ChunkEndLf, b'\n') => State::ChunkStart,
            (State::TrailerStart, b'\r') => State::TrailerEndLf,
            (State::TrailerStart | State::TrailerName, byte) if is_name(byte) => State::TrailerName,
            (State::TrailerName, b':') => State::TrailerValue,
            (State::TrailerValue, b'\r') => State::TrailerLf,
            (State::TrailerValue, byte) if is_line(byte) => State::TrailerValue,
            (State::TrailerLf, b'\n') => State::TrailerStart,
            (State::TrailerEndLf, b'\n') => State::Before,
            _ => return Err(Ambiguous),
        };
        Ok(())
    }

    /// One field is complete.
    fn field(&mut self) -> Result<(), Ambiguous> {
        let value = self.value.trimmed();
        if self.name.is(b"content-length") {
            if self.framing.length.is_some() || value.is_empty() || self.value.overflowed() {
                return Err(Ambiguous);
            }
            let mut length = 0_u64;
            for &byte in value {
                let digit = char::from(byte).to_digit(10).ok_or(Ambiguous)?;
                length = length
                    .checked_mul(10)
                    .and_then(|length| length.checked_add(u64::from(digit)))
                    .ok_or(Ambiguous)?;
            }
            self.framing.length = Some(length);
        } else if self.name.is(b"transfer-encoding") {
            if self.framing.chunked || value != b"chunked" {
                return Err(Ambiguous);
            }
            self.framing.chunked = true;
        } else if self.name.is(b"upgrade") {
            self.framing.upgrade |= self.value.overflowed() || value != NEVER_TAKEN;
        }
        Ok(())
    }

    /// The head is complete: what follows.
    fn content(&self) -> Result<State, Ambiguous> {
        Ok(match self.framing {
            Framing {
                length: Some(_),
                chunked: true,
                ..
            } => return Err(Ambiguous),
            Framing { connect: true, .. }
            | Framing {
                upgrade: true,
                length: None | Some(0),
                chunked: false,
                ..
            } => State::Switched,
            Framing { chunked: true, .. } => State::ChunkStart,
            Framing {
                length: Some(length @ 1..),
                ..
            } => State::Body(length),
            Framing { .. } => State::Before,
        })
    }
}

// === impl Short ===

impl Short {
    fn push(&mut self, byte: u8) {
        if let Some(place) = self.bytes.get_mut(self.length) {
            *place = byte.to_ascii_lowercase();
        }
        self.length = self.length.saturating_add(1);
    }

    fn overflowed(&self) -> bool {
        self.length > self.bytes.len()
    }

    fn kept(&self) -> &[u8] {
        &self.bytes[..self.length.min(self.bytes.len())]
    }

    fn trimmed(&self) -> &[u8] {
        self.kept().trim_ascii()
    }

    fn is(&self, name: &[u8]) -> bool {
        !self.overflowed() && self.kept() == name
    }

    fn starts_with(&self, prefix: &[u8]) -> bool {
        self.kept().starts_with(prefix)
    }
}

impl Default for Short {
    fn default() -> Self {
        Self {
            bytes: [0; VALUE_LIMIT],
            length: 0,
        }
    }
}

/// `tchar`, RFC 9110 section 5.6.2.
fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// What may stand in a line: no control character but the tab (RFC 9110 section 5.5).
fn is_line(byte: u8) -> bool {
    byte == b'\t' || byte >= b' ' && byte != 0x7f
}

fn digit(byte: u8) -> u64 {
    char::from(byte).to_digit(16).map_or(0, u64::from)
}

// === impl Strict ===

impl<I> Strict<I> {
    /// Passes on what `io` gives, strictly.
    pub fn new(io: I) -> Self {
        Self {
            io,
            walk: Walk::default(),
            poisoned: false,
        }
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Strict<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.poisoned {
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let this = &mut *self;
        let polled = Pin::new(&mut this.io).poll_read(cx, buf);
        if let Poll::Ready(Ok(())) = polled
            && let Err((Ambiguous, good)) = this.walk.walk(&buf.filled()[before..])
        {
            this.poisoned = true;
            buf.set_filled(before + good);
            // At least the ambiguous byte itself was taken out, so there is room for one.
            buf.put_slice(POISON);
        }
        polled
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Strict<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
