//! `exeat check` on a real node where Exeat is installed: what it says of what is governed, of what is
//! not, and to somebody who may not look.

use std::process::Command;

use anyhow::ensure;
use exeat_tests::{
    cluster::{Agent, Cluster, cluster, eventually},
    governed::program,
};
use serde_json::{Value, json};

use super::support::{MINUTE, pod_spec, policy};

struct Said {
    exit: i32,
    report: Value,
    text: String,
}

/// `exeat check` as one of the node's identities.
fn check(cluster: &Cluster, who: &str, words: &[&str]) -> Said {
    let run = |format: &str| {
        Command::new(program("exeat").unwrap())
            .arg("check")
            .args(words)
            .arg("--kubeconfig")
            .arg(cluster.node().file(&format!("{who}.kubeconfig")))
            .args(["-o", format])
            .output()
            .unwrap()
    };
    let text = run("text");
    let output = run("json");
    let report = serde_json::from_slice(&output.stdout).unwrap_or_default();
    Said {
        exit: output.status.code().unwrap(),
        report,
        text: [text.stdout, text.stderr]
            .map(|bytes| String::from_utf8(bytes).unwrap())
            .concat(),
    }
}

impl Said {
    /// The findings of a level.
    fn of(&self, level: &str) -> Vec<&Value> {
        let list = self.report["findings"].as_array();
        list.into_iter()
            .flatten()
            .filter(|finding| finding["level"] == level)
            .collect()
    }
}

/// A namespace with a policy, its Secret and a pod that is enforced.
fn enforced<'a>(cluster: &'a Cluster, name: &str) -> Agent<'a> {
    let namespace = cluster.governed(name).unwrap();
    let mut policy = policy();
    policy["metadata"]["namespace"] = namespace.clone().into();
    for value in [
        json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": {
                "name": "api", "namespace": namespace,
                "annotations": {"exeat.dev/hosts": "api.upstream.test"},
            },
            "stringData": {"token": "a-secret-to-check"},
        }),
        policy,
    ] {
        cluster.kubectl.apply(&value).unwrap();
    }
    let pod = Agent::plain(cluster, &namespace, "agent");
    Agent::start(cluster, &pod).unwrap()
}

#[test]
fn what_is_governed_is_said_to_be() {
    let installed = cluster().installed();
    let cluster: &Cluster = &installed;
    let said = check(cluster, "admin", &[]);
    assert_eq!(said.exit, 0, "{}", said.text);
    assert!(
        said.of("problem").is_empty() && said.of("unknown").is_empty(),
        "{}",
        said.text
    );

    let agent = enforced(cluster, "checked");
    for words in [
        vec!["-n", &agent.namespace],
        vec!["-n", &agent.namespace, &agent.pod],
    ] {
        // The operator's word on the pod comes with its next look.
        let (said, took) = eventually("to be governed", MINUTE, || {
            let said = check(cluster, "admin", &words);
            ensure!(said.exit == 0, "{}", said.text);
            Ok(said)
        })
        .unwrap();
        eprintln!("{words:?} after {} ms:\n{}", took.as_millis(), said.text);
        assert_eq!(said.report["governed"], true);
        for level in ["problem", "unknown", "warning"] {
            assert!(said.of(level).is_empty(), "{}", said.text);
        }
        assert!(!said.text.contains("a-secret-to-check"), "{}", said.text);
    }
    let said = check(cluster, "admin", &["-n", &agent.namespace, &agent.pod]);
    for word in [
        "reports (enforced)",
        "1 of 1 there",
        "is the current one",
        "is governed",
    ] {
        assert!(said.text.contains(word), "no `{word}` in {}", said.text);
    }
}

#[test]
fn pods_that_are_older_than_the_label_are_named() {
    let installed = cluster().installed();
    let cluster: &Cluster = &installed;
    let namespace = cluster.namespace("older", &[]).unwrap();
    let pod = Agent::plain(cluster, &namespace, "early");
    Agent::start(cluster, &pod).unwrap();
    let said = check(cluster, "admin", &["-n", &namespace]);
    assert_eq!(said.exit, 1, "{}", said.text);
    assert!(
        said.text.contains("it has no label exeat.dev/governed"),
        "{}",
        said.text
    );

    // Times of the API server have seconds.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let label = "exeat.dev/governed=true";
    cluster
        .kubectl
        .run(&["label", "namespace", &namespace, label])
        .unwrap();
    for words in [&["-n", &namespace][..], &["-n", &namespace, "pod/early"]] {
        // The API server heeds a label a moment after it is there.
        let (said, _) = eventually("one problem to be left", MINUTE, || {
            let said = check(cluster, "admin", words);
            ensure!(said.of("problem").len() == 1, "{}", said.text);
            Ok(said)
        })
        .unwrap();
        assert_eq!(said.exit, 1, "{}", said.text);
        let cause = said.of("problem")[0]["cause"].as_str().unwrap();
        assert!(
            cause.contains("before its namespace was labelled"),
            "{cause}"
        );
    }
}

