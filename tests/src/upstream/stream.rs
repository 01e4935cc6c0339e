//! Answers that take their time or their space: streams, big bodies, trailers, cut connections.

use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;

use super::body::{Body, BoxError, Watched, answer};

/// Big answers are sent in pieces of this size, larger than a TLS record.
const PIECE: usize = 64 << 10;

/// `n` bytes with their length announced: `0123456789abcdef` over and over.
pub(super) fn bytes(n: usize) -> Response<Body> {
    let piece: Bytes = b"0123456789abcdef".repeat(PIECE / 16).into();
    let frames = stream::unfold(n, move |left| {
        let piece = piece.slice(..left.min(PIECE));
        async move { (left > 0).then(|| (piece.clone(), left - piece.len())) }
    });
    let mut response = answer(
        StatusCode::OK,
        "application/octet-stream",
        body(frames.map(Frame::data)),
    );
    response
        .headers_mut()
        .insert(header::CONTENT_LENGTH, HeaderValue::from(n));
    response
}

/// `n` pieces with no length announced.
pub(super) fn chunked(n: u64, pause: Duration) -> Response<Body> {
    let frames = paced(n, pause).map(|i| Frame::data(format!("chunk {i}\n").into()));
    answer(StatusCode::OK, "text/plain", body(frames))
}

/// `n` server-sent events.
pub(super) fn events(n: u64, pause: Duration) -> Response<Body> {
    let frames = paced(n, pause)
        .map(|i| Frame::data(format!("event: tick\ndata: {{\"n\":{i}}}\n\n").into()));
    answer(StatusCode::OK, "text/event-stream", body(frames))
}

/// An event stream that never ends a line and never stops.
pub(super) fn endless_line() -> Response<Body> {
    let piece: Bytes = vec![b'x'; PIECE].into();
    let frames = stream::repeat(piece).map(Frame::data);
    answer(StatusCode::OK, "text/event-stream", body(frames))
}

/// A body, then trailers.
pub(super) fn trailers() -> Response<Body> {
    let mut trailers = HeaderMap::new();
    trailers.insert("x-checksum", HeaderValue::from_static("abc123"));
    let frames = stream::iter([
        Frame::data(Bytes::from_static(b"before the trailers\n")),
        Frame::trailers(trailers),
    ]);
    let mut response = answer(StatusCode::OK, "text/plain", body(frames));
    response
        .headers_mut()
        .insert(header::TRAILER, HeaderValue::from_static("x-checksum"));
    response
}

/// Sends each piece back as it comes, before the request has ended.
pub(super) fn duplex(request: Watched) -> Response<Body> {
    answer(
        StatusCode::OK,
        "application/octet-stream",
        request.boxed_unsync(),
    )
}

/// Announces more than it sends, and breaks off.
pub(super) fn cut() -> Response<Body> {
    let frames = stream::iter([
        Ok(Frame::data(Bytes::from_static(b"the first half"))),
        Err(BoxError::from("cut off on purpose")),
    ]);
    answer(
        StatusCode::OK,
        "text/plain",
        StreamBody::new(frames).boxed_unsync(),
    )
}

pub(super) fn body(
    frames: impl futures_util::Stream<Item = Frame<Bytes>> + Send + 'static,
) -> Body {
    StreamBody::new(frames.map(Ok::<_, Infallible>))
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// The numbers from 1 to `n`, the first at once, each other after a pause.
pub(super) fn paced(n: u64, pause: Duration) -> impl futures_util::Stream<Item = u64> + Send {
    stream::iter(1..=n).then(move |i| async move {
        if i > 1 && !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        i
    })
}
