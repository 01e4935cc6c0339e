//! Whether a policy is accepted: it compiles, and each Secret that it names agrees to be sent where
//! the policy would send it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::check::{Checks, clip};
use super::{Accepted, Policy, SecretFacts, consent};

/// Judges a policy as it is written.
pub(super) fn judge(
    policy: &Policy,
    secrets: &BTreeMap<String, Arc<SecretFacts>>,
    checks: &mut Checks,
) -> Accepted {
    let checked = checks.of(&policy.uid, policy.generation, &policy.document);
    let uses = match &*checked {
        Ok(uses) => uses,
        Err(message) => return refuse("Invalid", message.clone()),
    };
    for used in uses {
        let secret = &*used.secret.name;
        let Some(facts) = secrets.get(secret) else {
            return refuse(
                "SecretNotFound",
                format!(
                    "credential `{}`: there is no Secret `{secret}` in this namespace; create it \
                     with the annotation exeat.dev/hosts: \"{}\"",
                    used.credential,
                    used.hosts.join(", ")
                ),
            );
        };
        if facts.pod_uid.is_some() {
            return refuse(
                "SecretReserved",
                format!(
                    "credential `{}`: Secret `{secret}` belongs to a pod's gate; name a Secret of \
                     your own",
                    used.credential
                ),
            );
        }
        let refused = consent::refused(facts.hosts.as_deref(), &used.hosts);
        if !refused.is_empty() {
            return refuse(
                "NoConsent",
                format!(
                    "credential `{}`: Secret `{secret}` does not consent to {}; whoever owns it \
                     has to annotate it with exeat.dev/hosts naming each of them",
                    used.credential,
                    refused.join(", ")
                ),
            );
        }
    }
    Accepted {
        yes: true,
        reason: "Accepted",
        message: "the policy compiles and its Secrets consent".to_owned(),
    }
}

pub(super) fn refuse(reason: &'static str, message: String) -> Accepted {
    Accepted {
        yes: false,
        reason,
        message: clip(message),
    }
}
