//! A gRPC service, `exeat.test.Echo`, in which every reply is a message that was sent:
//! `Say` (unary), `Count` (server streaming), `Chat` (both), and `Fail`, which refuses.
//!
//! The messages are never parsed, so any message type will do on the client's side.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header, request::Parts};
use http_body_util::BodyExt as _;
use hyper::body::Frame;

use super::{
    body::{Body, BoxError, Watched, answer as respond, full},
    stream::{body, paced},
};

const KIND: &str = "application/grpc";

pub(super) fn wanted(head: &Parts) -> bool {
    let kind = head.headers.get(header::CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(KIND.as_bytes()))
}

pub(super) async fn answer(head: &Parts, request: Watched) -> Result<Response<Body>, BoxError> {
    match head.uri.path() {
        "/exeat.test.Echo/Say" => {
            let message = request.read().await?;
            Ok(messages(stream::iter([message])))
        }
        "/exeat.test.Echo/Count" => {
            let message = request.read().await?;
            let count = head.headers.get("x-count");
            let count = count
                .and_then(|count| count.to_str().ok()?.parse().ok())
                .unwrap_or(3);
            let pause = Duration::from_millis(5);
            Ok(messages(paced(count, pause).map(move |_| message.clone())))
        }
        "/exeat.test.Echo/Chat" => Ok(messages(
            request
                .into_data_stream()
                .filter_map(|piece| async move { piece.ok() }),
        )),
        path => {
            let mut response = respond(StatusCode::OK, KIND, full(""));
            let refusal = format!("{path} is refused by the test upstream");
            let headers = response.headers_mut();
            // 12 is UNIMPLEMENTED.
            headers.insert("grpc-status", HeaderValue::from_static("12"));
            headers.insert("grpc-message", refusal.parse()?);
            Ok(response)
        }
    }
}

fn messages(messages: impl futures_util::Stream<Item = Bytes> + Send + 'static) -> Response<Body> {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let frames = messages
        .map(Frame::data)
        .chain(stream::iter([Frame::trailers(trailers)]));
    respond(StatusCode::OK, KIND, body(frames))
}
