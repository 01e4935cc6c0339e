//! Whether a Secret may be sent to the hosts of a rule.
//!
//! Who may write policies is not always who may read Secrets. A Secret therefore says itself where
//! it may go, in the annotation `exeat.dev/hosts`; one that says nothing, or says it so that it
//! can't be read, may go nowhere.

use exeat_policy::CredentialUse;

use super::SecretFacts;

/// Why this Secret may not be used so; `None` if it may.
pub(super) fn refusal(used: &CredentialUse, facts: &SecretFacts) -> Option<(&'static str, String)> {
    let (credential, secret) = (&used.credential, &facts.name);
    if facts.pod_uid.is_some() {
        return Some((
            "SecretReserved",
            format!(
                "credential `{credential}`: Secret `{secret}` belongs to a pod's gate; name a \
                 Secret of your own"
            ),
        ));
    }
    match used.not_consented(facts.hosts.as_deref().unwrap_or_default()) {
        Ok(refused) if refused.is_empty() => None,
        Ok(refused) => Some((
            "NoConsent",
            format!(
                "credential `{credential}`: Secret `{secret}` does not consent to {}; whoever owns \
                 it has to name them in its annotation exeat.dev/hosts",
                refused.join(", ")
            ),
        )),
        Err(error) => Some((
            "NoConsent",
            format!(
                "credential `{credential}`: the annotation exeat.dev/hosts of Secret `{secret}` \
                 can't be read: {error}"
            ),
        )),
    }
}
