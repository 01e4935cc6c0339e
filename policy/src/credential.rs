//! What a rule says about a credential: where its secret lies and how it is put into a request.
//! The secret itself never comes here.

use std::sync::Arc;

use http::HeaderName;

/// The name of the file, and the key of a pod's own Secret, that holds a credential of a policy: the
/// policy's name (without namespace), a dot, the credential's, which has no dot.
#[must_use]
pub fn key(policy: &str, credential: &str) -> String {
    format!("{policy}.{credential}")
}

/// A credential of a policy.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Credential {
    /// Its name, unique in the policy.
    pub name: Arc<str>,
    /// Where the secret lies.
    pub secret: SecretRef,
    /// How it is put into a request.
    pub inject: Inject,
}

/// A key of a Kubernetes Secret.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SecretRef {
    /// The Secret.
    pub name: Arc<str>,
    /// The key in it.
    pub key: Arc<str>,
}

/// How a secret is put into a request.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Inject {
    /// `authorization: Bearer <secret>`.
    Bearer,
    /// `authorization: Basic base64(<username>:<secret>)`.
    Basic {
        /// The user name.
        username: Arc<str>,
    },
    /// `<name>: <prefix><secret>`.
    Header {
        /// The header.
        name: HeaderName,
        /// What stands before the secret.
        prefix: Option<Arc<str>>,
    },
    /// `?<name>=<secret>`.
    Query {
        /// The parameter.
        name: Arc<str>,
    },
}
