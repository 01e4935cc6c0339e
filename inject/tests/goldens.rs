//! Pod shapes, each with what becomes of it beside it: `goldens/NAME.yaml` and `NAME.expected.json`.
//! `EXEAT_BLESS=1` writes what was found; look at the difference before it is committed. Parts of ours
//! that are the same in every pod are written out in `plain` only.
#![allow(clippy::unwrap_used, clippy::expect_used)]
#![expect(
    clippy::disallowed_methods,
    reason = "the person who runs the test says whether the goldens are written anew"
)]

use std::fs;
use std::path::Path;

use exeat_inject::clients::java_options;
use exeat_inject::names::{CA_BUNDLE, CA_FILE, CA_JAVA, CA_VOLUME};
use exeat_inject::{Image, SecretName, Settings, mutate, validate};
use serde_json::{Value, json};

/// Fewer would mean that files were lost.
const FEWEST: usize = 60;

fn settings() -> Settings {
    let image = |name: &str| Image::parse(&format!("r.example/{name}@sha256:{}", "0".repeat(64)));
    Settings::new(image("sidecar").unwrap(), image("init").unwrap())
}

fn plain_parts() -> Vec<Value> {
    let pod = json!({"spec": {"containers": []}});
    let pod = mutate(&pod, &settings(), &SecretName::of_pod(1))
        .unwrap()
        .pod;
    let list = |key: &str| pod["spec"][key].as_array().unwrap().clone();
    [list("initContainers"), list("volumes")].concat()
}

/// Our parts by name, and our variables as one.
fn shorten(value: &Value, parts: &[Value]) -> Value {
    let java = java_options("", CA_JAVA);
    let ours = [CA_BUNDLE, CA_FILE, &java];
    let variable = |value: &Value| ours.iter().any(|ours| value["value"] == *ours);
    match value {
        Value::Object(_) if parts.contains(value) => {
            json!(format!("{} as in plain", value["name"].as_str().unwrap()))
        }
        Value::Object(map) if map.contains_key("mountPath") && map["name"] == CA_VOLUME => {
            json!(format!(
                "{CA_VOLUME} at {}",
                map["mountPath"].as_str().unwrap()
            ))
        }
        Value::Object(map) => map
            .iter()
            .map(|(key, value)| (key.clone(), shorten(value, parts)))
            .collect(),
        Value::Array(list) if list.len() > 10 && list.iter().all(variable) => {
            json!("client variables")
        }
        Value::Array(list) => list.iter().map(|value| shorten(value, parts)).collect(),
        value => value.clone(),
    }
}

fn outcome(name: &str, pod: &Value) -> Value {
    let governed = match mutate(pod, &settings(), &SecretName::of_pod(1)) {
        Ok(governed) => governed,
        Err(refusals) => return json!({"refused": refusals}),
    };
    let patch: json_patch::Patch =
        serde_json::from_value(Value::Array(governed.patch.clone())).unwrap();
    let mut patched = pod.clone();
    json_patch::patch(&mut patched, &patch).unwrap();
    assert_eq!(patched, governed.pod, "{name}");
    let again = mutate(&governed.pod, &settings(), &SecretName::of_pod(2)).unwrap();
    assert_eq!(
        again.patch,
        Vec::<Value>::new(),
        "{name}: a patched pod is patched again"
    );
    let parts = if name == "plain" {
        Vec::new()
    } else {
        plain_parts()
    };
    json!({
        "warnings": governed.warnings,
        "refusals": validate(&governed.pod, &settings()),
        "patch": shorten(&Value::Array(governed.patch), &parts),
    })
}

#[test]
fn every_shape_comes_to_what_is_beside_it() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens");
    let bless = std::env::var_os("EXEAT_BLESS").is_some();
    let mut different = Vec::new();
    let mut count = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|kind| kind != "yaml") {
            continue;
        }
        count += 1;
        let name = path.file_stem().unwrap().to_str().unwrap();
        let pod: Value = serde_saphyr::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        let found = format!("{:#}\n", outcome(name, &pod));
        let beside = folder.join(format!("{name}.expected.json"));
        if bless {
            fs::write(&beside, &found).unwrap();
        } else if fs::read_to_string(&beside).unwrap_or_default() != found {
            different.push(format!("{name}: found\n{found}"));
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
    assert!(count >= FEWEST, "only {count} shapes");
}
