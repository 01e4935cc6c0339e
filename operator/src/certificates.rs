//! The operator's own certificates: made, kept in a Secret, renewed at half of their life, put into
//! the webhook configurations and into the running server.
//!
//! A new authority is first told to the API server, and serves only a minute after that; the old one
//! stays trusted until all it has signed is gone. So no call of the API server meets a certificate
//! that it does not know.

pub(crate) mod keep;
mod make;
mod seal;
mod serve;

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use serde::{Deserialize, Serialize};

pub(crate) use seal::Seal;
pub(crate) use serve::Served;

/// The Secret that holds them.
pub(crate) const SECRET: &str = "exeat-operator-tls";

const DAY: i64 = 24 * 3600;
/// Whoever steals an authority's key can answer the API server in our place; a year bounds that.
const AUTHORITY_LIFE: i64 = 365 * DAY;
/// A serving certificate's life.
const SERVING_LIFE: i64 = 90 * DAY;
/// From telling the API server of a new authority to serving under it. Its watch takes far less.
const STAGE: i64 = 60;
/// Clocks differ.
const SKEW: i64 = 300;

/// A certificate with its key, in PEM, and from when until when it is good, in seconds since the
/// epoch.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pair {
    pub(crate) certificate: String,
    pub(crate) key: String,
    pub(crate) from: i64,
    pub(crate) until: i64,
    /// The authority's name, which is part of what it signs.
    pub(crate) name: String,
}

/// All that is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) authority: Pair,
    /// Told to the API server, not yet used.
    pub(crate) next: Option<Pair>,
    /// No longer used, still trusted: its certificate and until when.
    pub(crate) previous: Option<(String, i64)>,
    pub(crate) serving: Pair,
    /// The names that the serving certificate is for.
    pub(crate) names: Vec<String>,
    /// 32 bytes in hexadecimal.
    pub(crate) seal: String,
}

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    Nothing,
    /// A new authority is to be made and told of.
    Stage,
    /// The authority that was told of is to be used.
    Promote,
    /// A new serving certificate under the same authority.
    Serving,
    /// What was trusted can be forgotten.
    Forget,
}

// === impl Pair ===

impl std::fmt::Debug for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pair({}, until {})", self.name, self.until)
    }
}

impl Pair {
    fn past_half(&self, now: i64) -> bool {
        now < self.from || now >= self.from + (self.until - self.from) / 2
    }
}

// === impl State ===

impl State {
    /// What is due at this time. One step at a time; the next look finds the next.
    pub(crate) fn due(&self, now: i64, names: &[String]) -> Due {
        if let Some(next) = &self.next {
            // `from` lies back by the skew.
            if now >= next.from + SKEW + STAGE {
                return Due::Promote;
            }
        } else if self.authority.past_half(now) {
            return Due::Stage;
        }
        if self.serving.past_half(now) || self.names != names {
            return Due::Serving;
        }
        match &self.previous {
            Some((_, until)) if now >= *until => Due::Forget,
            _ => Due::Nothing,
        }
    }

    /// The certificates that the API server is to trust.
    pub(crate) fn bundle(&self) -> String {
        let mut pem = self.authority.certificate.clone();
        if let Some(next) = &self.next {
            pem.push_str(&next.certificate);
        }
        if let Some((previous, _)) = &self.previous {
            pem.push_str(previous);
        }
        pem
    }

    /// The first of all.
    pub(crate) fn new(now: i64, names: &[String]) -> anyhow::Result<Self> {
        let authority = make::authority(now)?;
        let serving = make::serving(&authority, names, now)?;
        Ok(Self {
            authority,
            next: None,
            previous: None,
            serving,
            names: names.to_vec(),
            seal: Seal::draw()?,
        })
    }

    /// Takes the step that is due.
    pub(crate) fn step(&mut self, due: Due, now: i64, names: &[String]) -> anyhow::Result<()> {
        match due {
            Due::Nothing => {}
            Due::Stage => self.next = Some(make::authority(now)?),
            Due::Promote => {
                if let Some(next) = self.next.take() {
                    let old = std::mem::replace(&mut self.authority, next);
                    // Other replicas serve the old certificate for a moment more.
                    self.previous = Some((old.certificate, old.until.min(now + DAY)));
                    self.serving = make::serving(&self.authority, names, now)?;
                }
            }
            Due::Serving => {
                self.serving = make::serving(&self.authority, names, now)?;
                self.names = names.to_vec();
            }
            Due::Forget => self.previous = None,
        }
        Ok(())
    }

    /// As the data of a Secret; the usual keys are for people and other tools.
    pub(crate) fn data(&self) -> BTreeMap<String, ByteString> {
        let state = serde_json::to_string(self).unwrap_or_default();
        BTreeMap::from([
            ("state.json".to_owned(), ByteString(state.into_bytes())),
            ("ca.crt".to_owned(), ByteString(self.bundle().into_bytes())),
            (
                "tls.crt".to_owned(),
                ByteString(self.serving.certificate.clone().into_bytes()),
            ),
            (
                "tls.key".to_owned(),
                ByteString(self.serving.key.clone().into_bytes()),
            ),
        ])
    }

    /// From the data of a Secret. What can't be read in full is made anew.
    pub(crate) fn read(data: &BTreeMap<String, ByteString>) -> Option<Self> {
        let state: Self = serde_json::from_slice(&data.get("state.json")?.0).ok()?;
        Seal::new(&state.seal)?;
        Some(state)
    }
}

#[cfg(test)]
mod tests;
