//! Credentials in a cluster: late, refused, rotated, and never the agent's.

use std::time::Duration;

use anyhow::ensure;
use exeat_tests::cluster::{Agent, Cluster, cluster, eventually};
use serde_json::json;

use super::{
    governed::{enforced, policy, secret, url},
    support::MINUTE,
};

/// From `kubectl apply` of a Secret until calls carry it.
const ROTATED_WITHIN: Duration = Duration::from_secs(10);

/// The bearer tokens that calls to this path carried, in order.
fn tokens(cluster: &Cluster, path: &str) -> Vec<String> {
    let requests = cluster.world.requests_to(path).unwrap();
    requests.iter().map(ToString::to_string).collect()
}

/// A policy with a credential that comes after the pod: no restart. A Secret that changes: the next
/// call has the new one, and the old one is not sent any more.
#[test]
fn a_late_credential_is_injected_and_a_rotated_one_replaced_without_a_restart() {
    let cluster = &*cluster().installed();
    let namespace = cluster.governed("late").unwrap();
    let kubectl = &cluster.kubectl;
    kubectl
        .apply(&policy(&namespace, "api", &["/comments/**"], None))
        .unwrap();
    let agent = Agent::start(cluster, &Agent::plain(cluster, &namespace, "agent")).unwrap();
    enforced(cluster, &namespace, "api", 1);
    let before = agent.get().unwrap();

    kubectl
        .apply(&secret(&namespace, "late", "the-first-secret"))
        .unwrap();
    kubectl
        .apply(&policy(
            &namespace,
            "reports",
            &["/reports/**"],
            Some("late"),
        ))
        .unwrap();
    let path = format!("/reports/{namespace}");
    let call = || {
        let answer = agent.curl(&[&url(&path)])?;
        ensure!(answer.status == 200, "{answer:?}");
        Ok(answer)
    };
    let (_, took) = eventually("the late credential", MINUTE, call).unwrap();
    eprintln!("a late credential was used after {} ms", took.as_millis());
    assert!(
        tokens(cluster, &path)
            .iter()
            .all(|it| it.contains("the-first-secret"))
    );

    kubectl
        .apply(&secret(&namespace, "late", "the-second-secret"))
        .unwrap();
    let ((), took) = eventually("the rotated secret", MINUTE, || {
        call()?;
        let sent = tokens(cluster, &path);
        ensure!(
            sent.last()
                .is_some_and(|it| it.contains("the-second-secret"))
        );
        Ok(())
    })
    .unwrap();
    eprintln!("a rotated secret was used after {} ms", took.as_millis());
    assert!(took < ROTATED_WITHIN, "{took:?}");
    call().unwrap();
    let sent = tokens(cluster, &path);
    assert!(
        sent.last().unwrap().contains("the-second-secret"),
        "{sent:?}"
    );
    // Never both, and never neither.
    let turned = sent
        .iter()
        .position(|it| it.contains("the-second-secret"))
        .unwrap();
    assert!(
        sent[turned..]
            .iter()
            .all(|it| it.contains("the-second-secret"))
    );

    let after = agent.get().unwrap();
    assert_eq!(before["metadata"]["uid"], after["metadata"]["uid"]);
    for list in ["initContainerStatuses", "containerStatuses"] {
        for status in after["status"][list].as_array().unwrap() {
            assert_eq!(status["restartCount"], 0, "{status}");
        }
    }
}

