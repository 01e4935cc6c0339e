//! The pods' own Secrets: made, filled, kept as they should be, and removed.
//!
//! Only a Secret with the name that the webhook draws, that does not exist or says that it was made
//! for this very pod, is ever written. Source Secrets are read when one that counts has changed,
//! and what was read is not kept.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use exeat_policy::sources::{self, Sources};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{DeleteParams, PostParams, Preconditions};
use kube::{Api, Client};
use parking_lot::Mutex;

use super::MANAGER;
use super::reduce::{HOSTS, POD_UID};
use crate::api;
use crate::desired::pods::is_pod_secret;
use crate::desired::{Objects, PodSecret};
use crate::status::answer::StatusKey;

/// The key of a pod's Secret that its status answers are made with.
const STATUS_KEY: &str = "status-key";
/// Seconds-long storms of pods do not hold more memory than this many readings.
const MAX_READ: usize = 256;

/// What fills them.
pub(super) struct Filler {
    client: Client,
    verified: Mutex<BTreeMap<String, Verified>>,
}

/// A pod's Secret as it was when it was right.
#[derive(Clone)]
struct Verified {
    /// Its `resourceVersion`.
    version: String,
    /// What it was made from: the Secret that is wanted, and the versions of its sources.
    inputs: Inputs,
    key: StatusKey,
    problem: Option<String>,
}

#[derive(Clone, PartialEq, Eq)]
struct Inputs {
    wanted: PodSecret,
    sources: BTreeMap<String, String>,
}

/// What came of it, by the UIDs of pods.
#[derive(Debug, Default)]
pub(super) struct Filled {
    /// Versions of their Secrets.
    pub(super) versions: BTreeMap<String, String>,
    pub(super) keys: BTreeMap<String, StatusKey>,
    /// Why a pod has not what it should.
    pub(super) problems: BTreeMap<String, String>,
    /// The last failure, if there was one that another attempt may mend.
    pub(super) failed: Option<anyhow::Error>,
}

/// Source Secrets that were read, by name.
type Reading = BTreeMap<String, Option<Secret>>;

// === impl Filler ===

impl Filler {
    pub(super) fn new(client: Client) -> Self {
        Self {
            client,
            verified: Mutex::new(BTreeMap::new()),
        }
    }

    /// Makes all Secrets of a namespace's pods right.
    pub(super) async fn fill(&self, objects: &Objects, wanted: &[PodSecret]) -> Filled {
        let mut filled = Filled::default();
        let mut sources = Reading::new();
        for pod in objects.pods.iter().filter(|pod| pod.alive && pod.injected) {
            let Some(secret) = wanted.iter().find(|secret| secret.pod.uid == pod.uid) else {
                self.foreign(objects, pod, &mut filled).await;
                continue;
            };
            match self.one(objects, secret, &mut sources).await {
                Ok(Ok(verified)) => {
                    filled.versions.insert(pod.uid.clone(), verified.version);
                    filled.keys.insert(pod.uid.clone(), verified.key);
                    if let Some(problem) = verified.problem {
                        filled.problems.insert(pod.uid.clone(), problem);
                    }
                }
                Ok(Err(problem)) => {
                    filled.problems.insert(pod.uid.clone(), problem);
                }
                Err(error) => {
                    filled.problems.insert(
                        pod.uid.clone(),
                        format!("its Secret can't be written: {error:#}"),
                    );
                    filled.failed = Some(error);
                }
            }
        }
        let names: Vec<String> = wanted
            .iter()
            .map(|s| memo(&objects.namespace, &s.name))
            .collect();
        let prefix = memo(&objects.namespace, "");
        self.verified
            .lock()
            .retain(|name, _| !name.starts_with(&prefix) || names.contains(name));
        filled
    }

    /// A pod whose template mounts a Secret of its author's: not ours to write, but if there is a
    /// key for the status in it, the pod can be asked.
    async fn foreign(&self, objects: &Objects, pod: &crate::desired::Pod, filled: &mut Filled) {
        let Some(name) = &pod.secret else {
            filled.problems.insert(
                pod.uid.clone(),
                "it mounts no Secret as `exeat-credentials`, so its answers can't be trusted"
                    .to_owned(),
            );
            return;
        };
        let mut read = Reading::new();
        let key = match self.source(objects, name, &mut read).await {
            Ok(secret) => secret.and_then(status_key),
            Err(error) => {
                filled.failed = Some(error);
                None
            }
        };
        if let Some(key) = key {
            filled.keys.insert(pod.uid.clone(), key);
        } else {
            filled.problems.insert(
                pod.uid.clone(),
                format!(
                    "its template mounts Secret `{name}`, which has no `{STATUS_KEY}` of 32 bytes \
                     in hexadecimal, so its answers can't be trusted"
                ),
            );
        }
    }

