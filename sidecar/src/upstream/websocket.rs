//! WebSocket frames, walked while they pass: after a switch of protocols nothing but frames goes
//! through, in either direction (RFC 6455 section 5).
//!
//! The walk looks at headers only and changes nothing. A byte that can't stand where it stands ends
//! the connection, so a tunnel never becomes a pipe for another protocol.

use bytes::Bytes;

/// The most bytes of a control frame's payload (RFC 6455 section 5.5).
const CONTROL_LIMIT: u64 = 125;

/// Who sends the frames: clients mask, servers don't (RFC 6455 section 5.1).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Side {
    /// The agent.
    Client,
    /// The upstream.
    Server,
}

/// Follows one direction of a WebSocket.
#[derive(Debug)]
pub struct Frames {
    side: Side,
    /// Whether the first reserved bit is in use: `permessage-deflate` was agreed on (RFC 7692).
    compressed: bool,
    fragmented: bool,
    closed: bool,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Gathering a frame's header, of at most 14 bytes.
    Head { bytes: [u8; 14], length: usize },
    /// Within a payload.
    Payload { left: u64 },
}

/// What was wrong.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
#[error("not a WebSocket frame: {0}")]
pub struct NotAFrame(&'static str);

// === impl Frames ===

impl Frames {
    /// The frames that `side` sends.
    #[must_use]
    pub fn new(side: Side, compressed: bool) -> Self {
        Self {
            side,
            compressed,
            fragmented: false,
            closed: false,
            state: State::fresh(),
        }
    }

    /// Walks over the next bytes.
    pub fn walk(&mut self, mut bytes: &[u8]) -> Result<(), NotAFrame> {
        while let Some((&first, rest)) = bytes.split_first() {
            match &mut self.state {
                State::Payload { left } => {
                    let taken = usize::try_from(*left)
                        .unwrap_or(usize::MAX)
                        .min(bytes.len());
                    *left -= taken as u64;
                    bytes = &bytes[taken..];
                    if *left == 0 {
                        self.state = State::fresh();
                    }
                }
                State::Head {
                    bytes: head,
                    length,
                } => {
                    head[*length] = first;
                    *length += 1;
                    bytes = rest;
                    let (head, length) = (*head, *length);
                    if let Some(left) = self.head(&head[..length])? {
                        self.state = match left {
                            0 => State::fresh(),
                            left => State::Payload { left },
                        };
                    }
                }
            }
        }
        Ok(())
    }

    /// The payload's length, once the header is whole.
    fn head(&mut self, head: &[u8]) -> Result<Option<u64>, NotAFrame> {
        if self.closed {
            return Err(NotAFrame("bytes after the closing frame"));
        }
        if head.len() == 1 {
            return self.first(head[0]).map(|()| None);
        }
        let masked = head[1] & 0x80 != 0;
        if masked != (self.side == Side::Client) {
            return Err(NotAFrame("the mask is on the wrong side"));
        }
        let (length_bytes, short) = match head[1] & 0x7f {
            126 => (2, None),
            127 => (8, None),
            short => (0, Some(u64::from(short))),
        };
        let whole = 2 + length_bytes + if masked { 4 } else { 0 };
        if head.len() < whole {
            return Ok(None);
        }
        let length = short.unwrap_or_else(|| {
            head[2..2 + length_bytes]
                .iter()
                .fold(0, |length, &byte| length << 8 | u64::from(byte))
        });
        if length >> 63 != 0 {
            return Err(NotAFrame("a length over 63 bits"));
        }
        let opcode = head[0] & 0x0f;
        if opcode >= 8 && length > CONTROL_LIMIT {
            return Err(NotAFrame("a control frame over 125 bytes"));
        }
        if opcode == 8 {
            // The closing frame's payload may follow; no other frame may.
            self.closed = true;
        }
        Ok(Some(length))
    }

    fn first(&mut self, byte: u8) -> Result<(), NotAFrame> {
        let (last, opcode) = (byte & 0x80 != 0, byte & 0x0f);
        let reserved = byte & 0x70;
        if reserved & 0x30 != 0 || reserved != 0 && (!self.compressed || !matches!(opcode, 1 | 2)) {
            return Err(NotAFrame("a reserved bit that no extension uses"));
        }
        match opcode {
            0 if !self.fragmented => Err(NotAFrame("a continuation of nothing")),
            1 | 2 if self.fragmented => Err(NotAFrame("a message within a message")),
            0..=2 => {
                self.fragmented = !last;
                Ok(())
            }
            8..=10 if last => Ok(()),
            8..=10 => Err(NotAFrame("a control frame in fragments")),
            _ => Err(NotAFrame("a reserved opcode")),
        }
    }
}

impl State {
    fn fresh() -> Self {
        Self::Head {
            bytes: [0; 14],
            length: 0,
        }
    }
}

/// The `Sec-WebSocket-Accept` that answers a key (RFC 6455 section 4.2.2).
#[must_use]
pub fn accept_key(key: &[u8]) -> String {
    use base64::Engine as _;
    let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY);
    context.update(key);
    context.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    base64::prelude::BASE64_STANDARD.encode(context.finish())
}

