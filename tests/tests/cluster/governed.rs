//! The way of a platform engineer: the chart, a label, a policy, a pod.

use std::{fs, process::Command, time::Duration};

use anyhow::{Result, ensure};
use exeat_tests::{
    cluster::{Agent, Cluster, cluster, eventually},
    governed::program,
};
use serde_json::{Value, json};

use super::support::MINUTE;

/// From `kubectl apply` until a pod that runs enforces it.
const ENFORCED_WITHIN: Duration = Duration::from_secs(3);

/// A source Secret that consents to the tests' API.
pub fn secret(namespace: &str, name: &str, token: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {
            "name": name, "namespace": namespace,
            "annotations": {"exeat.dev/hosts": "api.upstream.test"},
        },
        "stringData": {"token": token},
    })
}

/// `GET` of some paths of the tests' API, with a credential if there is one.
pub fn policy(namespace: &str, name: &str, paths: &[&str], secret: Option<&str>) -> Value {
    let mut policy = json!({
        "apiVersion": "exeat.dev/v1alpha1", "kind": "ToolPolicy",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "tools": [{
                "name": "api",
                "http": {
                    "hosts": ["api.upstream.test"], "methods": ["GET"], "paths": paths,
                    "addresses": ["203.0.113.0/24", "fd00:203::/64"],
                },
            }],
        },
    });
    if let Some(secret) = secret {
        policy["spec"]["tools"][0]["credential"] = "api".into();
        policy["spec"]["credentials"] = json!([
            {"name": "api", "secret": {"name": secret, "key": "token"}, "inject": {"bearer": {}}},
        ]);
    }
    policy
}

/// A path of the tests' API.
pub fn url(path: &str) -> String {
    format!("https://api.upstream.test{path}")
}

/// Waits until the policy is enforced by all of `n` pods.
pub fn enforced(cluster: &Cluster, namespace: &str, name: &str, n: u32) -> Duration {
    let status = || -> Result<()> {
        let policy = cluster
            .kubectl
            .get(&["toolpolicy", "-n", namespace, name])?;
        ensure!(
            policy["status"]["enforced"] == format!("{n}/{n}")
                && policy["status"]["observedGeneration"] == policy["metadata"]["generation"],
            "{}",
            policy["status"]
        );
        Ok(())
    };
    match eventually("the policy to be enforced", MINUTE, status) {
        Ok(((), took)) => took,
        Err(error) => panic!("{error:#}\n{}", cluster.operator_said(30)),
    }
}

/// A label, a policy and a pod as its author wrote it: what is allowed works with a credential that
/// the pod does not have, what is not is refused, and all of it is at the collector.
#[test]
fn a_plain_pod_of_a_labelled_namespace_is_governed() {
    let cluster = &*cluster().installed();
    let namespace = cluster.governed("plain").unwrap();
    let kubectl = &cluster.kubectl;
    kubectl
        .apply(&secret(&namespace, "api", "a-secret-of-the-api"))
        .unwrap();
    kubectl
        .apply(&policy(
            &namespace,
            "reports",
            &["/reports/**"],
            Some("api"),
        ))
        .unwrap();
    let agent = Agent::start(cluster, &Agent::plain(cluster, &namespace, "agent")).unwrap();
    enforced(cluster, &namespace, "reports", 1);

    let path = format!("/reports/{namespace}");
    let answer = agent.curl(&[&url(&path)]).unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.text.contains("\"signed_in\":true"), "{answer:?}");
    assert!(!answer.text.contains("a-secret-of-the-api"), "{answer:?}");
    let program = format!(
        "import urllib.request as r\nprint(r.urlopen('{}').status)",
        url(&format!("{path}-python"))
    );
    assert_eq!(agent.python(&program).unwrap().trim(), "200");
    let denied = agent
        .curl(&[&url(&format!("/comments/{namespace}"))])
        .unwrap();
    assert_eq!(denied.status, 403, "{denied:?}");
    assert!(denied.text.contains("egress_denied"), "{denied:?}");
    let elsewhere = agent.curl(&["https://elsewhere.upstream.test/"]).unwrap();
    assert!(matches!(elsewhere.status, 0 | 403), "{elsewhere:?}");

    let seen = cluster.world.requests_to(&path).unwrap();
    assert_eq!(seen.len(), 2, "{seen:?}");
    for request in &seen {
        let text = request.to_string();
        assert!(text.contains("a-secret-of-the-api"), "{text}");
    }
    let comments = format!("/comments/{namespace}");
    assert!(cluster.world.requests_to(&comments).unwrap().is_empty());
    for (what, word) in [(path.as_str(), "allow"), (comments.as_str(), "deny")] {
        eventually("the trail at the collector", MINUTE, || {
            let records = cluster.collector.records(what)?;
            ensure!(format!("{records:?}").contains(word), "{records:?}");
            Ok(())
        })
        .unwrap();
    }

    let words = ["get", "toolpolicies", "-n", &namespace];
    let table = kubectl.run(&words).unwrap();
    let heads: Vec<&str> = table.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(heads, ["NAME", "ACCEPTED", "ENFORCED", "MODE", "AGE"]);
    let row: Vec<&str> = table.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(row[..4], ["reports", "True", "1/1", "Enforce"], "{table}");
}

