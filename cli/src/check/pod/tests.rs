#![allow(clippy::unwrap_used)]

use exeat_inject::names::{GUARD, SIDECAR};
use exeat_inject::{Image, SecretName, mutate};
use serde_json::json;

use super::*;
use crate::check::finding::Level;

fn operator() -> Settings {
    let image = |name: &str, digit: &str| {
        Image::parse(&format!("r.example/{name}@sha256:{}", digit.repeat(64))).unwrap()
    };
    Settings::new(image("sidecar", "a"), image("init", "b"))
}

/// A governed pod that runs as it should.
fn running() -> Value {
    let plain = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": "one", "namespace": "agents", "labels": {"app": "one"},
            "creationTimestamp": "2026-06-01T10:00:00Z",
        },
        "spec": {"containers": [{"name": "agent", "image": "agent"}]},
    });
    let mut pod = mutate(&plain, &operator(), &SecretName::of_pod(7))
        .unwrap()
        .pod;
    pod["status"] = json!({
        "phase": "Running",
        "initContainerStatuses": [
            {"name": GUARD, "ready": true, "state": {"terminated": {"exitCode": 0}}},
            {"name": SIDECAR, "ready": true, "restartCount": 0, "state": {"running": {}}},
        ],
    });
    pod
}

fn bundle() -> Bundle {
    let policy = json!({
        "apiVersion": "exeat.dev/v1alpha1", "kind": "ToolPolicy",
        "metadata": {"name": "reports", "namespace": "agents"},
        "spec": {
            "podSelector": {"matchLabels": {"app": "one"}},
            "tools": [{"name": "r", "http": {"hosts": ["api.example.com"]}, "credential": "api"}],
            "credentials": [
                {"name": "api", "secret": {"name": "api", "key": "token"}, "inject": {"bearer": {}}},
            ],
        },
    });
    Bundle::new("agents", 7, vec![policy], Vec::new()).unwrap()
}

struct World {
    pod: Read,
    namespace: Read,
    settings: Option<Settings>,
    policies: Read,
    secret: Read,
    metrics: Read,
}

fn good() -> World {
    World {
        pod: Read::Found(running()),
        namespace: Read::Found(json!({
            "metadata": {"name": "agents", "labels": {"exeat.dev/governed": "true"}},
        })),
        settings: Some(operator()),
        policies: Read::Found(json!([])),
        secret: Read::Found(json!({"data": {"reports.api": "aHVzaA==", "status-key": "eA=="}})),
        metrics: Read::Found("exeat_policy_generation 7\nexeat_policy_current 1\n".into()),
    }
}

fn judged(world: &World) -> Vec<Finding> {
    let bundle = bundle();
    judge(&Facts {
        pod: &world.pod,
        namespace: &world.namespace,
        installed: Some("2026-01-01T00:00:00Z"),
        settings: world.settings.as_ref(),
        bundle: Some(&bundle),
        policies: &world.policies,
        secret: &world.secret,
        metrics: &world.metrics,
    })
}

/// The one finding that is not good.
fn only(world: &World) -> Finding {
    let mut bad: Vec<Finding> = judged(world)
        .into_iter()
        .filter(|it| it.level != Level::Ok)
        .collect();
    assert_eq!(bad.len(), 1, "{bad:#?}");
    bad.remove(0)
}

fn with(pointer: &str, to: Value) -> World {
    let mut pod = running();
    *pod.pointer_mut(pointer).unwrap() = to;
    World {
        pod: Read::Found(pod),
        ..good()
    }
}

#[test]
fn a_pod_that_runs_as_it_should_has_nothing_to_be_said_about() {
    let found = judged(&good());
    assert!(found.iter().all(|it| it.level == Level::Ok), "{found:#?}");
    let text = format!("{found:?}");
    assert!(text.contains("reports (enforced)"), "{text}");
    assert!(!text.contains("aHVzaA"), "a secret's value is in a finding");
}

#[test]
fn every_exit_code_of_the_guard_has_its_cause_and_remedy() {
    for (code, cause) in [
        (64, "usage"),
        (71, "system"),
        (77, "missing_capability"),
        (80, "missing_backend"),
        (81, "missing_kernel_support"),
        (82, "ipv6_not_programmable"),
        (83, "foreign_rules"),
        (84, "readback_mismatch"),
        (85, "leak"),
        (86, "locked"),
        (87, "backend_failed"),
        (88, "unproven"),
        (137, "signal 9"),
        (3, "no cause"),
    ] {
        let mut pod = running();
        pod["status"]["initContainerStatuses"][0]["state"]["terminated"]["exitCode"] = code.into();
        let mut findings = Findings::of(Scope::Pod);
        guard(&pod, &mut findings);
        let found = findings.done().remove(0);
        assert_eq!(found.level, Level::Problem);
        assert!(found.cause.unwrap().contains(cause), "{code}");
        assert!(
            found
                .remedy
                .unwrap()
                .contains("kubectl logs one -c exeat-init")
        );
    }
}