/// A key of our own, for an upstream that is asked over HTTP/1 on behalf of an HTTP/2 stream.
#[must_use]
pub fn new_key() -> Option<Bytes> {
    use base64::Engine as _;
    let mut nonce = [0; 16];
    aws_lc_rs::rand::fill(&mut nonce).ok()?;
    Some(base64::prelude::BASE64_STANDARD.encode(nonce).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(frames: &[&[u8]]) -> Result<(), NotAFrame> {
        let whole = frames.concat();
        let mut at_once = Frames::new(Side::Client, false);
        let result = at_once.walk(&whole);
        for cut in 0..whole.len() {
            let mut cut_in_two = Frames::new(Side::Client, false);
            let parts = cut_in_two
                .walk(&whole[..cut])
                .and_then(|()| cut_in_two.walk(&whole[cut..]));
            assert_eq!(parts, result, "cut at {cut}");
        }
        result
    }

    const HELLO: &[u8] = &[0x81, 0x82, 1, 2, 3, 4, b'h', b'i'];

    #[test]
    fn frames_pass() {
        assert_eq!(client(&[HELLO, HELLO]), Ok(()));
        assert_eq!(
            client(&[
                &[0x01, 0x80, 1, 2, 3, 4],
                &[0x89, 0x80, 1, 2, 3, 4],
                &[0x80, 0x80, 1, 2, 3, 4]
            ]),
            Ok(())
        );
        let mut long = vec![0x82, 0xfe, 0x01, 0x00, 9, 9, 9, 9];
        long.extend([b'G'; 256]);
        assert_eq!(client(&[&long, HELLO]), Ok(()));
    }

    #[test]
    fn what_is_no_frame_does_not() {
        for bytes in [
            &b"GET / HTTP/1.1\r\nHost: evil\r\n\r\n"[..],
            &[0x81, 0x02, b'h', b'i'], // a client that does not mask
            &[0xc1, 0x80, 1, 2, 3, 4], // compressed, not agreed on
            &[0x80, 0x80, 1, 2, 3, 4], // continues nothing
            &[0x83, 0x80, 1, 2, 3, 4], // reserved opcode
            &[0x09, 0x80, 1, 2, 3, 4], // fragmented ping
            &[0x89, 0xfe, 0, 200, 1, 2, 3, 4], // long ping
            &[0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4],
            &[0x88, 0x80, 1, 2, 3, 4, 0x81, 0x80], // after the close
        ] {
            assert!(client(&[bytes]).is_err(), "{bytes:x?}");
        }
    }

    #[test]
    fn the_example_of_the_rfc() {
        assert_eq!(
            accept_key(b"dGhlIHNhbXBsZSBub25jZQ=="),
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );
    }
}
