//! One namespace, from what it holds to what it should be: Secrets, then the bundle, then the
//! nudge, then the status.
//!
//! Secrets go first, so that a gate that has a policy has its credentials too.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use kube::Client;
use parking_lot::Mutex;

use super::apply::Applier;
use super::events::Events;
use super::secrets::{Filled, Filler};
use super::{Control, queue::Queue};
use crate::desired::check::Checks;
use crate::desired::{self, BundleStep, Desired, Objects, Pod};
use crate::status::poll::Target;
use crate::status::{self, Standing};

/// No single namespace may keep a worker longer than this.
const TIMEOUT: Duration = Duration::from_mins(1);

/// What works on namespaces.
pub(super) struct Reconciler {
    control: Arc<Control>,
    applier: Applier,
    filler: Filler,
    events: Events,
    checks: Mutex<Checks>,
}

// === impl Reconciler ===

impl Reconciler {
    pub(super) fn new(client: Client, control: Arc<Control>) -> Self {
        Self {
            applier: Applier::new(client.clone()),
            filler: Filler::new(client.clone()),
            events: Events::new(client, &control.identity),
            checks: Mutex::new(Checks::default()),
            control,
        }
    }

    /// Takes namespaces off the queue, for ever.
    pub(super) async fn work(&self) {
        let queue: &Queue = &self.control.queue;
        loop {
            let namespace = queue.next().await;
            let started = Instant::now();
            let outcome = tokio::time::timeout(TIMEOUT, self.reconcile(&namespace))
                .await
                .unwrap_or_else(|_| Err(anyhow::anyhow!("not done within {TIMEOUT:?}")));
            let metrics = &self.control.metrics;
            metrics.reconciles.inc();
            metrics
                .reconcile_seconds
                .observe(started.elapsed().as_secs_f64());
            if let Err(error) = &outcome {
                metrics.reconcile_errors.inc();
                tracing::warn!(
                    namespace,
                    error = format!("{error:#}"),
                    "not reconciled; trying again"
                );
            }
            if let Some(pause) = queue.done(&namespace, outcome.is_err()) {
                let control = Arc::clone(&self.control);
                tokio::spawn(async move {
                    tokio::time::sleep(pause).await;
                    control.queue.add(&namespace);
                });
            }
        }
    }

    async fn reconcile(&self, namespace: &str) -> Result<()> {
        let objects = self.objects(namespace);
        let desired = desired::plan(&objects, &mut self.checks.lock());
        let filled = self.filler.fill(&objects, &desired.secrets).await;
        let in_force = self.bundle(&objects, &desired).await?;
        if let Some((generation, _)) = &in_force {
            self.nudge(&objects, *generation, &filled).await?;
        }
        self.poll(&objects, in_force.as_ref(), &filled);
        self.status(&objects, &desired, in_force.as_ref(), &filled)
            .await?;
        self.filler
            .collect(&objects, &desired.orphans)
            .await
            .context("removing Secrets of pods that are gone")?;
        match filled.failed {
            Some(error) => Err(error.context("filling the Secrets of pods")),
            None => Ok(()),
        }
    }

    fn objects(&self, namespace: &str) -> Objects {
        // What the statuses say was in force may outlive the ConfigMap.
        let seen = self
            .control
            .cache
            .policies
            .of(namespace)
            .values()
            .filter_map(|policy| policy.status.get("generation")?.as_u64())
            .max();
        if let Some(generation) = seen {
            self.control.cache.raise_floor(namespace, generation);
        }
        self.control.cache.objects(namespace)
    }

    /// Makes the ConfigMap right. Tells generation and digest of what is in force then.
    async fn bundle(&self, objects: &Objects, desired: &Desired) -> Result<Option<(u64, String)>> {
        match &desired.bundle {
            BundleStep::Nothing => Ok(None),
            BundleStep::Keep(bundle) => Ok(Some((bundle.generation(), bundle.digest().to_owned()))),
            BundleStep::Write { bundle, packed } => {
                self.applier
                    .write(bundle, packed, &self.control.seal)
                    .await
                    .context("writing the bundle")?;
                self.control
                    .cache
                    .raise_floor(&objects.namespace, bundle.generation());
                self.control.metrics.bundles_written.inc();
                tracing::info!(
                    namespace = objects.namespace,
                    generation = bundle.generation(),
                    digest = bundle.digest(),
                    bytes = packed.len(),
                    "wrote the bundle"
                );
                Ok(Some((bundle.generation(), bundle.digest().to_owned())))
            }
            BundleStep::Remove => {
                self.applier
                    .remove(&objects.namespace)
                    .await
                    .context("removing the bundle")?;
                Ok(None)
            }
        }
    }

