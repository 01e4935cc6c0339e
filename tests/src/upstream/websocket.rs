//! A WebSocket that sends every message back, over HTTP/1.1 and over an HTTP/2 extended CONNECT.
//!
//! Every other path answers an upgrade with an ordinary response, so that a test can see what a
//! gate does with a connection that was not upgraded after all.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderValue, Method, Request, Response, StatusCode, header, request::Parts};
use hyper::{ext::Protocol, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::{
    body::{Body, full},
    record::Entry,
};

/// The constant that RFC 6455 adds to the client's key.
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// A test's messages are small; a length above this is nonsense or an attack.
const LARGEST_FRAME: u64 = 16 << 20;

const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

pub(super) fn wanted<B>(request: &Request<B>) -> bool {
    if request.method() == Method::CONNECT {
        let protocol = request.extensions().get::<Protocol>();
        return protocol.is_some_and(|protocol| protocol.as_str() == "websocket");
    }
    let upgrade = request.headers().get(header::UPGRADE);
    upgrade.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

pub(super) fn accept(head: &Parts, upgrade: OnUpgrade, entry: Entry) -> Response<Body> {
    tokio::spawn(async move {
        if let Ok(stream) = upgrade.await {
            // The client is gone or sent nonsense: both end the conversation.
            let _ended = converse(TokioIo::new(stream), &entry).await;
        }
    });

    let mut response = Response::new(full(""));
    if head.method == Method::CONNECT {
        return response;
    }
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let key = head.headers.get(header::SEC_WEBSOCKET_KEY);
    let mut key = key.map_or_else(Vec::new, |key| key.as_bytes().to_vec());
    key.extend_from_slice(GUID.as_bytes());
    let accept = STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, &key));
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    if let Ok(accept) = HeaderValue::from_str(&accept) {
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    }
    response
}

/// Sends every frame back as it came, unmasked; what was said is in the request's record.
async fn converse(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    entry: &Entry,
) -> std::io::Result<()> {
    loop {
        let mut head = [0; 2];
        stream.read_exact(&mut head).await?;
        let opcode = head[0] & 0x0f;
        let length = match head[1] & 0x7f {
            126 => u64::from(stream.read_u16().await?),
            127 => stream.read_u64().await?,
            short => u64::from(short),
        };
        if length > LARGEST_FRAME || head[1] & 0x80 == 0 {
            return Err(std::io::ErrorKind::InvalidData.into());
        }
        let mut mask = [0; 4];
        stream.read_exact(&mut mask).await?;
        let mut payload = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
        stream.read_exact(&mut payload).await?;
        for (byte, key) in payload.iter_mut().zip(mask.iter().cycle()) {
            *byte ^= key;
        }
        if opcode < CLOSE {
            entry.data(&payload);
        }

        let first = if opcode == PING { 0x80 | PONG } else { head[0] };
        let mut frame = vec![first];
        match payload.len() {
            short @ 0..=125 => frame.push(u8::try_from(short).unwrap_or_default()),
            medium @ 126..=0xffff => {
                frame.push(126);
                frame.extend_from_slice(&u16::try_from(medium).unwrap_or_default().to_be_bytes());
            }
            long => {
                frame.push(127);
                frame.extend_from_slice(&(long as u64).to_be_bytes());
            }
        }
        frame.extend_from_slice(&payload);
        stream.write_all(&frame).await?;
        stream.flush().await?;
        if opcode == CLOSE {
            return stream.shutdown().await;
        }
    }
}
