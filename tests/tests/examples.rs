//! Every example, and the demo, run as a reader would run them: what they promise must be in what
//! they print.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
};

use exeat_tests::governed::{fetched, program};

/// The examples listen on one address, so they run one after another.
static TURN: Mutex<()> = Mutex::new(());

fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

/// Runs to the end, with a bare environment; gives all that was printed.
fn run(command: &mut Command) -> String {
    let programs = program("exeat").unwrap().parent().unwrap().to_owned();
    let output = Command::new("timeout")
        .args(["--kill-after=5", "150"])
        .arg(command.get_program())
        .args(command.get_args())
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", std::env::var_os("HOME").unwrap_or_default())
        .env("LANG", "C.UTF-8")
        .env("EXEAT_PROGRAMS", programs)
        .env("EXEAT_PYTHON", fetched("python/bin/python").unwrap())
        .current_dir(root())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let said = text(&output.stdout) + "\n" + &text(&output.stderr);
    assert!(output.status.success(), "{}: {said}", output.status);
    said
}

fn example(name: &str) -> String {
    run(&mut Command::new(
        root().join("examples").join(name).join("run"),
    ))
}

fn assert_all(said: &str, promised: &[&str]) {
    for promise in promised {
        assert!(said.contains(promise), "`{promise}` is missing in: {said}");
    }
}

#[test]
fn curl() {
    let _turn = turn();
    let said = example("curl");
    assert_all(
        &said,
        &[
            "\"signed_in\":true",
            "egress_denied",
            "exeat: denied",
            "-- the trail",
        ],
    );
    assert!(!said.contains("example-secret"), "{said}");
}

#[test]
fn openai() {
    let _turn = turn();
    let said = example("openai");
    assert_all(
        &said,
        &[
            "The gate let this answer through.",
            "denied: ",
            "gpt-9-huge",
        ],
    );
    assert!(!said.contains("example-secret"), "{said}");
}

#[test]
fn mcp() {
    let _turn = turn();
    let said = example("mcp");
    assert_all(
        &said,
        &["read_note, send_note", "under the mat", "denied: "],
    );
    assert!(!said.contains("sent monday"), "{said}");
}

#[test]
fn demo() {
    let said = run(Command::new(program("xtask").unwrap()).args(["demo", "--built"]));
    assert_all(
        &said,
        &[
            "\"signed_in\":true",
            "A gate in the only way out",
            "The gate let this answer through.",
            "delete_tickets, search_tickets",
            "  6. the secrets themselves",
            "arrived 0 times, the customer list 0 times",
        ],
    );
    assert_eq!(said.matches("stopped in ").count(), 6, "{said}");
    assert!(!said.contains("GOT OUT"), "{said}");
    assert!(!said.contains("demo-secret-"), "{said}");
    let journal = fs::read_to_string(root().join(".cache/demo/journal.jsonl")).unwrap();
    assert!(
        !journal.contains("demo-secret-"),
        "a secret is in the trail"
    );
}

/// An example for a cluster: its policies compile and judge these calls as its README says, and its
/// manifests are such that admission can put the gate into them. What becomes of them on a node, and
/// that the Secrets consent, `tests/tests/cluster/examples.rs` shows.
fn in_cluster(name: &str, policies: &str, pods: &str, calls: &[(&str, &str, &str)]) {
    let file = |file: &str| {
        let path = root().join("examples").join(name).join(file);
        path.to_str().unwrap().to_owned()
    };
    let exeat = |words: &[&str]| run(Command::new(program("exeat").unwrap()).args(words));
    let policies = file(policies);
    let said = exeat(&["policy", "check", &policies]);
    assert!(said.contains(" compiled"), "{said}");
    for (label, call, verdict) in calls {
        let mut words = vec!["policy", "explain", "--policy", &policies, "--label", label];
        words.extend(["--format", "json"]);
        words.extend(call.split(' '));
        let said = exeat(&words);
        let explained: serde_json::Value = serde_json::from_str(&said).unwrap();
        let found = match explained["verdict"].as_str().unwrap() {
            "deny" => explained["reason"].as_str().unwrap(),
            other => other,
        };
        assert_eq!(found, *verdict, "{call}: {said}");
    }
    let digest = "a".repeat(64);
    let sidecar = format!("r.example/sidecar@sha256:{digest}");
    let init = format!("r.example/init@sha256:{digest}");
    let images = ["--sidecar-image", &sidecar, "--init-image", &init];
    let pods = file(pods);
    let injected = exeat(&[&["inject", "-f", &pods], &images[..]].concat());
    assert!(injected.contains("exeat-sidecar"), "{injected}");
    let folder = tempfile::tempdir().unwrap();
    let whole = folder.path().join("injected.yaml");
    fs::write(&whole, injected).unwrap();
    let whole = whole.to_str().unwrap();
    exeat(&[&["inject", "--check", "-f", whole], &images[..]].concat());
}

