//! HTTP/1.1 by hand: bytes out, whatever answers come back in.

use std::{
    io::{ErrorKind, Read, Write},
    time::Instant,
};

use anyhow::{Result, bail};
use serde_json::Value;

use super::PROMPT;

/// One answer.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// Status line and fields.
    pub head: String,
    /// The body, its chunks joined.
    pub body: Vec<u8>,
}

// === impl Reply ===

impl Reply {
    /// The refusal's code, if the gate refused.
    #[must_use]
    pub fn code(&self) -> Option<String> {
        self.json()["error"]["code"].as_str().map(str::to_owned)
    }

    /// The body as JSON, or null.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// A field's value, the first of its name.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (field, value) = line.split_once(':')?;
            field.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// A plain request; `more` are further field lines, each with its CRLF.
#[must_use]
pub fn request(method: &str, path: &str, host: &str, more: &str) -> Vec<u8> {
    format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n{more}\r\n").into_bytes()
}

/// Sends bytes and reads until `count` answers are whole or the gate closes. Silence is an error:
/// it would be a client that hangs.
pub fn ask(stream: &mut (impl Read + Write), bytes: &[u8], count: usize) -> Result<Vec<Reply>> {
    // The gate may refuse and close before everything is sent.
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
        let (answers, whole) = parse(&received, false);
        if whole && answers.len() >= count {
            return Ok(answers);
        }
        if start.elapsed() > PROMPT {
            bail!(
                "no prompt answer; so far: {:?}",
                String::from_utf8_lossy(&received)
            );
        }
        match stream.read(&mut buffer) {
            Ok(0) => {
                eprintln!("ASK EOF {}", received.len());
                return Ok(parse(&received, true).0);
            }
            Ok(length) => received.extend_from_slice(&buffer[..length]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                bail!(
                    "no prompt answer; so far: {:?}",
                    String::from_utf8_lossy(&received)
                );
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // A reset, or TLS closed without saying so, is an end too.
            Err(error) => {
                eprintln!("ASK {error} {}", received.len());
                return Ok(parse(&received, true).0);
            }
        }
    }
}

/// The answers in these bytes.
#[must_use]
pub fn replies(bytes: &[u8]) -> Vec<Reply> {
    parse(bytes, true).0
}

/// The answers, and whether the last of them is whole. Interim answers are left out.
fn parse(mut bytes: &[u8], ended: bool) -> (Vec<Reply>, bool) {
    let mut answers = Vec::new();
    while !bytes.is_empty() {
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
            return (answers, false);
        };
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        bytes = &bytes[end + 4..];
        let status = head
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok());
        let status: u16 = status.unwrap_or_default();
        if (100..200).contains(&status) && status != 101 {
            continue;
        }
        let mut reply = Reply {
            status,
            head,
            body: Vec::new(),
        };
        if status == 101 {
            reply.body = bytes.to_vec();
            answers.push(reply);
            return (answers, true);
        }
        if let Some(length) = reply
            .field("content-length")
            .and_then(|length| length.parse::<usize>().ok())
        {
            if bytes.len() < length {
                return (answers, false);
            }
            reply.body = bytes[..length].to_vec();
            bytes = &bytes[length..];
        } else if reply.field("transfer-encoding").is_some() {
            let Some((body, rest)) = chunks(bytes) else {
                return (answers, false);
            };
            reply.body = body;
            bytes = rest;
        } else if status != 204 && status != 304 {
            reply.body = bytes.to_vec();
            bytes = &[];
            if !ended {
                return (answers, false);
            }
        }
        answers.push(reply);
    }
    (answers, true)
}

fn chunks(mut bytes: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut body = Vec::new();
    loop {
        let end = bytes.windows(2).position(|window| window == b"\r\n")?;
        let size = std::str::from_utf8(&bytes[..end]).ok()?;
        let size = usize::from_str_radix(size.trim(), 16).ok()?;
        bytes = &bytes[end + 2..];
        if size == 0 {
            // Trailers, until an empty line.
            loop {
                let end = bytes.windows(2).position(|window| window == b"\r\n")?;
                let line = &bytes[..end];
                bytes = &bytes[end + 2..];
                if line.is_empty() {
                    return Some((body, bytes));
                }
            }
        }
        body.extend_from_slice(bytes.get(..size)?);
        bytes = bytes.get(size + 2..)?;
    }
}
