//! A pod of the tests, and what is done from inside of it: always by the agent's own programs.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::{Cluster, eventually};

/// A pod starts within this, image and probes included, on a machine with other work to do.
const PATIENCE: Duration = Duration::from_secs(120);

/// A running pod with a container `agent`.
#[derive(Debug)]
pub struct Agent<'a> {
    cluster: &'a Cluster,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub pod: String,
}

/// What curl got.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status, 0 if there was none.
    pub status: u16,
    /// The body and whatever curl complained of.
    pub text: String,
}

// === impl Agent ===

impl<'a> Agent<'a> {
    /// A plain pod as a user would write it: nothing of Exeat is in it.
    #[must_use]
    pub fn plain(cluster: &Cluster, namespace: &str, name: &str) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": namespace, "labels": {"app": name}},
            "spec": {
                "automountServiceAccountToken": false,
                "terminationGracePeriodSeconds": 1,
                "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
                "containers": [{
                    "name": "agent",
                    "image": cluster.images.reference("test-agent"),
                    "imagePullPolicy": "Never",
                    "command": ["/bin/sleep", "infinity"],
                    "securityContext": {
                        "runAsUser": 1000, "runAsNonRoot": true, "allowPrivilegeEscalation": false,
                        "capabilities": {"drop": ["ALL"]},
                    },
                }],
            },
        })
    }

    /// Starts one and waits until it is ready.
    pub fn start(cluster: &'a Cluster, pod: &Value) -> Result<Self> {
        cluster.kubectl.apply(pod)?;
        let text = |name: &str| {
            pod["metadata"][name]
                .as_str()
                .unwrap_or_default()
                .to_owned()
        };
        let agent = Self::of(cluster, &text("namespace"), &text("name"));
        agent.ready()?;
        Ok(agent)
    }

    /// One that is there already.
    #[must_use]
    pub fn of(cluster: &'a Cluster, namespace: &str, pod: &str) -> Self {
        Self {
            cluster,
            namespace: namespace.to_owned(),
            pod: pod.to_owned(),
        }
    }

    /// Waits until it is ready; says what holds it up when it never is.
    pub fn ready(&self) -> Result<()> {
        let waited = eventually("the pod to be ready", PATIENCE, || {
            let pod = self.get()?;
            let ready = pod["status"]["conditions"]
                .as_array()
                .into_iter()
                .flatten()
                .any(|it| it["type"] == "Ready" && it["status"] == "True");
            ensure!(ready, "{}", pod["status"]);
            Ok(())
        });
        waited
            .map(drop)
            .with_context(|| format!("{}\n{}", self.log("exeat-init"), self.log("exeat-sidecar")))
    }

    /// The pod as the API server has it.
    pub fn get(&self) -> Result<Value> {
        self.cluster
            .kubectl
            .get(&["pod", "-n", &self.namespace, &self.pod])
    }

    /// What a container of it said.
    #[must_use]
    pub fn log(&self, container: &str) -> String {
        let words = [
            "logs",
            "-n",
            &self.namespace,
            &self.pod,
            "-c",
            container,
            "--tail=50",
        ];
        let said = self.cluster.kubectl.run(&words);
        format!(
            "{container}: {}",
            said.unwrap_or_else(|error| error.to_string())
        )
    }

    /// Runs something in the agent's container; what it printed, however it ended.
    pub fn exec(&self, words: &[&str]) -> Result<(bool, String)> {
        let start = [
            "exec",
            "-n",
            &self.namespace,
            &self.pod,
            "-c",
            "agent",
            "--",
        ];
        let output = self.cluster.kubectl.output(&[&start, words].concat(), "")?;
        let said = [output.stdout, output.stderr].concat();
        Ok((
            output.status.success(),
            String::from_utf8_lossy(&said).into_owned(),
        ))
    }

    /// A Python program in the agent's container.
    pub fn python(&self, program: &str) -> Result<String> {
        self.exec(&["/usr/bin/python3", "-c", program])
            .map(|(_, said)| said)
    }

    /// curl in the agent's container.
    pub fn curl(&self, words: &[&str]) -> Result<Answer> {
        let start = ["curl", "-sS", "-m", "20", "-w", "\n%{http_code}"];
        let (_, said) = self.exec(&[&start, words].concat())?;
        let status = said
            .lines()
            .rev()
            .find_map(|line| line.trim().parse().ok())
            .unwrap_or(0);
        Ok(Answer { status, text: said })
    }
}
