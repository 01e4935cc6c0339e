//! `exeat policy` as a user meets it: exit codes, what goes where, and JSON for programs.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    missing_docs,
    reason = "a test"
)]

use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;

const POLICY: &str = "\
apiVersion: exeat.dev/v1alpha1
kind: ToolPolicy
metadata: {name: research}
spec:
  podSelector: {matchLabels: {app: research}}
  tools:
  - name: github.read
    http: {hosts: [api.github.com], methods: [GET], paths: [\"/repos/{owner}/**\"]}
    when: path.owner == 'acme'
  - name: docs
    mcp: {server: \"https://mcp.example.com/mcp\", tools: [search]}
";

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

fn exeat(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_exeat"))
        .arg("policy")
        .args(arguments)
        .output()
        .unwrap()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"))
}

#[test]
fn check_says_what_compiled() {
    let folder = Folder::new();
    let file = folder.file("p.yaml", POLICY);
    let output = exeat(&["check", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(
        String::from_utf8_lossy(&output.stdout).starts_with("1 policy compiled"),
        "{output:?}"
    );
    let output = exeat(&["check", file.to_str().unwrap(), "--format", "json"]);
    assert_eq!(json(&output)["policies"][0], "research");
}

#[test]
fn check_shows_the_place_and_the_remedy() {
    let folder = Folder::new();
    let file = folder.file("p.yaml", &POLICY.replace("methods", "metods"));
    let output = exeat(&["check", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(output.stdout.is_empty(), "{output:?}");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(
        told.contains("p.yaml:8:37") && told.contains("did you mean `methods`?"),
        "{told}"
    );
    assert!(
        !told.contains('\u{1b}'),
        "colour where nobody sees it: {told}"
    );
    let output = exeat(&["check", file.to_str().unwrap(), "--format", "json"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(json(&output)["diagnostics"][0]["line"], 8);
}

#[test]
fn check_fails_for_what_it_cant_read() {
    let folder = Folder::new();
    let missing = folder.0.path().join("missing.yaml");
    let output = exeat(&["check", missing.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("missing.yaml"),
        "{output:?}"
    );
}

#[test]
fn explain_gives_verdict_rule_and_reason() {
    let folder = Folder::new();
    let file = folder.file("p.yaml", POLICY);
    let file = file.to_str().unwrap();
    let ask = |arguments: &[&str]| {
        let mut all = vec!["explain", "--policy", file, "--format", "json"];
        all.extend(arguments);
        let output = exeat(&all);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        json(&output)
    };
    let told = ask(&["GET", "https://api.github.com/repos/acme/app"]);
    assert_eq!(
        (&told["verdict"], &told["rule"]),
        (&"allow".into(), &"github.read".into())
    );
    let told = ask(&["POST", "https://api.github.com/repos/acme/app"]);
    assert_eq!(told["reason"], "method_not_allowed");
    assert!(
        told["message"]
            .as_str()
            .unwrap()
            .ends_with("rule github.read allows GET"),
        "{told}"
    );
    assert_eq!(told["others"][0]["rule"], "github.read");
    let told = ask(&["GET", "https://api.github.com/repos/acme/../x"]);
    assert_eq!(told["reason"], "invalid_request");
    let told = ask(&["tcp", "api.github.com:22"]);
    assert_eq!(told["reason"], "no_rule");
    let told = ask(&[
        "GET",
        "https://api.github.com/repos/acme/app",
        "--label",
        "app=other",
    ]);
    assert_eq!(told["reason"], "no_policy");

    let call = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"drop"}}"#;
    let body = folder.file("call.json", call);
    let told = ask(&[
        "POST",
        "https://mcp.example.com/mcp",
        "--body",
        body.to_str().unwrap(),
    ]);
    assert_eq!(told["reason"], "tool_not_allowed");
    let header = ["--header", "content-type: text/plain"];
    let told = ask(&[
        "POST",
        "https://mcp.example.com/mcp",
        "--body",
        body.to_str().unwrap(),
        header[0],
        header[1],
    ]);
    assert_eq!(told["reason"], "body_invalid");
}
