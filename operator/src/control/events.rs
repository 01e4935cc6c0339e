//! Events: told when something turns, not each time it is looked at.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};

use super::MANAGER;
use crate::api;
use crate::desired::Policy;
use crate::status::Transition;

/// The API server refuses notes that are longer.
const MAX_NOTE: usize = 1024;

/// What tells.
pub(super) struct Events {
    recorder: Recorder,
}

// === impl Events ===

impl Events {
    pub(super) fn new(client: Client, identity: &str) -> Self {
        let reporter = Reporter {
            controller: MANAGER.to_owned(),
            instance: Some(identity.to_owned()),
        };
        Self {
            recorder: Recorder::new(client, reporter),
        }
    }

    /// An Event that can't be written is logged and let go: the status says the same.
    pub(super) async fn publish(&self, namespace: &str, policy: &Policy, what: Transition) {
        let cluster = namespace.is_empty();
        let reference = ObjectReference {
            api_version: Some(format!("{}/{}", api::GROUP, api::VERSION)),
            kind: Some(
                if cluster {
                    api::CLUSTER_TOOL_POLICY
                } else {
                    api::TOOL_POLICY
                }
                .to_owned(),
            ),
            name: Some(policy.name.clone()),
            namespace: (!cluster).then(|| namespace.to_owned()),
            uid: Some(policy.uid.clone()),
            ..ObjectReference::default()
        };
        let mut note = what.message;
        if note.len() > MAX_NOTE {
            note.truncate(note.floor_char_boundary(MAX_NOTE - 4));
            note.push('…');
        }
        let event = Event {
            type_: if what.good {
                EventType::Normal
            } else {
                EventType::Warning
            },
            reason: what.reason,
            note: Some(note),
            action: what.condition.to_owned(),
            secondary: None,
        };
        if let Err(error) = self.recorder.publish(&event, &reference).await {
            tracing::warn!(policy = policy.name, %error, "event not written");
        }
    }
}
