//! What the HTTP/2 library refuses by itself, seen so that it can be recorded.
//!
//! A malformed stream never becomes a request: the library resets it, or ends the connection, and
//! tells nobody. This walks the frames on their way to the agent, changes none, and tells of each
//! that says so. A reset for a reason that is not the agent's fault is passed over.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use exeat_policy::{Denial, Reason};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A frame's header, RFC 9113 section 4.1.
const HEAD: usize = 9;

/// Bytes of a payload that are looked at: a GOAWAY has its error code in the second four.
const KEPT: usize = 8;

const RST_STREAM: u8 = 3;
const GOAWAY: u8 = 7;

/// Passes on what goes to an HTTP/2 client, and tells of refusals.
#[derive(Debug)]
pub struct Resets<I, F> {
    io: I,
    told: F,
    walk: Walk,
}

/// Follows the frames.
#[derive(Debug, Default)]
struct Walk {
    head: [u8; HEAD],
    payload: [u8; KEPT],
    /// Bytes of this frame so far.
    at: usize,
}

// === impl Resets ===

impl<I, F: FnMut(Denial)> Resets<I, F> {
    /// Passes `io` on and gives each refusal to `told`.
    pub fn new(io: I, told: F) -> Self {
        Self {
            io,
            told,
            walk: Walk::default(),
        }
    }

    fn wrote(&mut self, bytes: &[u8]) {
        self.walk.walk(bytes, &mut self.told);
    }
}

// === impl Walk ===

impl Walk {
    fn walk(&mut self, mut bytes: &[u8], told: &mut impl FnMut(Denial)) {
        while let Some((&first, rest)) = bytes.split_first() {
            if self.at < HEAD {
                self.head[self.at] = first;
                (self.at, bytes) = (self.at + 1, rest);
            } else {
                let (from, left) = (self.at - HEAD, HEAD + self.length() - self.at);
                let taken = left.min(bytes.len());
                for (place, &byte) in self.payload.iter_mut().skip(from).zip(&bytes[..taken]) {
                    *place = byte;
                }
                self.at += taken;
                bytes = &bytes[taken..];
            }
            if self.at >= HEAD && self.at == HEAD + self.length() {
                self.refusal().into_iter().for_each(&mut *told);
                *self = Self::default();
            }
        }
    }

    fn length(&self) -> usize {
        let [a, b, c, ..] = self.head;
        usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c)
    }

    fn refusal(&self) -> Option<Denial> {
        let [a, b, c, d, e, f, g, h] = self.payload;
        let (code, what) = match self.head[3] {
            RST_STREAM => ([a, b, c, d], "stream"),
            GOAWAY => ([e, f, g, h], "connection"),
            _ => return None,
        };
        // RFC 9113 section 7.
        match u32::from_be_bytes(code) {
            1 | 3 | 5 | 6 | 9 => Some(Denial::new(
                Reason::InvalidRequest,
                format!("a malformed HTTP/2 {what}"),
            )),
            7 | 11 => Some(Denial::new(
                Reason::LimitExceeded,
                format!("an HTTP/2 {what} over the limits"),
            )),
            _ => None,
        }
    }
}

impl<I: AsyncRead + Unpin, F: Unpin> AsyncRead for Resets<I, F> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<I: AsyncWrite + Unpin, F: FnMut(Denial) + Unpin> AsyncWrite for Resets<I, F> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write(cx, buf);
        if let Poll::Ready(Ok(length)) = polled {
            self.wrote(&buf[..length]);
        }
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        if let Poll::Ready(Ok(mut length)) = polled {
            for buf in bufs {
                let taken = length.min(buf.len());
                self.wrote(&buf[..taken]);
                length -= taken;
            }
        }
        polled
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
mod tests {
    use super::*;

    #[test]
    fn refusals_are_seen_in_any_pieces() {
        let frames: &[&[u8]] = &[
            &[0, 0, 0, 4, 0, 0, 0, 0, 0],             // SETTINGS
            &[0, 0, 4, 3, 0, 0, 0, 0, 1, 0, 0, 0, 1], // RST_STREAM, PROTOCOL_ERROR
            &[0, 0, 4, 3, 0, 0, 0, 0, 3, 0, 0, 0, 8], // RST_STREAM, CANCEL
            &[0, 0, 4, 0, 1, 0, 0, 0, 5, 0, 0, 0, 1], // DATA
            &[
                0, 0, 10, 7, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 11, b'h', b'i',
            ], // GOAWAY, ENHANCE_YOUR_CALM
            &[0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0], // GOAWAY, NO_ERROR
        ];
        let bytes = frames.concat();
        for size in 1..=bytes.len() {
            let (mut walk, mut reasons) = (Walk::default(), Vec::new());
            for piece in bytes.chunks(size) {
                walk.walk(piece, &mut |denial: Denial| reasons.push(denial.reason));
            }
            assert_eq!(reasons, [Reason::InvalidRequest, Reason::LimitExceeded]);
        }
    }
}
