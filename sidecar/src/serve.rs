//! HTTP towards the agent: the server's limits, and how a call that was stopped is told.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use exeat_policy::{Denial, Destination, Plan, Reason};
use http::{HeaderValue, Request, Response, header, request::Parts};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::{Service, service_fn},
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

use crate::{
    agent::{
        answer::{self, Shape},
        identify::Identity,
        origin::{Origin, OriginError, caller},
        resets::Resets,
        sniff::SniffError,
        stream::Transport,
        strict::{Strict, may_switch},
        terminate::HandshakeError,
    },
    decide::{self, Refusal, live::Line},
    flow,
    gate::Pod,
    ledger::{self, DecisionId, OutcomeGuard, Unrecorded},
    upstream::{
        relay::{RelayError, Returning},
        upgrade::Switched,
    },
};

/// How long the fields of a request may take to arrive, and how long a connection may be idle
/// between two requests. Clients' own pools keep connections for up to 90 s.
const HEAD_TIMEOUT: Duration = Duration::from_secs(100);

/// The bytes of a request's fields, and their number: what common servers accept.
const HEAD_BYTES: usize = 64 * 1024;
const HEAD_FIELDS: usize = 128;

/// Streams of one HTTP/2 connection at once: RFC 9113 section 6.5.2 asks for no fewer than 100.
const STREAMS: u32 = 128;

/// Streams that a client may reset before they were taken up (rapid reset, CVE-2023-44487).
const PENDING_RESETS: usize = 32;

/// HTTP/2 flow control windows, for a stream and for all of a connection's.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// How long, and for how many bytes, a refused HTTP/2 request may still send: time for the refusal
/// to get there, and most bodies to their end.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 1024 * 1024;

/// A silent HTTP/2 client is asked, and closed when it does not answer.
const PING_INTERVAL: Duration = Duration::from_mins(1);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// How a connection of the agent's ended, other than by itself. It is recorded already.
#[derive(Debug)]
pub struct Ended;

/// A call that goes no further, as the agent is told. It is recorded already.
#[derive(Debug)]
pub struct Stopped {
    /// Why.
    pub denial: Denial,
    /// Under which name it is on record.
    pub id: DecisionId,
}

/// A request's head as it came, for the record of one that could not be normalised.
#[derive(Debug)]
pub struct Raw {
    method: String,
    path: String,
    http2: bool,
}

/// An answer to the agent.
#[derive(Debug)]
pub struct Answer(Response<AnswerBody>);

/// Its body.
#[derive(Debug)]
pub enum AnswerBody {
    /// From upstream.
    Relayed(Box<Returning>),
    /// Of the gate's own.
    Own(Full<Bytes>),
    /// None: the connection has switched protocols.
    Switched(Empty<Bytes>),
}

