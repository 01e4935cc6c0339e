//! Asks gates what they enforce: quickly after a change, until each has answered right, then now
//! and then.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;

use super::Standing;
use super::answer::{Expected, MAX_ANSWER, Nonce, StatusKey, judge};
use crate::telemetry::Metrics;

/// Where gates serve their status.
pub(crate) const STATUS_PORT: u16 = 15021;
/// A pod that does not answer within this does not count.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Pods asked at a time.
const PARALLEL: usize = 32;
/// The step right after a change, and how often it is taken: kubelets take about a second.
const STEP: Duration = Duration::from_millis(250);
const QUICK_STEPS: u32 = 40;
/// The longest pause for a pod that does not answer right.
const SLOW: Duration = Duration::from_secs(5);
/// And for one that does.
const STEADY: Duration = Duration::from_secs(30);

/// A gate to ask.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Target {
    pub(crate) uid: String,
    pub(crate) address: String,
    pub(crate) key: StatusKey,
    pub(crate) digest: String,
    pub(crate) generation: u64,
}

/// What asks.
#[derive(Debug)]
pub(crate) struct Poller {
    entries: Mutex<BTreeMap<String, Entry>>,
    changed: Notify,
    port: u16,
    metrics: Metrics,
}

#[derive(Debug)]
struct Entry {
    namespace: String,
    target: Target,
    due: Instant,
    attempts: u32,
    busy: bool,
    standing: Option<Standing>,
}

// === impl Poller ===

impl Poller {
    pub(crate) fn new(metrics: Metrics, port: u16) -> Self {
        Self {
            entries: Mutex::new(BTreeMap::new()),
            changed: Notify::new(),
            port,
            metrics,
        }
    }

    /// The gates of a namespace. One that is new, or of which something else is expected than
    /// before, is asked at once.
    pub(crate) fn set(&self, namespace: &str, targets: Vec<Target>) {
        let mut entries = self.entries.lock();
        entries.retain(|uid, entry| {
            entry.namespace != namespace || targets.iter().any(|target| target.uid == *uid)
        });
        let mut woken = false;
        for target in targets {
            if entries
                .get(&target.uid)
                .is_some_and(|entry| entry.target == target)
            {
                continue;
            }
            woken = true;
            entries.insert(
                target.uid.clone(),
                Entry {
                    namespace: namespace.to_owned(),
                    target,
                    due: Instant::now(),
                    attempts: 0,
                    busy: false,
                    standing: None,
                },
            );
        }
        drop(entries);
        if woken {
            self.changed.notify_one();
        }
    }

    /// What the last answer came to; `None` before the first.
    pub(crate) fn standing(&self, uid: &str) -> Option<Standing> {
        self.entries.lock().get(uid)?.standing.clone()
    }

    /// Asks, for ever. `told` hears of namespaces where something turned.
    pub(crate) async fn run(self: Arc<Self>, told: impl Fn(&str) + Send + Sync) {
        let limit = Arc::new(Semaphore::new(PARALLEL));
        let mut asked: JoinSet<(Target, Standing)> = JoinSet::new();
        loop {
            let (due, next) = self.due();
            for target in due {
                let (limit, port) = (Arc::clone(&limit), self.port);
                asked.spawn(async move {
                    let _permit = limit.acquire_owned().await;
                    let standing = ask(&target, port).await;
                    (target, standing)
                });
            }
            tokio::select! {
                Some(answer) = asked.join_next() => {
                    if let Ok((target, standing)) = answer
                        && let Some(namespace) = self.note(&target, standing)
                    {
                        told(&namespace);
                    }
                }
                () = self.changed.notified() => {}
                () = tokio::time::sleep(next) => {}
            }
        }
    }

    /// What is due now, and how long until something else is.
    fn due(&self) -> (Vec<Target>, Duration) {
        let now = Instant::now();
        let mut next = STEADY;
        let mut due = Vec::new();
        for entry in self.entries.lock().values_mut().filter(|entry| !entry.busy) {
            if entry.due <= now {
                entry.busy = true;
                due.push(entry.target.clone());
            } else {
                next = next.min(entry.due - now);
            }
        }
        (due, next)
    }

    /// Takes note of an answer; tells the namespace if it is not what was known.
    fn note(&self, target: &Target, standing: Standing) -> Option<String> {
        let mut entries = self.entries.lock();
        let entry = entries.get_mut(&target.uid)?;
        if entry.target != *target {
            // Another question was put in the meantime; this answers none.
            return None;
        }
        entry.busy = false;
        entry.attempts = match &standing {
            Standing::Enforces => 0,
            Standing::Lags(_) => entry.attempts.saturating_add(1),
        };
        entry.due = Instant::now() + pause(&standing, entry.attempts);
        let turned = entry.standing.as_ref() != Some(&standing);
        entry.standing = Some(standing);
        let namespace = entry.namespace.clone();
        let enforcing = entries
            .values()
            .filter(|entry| matches!(entry.standing, Some(Standing::Enforces)))
            .count();
        self.metrics
            .pods_enforcing
            .set(i64::try_from(enforcing).unwrap_or(i64::MAX));
        turned.then_some(namespace)
    }
}