    /// The outer result is a failure to try again; the inner one is a refusal.
    async fn one(
        &self,
        objects: &Objects,
        wanted: &PodSecret,
        sources: &mut Reading,
    ) -> Result<Result<Verified, String>> {
        let facts = objects.secrets.get(&wanted.name);
        if facts.is_some_and(|facts| facts.pod_uid.as_deref() != Some(wanted.pod.uid.as_str())) {
            return Ok(Err(format!(
                "Secret `{}` exists and was not made for this pod; it is left alone, and the pod \
                 has to be made anew",
                wanted.name
            )));
        }
        let inputs = Inputs {
            wanted: wanted.clone(),
            sources: wanted
                .keys
                .values()
                .filter_map(|source| {
                    let facts = objects.secrets.get(&*source.name)?;
                    Some((facts.name.clone(), facts.version.clone()))
                })
                .collect(),
        };
        let memo = memo(&objects.namespace, &wanted.name);
        let known = self.verified.lock().get(&memo).cloned();
        if let Some(known) = known
            && known.inputs == inputs
            && facts.is_none_or(|facts| facts.version == known.version)
        {
            return Ok(Ok(known));
        }
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &objects.namespace);
        let existing = api.get_opt(&wanted.name).await?;
        if let Some(existing) = &existing
            && existing
                .metadata
                .labels
                .as_ref()
                .and_then(|l| l.get(POD_UID))
                != Some(&wanted.pod.uid)
        {
            return Ok(Err(format!(
                "Secret `{}` exists and was not made for this pod",
                wanted.name
            )));
        }
        let key = existing.as_ref().and_then(status_key);
        let key = match key {
            Some(key) => key,
            None => StatusKey::draw()?,
        };
        let (data, problem) = self.data(objects, wanted, &key, sources).await?;
        let right = existing.as_ref().is_some_and(|existing| {
            existing.data.as_ref() == Some(&data) && owned(existing, wanted)
        });
        let version = if right {
            existing.and_then(|existing| existing.metadata.resource_version)
        } else {
            self.write(&api, wanted, data, existing).await?
        };
        let verified = Verified {
            version: version.unwrap_or_default(),
            inputs,
            key,
            problem,
        };
        self.verified.lock().insert(memo, verified.clone());
        Ok(Ok(verified))
    }

    async fn data(
        &self,
        objects: &Objects,
        wanted: &PodSecret,
        key: &StatusKey,
        sources: &mut Reading,
    ) -> Result<(BTreeMap<String, ByteString>, Option<String>)> {
        let mut data = BTreeMap::new();
        // What a gate needs to refuse a secret that was meant for another form of its policy.
        let mut origins = Sources::default();
        let mut problems = Vec::new();
        for (name, source) in &wanted.keys {
            let secret = self.source(objects, &source.name, sources).await?;
            // As it was together with the value: both change in one step.
            let hosts = secret.and_then(consent).unwrap_or_default();
            let value = secret
                .and_then(|secret| secret.data.as_ref())
                .and_then(|data| data.get(&*source.key));
            let Some(value) = value else {
                problems.push(format!(
                    "Secret `{}` has no key `{}`, so credential `{name}` is not there",
                    source.name, source.key
                ));
                continue;
            };
            data.insert(name.clone(), value.clone());
            origins.insert(name, source, &hosts);
        }
        data.insert(STATUS_KEY.to_owned(), ByteString(key.hex().into_bytes()));
        data.insert(
            sources::FILE.to_owned(),
            ByteString(origins.to_text().into_bytes()),
        );
        Ok((data, (!problems.is_empty()).then(|| problems.join("; "))))
    }

    /// A source Secret, read at most once for each look at a namespace.
    async fn source<'a>(
        &self,
        objects: &Objects,
        name: &str,
        sources: &'a mut Reading,
    ) -> Result<Option<&'a Secret>> {
        if !sources.contains_key(name) {
            if sources.len() >= MAX_READ {
                sources.clear();
            }
            let api: Api<Secret> = Api::namespaced(self.client.clone(), &objects.namespace);
            let secret = api
                .get_opt(name)
                .await
                .with_context(|| format!("reading Secret `{name}`"))?;
            sources.insert(name.to_owned(), secret);
        }
        Ok(sources.get(name).and_then(Option::as_ref))
    }

    async fn write(
        &self,
        api: &Api<Secret>,
        wanted: &PodSecret,
        data: BTreeMap<String, ByteString>,
        existing: Option<Secret>,
    ) -> Result<Option<String>> {
        let mut secret = Secret {
            metadata: ObjectMeta {
                name: Some(wanted.name.clone()),
                labels: Some(BTreeMap::from([
                    (POD_UID.to_owned(), wanted.pod.uid.clone()),
                    (
                        "app.kubernetes.io/managed-by".to_owned(),
                        MANAGER.to_owned(),
                    ),
                ])),
                owner_references: Some(vec![OwnerReference {
                    api_version: "v1".to_owned(),
                    kind: "Pod".to_owned(),
                    name: wanted.pod.name.clone(),
                    uid: wanted.pod.uid.clone(),
                    ..OwnerReference::default()
                }]),
                ..ObjectMeta::default()
            },
            type_: Some("Opaque".to_owned()),
            data: Some(data),
            ..Secret::default()
        };
        let params = PostParams {
            field_manager: Some(MANAGER.to_owned()),
            ..PostParams::default()
        };
        let Some(existing) = existing else {
            return Ok(api
                .create(&params, &secret)
                .await?
                .metadata
                .resource_version);
        };
        // With the version that was read: a change in between fails this, and it is tried again.
        secret
            .metadata
            .resource_version
            .clone_from(&existing.metadata.resource_version);
        match api.replace(&wanted.name, &params, &secret).await {
            Ok(written) => Ok(written.metadata.resource_version),
            Err(error) if api::is_invalid(&error) => {
                // Marked immutable, or of another type: it is ours, so it is made anew.
                let delete = DeleteParams::default().preconditions(Preconditions {
                    resource_version: existing.metadata.resource_version,
                    uid: existing.metadata.uid,
                });
                api.delete(&wanted.name, &delete).await?;
                secret.metadata.resource_version = None;
                Ok(api
                    .create(&params, &secret)
                    .await?
                    .metadata
                    .resource_version)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Removes Secrets of ours whose pods are gone.
    pub(super) async fn collect(&self, objects: &Objects, orphans: &[String]) -> Result<()> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &objects.namespace);
        for name in orphans {
            let Some(facts) = objects
                .secrets
                .get(name)
                .filter(|facts| is_pod_secret(&facts.name))
            else {
                continue;
            };
            let params = DeleteParams::default().preconditions(Preconditions {
                resource_version: Some(facts.version.clone()),
                uid: None,
            });
            match api.delete(name, &params).await {
                // Gone, or changed since: then it is looked at again.
                Err(error) if api::is_gone(&error) || api::is_conflict(&error) => {}
                Err(error) => return Err(error.into()),
                Ok(_) => tracing::info!(
                    namespace = objects.namespace,
                    name,
                    "removed the Secret of a pod that is gone"
                ),
            }
        }
        Ok(())
    }
}

fn memo(namespace: &str, name: &str) -> String {
    format!("{namespace}/{name}")
}

fn owned(secret: &Secret, wanted: &PodSecret) -> bool {
    let references = secret
        .metadata
        .owner_references
        .as_deref()
        .unwrap_or_default();
    references.iter().any(|owner| owner.uid == wanted.pod.uid) && secret.immutable != Some(true)
}

/// The annotation by which a Secret consents to hosts.
fn consent(secret: &Secret) -> Option<String> {
    secret.metadata.annotations.as_ref()?.get(HOSTS).cloned()
}

fn status_key(secret: &Secret) -> Option<StatusKey> {
    let bytes = secret.data.as_ref()?.get(STATUS_KEY)?;
    StatusKey::from_hex(std::str::from_utf8(&bytes.0).ok()?.trim())
}
