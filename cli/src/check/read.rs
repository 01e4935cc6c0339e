//! Reads from the API server, as JSON: what is there, what is not, what may not be read.
//!
//! Nothing is ever written: the one POST of a pod is a dry run, and reviews of access keep nothing.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use exeat_inject::powers::TOO_MUCH;
use futures_util::{StreamExt as _, stream};
use http::Request;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::{Value, json};

/// An API server that does not answer within this is not there.
const PATIENCE: Duration = Duration::from_secs(15);
/// Objects of a list at a time, as kubectl asks for them.
const PAGE: usize = 500;
/// A namespace has no more pages of pods than this: 10 000.
const MAX_PAGES: usize = 20;
/// Questions on their way at a time.
const PARALLEL: usize = 8;

/// What came of reading something.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Read {
    /// It is there.
    Found(Value),
    /// It is not.
    Absent,
    /// The caller may not.
    Forbidden(Right),
    /// Anything else, in the API server's words.
    Failed(String),
}

/// What the caller would have to be allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Right {
    verb: &'static str,
    resource: String,
    namespace: Option<String>,
}

/// Who reads.
pub(super) struct Reader {
    client: Client,
    server: String,
    namespace: String,
}

// === impl Right ===

impl Right {
    pub(super) fn new(verb: &'static str, resource: impl Into<String>) -> Self {
        Self {
            verb,
            resource: resource.into(),
            namespace: None,
        }
    }

    pub(super) fn of(mut self, namespace: &str) -> Self {
        self.namespace = Some(namespace.to_owned());
        self
    }
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.verb, self.resource)?;
        match &self.namespace {
            Some(namespace) => write!(f, " -n {namespace}"),
            None => Ok(()),
        }
    }
}

// === impl Reader ===

impl Reader {
    /// As whoever the kubeconfig says.
    pub(super) async fn new(file: Option<&Path>, context: Option<&str>) -> anyhow::Result<Self> {
        // Another part of the program may have said so already, and the same.
        drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
        let options = KubeConfigOptions {
            context: context.map(str::to_owned),
            ..KubeConfigOptions::default()
        };
        let mut config = match file {
            Some(path) => {
                let read = Kubeconfig::read_from(path)
                    .with_context(|| format!("can't read the kubeconfig {}", path.display()))?;
                Config::from_custom_kubeconfig(read, &options).await?
            }
            None if context.is_some() => Config::from_kubeconfig(&options).await?,
            None => Config::infer().await.context(
                "no cluster to ask; name one with --kubeconfig or in the variable KUBECONFIG",
            )?,
        };
        config.connect_timeout = Some(PATIENCE);
        config.read_timeout = Some(PATIENCE);
        // A gate that is not there is an answer, and asking again for minutes changes nothing.
        config.default_retry = false;
        let server = config.cluster_url.to_string();
        let namespace = config.default_namespace.clone();
        Ok(Self {
            client: Client::try_from(config)?,
            server,
            namespace,
        })
    }

    /// Whom it asks.
    pub(super) fn server(&self) -> &str {
        self.server.trim_end_matches('/')
    }

    /// The namespace of the context.
    pub(super) fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Whether anybody answers there at all.
    pub(super) async fn reach(&self) -> anyhow::Result<()> {
        match within(self.client.request::<Value>(get("/version")?)).await {
            // It answers, if only with a refusal.
            Ok(_) | Err(kube::Error::Api(_)) => Ok(()),
            Err(error) => Err(error).with_context(|| format!("{} does not answer", self.server())),
        }
    }

    /// One object.
    pub(super) async fn get(&self, path: &str, right: Right) -> Read {
        match get(path) {
            Ok(request) => read(within(self.client.request(request)).await, right),
            Err(error) => Read::Failed(error.to_string()),
        }
    }

    /// A page that is no JSON.
    pub(super) async fn text(&self, path: &str, right: Right) -> Read {
        match get(path) {
            Ok(request) => {
                let text = within(self.client.request_text(request)).await;
                read(text.map(Value::String), right)
            }
            Err(error) => Read::Failed(error.to_string()),
        }
    }

    /// All objects of a list, as one list.
    pub(super) async fn list(&self, path: &str, right: Right) -> Read {
        let mut all = Vec::new();
        let mut next = String::new();
        for _ in 0..MAX_PAGES {
            let path = format!("{path}?limit={PAGE}{next}");
            match self.get(&path, right.clone()).await {
                Read::Found(mut page) => {
                    if let Some(Value::Array(items)) = page.get_mut("items").map(Value::take) {
                        all.extend(items);
                    }
                    match page["metadata"]["continue"].as_str() {
                        Some(token) if !token.is_empty() => next = format!("&continue={token}"),
                        _ => return Read::Found(Value::Array(all)),
                    }
                }
                other => return other,
            }
        }
        Read::Failed(format!("there are more than {}", MAX_PAGES * PAGE))
    }