    async fn nudge(&self, objects: &Objects, generation: u64, filled: &Filled) -> Result<()> {
        let wanted = generation.to_string();
        let late: Vec<_> = objects
            .pods
            .iter()
            .filter(|pod| pod.alive && pod.injected)
            .filter_map(|pod| {
                let version = filled.versions.get(&pod.uid);
                let stale = pod.nudged.as_deref() != Some(wanted.as_str())
                    || (version.is_some() && pod.told.as_ref() != version);
                stale.then(|| (pod.name.clone(), version.cloned()))
            })
            .collect();
        self.applier
            .nudge(&objects.namespace, &wanted, late)
            .await
            .context("touching pods so that their kubelets look")
    }

    fn poll(&self, objects: &Objects, in_force: Option<&(u64, String)>, filled: &Filled) {
        let targets: Vec<Target> = in_force
            .map(|(generation, digest)| {
                objects
                    .pods
                    .iter()
                    .filter(|pod| pod.alive && pod.injected)
                    .filter_map(|pod| {
                        Some(Target {
                            uid: pod.uid.clone(),
                            address: pod.address.clone()?,
                            key: filled.keys.get(&pod.uid)?.clone(),
                            digest: digest.clone(),
                            generation: *generation,
                        })
                    })
                    .collect()
            })
            .unwrap_or_default();
        self.control.poller.set(&objects.namespace, targets);
    }

    async fn status(
        &self,
        objects: &Objects,
        desired: &Desired,
        in_force: Option<&(u64, String)>,
        filled: &Filled,
    ) -> Result<()> {
        let standings: BTreeMap<&str, Standing> = objects
            .pods
            .iter()
            .filter(|pod| pod.alive)
            .map(|pod| {
                (
                    pod.uid.as_str(),
                    self.standing(pod, in_force.is_some(), filled),
                )
            })
            .collect();
        let names: BTreeMap<&str, &str> = objects
            .pods
            .iter()
            .map(|pod| (pod.uid.as_str(), pod.name.as_str()))
            .collect();
        for judged in &desired.judged {
            let made = status::of(
                judged,
                objects.governed,
                &standings,
                &names,
                in_force,
                now(),
            );
            if made.status == judged.policy.status {
                continue;
            }
            self.applier
                .status(&objects.namespace, &judged.policy.name, &made.status)
                .await
                .with_context(|| format!("writing the status of `{}`", judged.policy.name))?;
            for transition in made.transitions {
                self.events
                    .publish(&objects.namespace, &judged.policy, transition)
                    .await;
            }
        }
        Ok(())
    }

    fn standing(&self, pod: &Pod, in_force: bool, filled: &Filled) -> Standing {
        if !pod.injected {
            return Standing::lags(
                "it has no gate: it is older than the namespace's label, so it has to be made anew",
            );
        }
        if !in_force {
            return Standing::lags("the namespace has no bundle");
        }
        if let Some(problem) = filled.problems.get(&pod.uid) {
            return Standing::lags(problem.clone());
        }
        if pod.address.is_none() {
            return Standing::lags("it has no address yet");
        }
        self.control
            .poller
            .standing(&pod.uid)
            .unwrap_or_else(|| Standing::lags("it was not asked yet"))
    }

    /// Keeps the statuses of guardrails.
    pub(super) async fn guardrails(&self) {
        loop {
            for guardrail in self.control.cache.guardrails.of("").values() {
                let checked = self.checks.lock().of(
                    &guardrail.uid,
                    guardrail.generation,
                    &guardrail.document,
                );
                let made = status::of_guardrail(guardrail, &checked, now());
                if made.status == guardrail.status {
                    continue;
                }
                if let Err(error) = self
                    .applier
                    .guardrail_status(&guardrail.name, &made.status)
                    .await
                {
                    tracing::warn!(guardrail = guardrail.name, %error, "status not written; trying again");
                    self.control.guardrails_changed.notify_one();
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    continue;
                }
                for transition in made.transitions {
                    self.events.publish("", guardrail, transition).await;
                }
            }
            self.control.guardrails_changed.notified().await;
        }
    }
}

fn now() -> k8s_openapi::jiff::Timestamp {
    k8s_openapi::jiff::Timestamp::now()
}
