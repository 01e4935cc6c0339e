//! Finding one's way in a pod that may have any shape: what is absent and what is null are the same.

use serde_json::{Map, Value};

/// One container and where it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Container<'a> {
    pub(crate) list: &'static str,
    pub(crate) index: usize,
    pub(crate) value: &'a Value,
}

/// Lists of containers, in the order they are judged.
pub(crate) const LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

// === impl Container ===

impl<'a> Container<'a> {
    pub(crate) fn path(&self) -> String {
        format!("spec.{}[{}]", self.list, self.index)
    }

    pub(crate) fn name(&self) -> &'a str {
        text(self.value, &["name"]).unwrap_or_default()
    }
}

/// Containers of the list named.
pub(crate) fn containers<'a>(
    pod: &'a Value,
    list: &'static str,
) -> impl Iterator<Item = Container<'a>> {
    let values = array(pod, &["spec", list]);
    let number = values.iter().enumerate();
    number.map(move |(index, value)| Container { list, index, value })
}

/// What is at `path`, null counting as absent.
pub(crate) fn get<'a>(value: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter()
        .try_fold(value, |value, key| value.get(*key))
        .filter(|value| !value.is_null())
}

/// The text at `path`.
pub(crate) fn text<'a>(value: &'a Value, path: &[&str]) -> Option<&'a str> {
    get(value, path).and_then(Value::as_str)
}

/// The elements at `path`; none where there is no list.
pub(crate) fn array<'a>(value: &'a Value, path: &[&str]) -> &'a [Value] {
    get(value, path)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

/// The members at `path`.
pub(crate) fn members<'a>(
    value: &'a Value,
    path: &[&str],
) -> impl Iterator<Item = (&'a String, &'a Value)> {
    get(value, path)
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
}

/// The list at `key`, made where there is none.
pub(crate) fn list_mut<'a>(
    map: &'a mut Map<String, Value>,
    key: &str,
) -> Option<&'a mut Vec<Value>> {
    let entry = map.entry(key).or_insert(Value::Null);
    if entry.is_null() {
        *entry = Value::Array(Vec::new());
    }
    entry.as_array_mut()
}

/// The object at `key`, made where there is none.
pub(crate) fn object_mut<'a>(
    map: &'a mut Map<String, Value>,
    key: &str,
) -> Option<&'a mut Map<String, Value>> {
    let entry = map.entry(key).or_insert(Value::Null);
    if entry.is_null() {
        *entry = Value::Object(Map::new());
    }
    entry.as_object_mut()
}

/// Lists and objects of which a pod is made must be lists and objects, or nobody can judge it.
pub(crate) fn misshapen(pod: &Value) -> Option<String> {
    let object = |path: &[&str]| get(pod, path).is_none_or(Value::is_object);
    if !pod.is_object() {
        return Some("(root)".into());
    }
    if !get(pod, &["spec"]).is_some_and(Value::is_object) {
        return Some("spec".into());
    }
    for path in [
        &["metadata"][..],
        &["metadata", "annotations"],
        &["spec", "securityContext"],
    ] {
        if !object(path) {
            return Some(path.join("."));
        }
    }
    if let Some(found) = bad_list(pod, "volumes", "spec") {
        return Some(found);
    }
    let spec = get(pod, &["spec"]).unwrap_or(pod);
    for list in LISTS {
        if let Some(found) = bad_list(pod, list, "spec") {
            return Some(found);
        }
        for (index, container) in array(spec, &[list]).iter().enumerate() {
            let path = format!("spec.{list}[{index}]");
            if let Some(found) = bad_container(container, &path) {
                return Some(found);
            }
        }
    }
    None
}

/// The list `key` of `parent["spec"]` or of `parent` itself, when it is not a list of objects.
fn bad_list(parent: &Value, key: &str, under: &str) -> Option<String> {
    let holder = if under == "spec" {
        parent.get("spec")?
    } else {
        parent
    };
    let list = get(holder, &[key])?;
    let Some(list) = list.as_array() else {
        return Some(format!("{under}.{key}"));
    };
    let bad = list.iter().position(|element| !element.is_object())?;
    Some(format!("{under}.{key}[{bad}]"))
}

fn bad_container(container: &Value, path: &str) -> Option<String> {
    for key in ["env", "volumeMounts", "volumeDevices", "ports"] {
        if let Some(found) = bad_list(container, key, path) {
            return Some(found);
        }
    }
    for keys in [
        &["securityContext"][..],
        &["securityContext", "capabilities"],
        &["securityContext", "seccompProfile"],
        &["resources"],
    ] {
        if !get(container, keys).is_none_or(Value::is_object) {
            return Some(format!("{path}.{}", keys.join(".")));
        }
    }
    for key in ["add", "drop"] {
        let list = get(container, &["securityContext", "capabilities", key]);
        let texts = |list: &Vec<Value>| list.iter().all(Value::is_string);
        if !list.is_none_or(|list| list.as_array().is_some_and(texts)) {
            return Some(format!("{path}.securityContext.capabilities.{key}"));
        }
    }
    None
}
