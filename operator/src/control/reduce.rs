//! From objects of the API to what counts about them.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::sync::Arc;

use exeat_policy::bundle::Bundle;
use flate2::read::GzDecoder;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::{DynamicObject, PartialObjectMeta};
use serde_json::{Value, json};

use super::cache::{Seen, Space};
use super::{CONFIG_MAP, GOVERNED};
use crate::certificates::Seal;
use crate::desired::{Current, Pod, Policy, SecretFacts};

/// The key of the ConfigMap that holds the bundle.
pub(crate) const BUNDLE_KEY: &str = "bundle.json.gz";
/// What tells that the operator wrote it: a code that needs its key.
pub(crate) const SEAL: &str = "exeat.dev/seal";
/// What wakes the kubelet of a pod for a new bundle.
pub(crate) const NUDGE: &str = "exeat.dev/bundle";
/// What wakes it for new credentials.
pub(crate) const TOLD: &str = "exeat.dev/credentials";
/// The hosts that a Secret consents to be sent to.
pub(crate) const HOSTS: &str = "exeat.dev/hosts";
/// The pod that a Secret was made for.
pub(crate) const POD_UID: &str = "exeat.dev/pod-uid";
/// The container that is the gate, and the volume with its credentials.
const SIDECAR: &str = "exeat-sidecar";
const CREDENTIALS: &str = "exeat-credentials";
/// Policies are text that people write; 64 MiB of it, unpacked, is an attack.
const MAX_UNPACKED: u64 = 64 * 1024 * 1024;

/// The last applied form, which `kubectl` leaves, is no part of a policy; nor is anything else that
/// the API server keeps about it.
pub(super) fn policy(object: &DynamicObject, kind: &str) -> Policy {
    let mut metadata = json!({ "name": object.metadata.name });
    if let Some(namespace) = &object.metadata.namespace {
        metadata["namespace"] = json!(namespace);
    }
    Policy {
        name: object.metadata.name.clone().unwrap_or_default(),
        uid: object.metadata.uid.clone().unwrap_or_default(),
        generation: object.metadata.generation.unwrap_or(0),
        created: object
            .metadata
            .creation_timestamp
            .as_ref()
            .map_or(0, |time| time.0.as_second()),
        document: json!({
            "apiVersion": "exeat.dev/v1alpha1",
            "kind": kind,
            "metadata": metadata,
            "spec": object.data.get("spec").cloned().unwrap_or_else(|| json!({})),
        }),
        status: object.data.get("status").cloned().unwrap_or(Value::Null),
    }
}

pub(super) fn secret(object: &PartialObjectMeta<core::Secret>) -> SecretFacts {
    let metadata = &object.metadata;
    SecretFacts {
        name: metadata.name.clone().unwrap_or_default(),
        version: metadata.resource_version.clone().unwrap_or_default(),
        hosts: annotation(metadata, HOSTS),
        pod_uid: metadata
            .labels
            .as_ref()
            .and_then(|labels| labels.get(POD_UID).cloned()),
    }
}

pub(super) fn space(object: &PartialObjectMeta<core::Namespace>) -> Space {
    let labels: BTreeMap<String, String> = object.metadata.labels.clone().unwrap_or_default();
    Space {
        // A namespace that is being ended takes no new objects.
        governed: labels.get(GOVERNED).is_some_and(|value| value == "true")
            && object.metadata.deletion_timestamp.is_none(),
        labels,
    }
}

pub(super) fn pod(object: &core::Pod) -> Pod {
    let spec = object.spec.as_ref();
    let status = object.status.as_ref();
    let ended = status
        .and_then(|status| status.phase.as_deref())
        .is_some_and(|phase| matches!(phase, "Succeeded" | "Failed"));
    let injected = spec
        .and_then(|spec| spec.init_containers.as_ref())
        .is_some_and(|list| list.iter().any(|container| container.name == SIDECAR));
    let secret = spec
        .and_then(|spec| spec.volumes.as_ref())
        .and_then(|volumes| volumes.iter().find(|volume| volume.name == CREDENTIALS))
        .and_then(|volume| volume.secret.as_ref())
        .and_then(|secret| secret.secret_name.clone());
    Pod {
        name: object.metadata.name.clone().unwrap_or_default(),
        uid: object.metadata.uid.clone().unwrap_or_default(),
        labels: object.metadata.labels.clone().unwrap_or_default(),
        address: status.and_then(|status| status.pod_ip.clone()),
        injected,
        secret,
        ended,
        alive: !ended && object.metadata.deletion_timestamp.is_none(),
        nudged: annotation(&object.metadata, NUDGE),
        told: annotation(&object.metadata, TOLD),
    }
}

/// A ConfigMap counts as ours only if it is sealed and whole.
pub(super) fn bundle(object: &core::ConfigMap, seal: &Seal) -> Option<Seen> {
    if object.metadata.name.as_deref() != Some(CONFIG_MAP) {
        return None;
    }
    let namespace = object.metadata.namespace.as_deref().unwrap_or_default();
    let bytes = object
        .binary_data
        .as_ref()
        .and_then(|data| data.get(BUNDLE_KEY))
        .map(|bytes| bytes.0.as_slice())
        .unwrap_or_default();
    let read = unpack(bytes).and_then(|bytes| Bundle::read(&bytes).ok());
    let current = match read {
        Some(bundle)
            if bundle.namespace() == namespace
                && annotation(&object.metadata, SEAL)
                    .is_some_and(|found| seal.holds(&bundle, &found)) =>
        {
            Current::Ours(Arc::new(bundle))
        }
        Some(bundle) => Current::Foreign {
            generation: bundle.generation(),
        },
        None => Current::Foreign { generation: 0 },
    };
    Some(Seen {
        version: object.metadata.resource_version.clone().unwrap_or_default(),
        current,
    })
}

fn unpack(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    let read = GzDecoder::new(bytes)
        .take(MAX_UNPACKED + 1)
        .read_to_end(&mut text)
        .ok()?;
    (u64::try_from(read).ok()? <= MAX_UNPACKED).then_some(text)
}

fn annotation(metadata: &ObjectMeta, name: &str) -> Option<String> {
    metadata
        .annotations
        .as_ref()
        .and_then(|annotations| annotations.get(name).cloned())
}
