//! Keeps the Secret, the webhook configurations and the server in step.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use kube::{Api, Client};
use serde_json::{Value, json};

use super::{Due, SECRET, Served, State};
use crate::api;
use crate::control::MANAGER;

/// How often it is looked at: a configuration that was applied anew, without our authority, refuses
/// every pod until it is mended.
const EVERY: Duration = Duration::from_secs(2);
/// Both webhook configurations have this name.
const CONFIGURATION: &str = "exeat";

/// What keeps them.
pub(crate) struct Keeper {
    client: Client,
    secrets: Api<Secret>,
    names: Vec<String>,
    served: Arc<Served>,
}

// === impl Keeper ===

impl Keeper {
    pub(crate) fn new(
        client: Client,
        namespace: &str,
        names: Vec<String>,
        served: Arc<Served>,
    ) -> Self {
        Self {
            secrets: Api::namespaced(client.clone(), namespace),
            client,
            names,
            served,
        }
    }

    /// Every replica: serves what the Secret says, for ever.
    pub(crate) async fn follow(&self) {
        loop {
            if let Err(error) = self.load().await {
                tracing::warn!(
                    error = format!("{error:#}"),
                    "certificates not read; trying again"
                );
            }
            tokio::time::sleep(EVERY).await;
        }
    }

    async fn load(&self) -> Result<()> {
        let secret = self.secrets.get_opt(SECRET).await?;
        if let Some(state) = secret.and_then(|s| s.data).as_ref().and_then(State::read) {
            self.served.load(&state)?;
        }
        Ok(())
    }

    /// The leader: makes and renews them, for ever.
    pub(crate) async fn lead(&self) {
        loop {
            if let Err(error) = self.look().await {
                tracing::warn!(
                    error = format!("{error:#}"),
                    "certificates not kept; trying again"
                );
            }
            tokio::time::sleep(EVERY).await;
        }
    }

    /// One look: what is due is done, written, served, and told to the API server.
    pub(crate) async fn look(&self) -> Result<State> {
        let now = k8s_openapi::jiff::Timestamp::now().as_second();
        let secret = self
            .secrets
            .get_opt(SECRET)
            .await
            .context("reading the Secret")?;
        let read = secret
            .as_ref()
            .and_then(|s| s.data.as_ref())
            .and_then(State::read);
        let state = match read {
            None => {
                tracing::info!("making the first certificates");
                let state = State::new(now, &self.names)?;
                self.write(&state, secret).await?;
                state
            }
            Some(mut state) => {
                let due = state.due(now, &self.names);
                if due != Due::Nothing {
                    tracing::info!(?due, "renewing certificates");
                    state.step(due, now, &self.names)?;
                    // Trusted before it is served.
                    self.tell(&state).await?;
                    self.write(&state, secret).await?;
                }
                state
            }
        };
        self.tell(&state).await?;
        self.served.load(&state)?;
        Ok(state)
    }

    async fn write(&self, state: &State, existing: Option<Secret>) -> Result<()> {
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some(SECRET.to_owned()),
                resource_version: existing
                    .as_ref()
                    .and_then(|secret| secret.metadata.resource_version.clone()),
                ..ObjectMeta::default()
            },
            type_: Some("kubernetes.io/tls".to_owned()),
            data: Some(state.data()),
            ..Secret::default()
        };
        let params = PostParams {
            field_manager: Some(MANAGER.to_owned()),
            ..PostParams::default()
        };
        if existing.is_some() {
            self.secrets.replace(SECRET, &params, &secret).await
        } else {
            self.secrets.create(&params, &secret).await
        }
        .context("writing the Secret")?;
        Ok(())
    }

    /// Puts the authorities into both webhook configurations.
    async fn tell(&self, state: &State) -> Result<()> {
        let bundle = STANDARD.encode(state.bundle());
        for kind in [
            "MutatingWebhookConfiguration",
            "ValidatingWebhookConfiguration",
        ] {
            let kind = GroupVersionKind::gvk("admissionregistration.k8s.io", "v1", kind);
            let resource = ApiResource::from_gvk(&kind);
            let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &resource);
            let Some(found) = api.get_opt(CONFIGURATION).await? else {
                continue;
            };
            let Some(patch) = patch(&found.data, &bundle) else {
                continue;
            };
            let patch: Patch<Value> = Patch::Json(serde_json::from_value(patch)?);
            match api
                .patch(CONFIGURATION, &PatchParams::default(), &patch)
                .await
            {
                // It was changed in between: the next look finds it.
                Err(error) if api::is_invalid(&error) || api::is_gone(&error) => {}
                other => {
                    other.with_context(|| format!("telling {} of the authority", kind.kind))?;
                    tracing::info!(kind = kind.kind, "put the authority into the configuration");
                }
            }
        }
        Ok(())
    }
}

/// What makes a configuration trust these authorities; `None` if it does.
fn patch(configuration: &Value, bundle: &str) -> Option<Value> {
    let hooks = configuration.get("webhooks")?.as_array()?;
    let mut operations = Vec::new();
    for (at, hook) in hooks.iter().enumerate() {
        if hook
            .pointer("/clientConfig/caBundle")
            .and_then(Value::as_str)
            == Some(bundle)
        {
            continue;
        }
        operations.push(json!({
            "op": "test", "path": format!("/webhooks/{at}/name"), "value": hook.get("name"),
        }));
        operations.push(json!({
            "op": "add", "path": format!("/webhooks/{at}/clientConfig/caBundle"), "value": bundle,
        }));
    }
    (!operations.is_empty()).then_some(Value::Array(operations))
}
