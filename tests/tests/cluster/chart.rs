//! The chart and the manifests under deploy/: rendered by the real helm, judged by the real API server.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use exeat_tests::cluster::{Cluster, cluster};

use super::support::deployed;

fn chart() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    root.join("deploy/chart/exeat")
}

fn helm(cluster: &Cluster, images: [&str; 3], more: &[&str]) -> Output {
    let mut command = Command::new(cluster.node().program("helm"));
    command
        .args(["template", "exeat"])
        .arg(chart())
        .args(["--namespace", "exeat-system", "--kube-version", "1.36.3"])
        .args(more);
    for (name, image) in ["sidecar", "init", "operator"].into_iter().zip(images) {
        command.args(["--set", &format!("images.{name}={image}")]);
    }
    command.output().unwrap()
}

#[test]
fn the_chart_renders_what_the_api_server_takes() {
    let cluster = cluster();
    let image = cluster.images.reference("sidecar");
    let output = helm(cluster, [image; 3], &[]);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complaint}");
    let rendered = String::from_utf8(output.stdout).unwrap();
    for what in [
        "kind: MutatingWebhookConfiguration",
        "kind: ValidatingWebhookConfiguration",
        "kind: PodDisruptionBudget",
        "kind: NetworkPolicy",
        "failurePolicy: Fail",
        "reinvocationPolicy: IfNeeded",
        "replicas: 2",
    ] {
        assert!(
            rendered.contains(what),
            "`{what}` is missing in:\n{rendered}"
        );
    }
    let kubectl = &cluster.kubectl;
    let _there_already = kubectl.run(&["create", "namespace", "exeat-system"]);
    let words = ["label", "--overwrite", "namespace", "exeat-system"];
    let restricted = ["pod-security.kubernetes.io/enforce=restricted"];
    kubectl
        .run(&[&words[..], &restricted[..]].concat())
        .unwrap();
    let words = ["apply", "--dry-run=server", "--validate=strict", "-f", "-"];
    let output = kubectl.output(&words, &rendered).unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{complaint}");
    // The operator's own pods pass PodSecurity's strictest level.
    assert!(
        !complaint.contains("would violate PodSecurity"),
        "{complaint}"
    );
}

/// What `kubectl apply -f` installs is the chart, rendered. `EXEAT_BLESS=1` writes it anew.
#[test]
fn the_plain_manifests_are_the_chart() {
    let cluster = cluster();
    let placeholder = |name: &str| format!("localhost/exeat/{name}@sha256:{}", "0".repeat(64));
    let images = ["sidecar", "init", "operator"].map(placeholder);
    let output = helm(cluster, images.each_ref().map(String::as_str), &[]);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complaint}");
    let rendered = String::from_utf8(output.stdout).unwrap();
    let rendered = rendered.replace("managed-by: Helm", "managed-by: kubectl");
    let wanted = format!(
        "# Exeat without helm: deploy/chart/exeat with its default values, rendered.\n\
         # Put in the digests that `cargo xtask images` prints, in place of the zeros.\n\
         apiVersion: v1\n\
         kind: Namespace\n\
         metadata:\n  \
           name: exeat-system\n  \
           labels: {{pod-security.kubernetes.io/enforce: restricted}}\n{rendered}"
    );
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let file = root.join("deploy/manifests/exeat.yaml");
    if env::var_os("EXEAT_BLESS").is_some() {
        fs::write(&file, &wanted).unwrap();
    }
    let written = fs::read_to_string(&file).unwrap_or_default();
    assert!(
        written == wanted,
        "{} is not what the chart renders; EXEAT_BLESS=1 writes it anew",
        file.display()
    );
    let words = ["apply", "--dry-run=server", "--validate=strict", "-f", "-"];
    let _there_already = cluster
        .kubectl
        .run(&["create", "namespace", "exeat-system"]);
    cluster.kubectl.fed(&words, &written).unwrap();
}

#[test]
fn the_chart_refuses_what_would_not_hold() {
    let cluster = cluster();
    let image = cluster.images.reference("sidecar");
    let tagged = "localhost/exeat/sidecar:latest";
    for (images, more, complaint) in [
        ([tagged, image, image], &[][..], "images/sidecar"),
        (
            [image; 3],
            &["--set", "operater.replicas=3"][..],
            "operater",
        ),
        (
            [image; 3],
            &["--set", "operator.replicas=0"][..],
            "replicas",
        ),
        ([image; 3], &["--namespace", "default"][..], "exeat-system"),
    ] {
        let output = helm(cluster, images, more);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{more:?}");
        assert!(
            said.contains(complaint),
            "`{complaint}` is missing in: {said}"
        );
    }
}

/// The set for the agent-sandbox that runs here, and the one for Kata. That for 0.4.6 is not judged:
/// 0.5 takes its version through a conversion webhook, which this node does not run.
#[test]
fn the_sandbox_manifests_are_what_the_api_server_takes() {
    let cluster = cluster();
    let words = [
        "apply",
        "--dry-run=server",
        "--validate=strict",
        "-n",
        "default",
        "-f",
        "-",
    ];
    for file in [
        "agent-sandbox/v1beta1/pool.yaml",
        "agent-sandbox/v1beta1/claim.yaml",
        "agent-sandbox/kata/pool.yaml",
    ] {
        let text = deployed(cluster, file);
        let done = cluster.kubectl.fed(&words, &text);
        assert!(done.is_ok(), "{file}: {done:?}");
    }
}