/// Who writes policies is not who owns Secrets: one that does not consent to the host is not used.
#[test]
fn a_secret_that_does_not_consent_is_never_sent() {
    let cluster = &*cluster().installed();
    let namespace = cluster.governed("consent").unwrap();
    let kubectl = &cluster.kubectl;
    let mut unwilling = secret(&namespace, "unwilling", "a-secret-that-stays-home");
    unwilling["metadata"]["annotations"]["exeat.dev/hosts"] = "other.upstream.test".into();
    kubectl.apply(&unwilling).unwrap();
    kubectl
        .apply(&policy(
            &namespace,
            "greedy",
            &["/reports/**"],
            Some("unwilling"),
        ))
        .unwrap();
    let agent = Agent::start(cluster, &Agent::plain(cluster, &namespace, "agent")).unwrap();
    let (message, _) = eventually("the policy to be refused", MINUTE, || {
        let policy = kubectl.get(&["toolpolicy", "-n", &namespace, "greedy"])?;
        let conditions = policy["status"]["conditions"].as_array();
        let accepted = conditions
            .into_iter()
            .flatten()
            .find(|it| it["type"] == "Accepted");
        let accepted = accepted.cloned().unwrap_or_default();
        ensure!(accepted["status"] == "False", "{}", policy["status"]);
        ensure!(accepted["reason"] == "NoConsent", "{accepted}");
        Ok(accepted["message"].to_string())
    })
    .unwrap();
    for wanted in ["unwilling", "api.upstream.test", "exeat.dev/hosts"] {
        assert!(message.contains(wanted), "{message}");
    }
    let path = format!("/reports/{namespace}");
    assert_ne!(agent.curl(&[&url(&path)]).unwrap().status, 200);
    assert!(tokens(cluster, &path).is_empty());
    // The pod's own Secret does not hold it either.
    let pod = agent.get().unwrap();
    let volumes = pod["spec"]["volumes"].as_array().unwrap();
    let volume = volumes
        .iter()
        .find(|it| it["name"] == "exeat-credentials")
        .unwrap();
    let name = volume["secret"]["secretName"].as_str().unwrap();
    let own = kubectl.get(&["secret", "-n", &namespace, name]).unwrap();
    let keys: Vec<&String> = own["data"].as_object().unwrap().keys().collect();
    assert!(!keys.iter().any(|key| key.contains("greedy")), "{keys:?}");

    // Whoever owns it says yes, and it goes.
    unwilling["metadata"]["annotations"]["exeat.dev/hosts"] =
        "other.upstream.test,api.upstream.test".into();
    kubectl.apply(&unwilling).unwrap();
    eventually("the consent to count", MINUTE, || {
        let answer = agent.curl(&[&url(&path)])?;
        ensure!(answer.status == 200, "{answer:?}");
        Ok(())
    })
    .unwrap();
    assert!(tokens(cluster, &path)[0].contains("a-secret-that-stays-home"));
    // And no: from then on it does not.
    unwilling["metadata"]["annotations"] = json!({"exeat.dev/hosts": "other.upstream.test"});
    kubectl.apply(&unwilling).unwrap();
    eventually("the withdrawal to count", MINUTE, || {
        let answer = agent.curl(&[&url(&path)])?;
        ensure!(answer.status != 200, "{answer:?}");
        Ok(())
    })
    .unwrap();
}

/// A pod's own Secret ends with its pod.
#[test]
fn the_secret_of_a_pod_that_is_gone_is_collected() {
    let cluster = &*cluster().installed();
    let namespace = cluster.governed("orphan").unwrap();
    let kubectl = &cluster.kubectl;
    let agent = Agent::start(cluster, &Agent::plain(cluster, &namespace, "agent")).unwrap();
    let own = || -> anyhow::Result<usize> {
        let secrets = kubectl.get(&["secrets", "-n", &namespace])?;
        let names = secrets["items"].as_array().into_iter().flatten();
        Ok(names
            .filter(|it| {
                it["metadata"]["name"]
                    .as_str()
                    .is_some_and(|name| name.starts_with("exeat-pod-"))
            })
            .count())
    };
    eventually("the pod's Secret", MINUTE, || {
        let n = own()?;
        ensure!(n == 1, "{n}");
        Ok(())
    })
    .unwrap();
    kubectl
        .run(&["delete", "pod", "-n", &namespace, &agent.pod, "--wait=true"])
        .unwrap();
    eventually("the pod's Secret to go", MINUTE, || {
        let n = own()?;
        ensure!(n == 0, "{n}");
        Ok(())
    })
    .unwrap();
}
