//! Logs, metrics and health of the operator itself.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// Probes and a collector; more is somebody else.
const MAX_CONNECTIONS: usize = 64;
/// No answer here takes long.
const TIMEOUT: Duration = Duration::from_secs(5);

/// What is counted.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    pub(crate) reconciles: Counter,
    pub(crate) reconcile_errors: Counter,
    pub(crate) reconcile_seconds: Histogram,
    pub(crate) bundles_written: Counter,
    pub(crate) watch_errors: Counter,
    pub(crate) pods_enforcing: Gauge,
    pub(crate) leader: Gauge,
    /// By path and by what came of it.
    pub(crate) admissions: Family<Vec<(&'static str, &'static str)>, Counter>,
}

/// What `/readyz` and `/metrics` are answered from.
#[derive(Debug)]
pub(crate) struct Health {
    registry: Registry,
    ready: AtomicBool,
}

// === impl Metrics ===

impl Default for Metrics {
    fn default() -> Self {
        Self {
            reconciles: Counter::default(),
            reconcile_errors: Counter::default(),
            reconcile_seconds: Histogram::new(exponential_buckets(0.001, 2.0, 14)),
            bundles_written: Counter::default(),
            watch_errors: Counter::default(),
            pods_enforcing: Gauge::default(),
            leader: Gauge::default(),
            admissions: Family::default(),
        }
    }
}

impl Metrics {
    /// One admission.
    pub(crate) fn admitted(&self, path: &'static str, outcome: &'static str) {
        self.admissions
            .get_or_create(&vec![("path", path), ("outcome", outcome)])
            .inc();
    }
}

// === impl Health ===

impl Health {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        let mut registry = Registry::with_prefix("exeat_operator");
        let m = metrics.clone();
        registry.register("reconciles", "Looks at a namespace", m.reconciles);
        registry.register("reconcile_errors", "Looks that failed", m.reconcile_errors);
        registry.register(
            "reconcile_seconds",
            "How long a look took",
            m.reconcile_seconds,
        );
        registry.register("bundles_written", "Bundles written", m.bundles_written);
        registry.register("watch_errors", "Watches interrupted", m.watch_errors);
        registry.register(
            "pods_enforcing",
            "Gates that answer right",
            m.pods_enforcing,
        );
        registry.register("leader", "1 on the replica that leads", m.leader);
        registry.register("admissions", "Admission reviews", m.admissions);
        Self {
            registry,
            ready: AtomicBool::new(false),
        }
    }

    pub(crate) fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Relaxed);
    }

    fn answer(&self, path: &str) -> (StatusCode, String) {
        match path {
            "/healthz" => (StatusCode::OK, "ok\n".to_owned()),
            "/readyz" if self.ready.load(Ordering::Relaxed) => (StatusCode::OK, "ok\n".to_owned()),
            "/readyz" => (
                StatusCode::SERVICE_UNAVAILABLE,
                "no certificate to serve yet\n".to_owned(),
            ),
            "/metrics" => {
                let mut text = String::new();
                match encode(&mut text, &self.registry) {
                    Ok(()) => (StatusCode::OK, text),
                    Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, String::new()),
                }
            }
            _ => (StatusCode::NOT_FOUND, String::new()),
        }
    }
}

/// Serves health and metrics, for ever.
pub(crate) async fn serve(address: SocketAddr, health: Arc<Health>) -> Result<()> {
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("listening on {address} for health and metrics"))?;
    let limit = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let permit = Arc::clone(&limit).acquire_owned().await?;
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let health = Arc::clone(&health);
        tokio::spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let (status, text) = health.answer(request.uri().path());
                let mut response = Response::new(Full::new(Bytes::from(text)));
                *response.status_mut() = status;
                async move { Ok::<_, Infallible>(response) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(TIMEOUT)
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), service);
            if let Ok(Err(error)) = tokio::time::timeout(TIMEOUT, connection).await {
                tracing::debug!(%error, "a health connection broke");
            }
            drop(permit);
        });
    }
}
