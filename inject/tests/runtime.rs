//! What a pod's `RuntimeClass` changes in what is added.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use exeat_inject::{Image, SecretName, Settings, mutate, validate};
use serde_json::{Value, json};

fn settings() -> Settings {
    let image = |name: &str| Image::parse(&format!("r.example/{name}@sha256:{}", "0".repeat(64)));
    Settings::new(image("sidecar").unwrap(), image("init").unwrap())
}

fn governed(class: Option<&str>, settings: &Settings) -> Value {
    let mut pod = json!({"metadata": {"name": "a"}, "spec": {"containers": [{"name": "agent", "image": "a"}]}});
    if let Some(class) = class {
        pod["spec"]["runtimeClassName"] = class.into();
    }
    let once = mutate(&pod, settings, &SecretName::of_pod(1)).unwrap().pod;
    assert_eq!(validate(&once, settings), []);
    once
}

#[test]
fn in_gvisor_the_guard_and_nobody_else_has_raw_sockets() {
    let mut settings = settings();
    settings.gvisor_runtime_classes.push("sandboxed".to_owned());
    for (class, gvisor) in [
        (None, false),
        (Some("kata"), false),
        (Some("gvisor"), true),
        (Some("runsc"), true),
        (Some("sandboxed"), true),
        (Some("Gvisor"), false),
    ] {
        let pod = governed(class, &settings);
        let guard = &pod["spec"]["initContainers"][0]["securityContext"]["capabilities"];
        let added = if gvisor {
            json!(["NET_ADMIN", "NET_RAW", "SETGID", "SETUID"])
        } else {
            json!(["NET_ADMIN", "SETGID", "SETUID"])
        };
        assert_eq!(guard["add"], added, "{class:?}");
        for list in ["initContainers", "containers"] {
            for container in pod["spec"][list].as_array().unwrap() {
                let others = &container["securityContext"]["capabilities"]["add"];
                assert!(
                    container["name"] == "exeat-init" || others.is_null(),
                    "{class:?}: {container}"
                );
            }
        }
    }
}

/// The class can't be changed afterwards, and a guard with more than its class calls for is refused.
#[test]
fn a_guard_of_another_runtime_is_refused() {
    let settings = settings();
    let mut pod = governed(Some("gvisor"), &settings);
    pod["spec"]
        .as_object_mut()
        .unwrap()
        .remove("runtimeClassName");
    let refusals = validate(&pod, &settings);
    assert_eq!(refusals.len(), 1, "{refusals:?}");
    assert!(
        refusals[0].field.starts_with("spec.initContainers[0]"),
        "{refusals:?}"
    );
}
