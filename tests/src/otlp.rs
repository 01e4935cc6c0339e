//! A collector: takes OTLP log records over gRPC and over HTTP, on one loopback port, and can be told
//! to misbehave.
//!
//! It decodes what it gets with OpenTelemetry's own messages; what it can't decode fails the test.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::stream;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, StreamBody, combinators::BoxBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsPartialSuccess, ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message as _;
use rustls::ServerConfig;
use rustls::pki_types::PrivatePkcs8KeyDer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

/// How the collector behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mood {
    /// Takes everything.
    #[default]
    Takes,
    /// Takes all but so many of each request, and says so.
    Rejects(i64),
    /// Refuses each request for good.
    Refuses,
    /// Asks to try again later.
    Busy,
    /// Never answers.
    Silent,
}

/// A collector on a loopback port.
#[derive(Debug)]
pub struct Receiver {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    serving: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct State {
    mood: Mood,
    records: Vec<LogRecord>,
    resources: Vec<Resource>,
    headers: Vec<HeaderMap>,
    requests: usize,
}

// === impl Receiver ===

impl Receiver {
    /// Listens on a port of the system's choice.
    pub async fn start() -> std::io::Result<Self> {
        Self::start_on(SocketAddr::from(([127, 0, 0, 1], 0))).await
    }

    /// Listens on this address.
    pub async fn start_on(address: SocketAddr) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let state = Arc::<Mutex<State>>::default();
        let serving = tokio::spawn(serve(listener, None, Arc::clone(&state)));
        Ok(Self {
            address,
            state,
            serving,
        })
    }

    /// Listens with TLS, as `localhost`. The text is the certificate to be trusted, PEM.
    pub async fn start_tls() -> anyhow::Result<(Self, String)> {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key.into())?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let state = Arc::<Mutex<State>>::default();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let serving = tokio::spawn(serve(listener, Some(acceptor), Arc::clone(&state)));
        let receiver = Self {
            address,
            state,
            serving,
        };
        Ok((receiver, made.cert.pem()))
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on it behaves so.
    pub fn set_mood(&self, mood: Mood) {
        lock(&self.state).mood = mood;
    }

    /// What it has taken.
    #[must_use]
    pub fn records(&self) -> Vec<LogRecord> {
        lock(&self.state).records.clone()
    }

    /// The resource of each request it has taken.
    #[must_use]
    pub fn resources(&self) -> Vec<Resource> {
        lock(&self.state).resources.clone()
    }

    /// The headers of each request.
    #[must_use]
    pub fn headers(&self) -> Vec<HeaderMap> {
        lock(&self.state).headers.clone()
    }

    /// How many requests came, whatever became of them.
    #[must_use]
    pub fn requests(&self) -> usize {
        lock(&self.state).requests
    }

    /// Waits until it has taken so many records. False when it took too long.
    pub async fn has(&self, records: usize, patience: Duration) -> bool {
        self.until(patience, |state| state.records.len() >= records)
            .await
    }

    /// Waits until so many requests came. False when it took too long.
    pub async fn asked(&self, requests: usize, patience: Duration) -> bool {
        self.until(patience, |state| state.requests >= requests)
            .await
    }