    /// What would become of a plain pod: a dry run, which goes through admission and keeps nothing.
    pub(super) async fn probe(&self, namespace: &str) -> Read {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"generateName": "check-", "namespace": namespace},
            "spec": {
                "securityContext": {
                    "runAsUser": 1000, "runAsNonRoot": true,
                    "seccompProfile": {"type": "RuntimeDefault"},
                },
                "containers": [{
                    "name": "check", "image": "registry.k8s.io/pause:3.10",
                    "securityContext": {
                        "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]},
                    },
                }],
            },
        });
        let path = format!("/api/v1/namespaces/{namespace}/pods?dryRun=All");
        self.post(&path, &pod, Right::new("create", "pods").of(namespace))
            .await
    }

    /// What an account may do that no governed pod's should, as a list of words.
    pub(super) async fn powers(&self, namespace: &str, account: &str) -> Read {
        let right = || Right::new("create", "subjectaccessreviews.authorization.k8s.io");
        let answers: Vec<Read> = stream::iter(TOO_MUCH)
            .map(|power| {
                let review = json!({
                    "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
                    "spec": {
                        "user": format!("system:serviceaccount:{namespace}:{account}"),
                        "groups": [
                            "system:serviceaccounts",
                            format!("system:serviceaccounts:{namespace}"),
                            "system:authenticated",
                        ],
                        "resourceAttributes": {
                            "namespace": namespace, "verb": power.verb, "group": power.group,
                            "resource": power.resource, "subresource": power.subresource,
                        },
                    },
                });
                async move {
                    let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
                    self.post(path, &review, right()).await
                }
            })
            .buffered(PARALLEL)
            .collect()
            .await;
        let mut powers: Vec<Value> = Vec::new();
        for (power, answer) in TOO_MUCH.iter().zip(answers) {
            match answer {
                Read::Found(review) => {
                    let meaning = Value::from(power.meaning);
                    if review["status"]["allowed"] == true && !powers.contains(&meaning) {
                        powers.push(meaning);
                    }
                }
                other => return other,
            }
        }
        Read::Found(Value::Array(powers))
    }

    async fn post(&self, path: &str, body: &Value, right: Right) -> Read {
        let request = Request::post(path)
            .header("content-type", "application/json")
            .body(body.to_string().into_bytes());
        match request {
            Ok(request) => read(within(self.client.request(request)).await, right),
            Err(error) => Read::Failed(error.to_string()),
        }
    }
}

/// The client's own timeouts are of connections, not of answers.
async fn within<T>(answer: impl Future<Output = Result<T, kube::Error>>) -> Result<T, kube::Error> {
    tokio::time::timeout(PATIENCE, Box::pin(answer))
        .await
        .unwrap_or_else(|_| {
            let late = format!("no answer within {} s", PATIENCE.as_secs());
            Err(kube::Error::Service(late.into()))
        })
}

fn get(path: &str) -> Result<Request<Vec<u8>>, http::Error> {
    Request::get(path).body(Vec::new())
}

fn read(answer: Result<Value, kube::Error>, right: Right) -> Read {
    match answer {
        Ok(value) => Read::Found(value),
        Err(kube::Error::Api(status)) if status.code == 404 => Read::Absent,
        // A webhook and an admission policy refuse with 403 too, and say so.
        Err(kube::Error::Api(status)) if status.code == 403 && is_access(&status.message) => {
            Read::Forbidden(right)
        }
        Err(kube::Error::Api(status)) => Read::Failed(status.message.clone()),
        Err(error) => Read::Failed(error.to_string()),
    }
}

/// RBAC's own words: `pods is forbidden: User "x" cannot create resource "pods" in API group …`.
fn is_access(message: &str) -> bool {
    message.contains(" cannot ") && message.contains("User \"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_admission_refuses_is_not_what_may_not_be_read() {
        assert!(is_access(
            "pods is forbidden: User \"jane\" cannot create resource \"pods\" in API group \"\" in the namespace \"a\""
        ));
        assert!(!is_access(
            "admission webhook \"pods.exeat.dev\" denied the request: spec.hostNetwork: may not be set"
        ));
        assert!(!is_access(
            "pods \"check-x\" is forbidden: violates PodSecurity \"restricted:latest\": …"
        ));
    }

    #[test]
    fn rights_are_what_kubectl_can_ask_about() {
        let right = Right::new("list", "toolpolicies.exeat.dev").of("agents");
        assert_eq!(right.to_string(), "list toolpolicies.exeat.dev -n agents");
    }
}
