//! HTTP/2 frames by hand (RFC 9113), for what no client library would send.

use std::{
    io::{ErrorKind, Read, Write},
    time::Instant,
};

use anyhow::{Result, bail};

use super::{PROMPT, Reply};

/// The preface that a client begins with.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Frame types.
pub const DATA: u8 = 0;
/// Fields.
pub const HEADERS: u8 = 1;
/// A stream's end before its time.
pub const RST_STREAM: u8 = 3;
/// Settings.
pub const SETTINGS: u8 = 4;
/// Ping.
pub const PING: u8 = 6;
/// The connection's end.
pub const GOAWAY: u8 = 7;
/// Credit.
pub const WINDOW_UPDATE: u8 = 8;
/// More fields.
pub const CONTINUATION: u8 = 9;

/// The stream ends here.
pub const END_STREAM: u8 = 1;
/// The fields end here.
pub const END_HEADERS: u8 = 4;

/// One frame.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Its type.
    pub kind: u8,
    /// Its flags.
    pub flags: u8,
    /// Its stream.
    pub stream: u32,
    /// The rest.
    pub payload: Vec<u8>,
}

/// The bytes of one frame.
#[must_use]
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    let mut bytes = length.to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// Preface and empty settings.
#[must_use]
pub fn opening() -> Vec<u8> {
    let mut bytes = PREFACE.to_vec();
    bytes.extend(frame(SETTINGS, 0, 0, &[]));
    bytes
}

/// Fields as HPACK literals, never indexed and never compressed, so that they can be anything.
#[must_use]
pub fn fields(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0x10);
        literal(&mut block, name.as_bytes());
        literal(&mut block, value.as_bytes());
    }
    block
}

/// The frame of a whole request without a body.
#[must_use]
pub fn request(stream: u32, list: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &fields(list))
}

/// The pseudo-fields of a GET.
#[must_use]
pub fn get<'a>(authority: &'a str, path: &'a str) -> Vec<(&'a str, &'a str)> {
    vec![
        (":method", "GET"),
        (":scheme", "https"),
        (":authority", authority),
        (":path", path),
    ]
}

fn literal(block: &mut Vec<u8>, text: &[u8]) {
    match u8::try_from(text.len()) {
        Ok(short @ 0..=126) => block.push(short),
        _ => {
            block.push(127);
            let mut left = text.len() - 127;
            while left >= 128 {
                block.push(u8::try_from(left % 128).unwrap_or_default() | 0x80);
                left /= 128;
            }
            block.push(u8::try_from(left).unwrap_or_default());
        }
    }
    block.extend(text);
}

