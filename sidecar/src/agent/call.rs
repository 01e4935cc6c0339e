//! An HTTP request, normalised once into what is judged and forwarded.
//!
//! Leans towards refusing: a request that two servers could read differently is none.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use exeat_policy::{BodyNeed, Content, Denial, HttpCall, Path, Reason, Scheme};
use http::{HeaderMap, Method, header, request::Parts};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, ext::Protocol, upgrade::OnUpgrade};

use super::fields;

/// How long a body that a rule looks into may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_mins(1);

/// The longest target: what common servers accept (nginx 8 KiB, Apache 8 KiB).
const TARGET_LIMIT: usize = 8 * 1024;

/// A normalised request, and what is needed to switch protocols with it.
#[derive(Debug)]
pub struct Received {
    /// What is judged.
    pub call: HttpCall,
    /// Whether it came over HTTP/2.
    pub http2: bool,
    /// The agent's side of a switch of protocols.
    pub upgrade: Option<OnUpgrade>,
}

// === impl Received ===

impl Received {
    /// As the record names what the call speaks.
    #[must_use]
    pub fn protocol(&self) -> &'static str {
        match (self.call.websocket, self.http2) {
            (true, _) => "websocket",
            (false, true) => "h2",
            (false, false) => "http/1.1",
        }
    }
}

/// Normalises the head of a request.
pub fn read(mut parts: Parts, scheme: Scheme) -> Result<Received, Denial> {
    let http2 = parts.version == http::Version::HTTP_2;
    let websocket = wants_websocket(&parts, http2)?;
    if parts.method == Method::CONNECT && !websocket {
        return Err(invalid(
            "CONNECT within a connection that is already the gate's",
        ));
    }
    if parts.method == Method::TRACE || parts.method.as_str() == "TRACK" {
        // An upstream would send the credential back (RFC 9110 section 9.3.8).
        return Err(invalid("TRACE would reveal the credentials of the call"));
    }
    if !parts
        .method
        .as_str()
        .bytes()
        .all(|byte| byte.is_ascii_uppercase() || byte == b'-')
    {
        // Methods are told apart by case (RFC 9110 section 9.1), but not by every server.
        return Err(invalid("the method is not in upper case"));
    }
    let target = parts
        .uri
        .path_and_query()
        .map_or("/", |target| target.as_str());
    if target.len() > TARGET_LIMIT {
        return Err(invalid("the request's target is over 8 KiB"));
    }
    let path = Path::parse(parts.uri.path()).map_err(|error| invalid(&error.to_string()))?;
    let query = parts.uri.query().map(fields::clean_query);
    if query
        .as_deref()
        .is_some_and(|query| !query.bytes().all(|byte| byte.is_ascii_graphic()))
    {
        return Err(invalid(
            "the query has characters that must be percent-encoded",
        ));
    }
    check_lengths(&parts.headers)?;
    if websocket && announces_body(&parts.headers) {
        // An upstream that declines would read the next call on the connection as this body.
        return Err(invalid("a WebSocket handshake with a body"));
    }
    let upgrade = parts.extensions.remove::<OnUpgrade>();
    let mut headers = parts.headers;
    fields::clean_request(&mut headers);
    let call = HttpCall {
        scheme,
        method: if websocket { Method::GET } else { parts.method },
        path,
        query,
        headers,
        websocket,
        content: Content::Unread,
    };
    Ok(Received {
        call,
        http2,
        upgrade: upgrade.filter(|_| websocket),
    })
}

/// Reads the body where a rule looks into it, and puts what it says into the call. Where none does,
/// the body stays as it is.
pub async fn read_body(
    body: &mut Incoming,
    need: BodyNeed,
    call: &mut HttpCall,
) -> Result<Option<Full<Bytes>>, Denial> {
    if need == BodyNeed::Unread {
        return Ok(None);
    }
    let read = tokio::time::timeout(BODY_TIMEOUT, collect(body, need.limit()));
    let whole = read.await.map_err(|_| {
        Denial::new(
            Reason::BodyInvalid,
            format!(
                "the body did not arrive within {} s",
                BODY_TIMEOUT.as_secs()
            ),
        )
    })??;
    call.content = need.parse(call, &whole);
    // Trailers of a body that was read whole are not forwarded, so they may not be announced.
    call.headers.remove(header::TRAILER);
    Ok(Some(Full::new(whole)))
}

async fn collect(body: &mut Incoming, limit: usize) -> Result<Bytes, Denial> {
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            Denial::new(
                Reason::InvalidRequest,
                format!("the body broke off: {error}"),
            )
        })?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if whole.len() + data.len() > limit {
            return Err(Denial::new(
                Reason::BodyTooLarge,
                format!("a rule looks into this body, which is over {limit} bytes"),
            ));
        }
        whole.extend_from_slice(&data);
    }
    Ok(whole.freeze())
}

/// Whether the request asks to become a WebSocket. Every other switch is not offered onwards.
fn wants_websocket(parts: &Parts, http2: bool) -> Result<bool, Denial> {
    if http2 {
        return match parts.extensions.get::<Protocol>() {
            Some(protocol)
                if parts.method == Method::CONNECT && protocol.as_str() == "websocket" =>
            {
                Ok(true)
            }
            Some(_) => Err(invalid(
                "extended CONNECT is for WebSockets only (RFC 8441)",
            )),
            None => Ok(false),
        };
    }
    let lists = |name, token: &str| {
        let values = parts.headers.get_all(name);
        values
            .iter()
            .filter_map(|value| value.to_str().ok())
            .any(|value| {
                value
                    .split(',')
                    .any(|item| item.trim().eq_ignore_ascii_case(token))
            })
    };
    Ok(parts.method == Method::GET
        && lists(header::CONNECTION, "upgrade")
        && lists(header::UPGRADE, "websocket"))
}

fn announces_body(headers: &HeaderMap) -> bool {
    let length = headers.get(header::CONTENT_LENGTH);
    length.is_some_and(|length| length.as_bytes() != b"0")
        || headers.contains_key(header::TRANSFER_ENCODING)
}

/// Content-Length must be one plain number (RFC 9112 section 6.3); hyper accepts several that agree.
fn check_lengths(headers: &HeaderMap) -> Result<(), Denial> {
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let (Some(length), more) = (lengths.next(), lengths.next()) else {
        return Ok(());
    };
    let plain = length.as_bytes().iter().all(u8::is_ascii_digit) && !length.is_empty();
    if more.is_some() || !plain {
        return Err(invalid("Content-Length must be one number"));
    }
    if headers.contains_key(header::TRANSFER_ENCODING) {
        return Err(invalid("both Content-Length and Transfer-Encoding"));
    }
    Ok(())
}

fn invalid(message: &str) -> Denial {
    Denial::new(Reason::InvalidRequest, message)
}
