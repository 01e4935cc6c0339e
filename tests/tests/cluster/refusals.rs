//! What the API server does not take in a governed namespace, and what it says: the field, and the way
//! out. With the webhook, and with the webhook away.

use anyhow::ensure;
use exeat_tests::cluster::{Agent, Cluster, cluster, eventually};
use serde_json::{Value, json};

use super::{governed::url, support::MINUTE};

type Change = fn(&mut Value);

/// What an author might try, and the words that the refusal must have.
const REFUSED: &[(&str, Change, &[&str])] = &[
    (
        "the gate's user",
        |pod| pod["spec"]["containers"][0]["securityContext"]["runAsUser"] = 64100.into(),
        &["spec.containers[0].securityContext.runAsUser", "64100"],
    ),
    (
        "the gate's user, for the pod",
        |pod| pod["spec"]["securityContext"]["runAsUser"] = 64100.into(),
        &["spec.securityContext.runAsUser", "64100"],
    ),
    (
        "NET_ADMIN",
        |pod| added(pod, "NET_ADMIN"),
        &[
            "spec.containers[0].securityContext.capabilities.add",
            "NET_ADMIN",
        ],
    ),
    (
        "NET_RAW",
        |pod| added(pod, "NET_RAW"),
        &[
            "spec.containers[0].securityContext.capabilities.add",
            "NET_RAW",
        ],
    ),
    (
        "SETUID",
        |pod| added(pod, "SETUID"),
        &[
            "spec.containers[0].securityContext.capabilities.add",
            "SETUID",
        ],
    ),
    (
        "privileged",
        |pod| {
            pod["spec"]["containers"][0]["securityContext"] = json!({"privileged": true});
        },
        &["spec.containers[0].securityContext.privileged"],
    ),
    (
        "the node's network",
        |pod| pod["spec"]["hostNetwork"] = true.into(),
        &["spec.hostNetwork"],
    ),
    (
        "shared processes",
        |pod| pod["spec"]["shareProcessNamespace"] = true.into(),
        &["spec.shareProcessNamespace"],
    ),
    (
        "a reserved name",
        |pod| pod["spec"]["containers"][0]["name"] = "exeat-helper".into(),
        &["spec.containers[0].name", "exeat-"],
    ),
    (
        "the gate's own name",
        |pod| {
            pod["spec"]["initContainers"] = json!([{
                "name": "exeat-sidecar", "image": "localhost/mine:1", "restartPolicy": "Always",
            }]);
        },
        &[
            "spec.initContainers[0].image",
            "localhost/mine:1",
            "exeat-sidecar",
        ],
    ),
    (
        "a reserved volume",
        |pod| pod["spec"]["volumes"] = json!([{"name": "exeat-policy", "emptyDir": {}}]),
        &["spec.volumes[0]", "exeat-policy"],
    ),
    (
        "a mount of the gate's volume",
        |pod| {
            pod["spec"]["containers"][0]["volumeMounts"] =
                json!([{"name": "exeat-journal", "mountPath": "/journal"}]);
        },
        &["spec.containers[0].volumeMounts[0]", "exeat-journal"],
    ),
    (
        "another pod's Secret",
        |pod| {
            pod["spec"]["volumes"] =
                json!([{"name": "s", "secret": {"secretName": "exeat-pod-0123456789abcdef"}}]);
        },
        &["spec.volumes[0]", "exeat-"],
    ),
    (
        "a folder of the node",
        |pod| pod["spec"]["volumes"] = json!([{"name": "h", "hostPath": {"path": "/"}}]),
        &["spec.volumes[0].hostPath"],
    ),
];

fn added(pod: &mut Value, capability: &str) {
    pod["spec"]["containers"][0]["securityContext"]["capabilities"]["add"] = json!([capability]);
}

fn refused(cluster: &Cluster, pod: &Value, words: &[&str], what: &str) -> String {
    let complaint = match cluster.kubectl.apply(pod) {
        Ok(said) => panic!("{what} was taken: {said}"),
        Err(error) => format!("{error:#}"),
    };
    for word in words {
        assert!(complaint.contains(word), "{what}: `{word}` in {complaint}");
    }
    complaint
}

#[test]
fn what_would_undo_the_gate_is_refused_with_its_field() {
    let cluster = &*cluster().installed();
    let namespace = cluster.governed("refused").unwrap();
    for (at, (what, change, words)) in REFUSED.iter().enumerate() {
        let mut pod = Agent::plain(cluster, &namespace, &format!("refused-{at}"));
        change(&mut pod);
        refused(cluster, &pod, words, what);
    }
    let left = cluster.kubectl.get(&["pods", "-n", &namespace]).unwrap();
    assert_eq!(left["items"].as_array().unwrap().len(), 0, "{left}");
}

