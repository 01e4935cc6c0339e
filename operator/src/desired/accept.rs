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
        if let Some((reason, message)) = consent::refusal(used, facts) {
            return refuse(reason, message);
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
