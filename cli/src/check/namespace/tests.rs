#![allow(clippy::unwrap_used)]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use exeat_policy::bundle::Bundle;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;
use std::io::Write as _;

use super::*;
use crate::check::finding::{Level, Report};
use crate::check::read::Right;

fn config_map(bytes: &[u8]) -> Read {
    let mut packed = GzEncoder::new(Vec::new(), Compression::default());
    packed.write_all(bytes).unwrap();
    let packed = STANDARD.encode(packed.finish().unwrap());
    Read::Found(json!({
        "metadata": {"namespace": "agents"}, "binaryData": {"bundle.json.gz": packed},
    }))
}

fn policy(conditions: Value) -> Value {
    json!({
        "apiVersion": "exeat.dev/v1alpha1", "kind": "ToolPolicy",
        "metadata": {"name": "reports", "namespace": "agents", "generation": 2},
        "spec": {"tools": [{"name": "r", "http": {"hosts": ["api.example.com"]}}]},
        "status": {"observedGeneration": 2, "enforced": "2/2", "conditions": conditions},
    })
}

fn enforced() -> Value {
    json!([
        {"type": "Accepted", "status": "True"}, {"type": "Enforced", "status": "True"},
    ])
}

fn gated(name: &str) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {"initContainers": [{"name": "exeat-init"}, {"name": "exeat-sidecar"}]},
        "status": {"phase": "Running", "initContainerStatuses": [
            {"name": "exeat-init", "state": {"terminated": {"exitCode": 0}}},
            {"name": "exeat-sidecar", "ready": true},
        ]},
    })
}

fn good() -> Space {
    let policy = policy(enforced());
    let bundle = Bundle::new("agents", 3, vec![policy.clone()], Vec::new()).unwrap();
    Space {
        name: "agents".to_owned(),
        namespace: Read::Found(json!({
            "metadata": {"name": "agents", "labels": {"exeat.dev/governed": "true"}},
        })),
        config_map: config_map(&bundle.to_bytes()),
        policies: Read::Found(json!([policy])),
        pods: Read::Found(json!([gated("one"), gated("two")])),
        probe: Some(Read::Found(gated("check-x"))),
        powers: vec![("default".to_owned(), Read::Found(json!([])))],
        installed: None,
    }
}

fn bad(space: &Space) -> Vec<(&'static str, Level)> {
    judge(space, true)
        .iter()
        .filter(|it| it.level != Level::Ok)
        .map(|it| (it.subject, it.level))
        .collect()
}

#[test]
fn a_governed_namespace_has_nothing_to_be_said_about() {
    assert_eq!(bad(&good()), []);
}

#[test]
fn the_label_has_to_be_there_and_true() {
    for labels in [json!({}), json!({"exeat.dev/governed": "True"})] {
        let space = Space {
            namespace: Read::Found(json!({"metadata": {"name": "agents", "labels": labels}})),
            probe: None,
            ..good()
        };
        assert_eq!(space.governed(), Some(false));
        assert_eq!(bad(&space), [("label", Level::Problem)]);
    }
    let space = Space {
        namespace: Read::Absent,
        ..good()
    };
    assert_eq!(bad(&space), [("label", Level::Problem)]);
    let space = Space {
        name: "kube-system".to_owned(),
        ..good()
    };
    assert_eq!(bad(&space), [("label", Level::Problem)]);
}

#[test]
fn a_namespace_whose_pod_security_refuses_the_guard_is_a_problem() {
    let space = Space {
        namespace: Read::Found(json!({"metadata": {"name": "agents", "labels": {
            "exeat.dev/governed": "true", "pod-security.kubernetes.io/enforce": "baseline",
        }}})),
        ..good()
    };
    assert_eq!(bad(&space), [("label", Level::Problem)]);
}

#[test]
fn a_dry_run_that_comes_out_bare_is_a_problem() {
    let plain = json!({"metadata": {"name": "check-x"}, "spec": {"containers": []}});
    let failed = |why: &str| Read::Failed(why.to_owned());
    for (probe, level) in [
        (Read::Found(plain), Level::Problem),
        (
            failed("failed calling webhook \"inject.exeat.dev\": connection refused"),
            Level::Problem,
        ),
        (
            failed("admission webhook \"pods.exeat.dev\" denied the request: spec.x"),
            Level::Warning,
        ),
        (
            failed(
                "pods \"check-\" is forbidden: ValidatingAdmissionPolicy 'exeat-pods' with binding 'exeat-pods' denied request: spec",
            ),
            Level::Problem,
        ),
        (failed("exceeded quota: small"), Level::Unknown),
    ] {
        let space = Space {
            probe: Some(probe),
            ..good()
        };
        assert_eq!(bad(&space), [("a new pod", level)]);
    }
}