/// J8, J12: a pod has no token unless it asks for one, and nothing that it says reaches the gate's own
/// variables or arguments.
#[test]
fn what_a_pod_says_of_itself_does_not_steer_the_gate() {
    let cluster = &*cluster().installed();
    let namespace = cluster.governed("steered").unwrap();
    let mut pod = Agent::plain(cluster, &namespace, "agent");
    let spec = pod["spec"].as_object_mut().unwrap();
    spec.remove("automountServiceAccountToken");
    let gate = json!({
        "name": "exeat-sidecar", "image": cluster.images.reference("sidecar"),
        "args": ["--policy-dir=/tmp"], "command": ["/bin/sh"],
        "env": [
            {"name": "LD_PRELOAD", "value": "/tmp/x.so"}, {"name": "RUST_LOG", "value": "trace"},
            {"name": "HTTPS_PROXY", "value": "http://198.51.100.7:1"},
            {"name": "SSL_CERT_FILE", "value": "/tmp/ca.pem"},
        ],
    });
    spec.insert("initContainers".into(), json!([gate]));
    pod["metadata"]["annotations"] = json!({
        "exeat.dev/inject": "false", "sidecar.exeat.dev/inject": "false", "exeat.dev/mode": "Shadow",
    });
    let agent = Agent::start(cluster, &pod).unwrap();
    let made = agent.get().unwrap();
    let inits = made["spec"]["initContainers"].as_array().unwrap();
    assert_eq!(inits.len(), 2, "{inits:?}");
    assert_eq!(inits[1]["name"], "exeat-sidecar");
    assert_eq!(inits[1]["command"], json!(["/exeat-sidecar"]));
    let text = inits[1].to_string();
    for word in [
        "LD_PRELOAD",
        "RUST_LOG",
        "HTTPS_PROXY",
        "SSL_CERT_FILE",
        "/tmp",
    ] {
        assert!(!text.contains(word), "{word}: {text}");
    }
    let (_, said) = agent
        .exec(&["/bin/ls", "/var/run/secrets/kubernetes.io/serviceaccount"])
        .unwrap();
    assert!(said.contains("No such file"), "{said}");
    // No policy: not even the name is answered.
    assert!(matches!(
        agent.curl(&[&url("/reports/1")]).unwrap().status,
        0 | 403
    ));
}

/// A running gate can't be exchanged, entered, looked into, or moved to another policy by labels.
#[test]
fn a_running_gate_is_left_alone() {
    let cluster = &*cluster().installed();
    let namespace = cluster.governed("running").unwrap();
    let kubectl = &cluster.kubectl;
    let agent = Agent::start(cluster, &Agent::plain(cluster, &namespace, "agent")).unwrap();
    let image = cluster.images.reference("test-agent");
    let altered = json!({"spec": {"initContainers": [{"name": "exeat-sidecar", "image": image}]}});
    let complaint = kubectl
        .run(&[
            "patch",
            "pod",
            "-n",
            &namespace,
            "agent",
            "-p",
            &altered.to_string(),
        ])
        .unwrap_err()
        .to_string();
    assert!(complaint.contains("exeat-sidecar"), "{complaint}");

    for container in ["exeat-sidecar", "exeat-init"] {
        let words = [
            "exec", "-n", &namespace, "agent", "-c", container, "--", "/x",
        ];
        let complaint = kubectl.run(&words).unwrap_err().to_string();
        assert!(complaint.contains(container), "{complaint}");
        assert!(
            complaint.contains("denied") || complaint.contains("nobody enters"),
            "{complaint}"
        );
    }
    for (what, security, target, words) in [
        (
            "capabilities",
            json!({"runAsUser": 1000, "capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN"]}}),
            "agent",
            "capabilities.add",
        ),
        (
            "the gate's user",
            json!({"runAsUser": 64100}),
            "agent",
            "64100",
        ),
        (
            "the gate's processes",
            json!({"runAsUser": 1000}),
            "exeat-sidecar",
            "target another container",
        ),
    ] {
        let mut pod = agent.get().unwrap();
        let mut security = security;
        security["allowPrivilegeEscalation"] = false.into();
        if security["capabilities"].is_null() {
            security["capabilities"] = json!({"drop": ["ALL"]});
        }
        pod["spec"]["ephemeralContainers"] = json!([{
            "name": "look", "image": image, "command": ["/bin/sleep", "1"],
            "targetContainerName": target, "securityContext": security,
        }]);
        let path = format!("/api/v1/namespaces/{namespace}/pods/agent/ephemeralcontainers");
        let complaint = kubectl
            .fed(&["replace", "--raw", &path, "-f", "-"], &pod.to_string())
            .unwrap_err()
            .to_string();
        assert!(
            complaint.contains("ephemeralContainers") && complaint.contains(words),
            "{what}: {complaint}"
        );
    }
    // Nor is what it reads anybody's but the operator's.
    for (what, object) in [
        (
            "the bundle",
            json!({
                "apiVersion": "v1", "kind": "ConfigMap",
                "metadata": {"name": "exeat-policies", "namespace": namespace},
                "data": {"policy.yaml": "forged"},
            }),
        ),
        (
            "a pod's Secret",
            json!({
                "apiVersion": "v1", "kind": "Secret",
                "metadata": {"name": "exeat-pod-00000000000000ff", "namespace": namespace},
                "stringData": {"status-key": "forged"},
            }),
        ),
    ] {
        refused(cluster, &object, &["the operator's"], what);
    }
    // No policy: not even the name is answered.
    assert!(matches!(
        agent.curl(&[&url("/reports/1")]).unwrap().status,
        0 | 403
    ));
}

