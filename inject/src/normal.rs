//! Our parts as they would be with every default filled in, so that a manifest written by hand
//! (which leaves defaults out) and what the API server stores are compared as the same thing.

use serde_json::{Map, Value, json};

/// A container of ours, in one form.
pub(crate) fn container(value: &Value) -> Value {
    let mut value = value.clone();
    prune(&mut value);
    let Some(map) = value.as_object_mut() else {
        return value;
    };
    default(map, "terminationMessagePath", json!("/dev/termination-log"));
    for variable in elements(map, "env") {
        if let Some(field) = variable
            .pointer_mut("/valueFrom/fieldRef")
            .and_then(Value::as_object_mut)
        {
            default(field, "apiVersion", json!("v1"));
        }
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = map.get_mut(probe).and_then(Value::as_object_mut) {
            default(probe, "timeoutSeconds", json!(1));
            default(probe, "periodSeconds", json!(10));
            default(probe, "successThreshold", json!(1));
            default(probe, "failureThreshold", json!(3));
        }
    }
    sort(map, "volumeMounts", "mountPath");
    sort(map, "env", "name");
    if let Some(resources) = map.get_mut("resources").and_then(Value::as_object_mut) {
        for kind in ["limits", "requests"] {
            // A LimitRange adds others, such as ephemeral-storage.
            if let Some(amounts) = resources.get_mut(kind).and_then(Value::as_object_mut) {
                amounts.retain(|name, _| name == "cpu" || name == "memory");
            }
        }
    }
    if let Some(context) = map
        .get_mut("securityContext")
        .and_then(Value::as_object_mut)
    {
        default(context, "privileged", json!(false));
        if context.get("procMount") == Some(&json!("Default")) {
            context.remove("procMount");
        }
        if let Some(capabilities) = context
            .get_mut("capabilities")
            .and_then(Value::as_object_mut)
        {
            for kind in ["add", "drop"] {
                if let Some(list) = capabilities.get_mut(kind).and_then(Value::as_array_mut) {
                    list.sort_by_key(ToString::to_string);
                }
            }
        }
    }
    value
}

/// A volume of ours, in one form.
pub(crate) fn volume(value: &Value) -> Value {
    let mut value = value.clone();
    prune(&mut value);
    for kind in ["configMap", "secret", "downwardAPI"] {
        if let Some(source) = value.get_mut(kind).and_then(Value::as_object_mut) {
            default(source, "defaultMode", json!(420));
            for item in elements(source, "items") {
                if let Some(field) = item.get_mut("fieldRef").and_then(Value::as_object_mut) {
                    default(field, "apiVersion", json!("v1"));
                }
            }
        }
    }
    value
}

fn default(map: &mut Map<String, Value>, key: &str, value: Value) {
    map.entry(key).or_insert(value);
}

fn elements<'a>(map: &'a mut Map<String, Value>, key: &str) -> impl Iterator<Item = &'a mut Value> {
    map.get_mut(key)
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
}

fn sort(map: &mut Map<String, Value>, list: &str, key: &str) {
    if let Some(list) = map.get_mut(list).and_then(Value::as_array_mut) {
        list.sort_by_cached_key(|element| element.get(key).map(ToString::to_string));
    }
}

/// Takes out nulls, and what says no more than its absence: `[]`, `{}`, `readOnly: false`.
fn prune(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.values_mut().for_each(prune);
            map.retain(|key, value| {
                let empty = match value {
                    Value::Null => true,
                    Value::Array(list) => list.is_empty(),
                    Value::Object(map) => map.is_empty() && key != "emptyDir",
                    Value::Bool(set) => !*set && key == "readOnly",
                    Value::String(text) => text.is_empty(),
                    Value::Number(_) => false,
                };
                !empty
            });
        }
        Value::Array(list) => list.iter_mut().for_each(prune),
        _ => {}
    }
}
