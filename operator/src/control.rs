//! What the leader does: it watches, works out what each namespace should look like, and makes it so.
//!
//! One namespace at a time, and one writer for each. Whatever fails is tried again, with longer and
//! longer pauses; nothing is given up.

mod apply;
mod cache;
mod events;
mod queue;
mod reconcile;
mod reduce;
mod secrets;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use kube::Client;
use tokio::sync::Notify;
use tokio::task::JoinSet;

pub(crate) use cache::Cache;
pub(crate) use queue::Queue;

use crate::certificates::Seal;
use crate::status::poll::Poller;
use crate::telemetry::Metrics;

/// The name that our writes carry.
pub(crate) const MANAGER: &str = "exeat-operator";
/// The label that governs a namespace.
pub(crate) const GOVERNED: &str = "exeat.dev/governed";
/// The ConfigMap of a namespace.
pub(crate) const CONFIG_MAP: &str = "exeat-policies";
/// Namespaces worked on at a time. Each takes a handful of requests, and the client's own limit on
/// connections is far above.
const WORKERS: usize = 8;
/// Everything is looked at again at least this often, should an event have been lost.
const RESYNC: Duration = Duration::from_mins(5);

/// What the parts of the controller share.
#[derive(Debug)]
pub(crate) struct Control {
    pub(crate) cache: Cache,
    pub(crate) queue: Queue,
    pub(crate) poller: Arc<Poller>,
    pub(crate) metrics: Metrics,
    pub(crate) seal: Seal,
    /// This replica, as Events name it.
    pub(crate) identity: String,
    pub(crate) guardrails_changed: Notify,
}

// === impl Control ===

impl Control {
    /// Most pods and Secrets of a cluster are in namespaces that are no business of ours.
    fn add_if_concerned(&self, namespace: &str) {
        let governed = self
            .cache
            .spaces
            .get("", namespace)
            .is_some_and(|space| space.governed);
        if governed
            || !self.cache.policies.of(namespace).is_empty()
            || self.cache.bundles.get(namespace, CONFIG_MAP).is_some()
        {
            self.queue.add(namespace);
        }
    }
}

/// Runs until it is dropped. Comes back only with an error.
pub(crate) async fn run(client: Client, control: Arc<Control>) -> Result<()> {
    let mut tasks = JoinSet::new();
    watch::spawn(&mut tasks, &client, &control);
    control.cache.ready().await;
    tracing::info!("watching: all objects are known");
    let reconciler = Arc::new(reconcile::Reconciler::new(client, Arc::clone(&control)));
    for _ in 0..WORKERS {
        let reconciler = Arc::clone(&reconciler);
        tasks.spawn(async move { reconciler.work().await });
    }
    {
        let reconciler = Arc::clone(&reconciler);
        tasks.spawn(async move { reconciler.guardrails().await });
    }
    let resync = Arc::clone(&control);
    tasks.spawn(async move {
        loop {
            tokio::time::sleep(RESYNC).await;
            resync.queue.add_all(resync.cache.known_namespaces());
        }
    });
    match tasks.join_next().await {
        Some(Err(error)) => {
            Err(anyhow::Error::new(error).context("a part of the controller broke"))
        }
        _ => Err(anyhow::anyhow!("a part of the controller ended")),
    }
}