#[test]
fn python_agent() {
    in_cluster(
        "python-agent",
        "policy.yaml",
        "agent.yaml",
        &[
            (
                "app=python-agent",
                "GET https://api.example.com/reports/today",
                "allow",
            ),
            (
                "app=python-agent",
                "POST https://api.example.com/comments",
                "no_rule",
            ),
            (
                "app=python-agent",
                "GET https://elsewhere.example.com/",
                "no_rule",
            ),
        ],
    );
}

#[test]
fn diagnostic_agent() {
    let server = "https://kubernetes.default.svc.cluster.local";
    let calls: Vec<(String, &str)> = [
        ("GET", "/api", "allow"),
        ("GET", "/apis/apps/v1", "allow"),
        (
            "GET",
            "/api/v1/namespaces/diagnostics/pods?limit=500",
            "allow",
        ),
        (
            "GET",
            "/api/v1/namespaces/diagnostics/pods/x/log?container=a",
            "allow",
        ),
        (
            "GET",
            "/apis/apps/v1/namespaces/diagnostics/deployments",
            "allow",
        ),
        ("GET", "/api/v1/namespaces/kube-system/pods", "no_rule"),
        ("GET", "/api/v1/pods", "no_rule"),
        (
            "DELETE",
            "/api/v1/namespaces/diagnostics/pods/x",
            "method_not_allowed",
        ),
        (
            "GET",
            "/api/v1/namespaces/diagnostics/secrets",
            "denied_by_rule",
        ),
        (
            "GET",
            "/api/v1/namespaces/diagnostics/secrets/x",
            "denied_by_rule",
        ),
        (
            "GET",
            "/api/v1/namespaces/diagnostics/pods/x/exec?command=id",
            "denied_by_rule",
        ),
        (
            "GET",
            "/api/v1/namespaces/diagnostics/pods/x/proxy/metrics",
            "denied_by_rule",
        ),
    ]
    .into_iter()
    .map(|(method, path, verdict)| (format!("{method} {server}{path}"), verdict))
    .collect();
    let calls: Vec<(&str, &str, &str)> = calls
        .iter()
        .map(|(call, verdict)| ("app=diagnostic-agent", call.as_str(), *verdict))
        .collect();
    in_cluster("diagnostic-agent", "policy.yaml", "agent.yaml", &calls);
}

#[test]
fn coding_agent() {
    let app = "https://git.example.com/acme/app.git";
    let calls: Vec<(String, &str)> = [
        ("GET", "/info/refs?service=git-upload-pack", "allow"),
        ("POST", "/git-upload-pack", "allow"),
        ("GET", "/info/refs?service=git-receive-pack", "allow"),
        ("POST", "/git-receive-pack", "allow"),
        ("GET", "/info/refs", "expression_error"),
        (
            "GET",
            "/info/refs?service=git-upload-archive",
            "expression_false",
        ),
        ("GET", "/HEAD", "no_rule"),
    ]
    .into_iter()
    .map(|(method, path, verdict)| (format!("{method} {app}{path}"), verdict))
    .collect();
    let mut calls: Vec<(&str, &str, &str)> = calls
        .iter()
        .map(|(call, verdict)| ("app=coding-agent", call.as_str(), *verdict))
        .collect();
    let other = "GET https://git.example.com/acme/payroll.git/info/refs?service=git-upload-pack";
    calls.push(("app=coding-agent", other, "no_rule"));
    in_cluster("coding-agent", "policy.yaml", "sandbox.yaml", &calls);
}

#[test]
fn warm_pool() {
    let (read, write) = (
        "GET https://api.example.com/reports/today",
        "POST https://api.example.com/comments/1",
    );
    in_cluster(
        "warm-pool",
        "policies.yaml",
        "pool.yaml",
        &[
            ("sandbox.users.io/role=reader", read, "allow"),
            ("sandbox.users.io/role=reader", write, "no_rule"),
            ("sandbox.users.io/role=writer", write, "allow"),
            ("sandbox.users.io/role=writer", read, "no_rule"),
            ("app=agent", read, "no_policy"),
        ],
    );
}

#[test]
fn every_example_is_listed_and_tested() {
    let readme = fs::read_to_string(root().join("examples/README.md")).unwrap();
    let this = include_str!("examples.rs");
    for entry in fs::read_dir(root().join("examples")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            let name = path.file_name().unwrap().to_str().unwrap();
            assert!(
                readme.contains(&format!("[{name}]({name})")),
                "{name} is not listed"
            );
            let function = name.replace('-', "_");
            assert!(
                this.contains(&format!("\nfn {function}()")),
                "{name} has no test"
            );
            assert!(path.join("README.md").exists(), "{name} has no README");
        }
    }
}
