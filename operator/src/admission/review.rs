//! The protocol of admission: what is asked and how it is answered.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};

/// The API server cuts long messages in odd places; this is far more than anyone reads.
const MAX_MESSAGE: usize = 8 * 1024;

/// What is asked.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Review {
    pub(super) uid: String,
    #[serde(default)]
    pub(super) sub_resource: String,
    pub(super) resource: Resource,
    #[serde(default)]
    pub(super) name: String,
    #[serde(default)]
    pub(super) namespace: String,
    pub(super) operation: String,
    #[serde(default)]
    pub(super) object: Value,
    #[serde(default)]
    pub(super) old_object: Value,
    #[serde(default)]
    pub(super) dry_run: bool,
}

#[derive(Debug, Deserialize)]
pub(super) struct Resource {
    pub(super) resource: String,
}

#[derive(Deserialize)]
struct Envelope {
    request: Review,
}

/// How it is answered.
#[derive(Debug)]
pub(super) struct Answer {
    verdict: Result<Option<Value>, String>,
    warnings: Vec<String>,
}

// === impl Review ===

impl Review {
    pub(super) fn read(body: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice::<Envelope>(body).map(|envelope| envelope.request)
    }

    /// `pods`, `pods/exec`.
    pub(super) fn target(&self) -> String {
        if self.sub_resource.is_empty() {
            self.resource.resource.clone()
        } else {
            format!("{}/{}", self.resource.resource, self.sub_resource)
        }
    }
}

// === impl Answer ===

impl Answer {
    pub(super) fn allow() -> Self {
        Self {
            verdict: Ok(None),
            warnings: Vec::new(),
        }
    }

    /// Allowed, with this JSON Patch.
    pub(super) fn patch(patch: Value) -> Self {
        let empty = patch.as_array().is_none_or(Vec::is_empty);
        Self {
            verdict: Ok((!empty).then_some(patch)),
            warnings: Vec::new(),
        }
    }

    pub(super) fn refuse(message: impl Into<String>) -> Self {
        let mut message = message.into();
        if message.len() > MAX_MESSAGE {
            message.truncate(message.floor_char_boundary(MAX_MESSAGE));
            message.push('…');
        }
        Self {
            verdict: Err(message),
            warnings: Vec::new(),
        }
    }

    pub(super) fn warn(mut self, warnings: Vec<String>) -> Self {
        self.warnings.extend(warnings);
        self
    }

    pub(super) fn allowed(&self) -> bool {
        self.verdict.is_ok()
    }

    pub(super) fn message(&self) -> &str {
        self.verdict.as_ref().err().map_or("", String::as_str)
    }

    pub(super) fn to_json(&self, uid: &str) -> Value {
        let mut response = json!({"uid": uid, "allowed": self.allowed()});
        match &self.verdict {
            Ok(None) => {}
            Ok(Some(patch)) => {
                response["patchType"] = "JSONPatch".into();
                response["patch"] = STANDARD.encode(patch.to_string()).into();
            }
            Err(message) => {
                response["status"] =
                    json!({"code": 403, "reason": "Forbidden", "message": message});
            }
        }
        if !self.warnings.is_empty() {
            response["warnings"] = json!(self.warnings);
        }
        json!({
            "apiVersion": "admission.k8s.io/v1",
            "kind": "AdmissionReview",
            "response": response,
        })
    }
}