#[test]
fn pods_without_a_gate_are_named_and_ended_ones_are_not() {
    let bare = json!({"metadata": {"name": "old", "creationTimestamp": "2026-01-01T00:00:00Z"}, "spec": {}});
    let mut ended = bare.clone();
    ended["status"]["phase"] = "Succeeded".into();
    let space = Space {
        pods: Read::Found(json!([gated("one"), bare, ended])),
        ..good()
    };
    let found = judge(&space, true);
    let bad: Vec<_> = found.iter().filter(|it| it.level != Level::Ok).collect();
    assert_eq!(bad.len(), 1, "{bad:?}");
    assert_eq!(
        (bad[0].level, bad[0].message.as_str()),
        (Level::Problem, "old has no gate")
    );
    let mut many: Vec<Value> = Vec::new();
    many.resize(25, json!({"metadata": {"name": "old"}, "spec": {}}));
    let space = Space {
        pods: Read::Found(Value::Array(many)),
        ..good()
    };
    assert_eq!(bad_count(&space), MAX_NAMED + 1);
    assert_eq!(
        judge(&space, false)
            .iter()
            .filter(|it| it.subject == "pods")
            .count(),
        0
    );
}

fn bad_count(space: &Space) -> usize {
    bad(space).len()
}

#[test]
fn policies_say_what_the_operator_says() {
    let condition = |kind: &str, status: &str, message: &str| json!({"type": kind, "status": status, "reason": "R", "message": message});
    let accepted = condition("Accepted", "True", "");
    for (conditions, level) in [
        (
            json!([condition("Accepted", "False", "line 3")]),
            Some(Level::Problem),
        ),
        (
            json!([accepted, condition("Enforced", "False", "1 of 2")]),
            Some(Level::Problem),
        ),
        (
            json!([accepted, condition("Enforced", "Unknown", "0 of 0")]),
            None,
        ),
    ] {
        let space = Space {
            policies: Read::Found(json!([policy(conditions)])),
            ..good()
        };
        let wanted: Vec<_> = level.into_iter().map(|level| ("policy", level)).collect();
        assert_eq!(bad(&space), wanted);
    }
    let mut stale = policy(enforced());
    stale["metadata"]["generation"] = 3.into();
    let mut shadow = policy(enforced());
    shadow["spec"]["mode"] = "Shadow".into();
    for (policy, level) in [(stale, Level::Unknown), (shadow, Level::Warning)] {
        let space = Space {
            policies: Read::Found(json!([policy])),
            ..good()
        };
        assert_eq!(bad(&space), [("policy", level)]);
    }
}

#[test]
fn a_bundle_that_is_none_is_a_problem() {
    let whole = Bundle::new("agents", 3, Vec::new(), Vec::new()).unwrap();
    let tampered = String::from_utf8(whole.to_bytes())
        .unwrap()
        .replace("agents", "others");
    let elsewhere = Bundle::new("others", 3, Vec::new(), Vec::new()).unwrap();
    for read in [
        config_map(tampered.as_bytes()),
        config_map(&elsewhere.to_bytes()),
        config_map(b"{}"),
        Read::Found(json!({"metadata": {"namespace": "agents"}, "data": {"x": "y"}})),
        Read::Absent,
    ] {
        let space = Space {
            config_map: read,
            ..good()
        };
        assert_eq!(bad(&space), [("bundle", Level::Problem)]);
    }
}

#[test]
fn accounts_that_could_undo_the_gate_are_problems_unless_warned_about() {
    let powers = vec![(
        "ci".to_owned(),
        Read::Found(json!(["read Secrets", "create pods"])),
    )];
    let space = Space {
        powers: powers.clone(),
        ..good()
    };
    assert_eq!(bad(&space), [("accounts", Level::Problem)]);
    let space = Space {
        powers,
        namespace: Read::Found(json!({"metadata": {"name": "agents", "labels": {
            "exeat.dev/governed": "true", "exeat.dev/service-account-access": "warn",
        }}})),
        ..good()
    };
    assert_eq!(bad(&space), [("accounts", Level::Warning)]);
}

#[test]
fn the_answer_is_no_before_it_is_unknown() {
    let report = |space: &Space| Report {
        server: "https://cluster.example".to_owned(),
        namespace: Some("agents".to_owned()),
        pod: None,
        findings: judge(space, true),
    };
    assert_eq!(report(&good()).exit(), 0);
    let forbidden = || Read::Forbidden(Right::new("list", "pods").of("agents"));
    let unknown = Space {
        pods: forbidden(),
        ..good()
    };
    assert_eq!(report(&unknown).exit(), 2);
    assert_eq!(report(&unknown).json()["governed"], Value::Null);
    // What the answer does not depend on.
    let aside = Space {
        config_map: forbidden(),
        powers: vec![("default".to_owned(), forbidden())],
        ..good()
    };
    assert_eq!(report(&aside).exit(), 0);
    let both = Space {
        pods: forbidden(),
        policies: Read::Found(json!([policy(json!([]))])),
        ..good()
    };
    assert_eq!(report(&both).exit(), 1);
}
