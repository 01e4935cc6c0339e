//! What is written to the API: the bundle, nudges, statuses.
//!
//! By server-side apply, under one name and with force: these fields are the operator's, and what
//! others put there goes.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use exeat_policy::bundle::Bundle;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};

use super::reduce::{BUNDLE_KEY, NUDGE, SEAL, TOLD};
use super::{CONFIG_MAP, MANAGER};
use crate::api;
use crate::certificates::Seal;

/// Patches of pods on their way at a time, for one namespace.
const NUDGES: usize = 16;

/// What writes.
pub(super) struct Applier {
    client: Client,
}

// === impl Applier ===

impl Applier {
    pub(super) fn new(client: Client) -> Self {
        Self { client }
    }

    pub(super) async fn write(
        &self,
        bundle: &Bundle,
        packed: &[u8],
        seal: &Seal,
    ) -> Result<(), kube::Error> {
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), bundle.namespace());
        let object = json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": CONFIG_MAP,
                "namespace": bundle.namespace(),
                "labels": {"app.kubernetes.io/managed-by": MANAGER},
                "annotations": {
                    "exeat.dev/generation": bundle.generation().to_string(),
                    "exeat.dev/digest": bundle.digest(),
                    SEAL: seal.of(bundle),
                },
            },
            "binaryData": {BUNDLE_KEY: STANDARD.encode(packed)},
        });
        let params = PatchParams::apply(MANAGER).force();
        match maps
            .patch(CONFIG_MAP, &params, &Patch::Apply(&object))
            .await
        {
            Err(error) if api::is_invalid(&error) => {
                // Somebody marked it immutable. It is ours: away with it.
                self.remove(bundle.namespace()).await?;
                maps.patch(CONFIG_MAP, &params, &Patch::Apply(&object))
                    .await?;
            }
            other => {
                other?;
            }
        }
        Ok(())
    }

    pub(super) async fn remove(&self, namespace: &str) -> Result<(), kube::Error> {
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), namespace);
        match maps.delete(CONFIG_MAP, &DeleteParams::default()).await {
            Err(error) if !api::is_gone(&error) => Err(error),
            _ => Ok(()),
        }
    }

    /// Touches pods: their kubelets then look at their volumes at once, and not within a minute.
    pub(super) async fn nudge(
        &self,
        namespace: &str,
        generation: &str,
        pods: Vec<(String, Option<String>)>,
    ) -> Result<(), kube::Error> {
        let api: &Api<Pod> = &Api::namespaced(self.client.clone(), namespace);
        stream::iter(pods)
            .map(|(name, credentials)| async move {
                let mut annotations = BTreeMap::from([(NUDGE, generation.to_owned())]);
                if let Some(version) = credentials {
                    annotations.insert(TOLD, version);
                }
                let patch = json!({"metadata": {"annotations": annotations}});
                let params = PatchParams {
                    field_manager: Some(MANAGER.to_owned()),
                    ..PatchParams::default()
                };
                match api
                    .patch_metadata(&name, &params, &Patch::Merge(&patch))
                    .await
                {
                    Err(error) if !api::is_gone(&error) => Err(error),
                    _ => Ok(()),
                }
            })
            .buffer_unordered(NUDGES)
            .try_collect::<()>()
            .await
    }

    pub(super) async fn status(
        &self,
        namespace: &str,
        name: &str,
        status: &Value,
    ) -> Result<(), kube::Error> {
        let api = api::tool_policies_in(&self.client, namespace);
        let object = json!({
            "apiVersion": format!("{}/{}", api::GROUP, api::VERSION),
            "kind": api::TOOL_POLICY,
            "metadata": {"name": name, "namespace": namespace},
            "status": status,
        });
        apply_status(&api, name, &object).await
    }

    pub(super) async fn guardrail_status(
        &self,
        name: &str,
        status: &Value,
    ) -> Result<(), kube::Error> {
        let api = api::cluster_tool_policies(&self.client);
        let object = json!({
            "apiVersion": format!("{}/{}", api::GROUP, api::VERSION),
            "kind": api::CLUSTER_TOOL_POLICY,
            "metadata": {"name": name},
            "status": status,
        });
        apply_status(&api, name, &object).await
    }
}

async fn apply_status(
    api: &Api<kube::core::DynamicObject>,
    name: &str,
    object: &Value,
) -> Result<(), kube::Error> {
    let params = PatchParams::apply(MANAGER).force();
    match api.patch_status(name, &params, &Patch::Apply(object)).await {
        // A policy that was deleted in the meantime needs no status.
        Err(error) if !api::is_gone(&error) => Err(error),
        _ => Ok(()),
    }
}
