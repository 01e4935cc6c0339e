//! A request to become a WebSocket, over HTTP/1.1 (RFC 6455) or an HTTP/2 stream (RFC 8441).
//!
//! The upstream is asked over HTTP/1.1 on a connection of its own. Only its 101 with the right
//! accept key makes a WebSocket; any other answer is an ordinary answer. After the switch only
//! frames pass.

use std::sync::Arc;

use exeat_policy::{Denial, HttpCall, Reason};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version, header};
use hyper::{
    body::Incoming,
    upgrade::{OnUpgrade, Upgraded},
};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, split};

use super::{
    forward::{Begun, head, revoked},
    pool::{Pool, Sender},
    relay::{Outgoing, Returning, Source},
    websocket::{Frames, Side, accept_key, new_key},
};
use crate::{agent::fields, decide::live::Entered, ledger::OutcomeGuard};

/// Bytes moved at once.
const CHUNK: usize = 16 * 1024;

/// What becomes of a request to switch.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "returned once, taken apart at once"
)]
pub enum Switched {
    /// The upstream accepted: the head to answer the agent with; frames flow once it is sent.
    Accepted(Response<()>),
    /// The upstream answered otherwise.
    Declined(Response<Returning>),
}

/// Asks the upstream to switch, and joins both sides when it does.
pub async fn websocket(
    begun: Begun,
    call: &HttpCall,
    agent: OnUpgrade,
    http2: bool,
    pool: &Arc<Pool>,
) -> Result<Switched, Denial> {
    let Begun {
        authorized,
        entered,
        guard,
    } = begun;
    let key = key(call, http2)?;
    let live = Arc::clone(entered.call());
    let ask = async {
        let mut checkout = pool.exclusive(&authorized, call.scheme).await?;
        guard.dialled(checkout.address);
        let (uri, mut headers) = head(&authorized, call, false)?;
        offer(&mut headers, &key);
        let source = Source::whole(bytes::Bytes::new());
        let mut request =
            Request::new(Outgoing::new(source, Arc::clone(&live), Arc::clone(&guard)));
        *request.method_mut() = Method::GET;
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        let Sender::Http1(sender) = &mut checkout.sender else {
            return Err(invalid(
                "the upstream chose HTTP/2 without being offered it",
            ));
        };
        let answered = sender.send_request(request).await;
        let response = answered.map_err(|error| {
            Denial::new(
                Reason::UpstreamUnreachable,
                format!("asking for a WebSocket: {error}"),
            )
        })?;
        Ok((response, checkout))
    };
    let (mut response, checkout) = tokio::select! {
        biased;
        () = live.revoked() => return Err(revoked()),
        asked = ask => asked?,
    };
    guard.status(response.status().as_u16());
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let (mut parts, body) = response.into_parts();
        fields::clean_answer(&mut parts.headers);
        parts.extensions.clear();
        parts.version = Version::HTTP_11;
        let body = Returning::new(body, entered, guard, Some(checkout));
        return Ok(Switched::Declined(Response::from_parts(parts, body)));
    }
    check_accepted(&response, &key)?;
    let compressed = response
        .headers()
        .get_all(header::SEC_WEBSOCKET_EXTENSIONS)
        .iter()
        .any(|value| value.as_bytes().starts_with(b"permessage-deflate"));
    let upstream = hyper::upgrade::on(&mut response);
    let answer = accepted(response, http2);
    tokio::spawn(async move {
        // The connection task ends with its sender; it is needed until the switch is done.
        let joined = async { (agent.await, upstream.await) }.await;
        drop(checkout);
        match joined {
            (Ok(agent), Ok(upstream)) => join(agent, upstream, compressed, &entered, &guard).await,
            (Err(error), _) | (_, Err(error)) => guard.failed(format!("switching: {error}")),
        }
    });
    Ok(Switched::Accepted(answer))
}

/// Relays frames until one side closes, breaks the framing, or the policy changes.
async fn join(
    agent: Upgraded,
    upstream: Upgraded,
    compressed: bool,
    entered: &Entered,
    guard: &OutcomeGuard,
) {
    let (agent_read, agent_write) = split(TokioIo::new(agent));
    let (upstream_read, upstream_write) = split(TokioIo::new(upstream));
    let out = one_way(
        agent_read,
        upstream_write,
        Frames::new(Side::Client, compressed),
        |n| guard.sent(n),
    );
    let back = one_way(
        upstream_read,
        agent_write,
        Frames::new(Side::Server, compressed),
        |n| guard.received(n),
    );
    let ended = tokio::select! {
        biased;
        () = entered.call().revoked() => Err("policy_changed".to_owned()),
        both = async { tokio::try_join!(out, back) } => both.map(|_| ()),
    };
    match ended {
        Ok(()) => guard.settled(),
        Err(error) => guard.failed(error),
    }
}

async fn one_way(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut frames: Frames,
    count: impl Fn(u64),
) -> Result<(), String> {
    let mut buffer = vec![0; CHUNK];
    loop {
        let length = from
            .read(&mut buffer)
            .await
            .map_err(|error| error.to_string())?;
        if length == 0 {
            return to.shutdown().await.map_err(|error| error.to_string());
        }
        frames
            .walk(&buffer[..length])
            .map_err(|error| error.to_string())?;
        to.write_all(&buffer[..length])
            .await
            .map_err(|error| error.to_string())?;
        to.flush().await.map_err(|error| error.to_string())?;
        count(length as u64);
    }
}

/// The agent's key, or for an HTTP/2 stream, which has none, one of our own.
fn key(call: &HttpCall, http2: bool) -> Result<HeaderValue, Denial> {
    if http2 {
        return new_key()
            .and_then(|key| HeaderValue::from_maybe_shared(key).ok())
            .ok_or_else(|| invalid("no random numbers for a WebSocket key"));
    }
    call.headers
        .get(header::SEC_WEBSOCKET_KEY)
        .cloned()
        .ok_or_else(|| {
            Denial::new(
                Reason::InvalidRequest,
                "a WebSocket request without Sec-WebSocket-Key",
            )
        })
}

fn offer(headers: &mut HeaderMap, key: &HeaderValue) {
    // No body is sent, so none is announced.
    headers.remove(header::CONTENT_LENGTH);
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(
        header::SEC_WEBSOCKET_VERSION,
        HeaderValue::from_static("13"),
    );
    headers.insert(header::SEC_WEBSOCKET_KEY, key.clone());
}

fn check_accepted(response: &Response<Incoming>, key: &HeaderValue) -> Result<(), Denial> {
    let headers = response.headers();
    let upgraded = headers
        .get(header::UPGRADE)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"));
    let accepted = headers
        .get(header::SEC_WEBSOCKET_ACCEPT)
        .is_some_and(|value| value.as_bytes() == accept_key(key.as_bytes()).as_bytes());
    if upgraded && accepted {
        return Ok(());
    }
    Err(invalid("the upstream's 101 does not accept a WebSocket"))
}

/// The head that the agent is answered with.
fn accepted(response: Response<Incoming>, http2: bool) -> Response<()> {
    let (mut parts, _) = response.into_parts();
    fields::clean_answer(&mut parts.headers);
    parts.extensions.clear();
    if http2 {
        parts.status = StatusCode::OK;
        parts.headers.remove(header::SEC_WEBSOCKET_ACCEPT);
        parts.version = Version::HTTP_2;
    } else {
        parts
            .headers
            .insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        parts
            .headers
            .insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    }
    Response::from_parts(parts, ())
}

fn invalid(message: &str) -> Denial {
    Denial::new(Reason::UpstreamInvalid, message)
}
