//! The webhooks' server: TLS, one review a request, bounded in size, number and time.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::review::{Answer, Review};
use super::{Admission, Path};
use crate::certificates::Served;

/// An object is at most 1.5 MiB in etcd, and a review of an update holds two.
const MAX_BODY: usize = 8 * 1024 * 1024;
/// API servers keep a few connections each.
const MAX_CONNECTIONS: usize = 256;
/// To shake hands, and to send a head.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// The webhooks' own `timeoutSeconds` is 10: an answer after that helps nobody.
const REVIEW: Duration = Duration::from_secs(9);
/// How long calls under way may take when the operator is to end.
const DRAIN: Duration = Duration::from_secs(10);

/// Serves until `stop` turns true, and then ends the calls under way.
pub(crate) async fn serve(
    address: SocketAddr,
    served: Arc<Served>,
    admission: Admission,
    mut stop: watch::Receiver<bool>,
) -> Result<()> {
    let mut config = ServerConfig::builder()
        .with_no_client_auth()
        .with_cert_resolver(served);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("listening on {address} for webhooks"))?;
    let limit = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "a connection was not accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
            Some(_) = connections.join_next() => continue,
            _ = stop.changed() => break,
        };
        let Ok(permit) = Arc::clone(&limit).try_acquire_owned() else {
            continue; // The API server tries again.
        };
        let (acceptor, admission, stop) = (acceptor.clone(), admission.clone(), stop.clone());
        connections.spawn(async move {
            if let Err(error) = connection(stream, acceptor, admission, stop).await {
                tracing::debug!(error = format!("{error:#}"), "a webhook connection broke");
            }
            drop(permit);
        });
    }
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN, drained).await.is_err() {
        tracing::warn!("reviews under way were cut off");
    }
    Ok(())
}

async fn connection(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    admission: Admission,
    mut stop: watch::Receiver<bool>,
) -> Result<()> {
    let stream = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream))
        .await
        .context("no handshake in time")??;
    let service = service_fn(move |request| {
        let admission = admission.clone();
        async move { Ok::<_, Infallible>(respond(request, &admission).await) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HANDSHAKE);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(64)
        .keep_alive_interval(Duration::from_secs(30));
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let outcome = tokio::select! {
        outcome = connection.as_mut() => outcome,
        _ = stop.changed() => {
            connection.as_mut().graceful_shutdown();
            connection.as_mut().await
        }
    };
    outcome.map_err(|error| anyhow::anyhow!("{error}"))
}

async fn respond(request: Request<Incoming>, admission: &Admission) -> Response<Full<Bytes>> {
    let Some(path) = Path::parse(request.uri().path()) else {
        return plain(StatusCode::NOT_FOUND, "there is no such webhook\n");
    };
    if request.method() != Method::POST {
        return plain(StatusCode::METHOD_NOT_ALLOWED, "reviews are posted\n");
    }
    let reviewed = async {
        let body = Limited::new(request.into_body(), MAX_BODY)
            .collect()
            .await
            .map_err(|_| "the review is too large or was cut off\n")?
            .to_bytes();
        let review = Review::read(&body).map_err(|_| "this is no AdmissionReview\n")?;
        // Compiling takes a moment; it must not hold up the others.
        let answer: Answer = admission.answer(path, &review).await;
        Ok::<_, &'static str>(answer.to_json(&review.uid))
    };
    match tokio::time::timeout(REVIEW, reviewed).await {
        Ok(Ok(answer)) => {
            let mut response = Response::new(Full::new(Bytes::from(answer.to_string())));
            response.headers_mut().insert(
                header::CONTENT_TYPE,
                header::HeaderValue::from_static("application/json"),
            );
            response
        }
        Ok(Err(problem)) => plain(StatusCode::BAD_REQUEST, problem),
        Err(_) => plain(StatusCode::GATEWAY_TIMEOUT, "not reviewed in time\n"),
    }
}

fn plain(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = status;
    response
}
