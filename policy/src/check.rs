//! One policy by itself: whether it can be understood, whom it is for, and which secrets it would send
//! where. For admission and the operator, which see one object at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::compile::Read;
use crate::credential::SecretRef;
use crate::diagnostics::Diagnostics;
use crate::document::{Document, PolicyKind, Selector};
use crate::host::{Host, HostError};
use crate::pattern::{HostPattern, HostPatternError};
use crate::source::Source;
use crate::tree::{File, Span};
use crate::verdict::Mode;

/// What a policy says about itself.
#[derive(Debug)]
pub struct Checked {
    /// A policy or a guardrail.
    pub kind: PolicyKind,
    /// Its namespace, if it has one.
    pub namespace: Option<Arc<str>>,
    /// Its name.
    pub name: Arc<str>,
    /// Whether its denials count.
    pub mode: Mode,
    /// The credentials that its rules use, by name.
    pub references: Vec<CredentialUse>,
    namespaces: Selector,
    pods: Selector,
}

/// A credential that rules use, and where they send it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CredentialUse {
    /// Its name in the policy.
    pub credential: Arc<str>,
    /// Where the secret lies.
    pub secret: SecretRef,
    /// The hosts of all rules that use it, as they are written: `api.example.com`,
    /// `*.example.com`. Sorted, each once.
    pub hosts: Vec<String>,
    patterns: BTreeSet<HostPattern>,
}

/// The hosts that a Secret's owner lets it be sent to: its annotation `exeat.dev/hosts`.
#[derive(Debug, Clone)]
pub(crate) struct Consent(Vec<HostPattern>);

/// A consent that can't be read. It is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{host}` is no host that a Secret can be sent to: {why}")]
pub struct ConsentError {
    /// What stands there.
    pub host: String,
    /// What is wrong with it.
    pub why: String,
}

/// Reads and checks one policy.
pub fn check(source: &Source) -> Result<Checked, Diagnostics> {
    let mut documents = Read::new(std::slice::from_ref(source)).finish()?;
    if let (Some(document), true) = (documents.pop(), documents.is_empty()) {
        return Ok(Checked::new(document));
    }
    let file = File::new(source);
    file.refuse(
        &Span::default(),
        "there is more than one policy",
        "check them one by one",
    );
    Err(file.found())
}

// === impl Checked ===

impl Checked {
    fn new(document: Document) -> Self {
        let mut uses: BTreeMap<Arc<str>, (SecretRef, BTreeSet<HostPattern>)> = BTreeMap::new();
        for written in &document.allow {
            if let Some(credential) = &written.rule.credential {
                uses.entry(Arc::clone(&credential.name))
                    .or_insert_with(|| (credential.secret.clone(), BTreeSet::new()))
                    .1
                    .extend(written.rule.scope.hosts.iter().cloned());
            }
        }
        let references = uses
            .into_iter()
            .map(|(credential, (secret, patterns))| CredentialUse {
                credential,
                secret,
                hosts: patterns.iter().map(ToString::to_string).collect(),
                patterns,
            })
            .collect();
        Self {
            kind: document.kind,
            namespace: document.namespace,
            name: document.short,
            mode: document.mode,
            references,
            namespaces: document.namespaces,
            pods: document.selector,
        }
    }

    /// Whether it is for pods with these labels.
    #[must_use]
    pub fn selects_pod(&self, labels: &BTreeMap<String, String>) -> bool {
        self.pods.selects(labels)
    }

    /// Whether it is for namespaces with these labels. A `ToolPolicy` is for its own, whatever those.
    #[must_use]
    pub fn selects_namespace(&self, labels: &BTreeMap<String, String>) -> bool {
        self.namespaces.selects(labels)
    }
}

// === impl CredentialUse ===

impl CredentialUse {
    /// The hosts that a Secret's consent (`exeat.dev/hosts: "api.example.com, *.example.org"`) does
    /// not cover; none if it may be used so.
    pub fn not_consented(&self, consent: &str) -> Result<Vec<String>, ConsentError> {
        let given = Consent::parse(consent)?;
        Ok(self
            .patterns
            .iter()
            .filter(|host| !given.0.iter().any(|given| given.covers(host)))
            .map(ToString::to_string)
            .collect())
    }

    /// The name of the file, and the key of the pod's own Secret, that holds it.
    #[must_use]
    pub fn key(&self, policy: &str) -> String {
        crate::credential::key(policy, &self.credential)
    }
}

// === impl Consent ===

impl Consent {
    /// Reads `api.example.com, *.example.org`.
    pub(crate) fn parse(text: &str) -> Result<Self, ConsentError> {
        text.split(',')
            .map(str::trim)
            .filter(|text| !text.is_empty())
            .map(|text| {
                HostPattern::parse(text, false).map_err(|error| ConsentError {
                    host: text.chars().take(crate::limits::MAX_HOST).collect(),
                    why: why(&error),
                })
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Whether it names this host.
    pub(crate) fn covers(&self, host: &Host) -> bool {
        self.0.iter().any(|given| given.matches(host))
    }
}

fn why(error: &HostPatternError) -> String {
    match error {
        HostPatternError::Host(HostError::Malformed) => {
            "write names or addresses, separated by commas".to_owned()
        }
        error => error.to_string(),
    }
}

#[cfg(test)]
mod tests;