fn pause(standing: &Standing, attempts: u32) -> Duration {
    match standing {
        Standing::Enforces => STEADY,
        Standing::Lags(_) if attempts <= QUICK_STEPS => STEP,
        Standing::Lags(_) => STEP
            .saturating_mul(attempts.saturating_sub(QUICK_STEPS))
            .min(SLOW),
    }
}

async fn ask(target: &Target, port: u16) -> Standing {
    let Ok(nonce) = Nonce::draw() else {
        return Standing::lags("the operator has no random bytes");
    };
    let Ok(address) = target.address.parse::<IpAddr>() else {
        return Standing::lags("its address is none");
    };
    let address = SocketAddr::new(address, port);
    match tokio::time::timeout(TIMEOUT, fetch(address, &nonce)).await {
        Err(_) => Standing::lags("its gate did not answer within 2 s"),
        Ok(Err(problem)) => Standing::lags(problem),
        Ok(Ok(body)) => {
            let expected = Expected {
                uid: &target.uid,
                digest: &target.digest,
            };
            match judge(&body, &nonce, &target.key, expected) {
                Ok(()) => Standing::Enforces,
                Err(problem) => Standing::lags(problem),
            }
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the operator is no gate: it asks pods"
)]
async fn fetch(address: SocketAddr, nonce: &Nonce) -> Result<Bytes, String> {
    let stream = TcpStream::connect(address).await.map_err(|error| {
        format!(
            "its gate can't be reached on port {}: {error}",
            address.port()
        )
    })?;
    let broken = |error: hyper::Error| format!("its gate broke off: {error}");
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    let request = Request::get(format!("/status?nonce={}", nonce.as_str()))
        .header(http::header::HOST, address.to_string())
        .header(http::header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(broken)?;
        let status = response.status();
        if status != http::StatusCode::OK {
            return Err(if status == http::StatusCode::SERVICE_UNAVAILABLE {
                "its gate has no key for its status yet".to_owned()
            } else {
                format!("its gate answered {}", status.as_u16())
            });
        }
        Limited::new(response.into_body(), MAX_ANSWER)
            .collect()
            .await
            .map(http_body_util::Collected::to_bytes)
            .map_err(|_| "its answer is too long or cut off".to_owned())
    };
    // The connection is driven only as long as the exchange takes.
    tokio::pin!(exchange);
    tokio::select! {
        answer = &mut exchange => answer,
        _ = connection => exchange.await,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    fn target(digest: &str) -> Target {
        Target {
            uid: "u".to_owned(),
            address: "127.0.0.1".to_owned(),
            key: StatusKey::draw().unwrap(),
            digest: digest.to_owned(),
            generation: 1,
        }
    }

    #[test]
    fn pauses_are_short_first_and_long_when_all_is_well() {
        let lags = Standing::lags("x");
        assert_eq!(pause(&lags, 1), STEP);
        assert_eq!(pause(&lags, QUICK_STEPS), STEP);
        assert_eq!(pause(&lags, QUICK_STEPS + 4), STEP * 4);
        assert_eq!(pause(&lags, 10_000), SLOW);
        assert_eq!(pause(&Standing::Enforces, 0), STEADY);
    }

    #[test]
    fn what_is_expected_anew_is_asked_anew() {
        let poller = Poller::new(Metrics::default(), 1);
        let one = target("a");
        poller.set("n", vec![one.clone()]);
        assert_eq!(poller.due().0.len(), 1);
        assert!(poller.due().0.is_empty(), "it is being asked");
        assert_eq!(poller.note(&one, Standing::Enforces).as_deref(), Some("n"));
        assert_eq!(
            poller.note(&one, Standing::Enforces),
            None,
            "nothing turned"
        );
        poller.set("n", vec![one.clone()]);
        assert_eq!(poller.standing("u"), Some(Standing::Enforces));
        let two = Target {
            digest: "b".to_owned(),
            ..one.clone()
        };
        poller.set("n", vec![two]);
        assert_eq!(poller.standing("u"), None, "the old answer answers nothing");
        assert_eq!(poller.note(&one, Standing::Enforces), None);
        assert_eq!(poller.standing("u"), None, "nor does a late one");
        poller.set("other", Vec::new());
        assert_eq!(poller.due().0.len(), 1);
        poller.set("n", Vec::new());
        assert!(poller.due().0.is_empty());
    }

    #[tokio::test]
    async fn a_closed_port_lags() {
        let standing = ask(&target("a"), 1).await;
        assert!(matches!(standing, Standing::Lags(text) if text.contains("can't be reached")));
    }
}