/// An agent whose account may read Secrets, or change pods, needs no way around the network.
#[test]
fn an_account_that_could_undo_the_gate_is_refused_or_warned_about() {
    let cluster = &*cluster().installed();
    let namespace = cluster.governed("powerful").unwrap();
    let kubectl = &cluster.kubectl;
    for (account, rule) in [
        (
            "reader",
            json!({"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}),
        ),
        (
            "writer",
            json!({"apiGroups": ["exeat.dev"], "resources": ["toolpolicies"], "verbs": ["patch"]}),
        ),
        (
            "execer",
            json!({"apiGroups": [""], "resources": ["pods/exec"], "verbs": ["create"]}),
        ),
        (
            "maker",
            json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["create"]}),
        ),
        (
            "harmless",
            json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]}),
        ),
    ] {
        let metadata = json!({"name": account, "namespace": namespace});
        for object in [
            json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}),
            json!({
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
                "metadata": metadata, "rules": [rule],
            }),
            json!({
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
                "metadata": metadata,
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": account},
                "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": namespace}],
            }),
        ] {
            kubectl.apply(&object).unwrap();
        }
    }
    let of = |account: &str| {
        let mut pod = Agent::plain(cluster, &namespace, account);
        pod["spec"]["serviceAccountName"] = account.into();
        pod
    };
    // The authorizer reads roles from a watch.
    eventually("the roles to be known", MINUTE, || {
        let who = format!("--as=system:serviceaccount:{namespace}:maker");
        let said = kubectl.run(&["auth", "can-i", "create", "pods", "-n", &namespace, &who])?;
        ensure!(said.contains("yes"), "{said}");
        Ok(())
    })
    .unwrap();
    for (account, power) in [
        ("reader", "read Secrets"),
        ("writer", "write ToolPolicies"),
        ("execer", "exec into pods"),
        ("maker", "create pods"),
    ] {
        refused(
            cluster,
            &of(account),
            &["spec.serviceAccountName", account, power],
            account,
        );
    }
    kubectl.apply(&of("harmless")).unwrap();
    kubectl
        .run(&[
            "label",
            "namespace",
            &namespace,
            "exeat.dev/service-account-access=warn",
        ])
        .unwrap();
    let output = kubectl
        .output(&["apply", "-f", "-"], &of("reader").to_string())
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    assert!(
        said.contains("Warning") && said.contains("read Secrets"),
        "{said}"
    );
}

/// J14: with the operator away nothing is admitted unjudged; with its configuration taken away, what
/// has no gate is still refused.
#[test]
fn with_the_webhook_away_nothing_slips_in() {
    let cluster = &*cluster().alone();
    let namespace = cluster.governed("away").unwrap();
    let kubectl = &cluster.kubectl;
    let pod = Agent::plain(cluster, &namespace, "bare");
    let scale = |n: u32| {
        let replicas = format!("--replicas={n}");
        kubectl
            .run(&[
                "scale",
                "-n=exeat-system",
                "deployment/exeat-operator",
                &replicas,
            ])
            .unwrap();
    };
    let hooks = [
        "mutatingwebhookconfiguration",
        "validatingwebhookconfiguration",
    ];
    let kept: Vec<Value> = hooks
        .iter()
        .map(|kind| kubectl.get(&[kind, "exeat"]).unwrap())
        .collect();
    scale(0);
    eventually("the operators to end", MINUTE, || {
        let pods = kubectl.get(&["pods", "-n=exeat-system"])?;
        ensure!(pods["items"] == json!([]), "{}", pods["items"]);
        Ok(())
    })
    .unwrap();
    let tried = std::panic::catch_unwind(|| {
        refused(cluster, &pod, &["failed calling webhook"], "a bare pod");
        for kind in hooks {
            kubectl.run(&["delete", kind, "exeat"]).unwrap();
        }
        let complaint = refused(cluster, &pod, &["exeat-pods"], "a bare pod, no webhook");
        assert!(complaint.contains("spec.initContainers"), "{complaint}");
    });
    for mut hook in kept {
        let metadata = hook["metadata"].as_object_mut().unwrap();
        metadata.retain(|key, _| matches!(key.as_str(), "name" | "labels" | "annotations"));
        kubectl.apply(&hook).unwrap();
    }
    scale(2);
    eventually("the operators to be back", 2 * MINUTE, || {
        let deployment = kubectl.get(&["deployment", "-n=exeat-system", "exeat-operator"])?;
        ensure!(
            deployment["status"]["readyReplicas"] == 2,
            "{}",
            deployment["status"]
        );
        Ok(())
    })
    .unwrap();
    if let Err(panic) = tried {
        std::panic::resume_unwind(panic);
    }
    eventually("pods to be admitted again", MINUTE, || kubectl.apply(&pod)).unwrap();
}
