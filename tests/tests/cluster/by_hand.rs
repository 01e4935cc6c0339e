//! Written out by hand, with no operator in sight: the images, the guard, the gate.

use std::time::Duration;

use anyhow::{Result, ensure};
use exeat_tests::cluster::{Agent, cluster, eventually};
use serde_json::{Value, json};

use super::support::{MINUTE, deployed, policy};

/// For the pods whose claim says so.
fn policy_of(session: &str) -> Value {
    let mut policy = policy();
    policy["spec"]["podSelector"] = json!({"matchLabels": {"sandbox.users.io/session": session}});
    policy
}

/// A pool's pods are Ready and allowed nothing; a claim's labels, and nothing else, open what its
/// policy allows: in the same pod, without a restart.
#[test]
fn a_claim_from_a_warm_pool_is_governed_by_its_own_policy() {
    let cluster = cluster();
    let namespace = cluster.namespace("pool", &[]).unwrap();
    let kubectl = &cluster.kubectl;
    let apply = |text: &str| {
        kubectl
            .fed(&["apply", "-n", &namespace, "-f", "-"], text)
            .unwrap()
    };
    apply(
        &json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "governed-agent-credentials"},
            "stringData": {"api": "a-secret-of-the-pool"},
        })
        .to_string(),
    );
    apply(
        &json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "exeat-policies"},
            "data": {"policy.yaml": policy_of("alice-42").to_string()},
        })
        .to_string(),
    );
    apply(&deployed(cluster, "agent-sandbox/v1beta1/pool.yaml"));

    let ready = || -> Result<()> {
        let pool = kubectl.get(&["sandboxwarmpool", "-n", &namespace, "governed-agent"])?;
        ensure!(pool["status"]["readyReplicas"] == 2, "{}", pool["status"]);
        Ok(())
    };
    let ((), took) = eventually("the pool to be ready", 2 * MINUTE, ready).unwrap();
    eprintln!("pool of 2 ready after {} ms", took.as_millis());
    let pods = kubectl.get(&["pods", "-n", &namespace]).unwrap();
    let before: Vec<String> = pods["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|pod| pod["metadata"]["uid"].as_str().unwrap().to_owned())
        .collect();
    let pooled = pods["items"][0]["metadata"]["name"].as_str().unwrap();
    let unclaimed = Agent::of(cluster, &namespace, pooled);
    let answer = unclaimed
        .curl(&["https://api.upstream.test/reports/pooled"])
        .unwrap();
    assert_ne!(answer.status, 200, "{answer:?}");

    apply(&deployed(cluster, "agent-sandbox/v1beta1/claim.yaml"));
    let bound = || -> Result<String> {
        let claim = kubectl.get(&["sandboxclaim", "-n", &namespace, "alice-42"])?;
        let name = claim["status"]["sandbox"]["name"]
            .as_str()
            .unwrap_or_default();
        ensure!(!name.is_empty(), "{}", claim["status"]);
        Ok(name.to_owned())
    };
    let (pod, _) = eventually("the claim to be bound", MINUTE, bound).unwrap();
    let agent = Agent::of(cluster, &namespace, &pod);
    let (answer, took) = eventually("the claim's policy", MINUTE, || {
        let answer = agent.curl(&["https://api.upstream.test/reports/claimed"])?;
        ensure!(answer.status == 200, "{answer:?}");
        Ok(answer)
    })
    .unwrap();
    eprintln!(
        "the claim's policy allowed its first call {} ms after binding",
        took.as_millis()
    );
    assert!(answer.text.contains("\"signed_in\":true"), "{answer:?}");
    assert!(!answer.text.contains("a-secret-of-the-pool"), "{answer:?}");
    assert!(took < Duration::from_secs(4), "{took:?}");

    let pod = agent.get().unwrap();
    assert!(before.iter().any(|uid| pod["metadata"]["uid"] == **uid));
    for status in pod["status"]["containerStatuses"].as_array().unwrap() {
        assert_eq!(status["restartCount"], 0);
    }
    for (words, why) in [
        (
            vec!["https://api.upstream.test/comments/1"],
            "a path of no rule",
        ),
        (
            vec!["-X", "DELETE", "https://api.upstream.test/reports/1"],
            "a method of no rule",
        ),
        (
            vec!["https://other.upstream.test/reports/1"],
            "a host of no rule",
        ),
    ] {
        let answer = agent.curl(&words).unwrap();
        assert!(matches!(answer.status, 0 | 403), "{why}: {answer:?}");
    }
    assert_eq!(
        cluster.world.requests_to("/reports/pooled").unwrap().len(),
        0
    );
    let seen = cluster.world.requests_to("/reports/claimed").unwrap();
    assert!(
        seen.last()
            .unwrap()
            .to_string()
            .contains("a-secret-of-the-pool"),
        "{seen:?}"
    );
}
