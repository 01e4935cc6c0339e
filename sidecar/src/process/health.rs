//! How the gate is, for those who ask: probes and metrics.
//!
//! A few fixed pages over HTTP, to read and nothing else; no secret, host or name is on any of them,
//! since the agent can ask too. In doubt it is not ready: a gate that can't record is not, nor one
//! that is stopping.

mod ask;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::metrics::{ExportFacts, Facts, Metrics};
use super::reload::{Policies, PolicyState};
use super::selftest::SelfTest;
use super::status::{self, Status, StatusError};
use crate::ledger::Ledger;

pub use ask::{AskError, ask};

/// Connections at once: a kubelet, a scraper and somebody who looks.
const CONNECTIONS: usize = 32;

/// A request must be there within this time.
const HEAD_PATIENCE: Duration = Duration::from_secs(3);

/// And the whole connection over within this.
const LIFETIME: Duration = Duration::from_secs(10);

/// A probe's request has a handful of headers.
const MAX_HEADERS: usize = 32;

/// The least that the HTTP library takes.
const MAX_HEAD_BYTES: usize = 8 * 1024;

/// Accepting failed for want of descriptors or memory: not again at once.
const PAUSE: Duration = Duration::from_millis(50);

/// A question that a probe asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Every listener is served.
    Started,
    /// The process answers.
    Live,
    /// Calls that a policy allows can pass.
    Ready,
}

/// What health is told from.
pub struct Health {
    policies: Arc<Policies>,
    ledger: Arc<Ledger>,
    metrics: Arc<Metrics>,
    self_test: Option<Arc<SelfTest>>,
    status: Option<Status>,
    phase: AtomicU8,
}

/// The phases of a gate's life, in their order.
const STARTING: u8 = 0;
const SERVING: u8 = 1;
const STOPPING: u8 = 2;

// === impl Stage ===

impl Stage {
    /// Where the answer is.
    #[must_use]
    pub fn path(self) -> &'static str {
        match self {
            Self::Started => "/healthz/started",
            Self::Live => "/healthz/live",
            Self::Ready => "/healthz/ready",
        }
    }
}

// === impl Health ===

impl Health {
    /// Health of a gate that is starting.
    #[must_use]
    pub fn new(
        policies: &Arc<Policies>,
        ledger: &Arc<Ledger>,
        metrics: &Arc<Metrics>,
        self_test: Option<Arc<SelfTest>>,
        status: Option<Status>,
    ) -> Arc<Self> {
        Arc::new(Self {
            policies: Arc::clone(policies),
            ledger: Arc::clone(ledger),
            metrics: Arc::clone(metrics),
            self_test,
            status,
            phase: AtomicU8::new(STARTING),
        })
    }

    /// Every listener is served.
    pub fn started(&self) {
        self.phase.fetch_max(SERVING, Ordering::Relaxed);
    }

    /// No new calls are taken.
    pub fn stopping(&self) {
        self.phase.fetch_max(STOPPING, Ordering::Relaxed);
    }

    /// Why a stage is not reached; `None` if it is.
    #[must_use]
    pub fn lacks(&self, stage: Stage) -> Option<&'static str> {
        let phase = self.phase.load(Ordering::Relaxed);
        match stage {
            Stage::Started | Stage::Ready if phase == STARTING => Some("starting"),
            Stage::Ready if phase == STOPPING => Some("stopping"),
            Stage::Ready if !self.ledger.writable() => Some("the journal cannot be written"),
            // Not started either: nobody is to start behind a gate that is not the only way out.
            Stage::Started | Stage::Ready if self.unconfined() => {
                Some("the self-test has not passed: the confinement is not there")
            }
            // A gate without a policy is ready: it denies, which is its job until there is one.
            Stage::Live | Stage::Started | Stage::Ready => None,
        }
    }

    /// What the self-test found last, where there is one.
    #[must_use]
    pub fn self_test(&self) -> Option<&Arc<SelfTest>> {
        self.self_test.as_ref()
    }

    fn unconfined(&self) -> bool {
        self.self_test.as_ref().is_some_and(|test| !test.passed())
    }

    fn signed_status(&self, query: Option<&str>) -> (StatusCode, &'static str, String) {
        let self_test = self.self_test.as_deref();
        let answer = self
            .status
            .as_ref()
            .map_or(Err(StatusError::NoKey), |status| {
                status.answer(query, &self.policies, &self.ledger, self_test)
            });
        match answer {
            Ok(text) => (StatusCode::OK, "application/json", text),
            Err(error) => {
                let status = match error {
                    StatusError::Nonce => StatusCode::BAD_REQUEST,
                    StatusError::NoKey => StatusCode::SERVICE_UNAVAILABLE,
                };
                (status, "text/plain; charset=utf-8", format!("{error}\n"))
            }
        }
    }

    fn facts(&self) -> Facts {
        let status = self.policies.status();
        let lost = self.ledger.lost();
        let export = self.ledger.export_status();
        Facts {
            policy_generation: status
                .bundle
                .as_ref()
                .map_or(status.generation, |bundle| bundle.generation),
            policy_current: status.state == PolicyState::Enforcing,
            policy_refused: self.policies.refused(),
            journal_writable: self.ledger.writable(),
            journal_sequence: self.ledger.head().seq,
            journal_lost: lost.refused + lost.denials + lost.outcomes,
            self_test: self.self_test.as_ref().map(|test| test.passed()),
            export: export.map(|export| ExportFacts {
                sent: export.exported,
                rejected: export.rejected,
                dropped: export.dropped,
                failures: export.failures,
            }),
        }
    }

    fn page(
        &self,
        method: &Method,
        path: &str,
        query: Option<&str>,
    ) -> (StatusCode, &'static str, String) {
        const TEXT: &str = "text/plain; charset=utf-8";
        const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";
        if method != Method::GET && method != Method::HEAD {
            return (
                StatusCode::METHOD_NOT_ALLOWED,
                TEXT,
                "only GET\n".to_owned(),
            );
        }
        if path == "/metrics" {
            return (
                StatusCode::OK,
                PROMETHEUS,
                self.metrics.render(&self.facts()),
            );
        }
        if path == status::PATH {
            return self.signed_status(query);
        }
        let stages = [Stage::Started, Stage::Live, Stage::Ready];
        match stages.into_iter().find(|stage| stage.path() == path) {
            None => (StatusCode::NOT_FOUND, TEXT, "no such page\n".to_owned()),
            Some(stage) => match self.lacks(stage) {
                None => (StatusCode::OK, TEXT, "ok\n".to_owned()),
                Some(why) => (StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("{why}\n")),
            },
        }
    }
}

/// Answers on `listener` for as long as it lasts.
pub async fn serve(listener: TcpListener, health: Arc<Health>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!(%error, "a connection for health could not be accepted");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            continue;
        };
        let health = Arc::clone(&health);
        tokio::spawn(async move {
            let served = timeout(LIFETIME, converse(stream, &health)).await;
            if let Ok(Err(error)) = served {
                tracing::debug!(%error, "a connection for health failed");
            }
            drop(place);
        });
    }
}

async fn converse(stream: TcpStream, health: &Health) -> Result<(), hyper::Error> {
    let service = service_fn(|request: Request<Incoming>| {
        let (status, kind, text) = {
            let uri = request.uri();
            health.page(request.method(), uri.path(), uri.query())
        };
        let mut response = Response::new(Full::new(Bytes::from(text)));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        std::future::ready(Ok::<_, Infallible>(response))
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_PATIENCE)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEAD_BYTES)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await
}

#[cfg(test)]
mod tests;
