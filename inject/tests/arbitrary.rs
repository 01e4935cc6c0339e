//! Any pod whatever: nothing panics, what is taken passes our own judgement or is refused by name,
//! a patched pod is not patched again, and what does not concern us is as it was.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::path::Path;

use exeat_inject::{
    Image, SecretName, Settings, mutate, remove, validate, validate_ephemeral, validate_update,
};
use proptest::prelude::*;
use serde_json::{Value, json};

/// Words that our code looks for, so that chance meets them.
const WORDS: &[&str] = &[
    "metadata",
    "annotations",
    "spec",
    "initContainers",
    "containers",
    "ephemeralContainers",
    "volumes",
    "name",
    "image",
    "env",
    "value",
    "valueFrom",
    "volumeMounts",
    "mountPath",
    "securityContext",
    "capabilities",
    "add",
    "drop",
    "runAsUser",
    "privileged",
    "allowPrivilegeEscalation",
    "resources",
    "limits",
    "ports",
    "containerPort",
    "secret",
    "secretName",
    "projected",
    "sources",
    "emptyDir",
    "exeat-init",
    "exeat-sidecar",
    "exeat-ca",
    "exeat-credentials",
    "exeat-policy",
    "ALL",
    "NET_RAW",
    "SSL_CERT_FILE",
    "HTTPS_PROXY",
    "a/b~c",
    "agent",
    "automountServiceAccountToken",
    "seccompProfile",
    "serviceAccountToken",
    "kube-api-access-x",
    "/etc/ssl/certs",
];

fn settings() -> Settings {
    let image = |name: &str| Image::parse(&format!("r.example/{name}@sha256:{}", "0".repeat(64)));
    Settings::new(image("sidecar").unwrap(), image("init").unwrap())
}

fn word() -> impl Strategy<Value = String> {
    prop_oneof![8 => proptest::sample::select(WORDS).prop_map(str::to_owned), 1 => "[a-z/~.]{0,6}"]
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        prop_oneof![Just(64100_i64), any::<i64>()].prop_map(Value::from),
        word().prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 60, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            proptest::collection::vec((word(), inner), 0..6)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn any_container() -> impl Strategy<Value = Value> {
    (
        word(),
        proptest::collection::vec((word(), any_json()), 0..4),
    )
        .prop_map(|(name, more)| {
            let mut container: serde_json::Map<String, Value> = more.into_iter().collect();
            container.insert("name".into(), name.into());
            Value::Object(container)
        })
}

fn any_pod() -> impl Strategy<Value = Value> {
    let containers = || proptest::collection::vec(any_container(), 0..4);
    let more = proptest::collection::vec((word(), any_json()), 0..4);
    (containers(), containers(), more, any_json()).prop_map(|(first, then, more, odd)| {
        let mut spec: serde_json::Map<String, Value> = more.into_iter().collect();
        spec.insert("initContainers".into(), first.into());
        spec.insert("containers".into(), then.into());
        json!({"kind": "Pod", "spec": spec, "status": odd, "other": {"~/": 1.5}})
    })
}

/// What must hold of any value taken for a pod.
fn check(pod: &Value) {
    let settings = settings();
    drop(validate(pod, &settings));
    drop(validate_ephemeral(pod));
    drop(validate_update(pod, pod));
    drop(remove(pod));
    let Ok(governed) = mutate(pod, &settings, &SecretName::of_pod(1)) else {
        return;
    };
    let patch: json_patch::Patch =
        serde_json::from_value(Value::Array(governed.patch.clone())).unwrap();
    let mut patched = pod.clone();
    json_patch::patch(&mut patched, &patch).unwrap();
    assert_eq!(patched, governed.pod);
    let again = mutate(&governed.pod, &settings, &SecretName::of_pod(2)).unwrap();
    assert_eq!(again.patch, Vec::<Value>::new());
    for key in ["kind", "status", "other", "metadata"] {
        assert_eq!(governed.pod.get(key), pod.get(key), "{key}");
    }
    for refusal in validate(&governed.pod, &settings) {
        assert!(!refusal.message.is_empty() && !refusal.remedy.is_empty());
        // Ours are as they must be, whatever was there before.
        let own = ["spec.initContainers[0]", "spec.initContainers[1]"];
        assert!(
            !own.iter().any(|own| refusal.field.starts_with(own)),
            "{refusal}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_value(value in any_json()) {
        check(&value);
    }

    #[test]
    fn any_pod_at_all(pod in any_pod()) {
        check(&pod);
    }
}

#[test]
fn the_fuzz_corpus() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/pod");
    let mut count = 0;
    for entry in fs::read_dir(folder).unwrap() {
        count += 1;
        if let Ok(pod) = serde_json::from_slice(&fs::read(entry.unwrap().path()).unwrap()) {
            check(&pod);
        }
    }
    assert!(count > 0, "the corpus is empty");
}