/// An edit reaches pods that run, at once; one that does not compile is refused where it is made.
#[test]
fn an_edited_policy_is_enforced_within_seconds_and_a_broken_one_is_refused() {
    let cluster = &*cluster().alone();
    let namespace = cluster.governed("edited").unwrap();
    let kubectl = &cluster.kubectl;
    let first = policy(&namespace, "api", &["/reports/**"], None);
    kubectl.apply(&first).unwrap();
    let agent = Agent::start(cluster, &Agent::plain(cluster, &namespace, "agent")).unwrap();
    enforced(cluster, &namespace, "api", 1);
    let mut slowest = Duration::ZERO;
    for round in 0..5 {
        let (open, shut) = if round % 2 == 0 {
            ("/comments/1", "/reports/1")
        } else {
            ("/reports/1", "/comments/1")
        };
        let paths = [open.trim_end_matches('1').to_owned() + "**"];
        kubectl
            .apply(&policy(&namespace, "api", &[&paths[0]], None))
            .unwrap();
        let ((), took) = eventually("the edit to be enforced", MINUTE, || {
            let answers = (agent.curl(&[&url(open)])?, agent.curl(&[&url(shut)])?);
            // Without a credential the API does not know who calls; the gate let the call through.
            ensure!(
                answers.0.status == 401 && answers.1.status == 403,
                "{answers:?}"
            );
            Ok(())
        })
        .unwrap();
        slowest = slowest.max(took);
    }
    eprintln!(
        "an edit was enforced after at most {} ms",
        slowest.as_millis()
    );
    assert!(slowest < ENFORCED_WITHIN, "{slowest:?}");

    let mut broken = policy(&namespace, "api", &["/reports/**"], None);
    broken["spec"]["tools"][0]["when"] =
        "request.path.startsWith(\"/a\") && nothing.owner == 1".into();
    let complaint = kubectl.apply(&broken).unwrap_err().to_string();
    for wanted in [
        "spec.tools[0].when",
        "nothing",
        "line 1, column 34",
        "request",
    ] {
        assert!(complaint.contains(wanted), "`{wanted}` in {complaint}");
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("policy.yaml");
    fs::write(&file, serde_json::to_string_pretty(&broken).unwrap()).unwrap();
    let output = Command::new(program("exeat").unwrap())
        .args(["policy", "check"])
        .arg(&file)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success());
    assert!(said.contains("policy.yaml:"), "{said}");
    // What was in force stays.
    assert_eq!(agent.curl(&[&url("/comments/2")]).unwrap().status, 401);
}
