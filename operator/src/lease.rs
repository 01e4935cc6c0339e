//! Who leads. All replicas serve webhooks; only the leader writes.
//!
//! In doubt nobody leads: a leader that could not renew its lease in time stops before another may
//! take it.

use std::time::{Duration, Instant};

use anyhow::Result;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};

use crate::api;

const NAME: &str = "exeat-operator";
/// A lease that was not renewed for this long is free.
const DURATION: Duration = Duration::from_secs(15);
/// A leader that could not renew for this long stops.
const DEADLINE: Duration = Duration::from_secs(10);
/// How often it is renewed, or tried.
const EVERY: Duration = Duration::from_secs(2);
/// A request that takes longer has failed.
const TIMEOUT: Duration = Duration::from_secs(4);

/// One replica's view of the lease.
pub(crate) struct Elector {
    leases: Api<Lease>,
    identity: String,
    /// The last state that was seen, and when, by our own clock: others' clocks are not trusted.
    seen: Option<(String, Instant)>,
}

/// What is to be done about a lease.
#[derive(Debug, PartialEq, Eq)]
enum Move {
    Take,
    Renew,
    Wait,
}

// === impl Elector ===

impl Elector {
    pub(crate) fn new(client: Client, namespace: &str, identity: &str) -> Self {
        Self {
            leases: Api::namespaced(client, namespace),
            identity: identity.to_owned(),
            seen: None,
        }
    }

    /// Comes back when this replica leads.
    pub(crate) async fn win(&mut self) {
        loop {
            match tokio::time::timeout(TIMEOUT, self.attempt()).await {
                Ok(Ok(true)) => return,
                Ok(Ok(false)) => {}
                Ok(Err(error)) => tracing::warn!(
                    error = format!("{error:#}"),
                    "lease not taken; trying again"
                ),
                Err(_) => tracing::warn!("the lease could not be reached within {TIMEOUT:?}"),
            }
            tokio::time::sleep(EVERY).await;
        }
    }

    /// Renews, and comes back when this replica leads no more.
    pub(crate) async fn hold(&mut self) {
        let mut renewed = Instant::now();
        loop {
            tokio::time::sleep(EVERY).await;
            match tokio::time::timeout(TIMEOUT, self.attempt()).await {
                Ok(Ok(true)) => renewed = Instant::now(),
                Ok(Ok(false)) => {
                    tracing::error!("somebody else has the lease");
                    return;
                }
                Ok(Err(error)) => tracing::warn!(error = format!("{error:#}"), "lease not renewed"),
                Err(_) => tracing::warn!("lease not renewed within {TIMEOUT:?}"),
            }
            if renewed.elapsed() + TIMEOUT >= DEADLINE + EVERY {
                tracing::error!("the lease was not renewed in time");
                return;
            }
        }
    }

    /// Lets others have it at once.
    pub(crate) async fn release(&self) -> Result<()> {
        let Some(mut lease) = self.leases.get_opt(NAME).await? else {
            return Ok(());
        };
        if let Some(spec) = &mut lease.spec
            && spec.holder_identity.as_deref() == Some(self.identity.as_str())
        {
            spec.holder_identity = None;
            spec.renew_time = Some(MicroTime(Timestamp::now()));
            self.leases
                .replace(NAME, &PostParams::default(), &lease)
                .await?;
        }
        Ok(())
    }

    async fn attempt(&mut self) -> Result<bool> {
        let existing = self.leases.get_opt(NAME).await?;
        let Some(lease) = existing else {
            let lease = Lease {
                metadata: ObjectMeta {
                    name: Some(NAME.to_owned()),
                    ..ObjectMeta::default()
                },
                spec: Some(self.spec(0, true)),
            };
            return won(self.leases.create(&PostParams::default(), &lease).await);
        };
        let version = lease.metadata.resource_version.clone().unwrap_or_default();
        if self.seen.as_ref().is_none_or(|(seen, _)| *seen != version) {
            self.seen = Some((version, Instant::now()));
        }
        let unchanged = self
            .seen
            .as_ref()
            .map_or(Duration::ZERO, |(_, at)| at.elapsed());
        let spec = lease.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.as_deref().unwrap_or_default();
        let taken = match next(holder, &self.identity, unchanged) {
            Move::Wait => return Ok(false),
            Move::Renew => false,
            Move::Take => true,
        };
        let mut new = self.spec(spec.lease_transitions.unwrap_or(0), taken);
        if !taken {
            new.acquire_time = spec.acquire_time;
        }
        let lease = Lease {
            spec: Some(new),
            ..lease
        };
        won(self
            .leases
            .replace(NAME, &PostParams::default(), &lease)
            .await)
    }

    fn spec(&self, transitions: i32, taken: bool) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: taken.then(|| now.clone()),
            renew_time: Some(now),
            lease_transitions: Some(if taken {
                transitions.saturating_add(1)
            } else {
                transitions
            }),
            ..LeaseSpec::default()
        }
    }
}

fn next(holder: &str, own: &str, unchanged: Duration) -> Move {
    if holder == own {
        Move::Renew
    } else if holder.is_empty() || unchanged >= DURATION {
        Move::Take
    } else {
        Move::Wait
    }
}

fn won(outcome: Result<Lease, kube::Error>) -> Result<bool> {
    match outcome {
        Ok(_) => Ok(true),
        Err(error) if api::is_conflict(&error) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_taken_only_when_it_is_free_or_stale() {
        assert_eq!(next("", "a", Duration::ZERO), Move::Take);
        assert_eq!(next("a", "a", Duration::ZERO), Move::Renew);
        assert_eq!(next("b", "a", DURATION / 2), Move::Wait);
        assert_eq!(next("b", "a", DURATION), Move::Take);
    }

    #[test]
    fn a_leader_stops_before_another_may_begin() {
        assert!(DEADLINE + EVERY < DURATION);
    }
}
