//! The operator itself: what it tells, what it counts, and that another takes over when the leader goes.

use anyhow::{Context as _, ensure};
use exeat_tests::cluster::{Agent, Cluster, cluster, eventually};

use super::{
    governed::{enforced, policy, secret, url},
    support::MINUTE,
};

/// Who leads now, by the lease.
fn leader(cluster: &Cluster) -> anyhow::Result<String> {
    let lease = cluster
        .kubectl
        .get(&["lease", "-n=exeat-system", "exeat-operator"])?;
    let holder = lease["spec"]["holderIdentity"].as_str();
    Ok(holder.context("nobody leads")?.to_owned())
}

/// Events on the policy tell what became of it, to whoever describes it.
#[test]
fn what_becomes_of_a_policy_is_told_as_events() {
    let cluster = &*cluster().installed();
    let namespace = cluster.governed("told").unwrap();
    let kubectl = &cluster.kubectl;
    let mut unwilling = secret(&namespace, "api", "a-secret-never-told");
    unwilling["metadata"]["annotations"] = serde_json::Value::Null;
    kubectl.apply(&unwilling).unwrap();
    kubectl
        .apply(&policy(
            &namespace,
            "reports",
            &["/reports/**"],
            Some("api"),
        ))
        .unwrap();
    let told = |reason: &str, kind: &str| {
        eventually("the Event", MINUTE, || {
            let words = ["get", "events", "-n", &namespace, "-o", "json"];
            let events: serde_json::Value = serde_json::from_str(&kubectl.run(&words)?)?;
            let all = events["items"].as_array().into_iter().flatten();
            let found = all.into_iter().any(|event| {
                event["reason"] == reason
                    && event["type"] == kind
                    && event["involvedObject"]["kind"] == "ToolPolicy"
                    && event["involvedObject"]["name"] == "reports"
            });
            ensure!(found, "no {kind} {reason} in {events}");
            ensure!(!events.to_string().contains("a-secret-never-told"));
            Ok(())
        })
        .unwrap();
    };
    told("NoConsent", "Warning");
    kubectl
        .apply(&secret(&namespace, "api", "a-secret-never-told"))
        .unwrap();
    told("Accepted", "Normal");
}

/// When the leader is gone the other leads: edits are enforced, and the one that is started in its
/// place waits.
#[test]
fn another_takes_over_when_the_leader_goes() {
    let cluster = &*cluster().alone();
    let namespace = cluster.governed("leader").unwrap();
    let kubectl = &cluster.kubectl;
    kubectl
        .apply(&policy(&namespace, "api", &["/reports/**"], None))
        .unwrap();
    let agent = Agent::start(cluster, &Agent::plain(cluster, &namespace, "agent")).unwrap();
    enforced(cluster, &namespace, "api", 1);
    let first = leader(cluster).unwrap();
    kubectl
        .run(&["delete", "pod", "-n=exeat-system", &first, "--wait=false"])
        .unwrap();
    let (second, took) = eventually("another leader", MINUTE, || {
        let now = leader(cluster)?;
        ensure!(now != first && !now.is_empty(), "{now}");
        Ok(now)
    })
    .unwrap();
    eprintln!("another led after {} ms", took.as_millis());
    kubectl
        .apply(&policy(&namespace, "api", &["/comments/**"], None))
        .unwrap();
    eventually("an edit under the new leader", MINUTE, || {
        let answer = agent.curl(&[&url("/comments/1")])?;
        ensure!(answer.status == 401, "{answer:?}");
        Ok(())
    })
    .unwrap();
    // What it counts says the same.
    let page = format!("/api/v1/namespaces/exeat-system/pods/{second}:8080/proxy/metrics");
    let metrics = kubectl.run(&["get", "--raw", &page]).unwrap();
    assert!(metrics.contains("exeat_operator_leader 1"), "{metrics}");
    for name in [
        "reconciles_total",
        "bundles_written_total",
        "pods_enforcing",
    ] {
        let name = format!("exeat_operator_{name} ");
        assert!(metrics.contains(&name), "{name}: {metrics}");
    }
    eventually("two replicas again", 2 * MINUTE, || {
        let deployment = kubectl.get(&["deployment", "-n=exeat-system", "exeat-operator"])?;
        ensure!(
            deployment["status"]["readyReplicas"] == 2,
            "{}",
            deployment["status"]
        );
        Ok(())
    })
    .unwrap();
}
