//! Stub.
pub mod explain;

use std::sync::Arc;

use crate::body::BodyNeed;
use crate::call::{Call, Destination, HttpCall, Treatment};
use crate::credential::Credential;
use crate::host::Host;
use crate::reason::Reason;
use crate::verdict::{Denial, Verdict};

/// The compiled policies: immutable, cheap to ask.
#[derive(Debug)]
pub struct Plan {
    generation: u64,
    digest: String,
    credentials: Vec<Arc<Credential>>,
}

impl Plan {
    /// A plan that denies everything.
    #[must_use]
    pub fn deny_all(generation: u64) -> Self {
        Self {
            generation,
            digest: String::new(),
            credentials: Vec::new(),
        }
    }

    /// `sha256:…` of the canonical form.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Which generation of the policies this is.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Whether DNS may answer this name.
    #[must_use]
    pub fn resolves(&self, _host: &Host) -> bool {
        false
    }

    /// How connections to this destination are handled.
    #[must_use]
    pub fn treatment(&self, _host: &Host, _port: u16) -> Treatment {
        Treatment::Intercept
    }

    /// What must be read of a body before this call can be decided.
    #[must_use]
    pub fn body_need(&self, _destination: &Destination, _call: &HttpCall) -> BodyNeed {
        BodyNeed::Unread
    }

    /// Judges one call.
    #[must_use]
    pub fn decide(&self, _call: &Call<'_>) -> Verdict {
        Verdict::Deny(Denial::new(Reason::NoPolicy, "no policy applies"))
    }

    /// The credentials that this plan may inject.
    #[must_use]
    pub fn credentials(&self) -> &[Arc<Credential>] {
        &self.credentials
    }
}
