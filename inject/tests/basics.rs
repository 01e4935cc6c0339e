//! A plain pod through the patch and back, and what a steered one comes to.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use exeat_inject::{Image, SecretName, Settings, mutate, remove, validate, validate_update};
use serde_json::{Value, json};

fn settings() -> Settings {
    let image = |name: &str| Image::parse(&format!("r.example/{name}@sha256:{}", "0".repeat(64)));
    Settings::new(image("sidecar").unwrap(), image("init").unwrap())
}

fn plain() -> Value {
    json!({"metadata": {"name": "a"}, "spec": {"containers": [{"name": "agent", "image": "a"}]}})
}

#[test]
fn a_plain_pod_is_governed_and_stays_so() {
    let once = mutate(&plain(), &settings(), &SecretName::of_pod(1)).unwrap();
    assert_eq!(validate(&once.pod, &settings()), []);
    let patch: json_patch::Patch = serde_json::from_value(Value::Array(once.patch)).unwrap();
    let mut patched = plain();
    json_patch::patch(&mut patched, &patch).unwrap();
    assert_eq!(patched, once.pod);
    let twice = mutate(&once.pod, &settings(), &SecretName::of_pod(2)).unwrap();
    assert_eq!(twice.patch, Vec::<Value>::new());
    assert_ne!(validate(&plain(), &settings()), []);
}

#[test]
fn a_token_that_nobody_asked_for_is_taken_out() {
    let mut pod = plain();
    pod["spec"]["volumes"] = json!([{"name": "kube-api-access-x", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}]);
    pod["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "kube-api-access-x", "readOnly": true, "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}]);
    let unasked = mutate(&pod, &settings(), &SecretName::of_pod(1)).unwrap();
    assert!(!unasked.pod.to_string().contains("kube-api-access"));
    pod["spec"]["automountServiceAccountToken"] = json!(true);
    let asked = mutate(&pod, &settings(), &SecretName::of_pod(1)).unwrap();
    assert!(asked.pod.to_string().contains("kube-api-access"));
    assert_eq!(validate(&asked.pod, &settings()), []);
    assert_eq!(
        asked.pod["spec"]["initContainers"][1]["volumeMounts"][5]["name"],
        "exeat-no-token"
    );
}

#[test]
fn a_running_pods_gate_may_not_be_changed() {
    let old = mutate(&plain(), &settings(), &SecretName::of_pod(1))
        .unwrap()
        .pod;
    let mut new = old.clone();
    new["spec"]["containers"][0]["image"] = json!("b");
    assert_eq!(validate_update(&old, &new), []);
    new["spec"]["initContainers"][1]["image"] = json!("b");
    assert_eq!(
        validate_update(&old, &new)[0].field,
        "spec.initContainers[1]"
    );
    // Older than the namespace's label.
    assert_eq!(validate_update(&plain(), &plain()), []);
}

#[test]
fn what_was_added_can_be_taken_away() {
    let governed = mutate(&plain(), &settings(), &SecretName::of_pod(1))
        .unwrap()
        .pod;
    let bare = remove(&governed);
    assert!(!bare.to_string().contains("exeat"), "{bare}");

    // Of Java's options, only ours go.
    let mut java = plain();
    java["spec"]["containers"][0]["env"] =
        json!([{"name": "JAVA_TOOL_OPTIONS", "value": "-Xmx1g"}]);
    let governed = mutate(&java, &settings(), &SecretName::of_pod(1))
        .unwrap()
        .pod;
    let bare = remove(&governed);
    assert_eq!(
        bare["spec"]["containers"][0]["env"],
        java["spec"]["containers"][0]["env"]
    );
}

#[test]
fn where_images_are_not_trusted_every_container_says_its_user() {
    let mut strict = settings();
    strict.require_run_as_user = true;
    let judged = |pod: &Value| -> Vec<String> {
        let governed = mutate(pod, &strict, &SecretName::of_pod(1)).unwrap().pod;
        let refusals = validate(&governed, &strict);
        refusals.into_iter().map(|one| one.field).collect()
    };
    let mut pod = plain();
    let field = "spec.containers[0].securityContext.runAsUser";
    assert_eq!(judged(&pod), [field]);
    pod["spec"]["containers"][0]["securityContext"] = json!({"runAsUser": 1000});
    assert!(judged(&pod).is_empty());
    pod["spec"]["containers"][0]["securityContext"] = json!({"runAsUser": 64100});
    assert_eq!(judged(&pod), [field]);
    let mut pod = plain();
    pod["spec"]["securityContext"] = json!({"runAsUser": 1000});
    assert!(judged(&pod).is_empty());
}