    async fn until(&self, patience: Duration, done: impl Fn(&State) -> bool) -> bool {
        let began = Instant::now();
        while began.elapsed() < patience {
            if done(&lock(&self.state)) {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        done(&lock(&self.state))
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// The text of an attribute.
#[must_use]
pub fn attribute(record: &LogRecord, key: &str) -> Option<String> {
    let value = record
        .attributes
        .iter()
        .find(|it| it.key == key)?
        .value
        .as_ref()?;
    match value.value.as_ref()? {
        Value::StringValue(text) => Some(text.clone()),
        Value::IntValue(number) => Some(number.to_string()),
        Value::BoolValue(yes) => Some(yes.to_string()),
        other => Some(format!("{other:?}")),
    }
}

/// The text of the body.
#[must_use]
pub fn body(record: &LogRecord) -> Option<&str> {
    match record.body.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text),
        _ => None,
    }
}

async fn serve(listener: TcpListener, tls: Option<TlsAcceptor>, state: Arc<Mutex<State>>) {
    while let Ok((stream, _)) = listener.accept().await {
        let (state, tls) = (Arc::clone(&state), tls.clone());
        tokio::spawn(async move {
            match tls {
                None => connection(stream, state).await,
                Some(tls) => {
                    // Who does not trust the certificate is part of the tests.
                    if let Ok(stream) = tls.accept(stream).await {
                        connection(stream, state).await;
                    }
                }
            }
        });
    }
}

async fn connection<S>(stream: S, state: Arc<Mutex<State>>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request| answer(request, Arc::clone(&state)));
    let server = auto::Builder::new(TokioExecutor::new());
    // A client that goes away in the middle is part of the tests.
    drop(server.serve_connection(TokioIo::new(stream), service).await);
}

type Body = BoxBody<Bytes, Infallible>;

async fn answer(
    request: Request<Incoming>,
    state: Arc<Mutex<State>>,
) -> Result<Response<Body>, hyper::Error> {
    let (head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let mood = {
        let mut state = lock(&state);
        state.requests += 1;
        state.headers.push(head.headers.clone());
        state.mood
    };
    if mood == Mood::Silent {
        std::future::pending::<()>().await;
    }
    let grpc = match head.uri.path() {
        "/v1/logs" => false,
        "/opentelemetry.proto.collector.logs.v1.LogsService/Export" => true,
        _ => return Ok(plain(StatusCode::NOT_FOUND, Bytes::new())),
    };
    let message = if grpc {
        body.slice(5.min(body.len())..)
    } else {
        body
    };
    let request = match ExportLogsServiceRequest::decode(message) {
        Ok(request) => request,
        Err(error) => return Ok(plain(StatusCode::BAD_REQUEST, error.to_string().into())),
    };
    let reply = match mood {
        Mood::Takes => ExportLogsServiceResponse::default(),
        Mood::Rejects(count) => ExportLogsServiceResponse {
            partial_success: Some(ExportLogsPartialSuccess {
                rejected_log_records: count,
                error_message: "too old".into(),
            }),
        },
        Mood::Refuses if grpc => return Ok(status(3, "no such thing")),
        Mood::Refuses => return Ok(plain(StatusCode::BAD_REQUEST, Bytes::new())),
        Mood::Busy | Mood::Silent if grpc => return Ok(status(14, "later")),
        Mood::Busy | Mood::Silent => {
            return Ok(plain(StatusCode::SERVICE_UNAVAILABLE, Bytes::new()));
        }
    };
    let mut state = lock(&state);
    for resource in request.resource_logs {
        state.resources.extend(resource.resource);
        for scope in resource.scope_logs {
            state.records.extend(scope.log_records);
        }
    }
    drop(state);
    let reply = reply.encode_to_vec();
    if !grpc {
        return Ok(plain(StatusCode::OK, reply.into()));
    }
    let mut framed = BytesMut::with_capacity(reply.len() + 5);
    framed.put_u8(0);
    framed.put_u32(u32::try_from(reply.len()).unwrap_or(u32::MAX));
    framed.put_slice(&reply);
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    Ok(frames(
        vec![Frame::data(framed.freeze()), Frame::trailers(trailers)],
        "application/grpc",
    ))
}

fn plain(code: StatusCode, body: Bytes) -> Response<Body> {
    let mut response = frames(vec![Frame::data(body)], "application/x-protobuf");
    *response.status_mut() = code;
    response
}

/// A gRPC answer of a status alone.
fn status(code: u16, message: &'static str) -> Response<Body> {
    let mut response = frames(Vec::new(), "application/grpc");
    response
        .headers_mut()
        .insert("grpc-status", HeaderValue::from(code));
    response
        .headers_mut()
        .insert("grpc-message", HeaderValue::from_static(message));
    response
}

fn frames(frames: Vec<Frame<Bytes>>, kind: &'static str) -> Response<Body> {
    let frames = frames.into_iter().map(Ok::<_, Infallible>);
    let mut response = Response::new(BodyExt::boxed(StreamBody::new(stream::iter(frames))));
    response
        .headers_mut()
        .insert("content-type", HeaderValue::from_static(kind));
    response
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