#[test]
fn a_guard_that_could_not_confine_is_explained() {
    let installed = cluster().installed();
    let cluster: &Cluster = &installed;
    let namespace = cluster.namespace("unconfined", &[]).unwrap();
    let mut spec = pod_spec(cluster);
    spec["initContainers"][0]["securityContext"]["capabilities"]["add"] = json!([]);
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "by-hand", "namespace": namespace},
        "spec": spec,
    });
    cluster.kubectl.apply(&pod).unwrap();
    let (said, _) = eventually("the guard to fail", MINUTE, || {
        let said = check(cluster, "admin", &["-n", &namespace, "by-hand"]);
        ensure!(said.text.contains("missing_capability"), "{}", said.text);
        Ok(said)
    })
    .unwrap();
    assert_eq!(said.exit, 1);
    for word in [
        "it ended with 77",
        "give the init container NET_ADMIN",
        "initContainers[0]",
    ] {
        assert!(said.text.contains(word), "no `{word}` in {}", said.text);
    }
}

#[test]
fn who_may_not_look_is_told_what_it_takes() {
    let installed = cluster().installed();
    let cluster: &Cluster = &installed;
    let agent = enforced(cluster, "owned");
    let words = ["-n", &agent.namespace, &agent.pod];
    let said = check(cluster, "tenant", &words);
    assert_eq!(said.exit, 2, "{}", said.text);
    assert_eq!(said.report["governed"], Value::Null);
    assert!(said.of("problem").is_empty(), "{}", said.text);
    let right = format!("you may not get pods -n {}", agent.namespace);
    assert!(said.text.contains(&right), "{}", said.text);

    // Who owns the namespace sees no webhook, and need not: a dry run shows what they do.
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": {"name": "owner", "namespace": agent.namespace},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "admin"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "tenant"}],
    });
    cluster.kubectl.apply(&binding).unwrap();
    let (said, _) = eventually("the owner to be told", MINUTE, || {
        let said = check(cluster, "tenant", &words);
        ensure!(said.exit == 0, "{}", said.text);
        Ok(said)
    })
    .unwrap();
    assert!(!said.of("unknown").is_empty(), "{}", said.text);
    assert!(
        said.text
            .contains("would be governed (tried, as a dry run)"),
        "{}",
        said.text
    );
    let before = cluster
        .kubectl
        .get(&["pods", "-n", &agent.namespace])
        .unwrap();
    assert_eq!(
        before["items"].as_array().unwrap().len(),
        1,
        "a dry run left a pod"
    );
}

#[test]
fn a_webhook_that_lets_pods_by_is_found() {
    let installed = cluster().alone();
    let cluster: &Cluster = &installed;
    let patch = |operations: Value| {
        let operations = operations.to_string();
        let words = [
            "patch",
            "mutatingwebhookconfiguration",
            "exeat",
            "--type=json",
            "-p",
        ];
        cluster.kubectl.run(&[&words[..], &[&operations]].concat())
    };
    let namespace = cluster.governed("let-by").unwrap();
    let selector = "/webhooks/0/objectSelector";
    let policy = "/webhooks/0/failurePolicy";
    patch(json!([
        {"op": "replace", "path": policy, "value": "Ignore"},
        {"op": "add", "path": selector, "value": {"matchLabels": {"governed": "please"}}},
    ]))
    .unwrap();
    let said = eventually("a pod to come out bare", MINUTE, || {
        let said = check(cluster, "admin", &["-n", &namespace]);
        // The API server takes a moment to heed its own configuration.
        ensure!(!said.text.contains("would be governed"), "{}", said.text);
        Ok(said)
    });
    patch(json!([
        {"op": "replace", "path": policy, "value": "Fail"},
        {"op": "replace", "path": selector, "value": {}},
    ]))
    .unwrap();
    let (said, _) = said.unwrap();
    eprintln!("{}", said.text);
    assert_eq!(said.exit, 1, "{}", said.text);
    let found = said.of("problem");
    let cause = found
        .iter()
        .find(|it| it["subject"] == "injection")
        .and_then(|it| it["cause"].as_str())
        .unwrap();
    for word in [
        "failurePolicy is not Fail",
        "objectSelector lets objects by",
    ] {
        assert!(cause.contains(word), "{cause}");
    }
    // What stands behind the webhook refuses the bare pod; the answer is no all the same.
    assert!(said.text.contains("a new pod"), "{}", said.text);
    let (said, _) = eventually("to be as it was", MINUTE, || {
        let said = check(cluster, "admin", &["-n", &namespace]);
        ensure!(said.exit == 0, "{}", said.text);
        Ok(said)
    })
    .unwrap();
    assert!(said.text.contains("would be governed"), "{}", said.text);
}
