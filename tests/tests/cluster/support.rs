//! What the tests on a node share: the manifests under deploy/ with the images under test, and an
//! observer on the node who sees every packet that leaves a pod.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Stdio},
    time::Duration,
};

use anyhow::ensure;
use exeat_tests::cluster::{Agent, Cluster, eventually};
use serde_json::{Value, json};

pub const MINUTE: Duration = Duration::from_mins(1);

/// What is under deploy/, with the digests of the images under test.
pub fn deployed(cluster: &Cluster, file: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut text = fs::read_to_string(root.join("deploy").join(file)).unwrap();
    for name in ["init", "sidecar", "test-agent"] {
        let placeholder = format!("localhost/exeat/{name}@sha256:{}", "0".repeat(64));
        text = text.replace(&placeholder, cluster.images.reference(name));
    }
    text
}

/// The pod of the hand-written template, to be run as it is.
pub fn pod_spec(cluster: &Cluster) -> Value {
    let text = deployed(cluster, "agent-sandbox/v1beta1/pool.yaml");
    let template = text.split("\n---\n").next().unwrap();
    let words = [
        "create",
        "--dry-run=client",
        "--validate=false",
        "-o",
        "json",
        "-f",
        "-",
    ];
    let template = cluster.kubectl.fed(&words, template).unwrap();
    let template: Value = serde_json::from_str(&template).unwrap();
    let mut spec = template["spec"]["podTemplate"]["spec"].clone();
    spec["terminationGracePeriodSeconds"] = 2.into();
    let arguments = spec["initContainers"][1]["args"].as_array_mut().unwrap();
    arguments.push(format!("--otlp={}", cluster.collector.endpoint).into());
    spec
}

/// A policy for every pod of its namespace: `GET /reports/**` of one host, with a credential.
pub fn policy() -> Value {
    json!({
        "apiVersion": "exeat.dev/v1alpha1", "kind": "ToolPolicy", "metadata": {"name": "reports"},
        "spec": {
            "tools": [{
                "name": "reports",
                "http": {
                    "hosts": ["api.upstream.test"], "methods": ["GET"], "paths": ["/reports/**"],
                    "addresses": ["203.0.113.0/24", "fd00:203::/64"],
                },
                "credential": "api",
            }],
            "credentials": [
                {"name": "api", "secret": {"name": "api", "key": "token"}, "inject": {"bearer": {}}},
            ],
        },
    })
}

/// A namespace with that policy and its secret, as the hand-written pods mount them.
pub fn with_policy(cluster: &Cluster, name: &str, secret: &str) -> String {
    let namespace = cluster.namespace(name, &[]).unwrap();
    let metadata = |name: &str| json!({"name": name, "namespace": namespace});
    for value in [
        json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": metadata("governed-agent-credentials"),
            "stringData": {"api": secret},
        }),
        json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata("exeat-policies"),
            "data": {"policy.yaml": policy().to_string()},
        }),
    ] {
        cluster.kubectl.apply(&value).unwrap();
    }
    namespace
}

/// A governed pod of that namespace, ready.
pub fn governed<'a>(cluster: &'a Cluster, namespace: &str) -> Agent<'a> {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "agent", "namespace": namespace, "labels": {"app": "agent"}},
        "spec": pod_spec(cluster),
    });
    Agent::start(cluster, &pod).unwrap()
}

/// Sees what leaves a pod, from the node.
pub struct Observer {
    process: Child,
    written: PathBuf,
    addresses: Vec<String>,
}

impl Observer {
    /// Looks at the node's end of every pod's cable.
    pub fn of(cluster: &Cluster, agent: &Agent<'_>) -> Self {
        let pod = agent.get().unwrap();
        let addresses: Vec<String> = pod["status"]["podIPs"]
            .as_array()
            .unwrap()
            .iter()
            .map(|it| it["ip"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(addresses.len(), 2, "both families: {addresses:?}");
        let node = cluster.node();
        let written = node.file(&format!("{}-{}.pcap", agent.namespace, agent.pod));
        let process = node
            .command("tcpdump")
            .args(["-i", "any", "-n", "-U", "--buffer-size=65536", "-w"])
            .arg(&written)
            .args(["-Z", "root"])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // The file's header is written when the capture has begun.
        eventually("the observer", MINUTE, || {
            ensure!(fs::metadata(&written)?.len() >= 24, "it has not begun");
            Ok(())
        })
        .unwrap();
        Self {
            process,
            written,
            addresses,
        }
    }

    /// Every packet that the pod sent, but for those that match: one a line.
    pub fn sent_beside(mut self, cluster: &Cluster, expected: &str) -> Vec<String> {
        std::thread::sleep(Duration::from_millis(500));
        let id = self.process.id().to_string();
        std::process::Command::new("kill")
            .arg(&id)
            .status()
            .unwrap();
        self.process.wait().unwrap();
        let from = self.addresses.join(" or src host ");
        // Neighbour discovery is the kernel's own, in both families.
        let discovery = "(arp or (icmp6 and ip6[40] >= 133 and ip6[40] <= 136))";
        let filter = format!("(src host {from}) and not {discovery} and not ({expected})");
        let output = cluster
            .node()
            .command("tcpdump")
            .args(["-n", "-r"])
            .arg(&self.written)
            .arg(filter)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        said.lines().map(str::to_owned).collect()
    }
}

/// What the gate itself sends: to the tests' servers, to the name server, to the collector; and its
/// answers to the operator, which asks it for its status (no connection of its own: never a bare SYN).
pub fn the_gates_own() -> &'static str {
    "((dst host 203.0.113.77 or dst host fd00:203::77) \
      and (dst port 443 or dst port 53 or dst port 4317)) \
     or (tcp src port 15021 and dst net 10.99.0.0/16 and tcp[13] & 18 != 2)"
}