#[test]
fn a_pod_that_has_not_begun_is_neither() {
    let waiting = json!({"waiting": {"reason": "ErrImageNeverPull", "message": "not on the node"}});
    let mut world = with("/status/initContainerStatuses/0/state", waiting);
    if let Read::Found(pod) = &mut world.pod {
        let sidecar = &mut pod["status"]["initContainerStatuses"][1];
        *sidecar = json!({"name": SIDECAR, "ready": false, "state": {"waiting": {}}});
    }
    let found = judged(&world);
    let levels: Vec<_> = found
        .iter()
        .filter(|it| it.level != Level::Ok)
        .map(|it| (it.subject, it.level, it.decisive))
        .collect();
    assert_eq!(
        levels,
        [
            ("guard", Level::Unknown, true),
            ("gate", Level::Unknown, true)
        ]
    );
    assert!(format!("{found:?}").contains("ErrImageNeverPull"));
}

#[test]
fn a_gate_that_is_not_ready_or_starts_again_and_again_shows() {
    let found = only(&with("/status/initContainerStatuses/1/ready", json!(false)));
    assert_eq!((found.subject, found.level), ("gate", Level::Problem));
    let found = only(&with(
        "/status/initContainerStatuses/1/restartCount",
        json!(9),
    ));
    assert_eq!((found.subject, found.level), ("gate", Level::Warning));
}

#[test]
fn what_admission_would_refuse_is_a_problem() {
    for (pointer, to, word) in [
        (
            "/spec/containers/0/securityContext/allowPrivilegeEscalation",
            json!(true),
            "containers[0]",
        ),
        (
            "/spec/initContainers/1/args",
            json!(["--policy-dir=/tmp"]),
            "initContainers[1].args",
        ),
        (
            "/spec/initContainers/0/securityContext/capabilities",
            json!({}),
            "initContainers[0]",
        ),
    ] {
        let found = only(&with(pointer, to));
        assert_eq!(
            (found.subject, found.level),
            ("injection", Level::Problem),
            "{pointer}"
        );
        assert!(found.cause.unwrap().contains(word), "{pointer}");
    }
}

#[test]
fn another_image_than_the_operators_is_told_apart_from_a_fault() {
    let mut world = good();
    let digest = "c".repeat(64);
    world.settings = operator_with(&digest);
    let found = only(&world);
    assert_eq!((found.subject, found.level), ("injection", Level::Warning));
    assert!(found.cause.unwrap().contains("initContainers[1].image"));
    world.settings = None;
    let found = only(&world);
    assert_eq!((found.subject, found.level), ("injection", Level::Unknown));
    assert!(found.decisive);
}

fn operator_with(digest: &str) -> Option<Settings> {
    let mut settings = operator();
    settings.sidecar_image = Image::parse(&format!("r.example/sidecar@sha256:{digest}")).ok()?;
    Some(settings)
}

#[test]
fn why_a_pod_has_no_gate() {
    let bare_pod =
        |born: &str| json!({"metadata": {"name": "one", "creationTimestamp": born}, "spec": {}});
    let labelled = Read::Found(json!({"metadata": {
        "name": "agents", "labels": {"exeat.dev/governed": "true"},
        "managedFields": [{
            "time": "2026-03-01T00:00:00Z",
            "fieldsV1": {"f:metadata": {"f:labels": {"f:exeat.dev/governed": {}}}},
        }],
    }}));
    let installed = Some("2026-04-01T00:00:00Z");
    for (pod, namespace, word) in [
        (
            bare_pod("2026-02-01T00:00:00Z"),
            &labelled,
            "before its namespace was labelled",
        ),
        (
            bare_pod("2026-03-02T00:00:00Z"),
            &labelled,
            "before Exeat's webhook was there",
        ),
        (
            bare_pod("2026-05-01T00:00:00Z"),
            &labelled,
            "the webhook was not asked",
        ),
        (
            bare_pod("2026-05-01T00:00:00Z"),
            &Read::Found(json!({"metadata": {"name": "agents"}})),
            "no label",
        ),
        (
            json!({"metadata": {"annotations": {"kubernetes.io/config.mirror": "x"}}}),
            &labelled,
            "the node's own",
        ),
    ] {
        let (cause, _) = bare(&pod, namespace, installed);
        assert!(cause.contains(word), "{cause}");
    }
    let world = World {
        pod: Read::Found(bare_pod("2026-02-01T00:00:00Z")),
        ..good()
    };
    assert_eq!(only(&world).level, Level::Problem);
}

#[test]
fn policies_generation_and_credentials_are_looked_at() {
    let found = only(&World {
        metrics: Read::Found("exeat_policy_generation 6\n".into()),
        ..good()
    });
    assert_eq!((found.subject, found.level), ("generation", Level::Warning));
    let found = only(&World {
        secret: Read::Found(json!({"data": {"status-key": "eA=="}})),
        ..good()
    });
    assert_eq!(
        (found.subject, found.level),
        ("credentials", Level::Problem)
    );
    assert!(found.message.contains("reports.api"));
    let found = only(&World {
        policies: Read::Found(json!([{"status": {"lagging": [
            {"pod": "one", "reason": "its self-test failed"}, {"pod": "two", "reason": "other"},
        ]}}])),
        ..good()
    });
    assert_eq!(found.cause.as_deref(), Some("its self-test failed"));
    let found = judged(&with("/metadata/labels", json!({"app": "two"})));
    let found = found.iter().find(|it| it.subject == "policies").unwrap();
    assert_eq!(found.level, Level::Warning);
}