/// Sends bytes and reads frames until `enough` says so, or the other side ends the connection.
/// Silence is an error.
pub fn exchange(
    stream: &mut (impl Read + Write),
    bytes: &[u8],
    enough: impl Fn(&[Frame]) -> bool,
) -> Result<Vec<Frame>> {
    // The gate may close before everything is sent.
    if let Err(error) = stream.write_all(bytes).and_then(|()| stream.flush())
        && !matches!(
            error.kind(),
            ErrorKind::BrokenPipe | ErrorKind::ConnectionReset
        )
    {
        return Err(error.into());
    }
    let start = Instant::now();
    let mut received = Vec::new();
    let mut buffer = [0; 16 * 1024];
    loop {
        let frames = parse(&received);
        if enough(&frames) {
            return Ok(frames);
        }
        if start.elapsed() > PROMPT {
            bail!("no prompt answer; so far: {frames:?}");
        }
        match stream.read(&mut buffer) {
            Ok(length @ 1..) => received.extend_from_slice(&buffer[..length]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                bail!("no prompt answer; so far: {frames:?}");
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Ok(0) | Err(_) => return Ok(frames),
        }
    }
}

/// Whether this stream is over: ended, reset, or gone with its connection.
#[must_use]
pub fn over(frames: &[Frame], stream: u32) -> bool {
    frames.iter().any(|frame| {
        let ends = matches!(frame.kind, DATA | HEADERS) && frame.flags & END_STREAM != 0;
        frame.kind == GOAWAY && frame.payload.get(4..8) != Some(&[0; 4])
            || frame.stream == stream && (ends || frame.kind == RST_STREAM)
    })
}

/// What came back on a stream, as far as it can be told without its compressed fields. The status
/// is 0 where it is neither in HPACK's static table nor the first field of the connection.
#[must_use]
pub fn reply(frames: &[Frame], stream: u32) -> Reply {
    let of = |kind| {
        frames
            .iter()
            .filter(move |frame| frame.kind == kind && frame.stream == stream)
    };
    let status = of(HEADERS).next().map_or(0, |frame| status(&frame.payload));
    let body = of(DATA).flat_map(|frame| frame.payload.clone()).collect();
    Reply {
        status,
        head: String::new(),
        body,
    }
}

/// Whether the stream was reset.
#[must_use]
pub fn reset(frames: &[Frame], stream: u32) -> bool {
    frames
        .iter()
        .any(|frame| frame.kind == RST_STREAM && frame.stream == stream)
}

/// Whether the connection was ended for a fault of ours.
#[must_use]
pub fn gone(frames: &[Frame]) -> bool {
    frames.iter().any(|frame| {
        frame.kind == GOAWAY && frame.payload.get(4..8).is_some_and(|code| code != [0; 4])
    })
}

fn parse(mut bytes: &[u8]) -> Vec<Frame> {
    let mut frames = Vec::new();
    while let [a, b, c, kind, flags, s1, s2, s3, s4, rest @ ..] = bytes {
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        let Some(payload) = rest.get(..length) else {
            break;
        };
        frames.push(Frame {
            kind: *kind,
            flags: *flags,
            stream: u32::from_be_bytes([*s1, *s2, *s3, *s4]) & 0x7fff_ffff,
            payload: payload.to_vec(),
        });
        bytes = &rest[length..];
    }
    frames
}

/// `:status`, as HPACK has it at the start of a connection's first answer (RFC 7541 appendix A), or
/// as a literal with Huffman's digits (appendix B).
fn status(block: &[u8]) -> u16 {
    match block {
        [0x88, ..] => 200,
        [0x89, ..] => 204,
        [0x8a, ..] => 206,
        [0x8b, ..] => 304,
        [0x8c, ..] => 400,
        [0x8d, ..] => 404,
        [0x8e, ..] => 500,
        [0x48 | 0x08 | 0x18, length, rest @ ..] if length & 0x80 != 0 => {
            huffman_digits(rest.get(..usize::from(length & 0x7f)).unwrap_or_default())
        }
        [0x48 | 0x08 | 0x18, 3, rest @ ..] => rest
            .get(..3)
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| digits.parse().ok())
            .unwrap_or_default(),
        _ => 0,
    }
}

fn huffman_digits(bytes: &[u8]) -> u16 {
    let bits: Vec<u8> = bytes
        .iter()
        .flat_map(|byte| (0..8).rev().map(move |at| byte >> at & 1))
        .collect();
    let (mut at, mut number) = (0, 0);
    for _ in 0..3 {
        let take = |from: usize, length: usize| {
            let bits = bits.get(from..from + length)?;
            Some(
                bits.iter()
                    .fold(0_u16, |value, bit| value << 1 | u16::from(*bit)),
            )
        };
        // 0 to 2 have five bits, 3 to 9 six.
        match take(at, 5) {
            Some(digit @ 0..=2) => {
                number = number * 10 + digit;
                at += 5;
            }
            Some(_) => {
                number =
                    number * 10 + take(at, 6).map_or(0, |code| code.saturating_sub(0b01_1001) + 3);
                at += 6;
            }
            None => return 0,
        }
    }
    number
}
