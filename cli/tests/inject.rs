//! `exeat inject` as a person uses it.
#![allow(clippy::unwrap_used, clippy::expect_used)]
#![expect(
    clippy::disallowed_methods,
    reason = "the test starts the program that it is about"
)]

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

const DEPLOYMENTS: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: agent, x-unknown: {kept: "yes"}}
spec: {template: {spec: {containers: [{name: agent, image: a, env: [{name: SWITCH, value: "on"}]}]}}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: untouched}
---
apiVersion: v1
kind: List
items:
- apiVersion: batch/v1
  kind: CronJob
  metadata: {name: nightly}
  spec: {jobTemplate: {spec: {template: {spec: {containers: [{name: job, image: a}]}}}}}
- apiVersion: extensions.agents.x-k8s.io/v1alpha1
  kind: SandboxTemplate
  metadata: {name: box}
  spec: {networkPolicyManagement: Unmanaged, podTemplate: {spec: {containers: [{name: box, image: a}]}}}
"#;

fn exeat(arguments: &[&str], images: bool, input: &str) -> Output {
    let image = format!("r.example/x@sha256:{}", "0".repeat(64));
    let mut command = Command::new(env!("CARGO_BIN_EXE_exeat"));
    command.args(arguments).args(["-f", "-"]);
    if images {
        command.args(["--sidecar-image", &image, "--init-image", &image]);
    }
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn in_checked_and_out_again() {
    let bare = exeat(&["inject", "--check"], true, DEPLOYMENTS);
    assert_eq!(bare.status.code(), Some(1));
    let said = text(&bare.stderr);
    assert!(
        said.contains("Deployment/agent: spec.template.spec.initContainers"),
        "{said}"
    );
    assert!(
        said.contains("CronJob/nightly: spec.jobTemplate.spec.template.spec"),
        "{said}"
    );

    let governed = exeat(&["inject"], true, DEPLOYMENTS);
    assert!(governed.status.success(), "{}", text(&governed.stderr));
    let governed = text(&governed.stdout);
    assert_eq!(
        governed.matches("/exeat-sidecar\n").count(),
        3 * 4,
        "{governed}"
    );
    assert!(governed.contains("kept:") && governed.contains("untouched"));

    let check = exeat(&["inject", "--check"], true, governed);
    assert!(check.status.success(), "{}", text(&check.stderr));
    let difference = exeat(&["inject", "--diff"], true, governed);
    assert_eq!(
        (difference.status.code(), text(&difference.stdout)),
        (Some(0), "")
    );

    let out = exeat(&["uninject"], false, governed);
    assert!(out.status.success());
    assert!(
        !text(&out.stdout).contains("exeat"),
        "{}",
        text(&out.stdout)
    );
}

#[test]
fn what_admission_refuses_is_not_printed() {
    let host = DEPLOYMENTS.replace(
        "spec: {containers: [{name: agent",
        "spec: {hostNetwork: true, containers: [{name: agent",
    );
    let refused = exeat(&["inject"], true, &host);
    assert_eq!(
        (refused.status.code(), text(&refused.stdout)),
        (Some(1), "")
    );
    assert!(text(&refused.stderr).contains("Deployment/agent: spec.template.spec.hostNetwork: "));
}

#[test]
fn the_difference_is_shown() {
    let shown = exeat(&["inject", "--diff"], true, DEPLOYMENTS);
    let shown = text(&shown.stdout);
    assert!(
        shown.starts_with("@@ ") && shown.contains("exeat-init"),
        "{shown}"
    );
    assert!(
        !shown
            .lines()
            .any(|line| line.starts_with('-') && line.contains("name:")),
        "{shown}"
    );
}

#[test]
fn what_agent_sandbox_would_add_is_refused_and_what_has_no_pods_is_named() {
    let open = DEPLOYMENTS.replace("networkPolicyManagement: Unmanaged, ", "");
    for words in [&["inject"][..], &["inject", "--check"]] {
        let refused = exeat(words, true, &open);
        assert_eq!(refused.status.code(), Some(1));
        let said = text(&refused.stderr);
        assert!(
            said.contains("SandboxTemplate/box: spec.networkPolicyManagement: "),
            "{said}"
        );
    }
    let claim = "{apiVersion: extensions.agents.x-k8s.io/v1beta1, kind: SandboxClaim, metadata: {name: c}, spec: {}}";
    let refused = exeat(&["inject"], true, claim);
    assert_eq!(refused.status.code(), Some(1));
    let said = text(&refused.stderr);
    assert!(
        said.contains("(SandboxClaim/c)") && said.contains("a SandboxTemplate"),
        "{said}"
    );
}

/// What a person reads in `deploy/agent-sandbox` is what admission takes, word for word.
#[test]
fn the_sandbox_manifests_are_as_injected() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/agent-sandbox");
    for set in ["v1alpha1", "v1beta1", "kata"] {
        let file = folder.join(set).join("pool.yaml");
        let image = |name: &str| format!("localhost/exeat/{name}@sha256:{}", "0".repeat(64));
        let check = Command::new(env!("CARGO_BIN_EXE_exeat"))
            .args(["inject", "--check", "--upstream-ca", "-f"])
            .arg(&file)
            .args(["--sidecar-image", &image("sidecar")])
            .args(["--init-image", &image("init")])
            .output()
            .unwrap();
        assert!(check.status.success(), "{set}: {}", text(&check.stderr));
    }
}
