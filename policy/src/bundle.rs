//! The policies of one namespace as the operator hands them to the gates: canonical JSON with a
//! generation that only grows and a digest of what it says.
//!
//! Pure, and without compression, which is the callers'. In doubt it is refused: what is not in the
//! one canonical spelling, or does not have the digest that it claims, is no bundle.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::canonical;
use crate::compile::compile;
use crate::diagnostics::Diagnostics;
use crate::document::{API_VERSION, PolicyKind, is_dns_name};
use crate::plan::Plan;
use crate::source::Source;

/// The form of bundle that is read and written here.
pub const SCHEMA_VERSION: u64 = 1;
/// The entry of the `ConfigMap` that holds it, compressed with gzip, and so the name of the file.
pub const FILE_NAME: &str = "bundle.json.gz";
/// Uncompressed. A `ConfigMap` holds a mebibyte, and policies compress to a tenth; what is far
/// larger is no bundle but an attempt at the reader's memory.
pub const MAX_BYTES: usize = 16 * 1024 * 1024;
/// More policies than one namespace has.
pub const MAX_POLICIES: usize = 1000;

/// The policies and guardrails of a namespace.
#[derive(Debug, Clone, PartialEq)]
pub struct Bundle {
    namespace: String,
    generation: u64,
    digest: String,
    policies: Vec<Value>,
    guardrails: Vec<Value>,
}

/// Which bundle a plan was made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundleId {
    /// It only grows.
    pub generation: u64,
    /// `sha256:…` of what it says.
    pub digest: Arc<str>,
}

/// Why something is no bundle.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// Larger than any bundle.
    #[error("the bundle is over {MAX_BYTES} bytes")]
    TooLarge,
    /// More policies than any namespace has.
    #[error("the bundle has more than {MAX_POLICIES} policies")]
    TooMany,
    /// Not JSON.
    #[error("the bundle is not JSON: {0}")]
    Json(String),
    /// Of a later version, or none.
    #[error("the bundle has schemaVersion {0}, and this version reads {SCHEMA_VERSION}")]
    Version(String),
    /// A field is missing or is what it can't be.
    #[error("the bundle is malformed: {0}")]
    Shape(String),
    /// It claims to say something else than it says.
    #[error("the bundle's digest is {claimed}, but what it says has {actual}")]
    Digest {
        /// As written.
        claimed: String,
        /// Of what is written.
        actual: String,
    },
    /// JSON in another spelling: keys twice, unsorted, spaces.
    #[error("the bundle is not in canonical form")]
    NotCanonical,
    /// Two of one name.
    #[error("the bundle has two of {0}")]
    Duplicate(String),
}

// === impl Bundle ===

impl Bundle {
    /// A bundle of these objects. Only what is policy is kept of them: `apiVersion`, `kind`, name,
    /// namespace and `spec`. They are not compiled here.
    pub fn new(
        namespace: &str,
        generation: u64,
        policies: Vec<Value>,
        guardrails: Vec<Value>,
    ) -> Result<Self, BundleError> {
        if !is_dns_name(namespace) || namespace.contains('.') {
            return Err(BundleError::Shape(format!(
                "`{namespace}` is no name of a namespace"
            )));
        }
        if policies.len() + guardrails.len() > MAX_POLICIES {
            return Err(BundleError::TooMany);
        }
        let policies = objects(policies, PolicyKind::ToolPolicy, Some(namespace))?;
        let guardrails = objects(guardrails, PolicyKind::ClusterToolPolicy, None)?;
        let content = json!({
            "schemaVersion": SCHEMA_VERSION,
            "namespace": namespace,
            "policies": policies,
            "guardrails": guardrails,
        });
        let bundle = Self {
            namespace: namespace.to_owned(),
            generation,
            digest: canonical::digest(&content),
            policies,
            guardrails,
        };
        if bundle.to_bytes().len() > MAX_BYTES {
            return Err(BundleError::TooLarge);
        }
        Ok(bundle)
    }

    /// The same under another generation.
    #[must_use]
    pub fn with_generation(mut self, generation: u64) -> Self {
        self.generation = generation;
        self
    }

