//! The variables that make a container's clients trust the gate.
//!
//! Every family of clients has another way of being told whom to trust. A value of the pod's author
//! that names other roots would make every call of that client fail, so it is replaced, with a
//! warning; so are proxies taken away, which the gate would refuse to reach.

use serde_json::{Value, json};

use crate::clients::{
    BUNDLE_VARIABLES, JAVA_VARIABLE, OTHER_ROOTS, PROXIES, ROOT_VARIABLES, java_options,
    names_java_store, without_java_options,
};
use crate::names::{CA_BUNDLE, CA_FILE, CA_JAVA};
use crate::walk::{get, text};

/// Every variable of ours that has one value, but Java's.
fn ours() -> impl Iterator<Item = (&'static str, &'static str)> {
    let bundle = BUNDLE_VARIABLES.iter().map(|name| (*name, CA_BUNDLE));
    let root = ROOT_VARIABLES.iter().map(|name| (*name, CA_FILE));
    bundle.chain(root)
}

/// Why a variable of an author's can't stay.
fn objection(name: &str) -> Option<&'static str> {
    let one_of = |names: &[&str]| names.iter().any(|other| other.eq_ignore_ascii_case(name));
    if one_of(PROXIES) {
        Some("the pod's way out is the gate, not a proxy")
    } else if one_of(OTHER_ROOTS) {
        Some("it names other roots, and this client would not trust the gate")
    } else {
        None
    }
}

/// Sets ours in `variables`. `path` is where they are, for the warnings.
pub(crate) fn set(variables: &mut Vec<Value>, path: &str, warnings: &mut Vec<String>) {
    let name_of = |variable: &Value| {
        variable
            .get("name")
            .and_then(Value::as_str)
            .map(str::to_owned)
    };
    variables.retain(|variable| {
        let name = name_of(variable).unwrap_or_default();
        let Some(why) = objection(&name) else {
            return true;
        };
        warnings.push(format!("{path}: {name} was taken away; {why}"));
        false
    });
    for (name, value) in ours() {
        let wanted = json!({"name": name, "value": value});
        let mut found = false;
        for variable in variables.iter_mut() {
            if name_of(variable).as_deref() != Some(name) {
                continue;
            }
            found = true;
            if *variable != wanted {
                warnings.push(format!(
                    "{path}: {name} was replaced by {value}, or this client would not trust the gate"
                ));
                *variable = wanted.clone();
            }
        }
        if !found {
            variables.push(wanted);
        }
    }
    set_java(variables, path, warnings);
}

/// Java's options are kept and extended: they are rarely about trust alone.
fn set_java(variables: &mut Vec<Value>, path: &str, warnings: &mut Vec<String>) {
    let mut found = false;
    for variable in variables.iter_mut().filter(|variable| is_java(variable)) {
        found = true;
        if get(variable, &["valueFrom"]).is_some() {
            warnings.push(format!(
                "{path}: {JAVA_VARIABLE} comes from elsewhere and can't be extended; add \
                 -Djavax.net.ssl.trustStore={CA_JAVA} there, or Java does not trust the gate"
            ));
            continue;
        }
        let theirs = text(variable, &["value"]).unwrap_or_default();
        let both = java_options(theirs, CA_JAVA);
        if names_java_store(theirs) && both != theirs {
            warnings.push(format!(
                "{path}: {JAVA_VARIABLE} names other roots; {CA_JAVA} was put in their place, or \
                 Java would not trust the gate"
            ));
        }
        variable["value"] = both.into();
    }
    if !found {
        variables.push(json!({"name": JAVA_VARIABLE, "value": java_options("", CA_JAVA)}));
    }
}

fn is_java(variable: &Value) -> bool {
    text(variable, &["name"]) == Some(JAVA_VARIABLE)
}

/// Takes ours away again.
pub(crate) fn unset(variables: &mut Vec<Value>) {
    variables.retain_mut(|variable| {
        if is_java(variable) {
            let value = text(variable, &["value"]).unwrap_or_default();
            match without_java_options(value, CA_JAVA).map(str::to_owned) {
                Some(theirs) if theirs.is_empty() => return false,
                Some(theirs) => variable["value"] = theirs.into(),
                None => {}
            }
        }
        !ours().any(|(name, value)| *variable == json!({"name": name, "value": value}))
    });
}
