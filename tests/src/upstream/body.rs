//! Bodies: one type for every answer, and a request body that is recorded while it is read.

use std::{
    error::Error,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, combinators::UnsyncBoxBody};
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use serde_json::Value;

use super::record::Entry;

pub(super) type BoxError = Box<dyn Error + Send + Sync>;

/// The body of every answer.
pub(super) type Body = UnsyncBoxBody<Bytes, BoxError>;

/// A request's body, recorded as it is read.
#[derive(Debug)]
pub(super) struct Watched {
    inner: Incoming,
    entry: Entry,
}

// === impl Watched ===

impl Watched {
    pub(super) fn new(inner: Incoming, entry: Entry) -> Self {
        if inner.is_end_stream() {
            entry.complete();
        }
        Self { inner, entry }
    }

    pub(super) fn entry(&self) -> &Entry {
        &self.entry
    }

    /// Reads to the end; what came is then in the record.
    pub(super) async fn read(self) -> Result<Bytes, BoxError> {
        Ok(self.collect().await?.to_bytes())
    }
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(context);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    self.entry.data(data);
                }
                if let Some(trailers) = frame.trailers_ref() {
                    self.entry.trailers(trailers);
                }
                if self.inner.is_end_stream() {
                    self.entry.complete();
                }
            }
            Poll::Ready(None) => self.entry.complete(),
            Poll::Ready(Some(Err(_))) | Poll::Pending => {}
        }
        polled.map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

// === answers ===

pub(super) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}

pub(super) fn answer(status: StatusCode, kind: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
}

pub(super) fn text(status: StatusCode, text: impl Into<String>) -> Response<Body> {
    answer(status, "text/plain; charset=utf-8", full(text.into()))
}

pub(super) fn json(status: StatusCode, value: &Value) -> Response<Body> {
    answer(status, "application/json", full(value.to_string()))
}
