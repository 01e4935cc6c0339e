//! Admission: the webhooks. In doubt they refuse.

mod account;
mod pod;
mod policy;
mod review;
pub(crate) mod server;

use std::sync::Arc;

use kube::Client;

use crate::settings::Settings;
use crate::telemetry::Metrics;
use review::{Answer, Review};

/// What answers reviews.
#[derive(Clone)]
pub(crate) struct Admission {
    pub(crate) client: Client,
    pub(crate) settings: Arc<Settings>,
    pub(crate) metrics: Metrics,
}

/// The webhooks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Path {
    MutatePod,
    ValidatePod,
    ValidatePolicy,
}

// === impl Path ===

impl Path {
    fn parse(path: &str) -> Option<Self> {
        Some(match path {
            "/mutate-pod" => Self::MutatePod,
            "/validate-pod" => Self::ValidatePod,
            "/validate-policy" => Self::ValidatePolicy,
            _ => return None,
        })
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::MutatePod => "/mutate-pod",
            Self::ValidatePod => "/validate-pod",
            Self::ValidatePolicy => "/validate-policy",
        }
    }
}

// === impl Admission ===

impl Admission {
    async fn answer(&self, path: Path, review: &Review) -> Answer {
        let answer = match path {
            Path::MutatePod => pod::mutate(review, &self.settings),
            Path::ValidatePod => pod::validate(review, self).await,
            Path::ValidatePolicy => policy::validate(review),
        };
        let outcome = if answer.allowed() {
            "allowed"
        } else {
            "refused"
        };
        self.metrics.admitted(path.as_str(), outcome);
        if !answer.allowed() {
            tracing::info!(
                path = path.as_str(),
                namespace = review.namespace,
                name = review.name,
                dry_run = review.dry_run,
                "refused: {}",
                answer.message()
            );
        }
        answer
    }
}
