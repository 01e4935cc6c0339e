//! The difference between two JSON documents as a JSON Patch (RFC 6902): only what changed.

use serde_json::{Map, Value, json};

/// Operations that turn `old` into `new`; none where they are equal.
#[must_use]
pub fn difference(old: &Value, new: &Value) -> Vec<Value> {
    let mut operations = Vec::new();
    differ(old, new, "", &mut operations);
    operations
}

fn differ(old: &Value, new: &Value, path: &str, operations: &mut Vec<Value>) {
    match (old, new) {
        _ if old == new => {}
        (Value::Object(old), Value::Object(new)) => objects(old, new, path, operations),
        (Value::Array(old), Value::Array(new)) => arrays(old, new, path, operations),
        _ => operations.push(json!({"op": "replace", "path": path, "value": new})),
    }
}

fn objects(
    old: &Map<String, Value>,
    new: &Map<String, Value>,
    path: &str,
    operations: &mut Vec<Value>,
) {
    for key in old.keys().filter(|key| !new.contains_key(*key)) {
        operations.push(json!({"op": "remove", "path": below(path, key)}));
    }
    for (key, value) in new {
        match old.get(key) {
            Some(before) => differ(before, value, &below(path, key), operations),
            None => operations.push(json!({"op": "add", "path": below(path, key), "value": value})),
        }
    }
}

/// What both begin and end with stays. Between them, as many elements as before are taken to be the
/// same ones changed; otherwise they are taken out and put in.
fn arrays(old: &[Value], new: &[Value], path: &str, operations: &mut Vec<Value>) {
    let same = |pairs: &mut dyn Iterator<Item = (&Value, &Value)>| {
        pairs.take_while(|(old, new)| old == new).count()
    };
    let start = same(&mut old.iter().zip(new));
    let (old, new) = (&old[start..], &new[start..]);
    let end = same(&mut old.iter().rev().zip(new.iter().rev()));
    let (old, new) = (&old[..old.len() - end], &new[..new.len() - end]);
    if old.len() == new.len() {
        for (index, (old, new)) in old.iter().zip(new).enumerate() {
            differ(old, new, &format!("{path}/{}", start + index), operations);
        }
        return;
    }
    for index in (0..old.len()).rev() {
        operations.push(json!({"op": "remove", "path": format!("{path}/{}", start + index)}));
    }
    for (index, value) in new.iter().enumerate() {
        operations.push(
            json!({"op": "add", "path": format!("{path}/{}", start + index), "value": value}),
        );
    }
}

/// A key below `path`, escaped as RFC 6901 wants it.
fn below(path: &str, key: &str) -> String {
    format!("{path}/{}", key.replace('~', "~0").replace('/', "~1"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn check(old: Value, new: Value, count: usize) {
        let operations = difference(&old, &new);
        assert_eq!(operations.len(), count, "{operations:?}");
        let patch: json_patch::Patch =
            serde_json::from_value(Value::Array(operations.clone())).unwrap();
        let mut patched = old;
        json_patch::patch(&mut patched, &patch).unwrap();
        assert_eq!(patched, new, "{operations:?}");
    }

    #[test]
    fn only_what_changed() {
        check(json!({"a": 1}), json!({"a": 1}), 0);
        check(json!({"a": [3]}), json!({"a": [1, 2, 3]}), 2);
        check(
            json!({"a": [1, {"b": 1}, 3]}),
            json!({"a": [1, {"b": 2}, 3]}),
            1,
        );
        check(json!({"a": [1, 2, 3]}), json!({"a": [3]}), 2);
        check(json!({"a": [1, 1, 1]}), json!({"a": [1, 1]}), 1);
        check(json!({"a": [1, 9, 3]}), json!({"a": [1, 5, 6, 7, 3]}), 4);
        check(json!({"a": null}), json!({"a": []}), 1);
        check(json!({"a": 1, "b": 2}), json!({"c": 3}), 3);
    }

    #[test]
    fn keys_are_escaped() {
        check(json!({"a/b~c": {"~1": 1}}), json!({"a/b~c": {"~1": 2}}), 1);
        assert_eq!(below("/x", "exeat.dev/~a"), "/x/exeat.dev~1~0a");
    }
}