    /// Reads canonical JSON.
    pub fn read(bytes: &[u8]) -> Result<Self, BundleError> {
        if bytes.len() > MAX_BYTES {
            return Err(BundleError::TooLarge);
        }
        let value: Value =
            serde_json::from_slice(bytes).map_err(|error| BundleError::Json(error.to_string()))?;
        let Value::Object(mut top) = value else {
            return Err(BundleError::Shape("it is not an object".to_owned()));
        };
        let mut take = |field: &str| {
            top.remove(field)
                .ok_or_else(|| BundleError::Shape(format!("it has no `{field}`")))
        };
        let version = take("schemaVersion")?;
        if version.as_u64() != Some(SCHEMA_VERSION) {
            let shown = version.to_string().chars().take(20).collect();
            return Err(BundleError::Version(shown));
        }
        let wrong = |field: &str| BundleError::Shape(format!("`{field}` is not what it should be"));
        let text = |field: &str, value: Value| match value {
            Value::String(text) => Ok(text),
            _ => Err(wrong(field)),
        };
        let list = |field: &str, value: Value| match value {
            Value::Array(list) => Ok(list),
            _ => Err(wrong(field)),
        };
        let namespace = text("namespace", take("namespace")?)?;
        let generation = take("generation")?
            .as_u64()
            .ok_or_else(|| wrong("generation"))?;
        let claimed = text("digest", take("digest")?)?;
        let policies = list("policies", take("policies")?)?;
        let guardrails = list("guardrails", take("guardrails")?)?;
        if let Some(field) = top.keys().next() {
            return Err(BundleError::Shape(format!("it has no field `{field}`")));
        }
        let bundle = Self::new(&namespace, generation, policies, guardrails)?;
        if bundle.digest != claimed {
            return Err(BundleError::Digest {
                claimed: claimed.chars().take(80).collect(),
                actual: bundle.digest,
            });
        }
        // Whoever reads these bytes otherwise, reads the same.
        if bundle.to_bytes() != bytes {
            return Err(BundleError::NotCanonical);
        }
        Ok(bundle)
    }

    /// As canonical JSON.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        canonical::text(&json!({
            "schemaVersion": SCHEMA_VERSION,
            "namespace": self.namespace,
            "generation": self.generation,
            "digest": self.digest,
            "policies": self.policies,
            "guardrails": self.guardrails,
        }))
        .into_bytes()
    }

    /// Its name.
    #[must_use]
    pub fn id(&self) -> BundleId {
        BundleId {
            generation: self.generation,
            digest: Arc::from(self.digest.as_str()),
        }
    }

    /// Compiles what is for a pod with these labels; without labels, everything. `generation` is the
    /// plan's own; the plan also knows this bundle's.
    pub fn compile(
        &self,
        labels: Option<&BTreeMap<String, String>>,
        generation: u64,
    ) -> Result<Plan, Diagnostics> {
        let sources: Vec<Source> = self
            .policies
            .iter()
            .chain(&self.guardrails)
            .map(source)
            .collect();
        Ok(compile(&sources, labels, generation)?.made_from(self.id()))
    }

    /// Whose policies these are.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Which generation of them.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// `sha256:…` of what they say, whatever the generation.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The policies, by name.
    #[must_use]
    pub fn policies(&self) -> &[Value] {
        &self.policies
    }

    /// The guardrails, by name.
    #[must_use]
    pub fn guardrails(&self) -> &[Value] {
        &self.guardrails
    }
}

/// One object as a source that [`crate::check()`] and [`compile`] take.
#[must_use]
pub fn source(object: &Value) -> Source {
    let word = |of: &Value| of.as_str().unwrap_or_default().to_owned();
    let name = format!(
        "{}/{}",
        word(&object["kind"]),
        word(&object["metadata"]["name"])
    );
    let mut text = String::new();
    for c in format!("{object:#}").chars() {
        // JSON lets these stand in a string, YAML does not.
        if matches!(
            c,
            '\u{7f}'..='\u{9f}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}'
        ) {
            let escape = format!("\\u{:04x}", u32::from(c));
            text.push_str(&escape);
        } else {
            text.push(c);
        }
    }
    Source::new(name, text)
}

fn objects(
    objects: Vec<Value>,
    kind: PolicyKind,
    namespace: Option<&str>,
) -> Result<Vec<Value>, BundleError> {
    let mut kept = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for object in objects {
        let (name, object) = object_of(object, kind, namespace)?;
        if !seen.insert(name.clone()) {
            return Err(BundleError::Duplicate(format!("{} {name}", kind.as_str())));
        }
        kept.insert(name, object);
    }
    Ok(kept.into_values().collect())
}

fn object_of(
    mut object: Value,
    kind: PolicyKind,
    namespace: Option<&str>,
) -> Result<(String, Value), BundleError> {
    let what = kind.as_str();
    let wrong = |field: &str| BundleError::Shape(format!("a {what} has a wrong or no `{field}`"));
    if object["apiVersion"] != API_VERSION {
        return Err(wrong("apiVersion"));
    }
    if object["kind"] != what {
        return Err(wrong("kind"));
    }
    let name = object["metadata"]["name"]
        .as_str()
        .filter(|name| is_dns_name(name))
        .ok_or_else(|| wrong("metadata.name"))?
        .to_owned();
    let mut metadata = Map::new();
    metadata.insert("name".to_owned(), name.as_str().into());
    if object["metadata"].get("namespace").and_then(Value::as_str) != namespace {
        return Err(wrong("metadata.namespace"));
    }
    if let Some(namespace) = namespace {
        metadata.insert("namespace".to_owned(), namespace.into());
    }
    let spec = object
        .get_mut("spec")
        .map(Value::take)
        .filter(Value::is_object)
        .ok_or_else(|| wrong("spec"))?;
    let kept = json!({
        "apiVersion": API_VERSION,
        "kind": what,
        "metadata": metadata,
        "spec": spec,
    });
    Ok((name, kept))
}

#[cfg(test)]
mod tests;