/// Serves HTTP on one connection of the agent's until it ends.
pub async fn http<I>(
    pod: &Arc<Pod>,
    io: I,
    http2: bool,
    identity: Arc<Identity>,
) -> Result<(), Ended>
where
    I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let line = Arc::new(Line::default());
    let service = {
        let (pod, identity, line) = (Arc::clone(pod), Arc::clone(&identity), Arc::clone(&line));
        service_fn(move |request| {
            let (pod, identity) = (Arc::clone(&pod), Arc::clone(&identity));
            let line = Arc::clone(&line);
            // In a box: hyper keeps the room of one for as long as the connection lives.
            Box::pin(async move {
                let switching = may_switch(&request);
                let answer = respond(&pod, &identity, &line, request).await;
                Ok::<_, Infallible>(last_unless_switched(switching, answer))
            })
        })
    };
    let mut stopping = pod.stopping.subscribe();
    // In a box, and without the copies that moving `io` step by step would leave in this future.
    let connection: Pin<Box<dyn Future<Output = Result<(), hyper::Error>> + Send + '_>> = if http2 {
        let io = Resets::new(io, |denial| {
            let _: Ended = Ended::refused(pod, &identity, None, "h2", denial);
        });
        let connection = http2_server().serve_connection(TokioIo::new(io), service);
        Box::pin(async move {
            let mut connection = std::pin::pin!(connection);
            tokio::select! {
                result = &mut connection => result,
                () = stopped(&mut stopping) => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            }
        })
    } else {
        Box::pin(http1(pod, io, service))
    };
    let result = tokio::select! {
        result = connection => result,
        () = line.cut() => {
            tracing::debug!("cut: the agent does not read an answer that is no longer allowed");
            return Ok(());
        }
    };
    match result {
        Err(error) if error.is_parse() => Err(Ended::malformed(pod, &identity, http2, &error)),
        Err(error) => {
            tracing::debug!(%error, "connection of the agent ended");
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

/// Serves HTTP/1 on a connection until it ends, or the gate stops and the last answer is given.
pub(crate) async fn http1<I, S>(pod: &Pod, io: I, service: S) -> Result<(), hyper::Error>
where
    I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    S: Service<Request<Incoming>, Response = Response<AnswerBody>, Error = Infallible>,
{
    let mut stopping = pod.stopping.subscribe();
    let connection = http1_server()
        .serve_connection(TokioIo::new(Strict::new(io)), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        result = &mut connection => result,
        () = stopped(&mut stopping) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    }
}

/// Completes when this gate begins to stop.
pub(crate) async fn stopping(pod: &Pod) {
    stopped(&mut pod.stopping.subscribe()).await;
}

/// Completes when the gate begins to stop.
pub async fn stopped(stopping: &mut tokio::sync::watch::Receiver<bool>) {
    // An error means that the gate is gone, which is a stop too.
    drop(stopping.wait_for(|stopping| *stopping).await);
}

/// An HTTP/1 server with the gate's limits.
pub(crate) fn http1_server() -> http1::Builder {
    let mut server = http1::Builder::new();
    server
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES)
        .max_headers(HEAD_FIELDS)
        .half_close(true);
    server
}

fn http2_server() -> http2::Builder<TokioExecutor> {
    let mut server = http2::Builder::new(TokioExecutor::new());
    server
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_pending_accept_reset_streams(PENDING_RESETS)
        .max_header_list_size(u32::try_from(HEAD_BYTES).unwrap_or(u32::MAX))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .enable_connect_protocol();
    server
}

/// Makes an answer the connection's last one where a switch was asked for and is not made: what came
/// behind the request was not walked.
pub(crate) fn last_unless_switched(
    switching: bool,
    mut answer: Response<AnswerBody>,
) -> Response<AnswerBody> {
    if switching && !matches!(answer.body(), AnswerBody::Switched(_)) {
        let close = HeaderValue::from_static("close");
        answer.headers_mut().insert(header::CONNECTION, close);
    }
    answer
}

/// One request answered, one way or the other.
pub(crate) async fn respond(
    pod: &Arc<Pod>,
    identity: &Identity,
    line: &Arc<Line>,
    request: Request<Incoming>,
) -> Response<AnswerBody> {
    let mut shape = Shape::Http;
    let (parts, body) = request.into_parts();
    let http2 = parts.version == http::Version::HTTP_2;
    let mut body = Some(body);
    match flow::request(pod, identity, parts, &mut body, &mut shape).await {
        Ok(Answer(answer)) => {
            if let AnswerBody::Relayed(body) = answer.body() {
                body.travels_on(line);
            }
            answer
        }
        Err(Stopped { denial, id }) => {
            if let Some(body) = body.filter(|_| http2) {
                tokio::spawn(run_dry(body));
            }
            answer::refusal(&shape, &denial, id).map(|body| AnswerBody::Own(Full::new(body)))
        }
    }
}

/// Throws away what the agent still sends of a refused request. Letting go of it at once would reset
/// the stream, and clients that are busy sending then report the reset instead of the refusal.
async fn run_dry(mut body: Incoming) {
    let mut left = LINGER_BYTES;
    let dry = async {
        while let Some(Ok(frame)) = body.frame().await {
            let length = frame.data_ref().map_or(0, Bytes::len);
            match left.checked_sub(length) {
                Some(rest) => left = rest,
                None => return,
            }
        }
    };
    // Whoever has not read the answer by then loses it.
    drop(tokio::time::timeout(LINGER, dry).await);
}

// === impl Answer ===

impl Answer {
    pub(crate) fn relayed(response: Response<Returning>) -> Self {
        Self(response.map(|body| AnswerBody::Relayed(Box::new(body))))
    }

    pub(crate) fn switched(switched: Switched) -> Self {
        match switched {
            Switched::Accepted(head) => Self(head.map(|()| AnswerBody::Switched(Empty::new()))),
            Switched::Declined(response) => Self::relayed(response),
        }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = RelayError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RelayError>>> {
        match self.get_mut() {
            Self::Relayed(body) => Pin::new(body).poll_frame(cx),
            Self::Own(body) => Pin::new(body)
                .poll_frame(cx)
                .map_err(|never| match never {}),
            Self::Switched(body) => Pin::new(body)
                .poll_frame(cx)
                .map_err(|never| match never {}),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Relayed(body) => body.is_end_stream(),
            Self::Own(body) => body.is_end_stream(),
            // An HTTP/2 stream that became a WebSocket stays open after its head.
            Self::Switched(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Relayed(body) => body.size_hint(),
            Self::Own(body) => body.size_hint(),
            Self::Switched(_) => SizeHint::default(),
        }
    }
}

// === impl Raw ===

impl Raw {
    pub(crate) fn of(parts: &Parts) -> Self {
        Self {
            method: parts.method.to_string(),
            path: parts.uri.path().to_owned(),
            http2: parts.version == http::Version::HTTP_2,
        }
    }

    fn protocol(&self) -> &'static str {
        if self.http2 { "h2" } else { "http/1.1" }
    }
}

// === impl Stopped ===

impl Stopped {
    /// A request that is refused before the policy could be asked.
    pub(crate) fn refused(
        pod: &Pod,
        plan: &Plan,
        identity: &Identity,
        destination: Option<&Destination>,
        raw: &Raw,
        denial: Denial,
    ) -> Self {
        let mut refusal = decide::refuse(plan, identity, destination, raw.protocol(), denial);
        refusal.decision.http = Some(ledger::Http {
            method: raw.method.clone(),
            scheme: identity.scheme.as_str(),
            path: raw.path.clone(),
            query: None,
            user_agent: None,
        });
        Self::recorded(pod, refusal)
    }

    /// A refusal, once it is on record.
    pub(crate) fn recorded(pod: &Pod, refusal: Refusal) -> Self {
        let Refusal { denial, decision } = refusal;
        pod.metrics.denied(denial.reason);
        // That the refusal could not be written down does not make it less of one; the ledger
        // counts it and says so when it can write again.
        let id = pod.ledger.deny(&decision).unwrap_or(decision.id);
        Self { denial, id }
    }

    /// An allowed call whose decision could not be written.
    pub(crate) fn unrecorded(pod: &Pod, id: DecisionId, error: &Unrecorded) -> Self {
        pod.metrics.denied(Reason::JournalUnavailable);
        let denial = Denial::new(Reason::JournalUnavailable, error.to_string());
        Self { denial, id }
    }

    pub(crate) fn impossible() -> Self {
        Self {
            denial: Denial::new(Reason::InvalidRequest, "the request is none"),
            id: DecisionId::new(),
        }
    }
}

// === impl Ended ===

impl Ended {
    /// A connection that is refused.
    pub(crate) fn refused(
        pod: &Pod,
        identity: &Identity,
        transport: Option<Transport>,
        protocol: &'static str,
        denial: Denial,
    ) -> Self {
        let refusal = decide::refuse(&pod.policies.current(), identity, None, protocol, denial);
        Self::recorded(pod, transport, refusal)
    }

    pub(crate) fn recorded(pod: &Pod, transport: Option<Transport>, refusal: Refusal) -> Self {
        Self::stopped(transport, Stopped::recorded(pod, refusal))
    }

    pub(crate) fn stopped(transport: Option<Transport>, stopped: Stopped) -> Self {
        tracing::debug!(id = %stopped.id, reason = %stopped.denial.reason, "connection refused");
        if let Some(transport) = &transport {
            transport.reset_on_close();
        }
        Self
    }

    /// A recorded call on an opaque connection that failed.
    pub(crate) fn failed(transport: Transport, guard: &OutcomeGuard, denial: &Denial) -> Self {
        guard.failed(format!("{}: {}", denial.reason, denial.message));
        transport.reset_on_close();
        drop(transport);
        Self
    }

    /// A connection that did not show what it speaks.
    pub(crate) fn unread(
        pod: &Pod,
        identity: &Identity,
        transport: Transport,
        error: SniffError,
    ) -> Self {
        if let SniffError::Closed = error {
            // Opened and closed: nothing was asked.
            return Self;
        }
        let denial = Denial::new(Reason::UnrecognisedProtocol, error.to_string());
        Self::refused(pod, identity, Some(transport), "tcp", denial)
    }

    /// A client that did not complete TLS with us.
    pub(crate) fn handshake(pod: &Pod, identity: &Identity, error: &HandshakeError) -> Self {
        let denial = Denial::new(Reason::OpaqueNotAllowed, error.to_string());
        Self::refused(pod, identity, None, "tls", denial)
    }

    /// Bytes that are not HTTP; hyper has answered 400 already.
    pub(crate) fn malformed(
        pod: &Pod,
        identity: &Identity,
        http2: bool,
        error: &hyper::Error,
    ) -> Self {
        let denial = Denial::new(
            Reason::InvalidRequest,
            format!("not an HTTP request: {error}"),
        );
        Self::refused(
            pod,
            identity,
            None,
            if http2 { "h2" } else { "http/1.1" },
            denial,
        )
    }

    /// A connection to the gate's own port.
    pub(crate) fn without_origin(pod: &Pod, tcp: TcpStream, error: &OriginError) -> Self {
        let local = tcp.local_addr().ok();
        let origin = Origin {
            address: local,
            port: local.map_or(0, |local| local.port()),
            name: None,
            caller: local.and_then(|local| caller(&tcp, &pod.callers, local)),
        };
        let denial = Denial::new(Reason::SelfCall, error.to_string());
        Self::refused(
            pod,
            &Identity::plain(origin),
            Some(Transport::Tcp(tcp)),
            "tcp",
            denial,
        )
    }
}
