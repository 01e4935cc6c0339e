//! Where the secrets of a pod's own Secret were taken from, and whereto their owners let them go.
//!
//! Policies and secrets reach a pod in two volumes, and not in one moment. The operator therefore
//! writes beside the secrets what each was given for, and the gate compares: in doubt (another Secret,
//! a host without consent, no word about it) the secret it holds was meant for something else.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Map, Value, json};

use crate::check::{Consent, ConsentError};
use crate::credential::SecretRef;
use crate::host::Host;

/// The key of the pod's own Secret, and so the name of the file, that says it.
pub const FILE: &str = "sources";

/// The origins of all secrets, by the keys that hold them ([`crate::credential::key`]).
#[derive(Debug, Clone, Default)]
pub struct Sources(BTreeMap<String, Origin>);

#[derive(Debug, Clone)]
struct Origin {
    secret: SecretRef,
    /// The annotation `exeat.dev/hosts`, as it was when the value was read.
    hosts: String,
    consent: Result<Consent, ConsentError>,
}

/// Not what the operator writes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{FILE}` is not what the operator writes: {0}")]
pub struct SourcesError(String);

/// Why a secret may not be used as the policy in force says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// The operator gave none by this name.
    #[error(
        "the operator has not given this pod a secret for it yet; it is sent as soon as it has"
    )]
    Absent,
    /// It was given for an earlier or later form of the policy.
    #[error(
        "the secret this pod holds is {held}, but the policy in force names {wanted}; it is sent as \
         soon as the operator has given the right one"
    )]
    Other {
        /// What the pod holds.
        held: Named,
        /// What the policy names.
        wanted: Named,
    },
    /// Its owner did not let it go there.
    #[error(
        "{held} does not consent to {host}; whoever owns it has to name the host in its annotation \
         exeat.dev/hosts"
    )]
    Host {
        /// What the pod holds.
        held: Named,
        /// Where it would be sent to.
        host: Host,
    },
    /// What its owner wrote can't be read.
    #[error("the annotation exeat.dev/hosts of {held} can't be read: {why}")]
    Consent {
        /// What the pod holds.
        held: Named,
        /// What is wrong with it.
        why: ConsentError,
    },
}

/// A key of a Secret, as people read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named(SecretRef);

// === impl Sources ===

impl Sources {
    /// Adds where the secret at `key` came from; `hosts` is its Secret's annotation.
    pub fn insert(&mut self, key: &str, secret: &SecretRef, hosts: &str) {
        let origin = Origin {
            secret: secret.clone(),
            hosts: hosts.to_owned(),
            consent: Consent::parse(hosts),
        };
        self.0.insert(key.to_owned(), origin);
    }

    /// Reads what [`Self::to_text`] writes.
    pub fn read(text: &[u8]) -> Result<Self, SourcesError> {
        let wrong = |what: &str| SourcesError(what.to_owned());
        let value: Value =
            serde_json::from_slice(text).map_err(|error| SourcesError(error.to_string()))?;
        let Value::Object(entries) = value else {
            return Err(wrong("it is no object"));
        };
        let mut sources = Self::default();
        for (name, entry) in entries {
            let Value::Object(entry) = entry else {
                return Err(wrong("an entry is no object"));
            };
            let text = |field: &str| {
                entry.get(field).and_then(Value::as_str).ok_or_else(|| {
                    SourcesError(format!("an entry has no `{field}`, or one that is no text"))
                })
            };
            let secret = SecretRef {
                name: text("secret")?.into(),
                key: text("key")?.into(),
            };
            let hosts = text("hosts")?;
            if entry.len() != 3 {
                return Err(wrong("an entry has unknown fields"));
            }
            sources.insert(&name, &secret, hosts);
        }
        Ok(sources)
    }

    /// As it is written into the Secret.
    #[must_use]
    pub fn to_text(&self) -> String {
        let entries: Map<String, Value> = self
            .0
            .iter()
            .map(|(key, origin)| {
                let SecretRef { name, key: within } = &origin.secret;
                let entry = json!({"secret": **name, "key": **within, "hosts": origin.hosts});
                (key.clone(), entry)
            })
            .collect();
        Value::Object(entries).to_string()
    }

    /// Whether the secret at `key` is the one that the policy in force names, and may go to `host`.
    pub fn check(&self, key: &str, wanted: &SecretRef, host: &Host) -> Result<(), Mismatch> {
        let origin = self.0.get(key).ok_or(Mismatch::Absent)?;
        let held = || Named(origin.secret.clone());
        if origin.secret != *wanted {
            return Err(Mismatch::Other {
                held: held(),
                wanted: Named(wanted.clone()),
            });
        }
        match &origin.consent {
            Ok(consent) if consent.covers(host) => Ok(()),
            Ok(_) => Err(Mismatch::Host {
                held: held(),
                host: host.clone(),
            }),
            Err(why) => Err(Mismatch::Consent {
                held: held(),
                why: why.clone(),
            }),
        }
    }
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key `{}` of Secret `{}`", self.0.key, self.0.name)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    fn secret(name: &str, key: &str) -> SecretRef {
        SecretRef {
            name: name.into(),
            key: key.into(),
        }
    }

    fn host(name: &str) -> Host {
        Host::parse(name).unwrap()
    }

    #[test]
    fn only_the_secret_named_and_only_where_it_may_go() {
        let mut written = Sources::default();
        let gh = secret("gh", "token");
        written.insert("p.github", &gh, "api.github.com, *.example.org");
        written.insert("p.none", &gh, "");
        written.insert("p.odd", &gh, "api.github.com, *");
        let sources = Sources::read(written.to_text().as_bytes()).unwrap();
        for name in ["api.github.com", "a.example.org", "a.b.example.org"] {
            assert_eq!(
                sources.check("p.github", &gh, &host(name)),
                Ok(()),
                "{name}"
            );
        }
        let api = host("api.github.com");
        for name in ["github.com", "example.org", "api.github.com.evil.example"] {
            let refused = sources.check("p.github", &gh, &host(name)).unwrap_err();
            assert!(matches!(refused, Mismatch::Host { .. }), "{refused}");
            assert!(refused.to_string().contains(name), "{refused}");
        }
        for other in [secret("gh", "other"), secret("other", "token")] {
            let refused = sources.check("p.github", &other, &api).unwrap_err();
            assert!(matches!(refused, Mismatch::Other { .. }), "{refused}");
        }
        assert_eq!(sources.check("q.github", &gh, &api), Err(Mismatch::Absent));
        let none = sources.check("p.none", &gh, &api).unwrap_err();
        assert!(matches!(none, Mismatch::Host { .. }), "{none}");
        let odd = sources.check("p.odd", &gh, &api).unwrap_err();
        assert!(matches!(odd, Mismatch::Consent { .. }), "{odd}");
    }

    #[test]
    fn anything_else_is_none() {
        for bad in [
            "",
            "[]",
            "{\"a\":1}",
            "{\"a\":{}}",
            "{\"a\":{\"secret\":\"s\",\"key\":\"k\"}}",
            "{\"a\":{\"secret\":\"s\",\"key\":\"k\",\"hosts\":null}}",
            "{\"a\":{\"secret\":\"s\",\"key\":\"k\",\"hosts\":\"\",\"more\":1}}",
        ] {
            assert!(Sources::read(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(Sources::read(b"{}").is_ok());
    }
}
