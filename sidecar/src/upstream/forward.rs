//! One authorised request, out over a pooled connection and its answer back.
//!
//! The request is written from what was judged (method, canonical path, cleaned fields), not from
//! what was received. A connection that closed under our hands before the request was sent is
//! replaced; a request that may have been seen is never sent twice.

use std::{sync::Arc, time::Duration};

use exeat_policy::{Denial, HttpCall, Reason, Scheme};
use http::{HeaderValue, Request, Response, Uri, Version, header, uri};
use http_body::Body as _;

use super::{
    authorize::Authorized,
    pool::{Checkout, Key, Pool, Sender},
    relay::{Outgoing, Returning, Source},
};
use crate::{agent::fields, decide::live::Entered, ledger::OutcomeGuard};

/// Attempts at most, where each failed before its request was sent.
const ATTEMPTS: usize = 3;

/// How long an upstream may take to begin its answer. Models that think before the first byte have
/// been seen to take ten minutes.
const ANSWER_TIMEOUT: Duration = Duration::from_mins(15);

/// A call that is allowed, recorded, and entered among the calls under way.
#[derive(Debug)]
pub struct Begun {
    /// The right to dial.
    pub authorized: Authorized,
    /// Its place among the calls under way.
    pub entered: Entered,
    /// Tells its end.
    pub guard: Arc<OutcomeGuard>,
}

/// Sends the request and returns the answer, whose body is still on its way.
pub async fn forward(
    begun: Begun,
    call: &HttpCall,
    http2: bool,
    body: Source,
    pool: &Arc<Pool>,
) -> Result<Response<Returning>, Denial> {
    let Begun {
        authorized,
        entered,
        guard,
    } = begun;
    let key = Key::new(&authorized, call.scheme, http2);
    let live = Arc::clone(entered.call());
    let exchange = async {
        let outgoing = Outgoing::new(body, Arc::clone(&live), Arc::clone(&guard));
        send(&authorized, call, outgoing, &key, pool, &guard).await
    };
    let (response, checkout) = tokio::select! {
        // First: that the exchange broke off may be its consequence.
        biased;
        () = live.revoked() => return Err(revoked()),
        answered = exchange => answered?,
        () = tokio::time::sleep(ANSWER_TIMEOUT) => {
            return Err(Denial::new(Reason::UpstreamTimeout, format!(
                "{} did not begin its answer within {} min",
                authorized.destination().host, ANSWER_TIMEOUT.as_secs() / 60,
            )));
        }
    };
    guard.status(response.status().as_u16());
    let (mut parts, body) = response.into_parts();
    if parts.status == http::StatusCode::SWITCHING_PROTOCOLS {
        // Nothing was offered, so nothing can have been accepted.
        return Err(Denial::new(
            Reason::UpstreamInvalid,
            "the upstream switched protocols without being asked",
        ));
    }
    fields::clean_answer(&mut parts.headers);
    parts.extensions.clear();
    parts.version = Version::HTTP_11;
    let body = Returning::new(body, entered, guard, Some(checkout));
    Ok(Response::from_parts(parts, body))
}

/// The refusal of a call whose policy changed under it.
#[must_use]
pub fn revoked() -> Denial {
    Denial::new(
        Reason::PolicyChanged,
        "the policy no longer allows this call",
    )
}

async fn send(
    authorized: &Authorized,
    call: &HttpCall,
    body: Outgoing,
    key: &Key,
    pool: &Arc<Pool>,
    guard: &OutcomeGuard,
) -> Result<(Response<hyper::body::Incoming>, Checkout), Denial> {
    let mut body = body;
    for attempt in 1..=ATTEMPTS {
        // The last attempt asks for a new connection: nothing idle can spoil it.
        let mut checkout = pool.checkout(key, authorized, attempt == ATTEMPTS).await?;
        guard.dialled(checkout.address);
        let reused = checkout.reused;
        let sent = match &mut checkout.sender {
            Sender::Http1(sender) => {
                let request = request(authorized, call, false, body)?;
                sender.try_send_request(request).await
            }
            Sender::Http2(sender) => {
                let request = request(authorized, call, true, body)?;
                sender.try_send_request(request).await
            }
        };
        let mut error = match sent {
            Ok(response) => return Ok((response, checkout)),
            Err(error) => error,
        };
        match error.take_message() {
            Some(unsent) if reused => body = unsent.into_body(),
            _ => return Err(broken(authorized, error.error())),
        }
    }
    Err(Denial::new(
        Reason::UpstreamUnreachable,
        "every connection closed before the request was sent",
    ))
}

/// The request as it is written upstream.
fn request(
    authorized: &Authorized,
    call: &HttpCall,
    http2: bool,
    body: Outgoing,
) -> Result<Request<Outgoing>, Denial> {
    let (uri, mut headers) = head(authorized, call, http2)?;
    announce(&mut headers, &body);
    let mut request = Request::new(body);
    *request.method_mut() = call.method.clone();
    *request.uri_mut() = uri;
    *request.version_mut() = if http2 {
        Version::HTTP_2
    } else {
        Version::HTTP_11
    };
    *request.headers_mut() = headers;
    Ok(request)
}

/// The length that is announced is the body's own: had a longer one been passed on, the upstream
/// would read the next call on the connection as the rest.
fn announce(headers: &mut http::HeaderMap, body: &Outgoing) {
    if !headers.contains_key(header::CONTENT_LENGTH) {
        return;
    }
    match body.size_hint().exact() {
        Some(length) => headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length)),
        None => headers.remove(header::CONTENT_LENGTH),
    };
}

/// Target and fields, with the credential in them.
pub(super) fn head(
    authorized: &Authorized,
    call: &HttpCall,
    http2: bool,
) -> Result<(Uri, http::HeaderMap), Denial> {
    let mut headers = call.headers.clone();
    let query = authorized.inject(&mut headers, call.query.as_deref())?;
    let target = match query {
        Some(query) => format!("{}?{query}", call.path.as_str()),
        None => call.path.as_str().to_owned(),
    };
    let authority = authority(authorized, call.scheme);
    let uri = if http2 {
        uri::Builder::new()
            .scheme(call.scheme.as_str())
            .authority(authority)
            .path_and_query(target)
            .build()
    } else {
        let host = HeaderValue::from_str(&authority).map_err(|_| unwritable())?;
        headers.insert(header::HOST, host);
        // What is said to one hop has to be named so, or the next may pass it on.
        if headers.contains_key(header::TE) {
            headers.insert(header::CONNECTION, HeaderValue::from_static("te"));
        }
        uri::Builder::new().path_and_query(target).build()
    };
    Ok((uri.map_err(|_| unwritable())?, headers))
}

/// The established destination, as Host and `:authority` spell it.
fn authority(authorized: &Authorized, scheme: Scheme) -> String {
    let destination = authorized.destination();
    if destination.port == scheme.default_port() {
        destination.host.authority().clone()
    } else {
        destination.to_string()
    }
}

fn unwritable() -> Denial {
    Denial::new(
        Reason::InvalidRequest,
        "the request can't be written as an HTTP request",
    )
}

fn broken(authorized: &Authorized, error: &hyper::Error) -> Denial {
    let host = &authorized.destination().host;
    let mut message = format!("{host} broke off before it answered: {error}");
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        message = format!("{message}: {inner}");
        source = inner.source();
    }
    let reason = if error.is_parse() {
        Reason::UpstreamInvalid
    } else {
        Reason::UpstreamUnreachable
    };
    Denial::new(reason, message)
}
