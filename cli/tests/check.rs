//! `exeat check` without a cluster, and as kubectl's plugin. On a cluster: `tests/tests/cluster/check.rs`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    missing_docs,
    reason = "a test"
)]

use std::path::Path;
use std::process::{Command, Output};

fn run(program: &Path, words: &[&str]) -> Output {
    Command::new(program)
        .args(words)
        .env_clear()
        .env("HOME", "/nonexistent")
        .output()
        .unwrap()
}

fn exeat(words: &[&str]) -> Output {
    run(Path::new(env!("CARGO_BIN_EXE_exeat")), words)
}

/// A kubeconfig of a server that nobody is at.
fn nowhere(folder: &Path) -> String {
    let file = folder.join("kubeconfig");
    let text = "\
apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: 'https://127.0.0.1:1'}}]
users: [{name: u, user: {token: not-to-be-printed}}]
contexts: [{name: c, context: {cluster: c, user: u, namespace: agents}}]
current-context: c
";
    std::fs::write(&file, text).unwrap();
    file.to_str().unwrap().to_owned()
}

#[test]
fn without_a_cluster_it_could_not_find_out() {
    let folder = tempfile::tempdir().unwrap();
    for words in [
        vec!["check"],
        vec!["check", "--kubeconfig", "/nonexistent/config"],
        vec!["check", "--context", "elsewhere"],
    ] {
        let output = exeat(&words);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert!(output.stdout.is_empty(), "{output:?}");
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(told.starts_with("error: could not find out: "), "{told}");
    }
    let file = nowhere(folder.path());
    let output = exeat(&[
        "check",
        "-n",
        "agents",
        "one",
        "--kubeconfig",
        &file,
        "-o",
        "json",
    ]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(
        told.contains("https://127.0.0.1:1 does not answer"),
        "{told}"
    );
    assert!(!told.contains("not-to-be-printed"), "{told}");
}

#[test]
fn names_that_no_object_has_are_refused() {
    for name in ["../secrets", "a b", "A", "pod/", "", ".", "a/b"] {
        let output = exeat(&["check", "-n", "agents", name]);
        assert_eq!(output.status.code(), Some(2), "{name}");
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(told.contains("invalid value"), "{name}: {told}");
    }
}

#[test]
fn as_a_plugin_of_kubectl_it_is_called_so() {
    let folder = tempfile::tempdir().unwrap();
    let link = folder.path().join("kubectl-exeat");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_exeat"), &link).unwrap();
    let help = |program: &Path| {
        let output = run(program, &["check", "--help"]);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(help(&link).contains("Usage: kubectl exeat check"));
    assert!(help(Path::new(env!("CARGO_BIN_EXE_exeat"))).contains("Usage: exeat check"));
}
