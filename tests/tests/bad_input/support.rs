//! What the sidecar is told, and what it says.

use std::ffi::OsString;

use anyhow::{Result, ensure};
use exeat_tests::chaos::{
    API, Said, Stage,
    client::{Answer, Client},
};
use serde_json::Value;

/// Set up wrongly: trying again changes nothing.
pub(crate) const CONFIGURATION: i32 = 78;
/// What clap says to flags that it does not know.
pub(crate) const USAGE: i32 = 2;

pub(crate) const POLICY: &str = r#"
apiVersion: exeat.dev/v1alpha1
kind: ToolPolicy
metadata: {name: good}
spec:
  tools:
  - name: calls
    http: {hosts: [api.exeat.test], scheme: http, addresses: [10.77.0.0/24], methods: [GET], paths: ["/c/**"]}
"#;

/// Policies that must not compile, and the words that say why.
pub(crate) const BAD_POLICIES: [(&str, &str, &str, &[&str]); 6] = [
    (
        "an unknown field",
        "methods:",
        "mehtods:",
        &["mehtods", "policy.yaml:8:", "methods"],
    ),
    (
        "a bad expression",
        "  - name: calls",
        "  - name: calls\n    when: path. ==",
        &["when", "policy.yaml:8"],
    ),
    (
        "an unknown name in an expression",
        "  - name: calls",
        "  - name: calls\n    when: pathh.x == 'a'",
        &["pathh", "policy.yaml:8"],
    ),
    ("YAML that is none", "spec:", "spec: [", &["policy.yaml:"]),
    (
        "another kind",
        "ToolPolicy",
        "ConfigMap",
        &["ConfigMap", "ToolPolicy"],
    ),
    (
        "a host that is none",
        "[api.exeat.test]",
        "[\"a b\"]",
        &["a b", "policy.yaml:8"],
    ),
];

/// Arguments of a sidecar with some of them changed or left out.
pub(crate) fn changed(stage: &Stage, changes: &[(&str, Option<&str>)]) -> Vec<OsString> {
    let mut arguments = stage.arguments();
    for (flag, value) in changes {
        if let Some(at) = arguments.iter().position(|argument| argument == flag) {
            arguments.drain(at..at + 2);
        }
        if let Some(value) = value {
            arguments.extend([flag.into(), value.into()]);
        }
    }
    arguments
}

/// The sidecar gives up with this exit status, and says these words; it neither panics nor serves.
pub(crate) fn refused(
    stage: &Stage,
    what: &str,
    changes: &[(&str, Option<&str>)],
    code: i32,
    words: &[&str],
) {
    let said = stage.refuses(&changed(stage, changes)).unwrap();
    told(what, &said, code, words);
}

pub(crate) fn told(what: &str, said: &Said, code: i32, words: &[&str]) {
    if let Err(error) = tells(said, code, words) {
        panic!("{what}: {error}");
    }
}

pub(crate) fn tells(said: &Said, code: i32, words: &[&str]) -> Result<()> {
    let text = &said.text;
    ensure!(!text.contains("panicked"), "{text}");
    ensure!(said.status.code() == Some(code), "{}: {text}", said.status);
    for word in words {
        ensure!(text.contains(word), "it does not say `{word}`: {text}");
    }
    Ok(())
}

pub(crate) fn get(stage: &Stage, path: &str) -> Answer {
    let to = stage.world.plain();
    stage.agent(|| Client::plain(to).unwrap().get(API, path, "").unwrap())
}

pub(crate) fn code(answer: &Answer) -> String {
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    body["error"]["code"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}
