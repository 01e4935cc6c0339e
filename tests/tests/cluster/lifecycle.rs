//! What Kubernetes does to pods: Jobs that end, a kubelet that starts again.

use anyhow::ensure;
use exeat_tests::cluster::{cluster, eventually};
use serde_json::json;

use super::support::{MINUTE, governed, pod_spec, with_policy};

/// The agent's first instruction is a call: the gate is there before it (A22), and when the agent has
/// ended, the gate does not keep the Job from being complete.
#[test]
fn a_job_calls_at_once_and_completes() {
    let cluster = cluster();
    let namespace = with_policy(cluster, "job", "a-secret-of-the-job");
    let mut spec = pod_spec(cluster);
    spec["restartPolicy"] = "Never".into();
    spec["containers"][0]["command"] = json!([
        "/bin/sh",
        "-c",
        "curl -fsS https://api.upstream.test/reports/job && ! curl -fsS https://api.upstream.test/other",
    ]);
    cluster
        .kubectl
        .apply(&json!({
            "apiVersion": "batch/v1", "kind": "Job",
            "metadata": {"name": "once", "namespace": namespace},
            "spec": {"backoffLimit": 0, "template": {"spec": spec}},
        }))
        .unwrap();
    eventually("the Job to complete", 2 * MINUTE, || {
        let job = cluster.kubectl.get(&["job", "-n", &namespace, "once"])?;
        ensure!(job["status"]["succeeded"] == 1, "{}", job["status"]);
        Ok(())
    })
    .unwrap();
    // Its last records were sent before it ended.
    let (records, _) = eventually("the trail at the collector", MINUTE, || {
        let records = cluster.collector.records("/reports/job")?;
        ensure!(!records.is_empty(), "none");
        Ok(records)
    })
    .unwrap();
    let text = format!("{records:?}");
    assert!(
        text.contains("allow") && !text.contains("a-secret-of-the-job"),
        "{text}"
    );
}

#[test]
fn a_kubelet_that_starts_again_changes_nothing() {
    let cluster = cluster();
    let namespace = with_policy(cluster, "kubelet", "a-secret-that-stays");
    let agent = governed(cluster, &namespace);
    let before = agent.get().unwrap();
    cluster.node().restart_kubelet().unwrap();
    agent.ready().unwrap();
    // The way into the container is the kubelet's, which first has to find its pods again.
    eventually("the first call after", MINUTE, || {
        let answer = agent.curl(&["https://api.upstream.test/reports/kubelet"])?;
        ensure!(answer.status == 200, "{answer:?}");
        Ok(())
    })
    .unwrap();
    let after = agent.get().unwrap();
    assert_eq!(before["metadata"]["uid"], after["metadata"]["uid"]);
    for list in ["initContainerStatuses", "containerStatuses"] {
        for (before, after) in before["status"][list]
            .as_array()
            .unwrap()
            .iter()
            .zip(after["status"][list].as_array().unwrap())
        {
            assert_eq!(before["restartCount"], after["restartCount"]);
        }
    }
}
