//! Warm pools under the operator: shut while nobody has claimed them, and each claim's own after that.

use std::time::Duration;

use anyhow::{Result, ensure};
use exeat_tests::cluster::{Agent, cluster, eventually};
use serde_json::{Value, json};

use super::{
    governed::{policy, secret, url},
    support::MINUTE,
};

type Change = fn(&mut Value);

/// From the claim being bound until its policy is enforced.
const CLAIMED_WITHIN: Duration = Duration::from_secs(2);

/// A template as a user writes it: the operator's admission adds the gate to its pods.
fn template(namespace: &str, pod: &Value) -> [Value; 2] {
    let mut spec = pod["spec"].clone();
    spec["dnsPolicy"] = "ClusterFirst".into();
    [
        json!({
            "apiVersion": "extensions.agents.x-k8s.io/v1beta1", "kind": "SandboxTemplate",
            "metadata": {"name": "pooled", "namespace": namespace},
            "spec": {
                "envVarsInjectionPolicy": "Disallowed", "volumeClaimTemplatesPolicy": "Disallowed",
                "networkPolicyManagement": "Unmanaged",
                "podTemplate": {"metadata": {"labels": {"app": "pooled"}}, "spec": spec},
            },
        }),
        json!({
            "apiVersion": "extensions.agents.x-k8s.io/v1beta1", "kind": "SandboxWarmPool",
            "metadata": {"name": "pooled", "namespace": namespace},
            "spec": {"replicas": 2, "sandboxTemplateRef": {"name": "pooled"}, "updateStrategy": {"type": "Recreate"}},
        }),
    ]
}

fn claim(namespace: &str, name: &str) -> Value {
    json!({
        "apiVersion": "extensions.agents.x-k8s.io/v1beta1", "kind": "SandboxClaim",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "warmPoolRef": {"name": "pooled"},
            "additionalPodMetadata": {"labels": {"sandbox.users.io/session": name}},
        },
    })
}

