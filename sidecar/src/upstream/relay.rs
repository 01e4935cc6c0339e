//! Bodies on their way through: counted, cleaned of trailers that would act as fields, and ended
//! when the policy no longer allows their call. Nothing is held back or gathered.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::{Buf as _, Bytes};
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use hyper::body::Incoming;

use super::pool::Checkout;
use crate::{
    agent::fields,
    decide::live::{Entered, Line, LiveCall, Waiter},
    ledger::OutcomeGuard,
};

/// What ended a body before its end.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// The policy changed.
    #[error("the policy no longer allows this call")]
    Revoked,
    /// The side that was sending broke off.
    #[error(transparent)]
    Broken(#[from] hyper::Error),
}

/// A request's body on its way out.
#[derive(Debug)]
pub struct Outgoing {
    body: Source,
    live: Arc<LiveCall>,
    guard: Arc<OutcomeGuard>,
}

/// Where a request's body comes from.
#[derive(Debug)]
pub enum Source {
    /// As the agent sends it.
    Stream(Incoming),
    /// It was read whole, because a rule looks into it.
    Whole(Full<Bytes>),
}

/// An answer's body on its way in.
#[derive(Debug)]
pub struct Returning {
    body: Incoming,
    entered: Entered,
    guard: Arc<OutcomeGuard>,
    connection: Option<Checkout>,
}

// === impl Source ===

impl Source {
    /// A body that was read whole.
    #[must_use]
    pub fn whole(body: Bytes) -> Self {
        Self::Whole(Full::new(body))
    }
}

// === impl Outgoing ===

impl Outgoing {
    /// The body of a call that has begun.
    #[must_use]
    pub fn new(body: Source, live: Arc<LiveCall>, guard: Arc<OutcomeGuard>) -> Self {
        Self { body, live, guard }
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = RelayError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RelayError>>> {
        if self.live.poll_revoked(Waiter::Request, cx).is_ready() {
            return Poll::Ready(Some(Err(RelayError::Revoked)));
        }
        let polled = match &mut self.body {
            Source::Stream(body) => Pin::new(body).poll_frame(cx).map_err(RelayError::Broken),
            Source::Whole(body) => Pin::new(body)
                .poll_frame(cx)
                .map_err(|never| match never {}),
        };
        polled.map(|frame| {
            frame.map(|frame| {
                let frame = clean(frame?);
                if let Some(data) = frame.data_ref() {
                    self.guard.sent(data.remaining() as u64);
                }
                Ok(frame)
            })
        })
    }

    fn is_end_stream(&self) -> bool {
        match &self.body {
            Source::Stream(body) => body.is_end_stream(),
            Source::Whole(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.body {
            Source::Stream(body) => body.size_hint(),
            Source::Whole(body) => body.size_hint(),
        }
    }
}

// === impl Returning ===

impl Returning {
    /// The answer to a call; when it has passed, `connection` can serve another.
    #[must_use]
    pub fn new(
        body: Incoming,
        entered: Entered,
        guard: Arc<OutcomeGuard>,
        connection: Option<Checkout>,
    ) -> Self {
        let mut returning = Self {
            body,
            entered,
            guard,
            connection,
        };
        if returning.body.is_end_stream() {
            returning.finish();
        }
        returning
    }

    /// Tells on which connection of the agent's it is on its way.
    pub fn travels_on(&self, line: &Arc<Line>) {
        self.entered.call().answered_on(line);
    }

    fn finish(&mut self) {
        self.guard.settled();
        if let Some(connection) = self.connection.take() {
            connection.give_back();
        }
    }
}

impl Drop for Returning {
    fn drop(&mut self) {
        // Whatever else seems to have ended it; an answer that is over has no connection any more.
        if self.connection.is_some() && self.entered.call().is_revoked() {
            self.guard.failed("policy_changed");
        }
    }
}

impl Body for Returning {
    type Data = Bytes;
    type Error = RelayError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RelayError>>> {
        if self
            .entered
            .call()
            .poll_revoked(Waiter::Answer, cx)
            .is_ready()
        {
            return Poll::Ready(Some(Err(RelayError::Revoked)));
        }
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(None) => {
                self.finish();
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(error))) => {
                self.guard.failed(format!("the answer broke off: {error}"));
                Poll::Ready(Some(Err(error.into())))
            }
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    self.guard.received(data.remaining() as u64);
                }
                // hyper may not poll again once the announced length has passed.
                if self.body.is_end_stream() {
                    self.finish();
                }
                Poll::Ready(Some(Ok(clean(frame))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Trailers may not carry what decides about a message (RFC 9110 section 6.5.1).
fn clean(frame: Frame<Bytes>) -> Frame<Bytes> {
    match frame.into_trailers() {
        Ok(trailers) => Frame::trailers(fields::clean_trailers(trailers)),
        Err(frame) => frame,
    }
}