#[test]
fn each_claim_is_governed_by_its_own_policy_in_the_pod_that_was_waiting() {
    let cluster = &*cluster().installed();
    let namespace = cluster.governed("claims").unwrap();
    let kubectl = &cluster.kubectl;
    for (name, path) in [("alice", "/reports/**"), ("bob", "/comments/**")] {
        kubectl
            .apply(&secret(&namespace, name, &format!("the-secret-of-{name}")))
            .unwrap();
        let mut policy = policy(&namespace, name, &[path], Some(name));
        policy["spec"]["podSelector"] = json!({"matchLabels": {"sandbox.users.io/session": name}});
        kubectl.apply(&policy).unwrap();
    }
    for object in template(&namespace, &Agent::plain(cluster, &namespace, "pooled")) {
        kubectl.apply(&object).unwrap();
    }
    eventually("the pool to be ready", 2 * MINUTE, || {
        let pool = kubectl.get(&["sandboxwarmpool", "-n", &namespace, "pooled"])?;
        ensure!(pool["status"]["readyReplicas"] == 2, "{}", pool["status"]);
        Ok(())
    })
    .unwrap();
    let pods = kubectl.get(&["pods", "-n", &namespace]).unwrap();
    let before: Vec<Value> = pods["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|pod| pod["metadata"]["uid"].clone())
        .collect();
    let pooled = pods["items"][0]["metadata"]["name"].as_str().unwrap();
    let unclaimed = Agent::of(cluster, &namespace, pooled);
    for path in ["/reports/pooled", "/comments/pooled"] {
        assert_ne!(unclaimed.curl(&[&url(path)]).unwrap().status, 200);
    }

    for (name, open, shut) in [
        ("alice", "/reports", "/comments"),
        ("bob", "/comments", "/reports"),
    ] {
        kubectl.apply(&claim(&namespace, name)).unwrap();
        let (pod, _) = eventually("the claim to be bound", MINUTE, || -> Result<String> {
            let claim = kubectl.get(&["sandboxclaim", "-n", &namespace, name])?;
            let pod = claim["status"]["sandbox"]["name"]
                .as_str()
                .unwrap_or_default();
            ensure!(!pod.is_empty(), "{}", claim["status"]);
            Ok(pod.to_owned())
        })
        .unwrap();
        let agent = Agent::of(cluster, &namespace, &pod);
        let path = format!("{open}/{namespace}-{name}");
        let (_, took) = eventually("the claim's policy", MINUTE, || {
            let answer = agent.curl(&[&url(&path)])?;
            ensure!(answer.status == 200, "{answer:?}");
            Ok(answer)
        })
        .unwrap();
        eprintln!("{name}'s first call {} ms after binding", took.as_millis());
        assert!(took < CLAIMED_WITHIN, "{took:?}");
        let other = format!("{shut}/{namespace}-{name}");
        assert_eq!(agent.curl(&[&url(&other)]).unwrap().status, 403);
        let seen = cluster.world.requests_to(&path).unwrap();
        let mine = format!("the-secret-of-{name}");
        assert!(seen.last().unwrap().to_string().contains(&mine), "{seen:?}");
        let pod = agent.get().unwrap();
        assert!(before.contains(&pod["metadata"]["uid"]), "it is a new pod");
        for list in ["initContainerStatuses", "containerStatuses"] {
            for status in pod["status"][list].as_array().unwrap() {
                assert_eq!(status["restartCount"], 0, "{status}");
            }
        }
    }
}

/// The gate does not keep a claim from having finished: it is removed when its time after that is over.
#[test]
fn a_claim_whose_agent_has_finished_ends_in_its_time() {
    let cluster = &*cluster().installed();
    let namespace = cluster.governed("finished").unwrap();
    let kubectl = &cluster.kubectl;
    kubectl
        .apply(&secret(&namespace, "carol", "the-secret-of-carol"))
        .unwrap();
    let mut allowed = policy(&namespace, "carol", &["/reports/**"], Some("carol"));
    allowed["spec"]["podSelector"] = json!({"matchLabels": {"sandbox.users.io/session": "carol"}});
    kubectl.apply(&allowed).unwrap();
    let mut pod = Agent::plain(cluster, &namespace, "pooled");
    pod["spec"]["restartPolicy"] = "Never".into();
    // Its work is one call, which is refused for as long as nobody has claimed it.
    let work = format!(
        "until curl -fsS {}; do sleep 0.2; done",
        url(&format!("/reports/{namespace}"))
    );
    pod["spec"]["containers"][0]["command"] = json!(["/bin/sh", "-c", work]);
    for object in template(&namespace, &pod) {
        kubectl.apply(&object).unwrap();
    }
    eventually("the pool to be ready", 2 * MINUTE, || {
        let pool = kubectl.get(&["sandboxwarmpool", "-n", &namespace, "pooled"])?;
        ensure!(pool["status"]["readyReplicas"] == 2, "{}", pool["status"]);
        Ok(())
    })
    .unwrap();
    let mut claim = claim(&namespace, "carol");
    claim["spec"]["lifecycle"] = json!({"shutdownPolicy": "Delete", "ttlSecondsAfterFinished": 3});
    kubectl.apply(&claim).unwrap();
    eventually("the claim to end", 2 * MINUTE, || {
        let claims = kubectl.get(&["sandboxclaims", "-n", &namespace])?;
        ensure!(claims["items"] == json!([]), "{}", claims["items"]);
        Ok(())
    })
    .unwrap();
    let path = format!("/reports/{namespace}");
    let seen = cluster.world.requests_to(&path).unwrap();
    assert_eq!(seen.len(), 1, "{seen:?}");
    assert!(seen[0].to_string().contains("the-secret-of-carol"));
}

/// What a claim says of itself neither forges nor shadows anything.
#[test]
fn a_claim_forges_nothing() {
    let cluster = &*cluster().installed();
    let namespace = cluster.governed("forged").unwrap();
    let kubectl = &cluster.kubectl;
    for object in template(&namespace, &Agent::plain(cluster, &namespace, "pooled")) {
        kubectl.apply(&object).unwrap();
    }
    // The administrator may update ToolPolicies, and so may set what selects: this is a tenant, who
    // may make claims.
    let tenant = format!("tenant-of-{namespace}");
    for object in [
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
            "metadata": {"name": "claims", "namespace": namespace},
            "rules": [{
                "apiGroups": ["extensions.agents.x-k8s.io"],
                "resources": ["sandboxclaims", "sandboxtemplates"], "verbs": ["*"],
            }],
        }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": {"name": "claims", "namespace": namespace},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "claims"},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": tenant}],
        }),
    ] {
        kubectl.apply(&object).unwrap();
    }
    let as_tenant = format!("--as={tenant}");
    let apply = |object: &Value| {
        kubectl.fed(
            &["create", "--dry-run=server", &as_tenant, "-f", "-"],
            &object.to_string(),
        )
    };
    eventually("the tenant's role", MINUTE, || {
        apply(&claim(&namespace, "honest"))
    })
    .unwrap();
    let tries: [(&str, Change, &str); 5] = [
        (
            "a label of ours",
            |claim| {
                claim["spec"]["additionalPodMetadata"]["labels"] =
                    json!({"exeat.dev/policy": "other"});
            },
            "labels and annotations of exeat.dev",
        ),
        (
            "an annotation of ours",
            |claim| {
                claim["spec"]["additionalPodMetadata"]["annotations"] =
                    json!({"exeat.dev/bundle": "999"});
            },
            "labels and annotations of exeat.dev",
        ),
        (
            "a variable of the gate",
            |claim| {
                claim["spec"]["env"] =
                    json!([{"name": "A", "value": "b", "containerName": "exeat-sidecar"}]);
            },
            "spec.env",
        ),
        (
            "a loader's variable",
            |claim| claim["spec"]["env"] = json!([{"name": "LD_PRELOAD", "value": "/tmp/x.so"}]),
            "spec.env",
        ),
        (
            "a volume of the gate",
            |claim| {
                claim["spec"]["volumeClaimTemplates"] = json!([{
                    "metadata": {"name": "exeat-policy"},
                    "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}},
                }]);
            },
            "spec.volumeClaimTemplates",
        ),
    ];
    for (what, change, words) in tries {
        let mut claim = claim(&namespace, "forger");
        change(&mut claim);
        let complaint = match apply(&claim) {
            Ok(said) => panic!("{what} was taken: {said}"),
            Err(error) => error.to_string(),
        };
        assert!(complaint.contains(words), "{what}: {complaint}");
    }
    let [mut open, _] = template(&namespace, &Agent::plain(cluster, &namespace, "pooled"));
    open["metadata"]["name"] = "open".into();
    open["spec"]["envVarsInjectionPolicy"] = "Allowed".into();
    let complaint = apply(&open).unwrap_err().to_string();
    assert!(complaint.contains("envVarsInjectionPolicy"), "{complaint}");
}
