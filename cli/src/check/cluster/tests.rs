#![allow(clippy::unwrap_used)]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use exeat_inject::names::GOVERNED_LABEL;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};

use serde_json::json;

use super::*;
use crate::check::finding::Level;
use crate::check::read::Right;

/// Within the life of [`certificates`].
const NOW: u64 = 1_780_000_000;

/// An authority and what it signed for the webhooks, both as base64 of PEM.
fn certificates(name: &str) -> (String, String) {
    let mut root = CertificateParams::new(Vec::new()).unwrap();
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = CertifiedIssuer::self_signed(root, KeyPair::generate().unwrap()).unwrap();
    let mut own = CertificateParams::new([name.to_owned()]).unwrap();
    own.not_before = date_time_ymd(2026, 1, 1);
    own.not_after = date_time_ymd(2027, 1, 1);
    let own = own.signed_by(&KeyPair::generate().unwrap(), &root).unwrap();
    (STANDARD.encode(root.pem()), STANDARD.encode(own.pem()))
}

fn hook(name: &str, path: &str, resource: &str, authority: &str) -> Value {
    json!({
        "name": name, "failurePolicy": "Fail", "namespaceSelector": {}, "objectSelector": {},
        "clientConfig": {
            "caBundle": authority,
            "service": {"name": OPERATOR, "namespace": OPERATOR_NAMESPACE, "path": path},
        },
        "rules": [{
            "operations": ["CREATE"], "resources": [resource], "apiGroups": ["*"], "scope": "*",
        }],
    })
}

fn good() -> Cluster {
    let (authority, own) = certificates("exeat-operator.exeat-system.svc");
    let established = |mut crd: Value| {
        crd["status"]["conditions"] = json!([{"type": "Established", "status": "True"}]);
        Read::Found(crd)
    };
    let installed: Vec<Value> = serde_saphyr::from_multiple(ADMISSION_POLICIES).unwrap();
    let of = |kind: &str| {
        let list = installed.iter().filter(|it| it["kind"] == kind).cloned();
        Read::Found(list.collect())
    };
    let mut inject = hook("inject.exeat.dev", "/mutate-pod", "pods", &authority);
    inject["namespaceSelector"] = json!({"matchExpressions": [
        {"key": "exeat.dev/governed", "operator": "In", "values": ["true"]},
        {"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["kube-system"]},
    ]});
    Cluster {
        crds: [
            established(crd::tool_policy()),
            established(crd::cluster_tool_policy()),
        ],
        mutating: Read::Found(json!({"webhooks": [inject]})),
        validating: Read::Found(json!({"webhooks": [
            hook("pods.exeat.dev", "/validate-pod", "pods", &authority),
            hook("policies.exeat.dev", "/validate-policy", "toolpolicies", &authority),
        ]})),
        policies: of("ValidatingAdmissionPolicy"),
        bindings: of("ValidatingAdmissionPolicyBinding"),
        deployment: Read::Found(json!({
            "spec": {"replicas": 2}, "status": {"availableReplicas": 2},
        })),
        certificate: Read::Found(json!({"data": {"tls.crt": own}})),
    }
}

fn judged(cluster: &Cluster) -> Vec<Finding> {
    let now = UnixTime::since_unix_epoch(Duration::from_secs(NOW));
    judge(cluster, None, now)
}

fn change(read: &mut Read, pointer: &str, to: Value) {
    let Read::Found(value) = read else {
        panic!("it was not read");
    };
    *value.pointer_mut(pointer).unwrap() = to;
}

/// The levels that are not `Ok`, with their subjects.
fn bad(cluster: &Cluster) -> Vec<(&'static str, Level)> {
    let list = judged(cluster);
    list.iter()
        .filter(|it| it.level != Level::Ok)
        .map(|it| (it.subject, it.level))
        .collect()
}

#[test]
fn a_cluster_as_installed_has_nothing_to_be_said_about() {
    assert_eq!(bad(&good()), []);
    assert_eq!(judged(&good()).len(), 7);
}

#[test]
fn every_way_around_a_webhook_is_a_problem() {
    let others = json!([{"operations": ["UPDATE"], "resources": ["pods"], "scope": "*"}]);
    for (pointer, to, word) in [
        (
            "/webhooks/0/failurePolicy",
            json!("Ignore"),
            "failurePolicy",
        ),
        ("/webhooks/0/clientConfig/caBundle", json!(""), "caBundle"),
        (
            "/webhooks/0/clientConfig/caBundle",
            json!("bm9uZQ=="),
            "caBundle",
        ),
        (
            "/webhooks/0/clientConfig/service/path",
            json!("/"),
            "/mutate-pod",
        ),
        (
            "/webhooks/0/clientConfig/service/name",
            json!("x"),
            "Service",
        ),
        (
            "/webhooks/0/objectSelector",
            json!({"matchLabels": {"a": "b"}}),
            "objectSelector",
        ),
        (
            "/webhooks/0/namespaceSelector",
            json!({"matchLabels": {"exeat.dev/governed": "yes"}}),
            "namespaceSelector",
        ),
        ("/webhooks/0/rules", others, "pods are created"),
    ] {
        let mut cluster = good();
        change(&mut cluster.mutating, pointer, to);
        let found = judged(&cluster);
        let found = found.iter().find(|it| it.subject == "injection").unwrap();
        assert_eq!(found.level, Level::Problem, "{pointer}");
        let cause = found.cause.clone().unwrap();
        assert!(cause.contains(word), "{pointer}: {cause}");
    }
}

#[test]
fn the_namespace_that_is_asked_about_is_the_one_that_must_be_selected() {
    let labels = BTreeMap::from([
        (GOVERNED_LABEL.to_owned(), "true".to_owned()),
        (
            "kubernetes.io/metadata.name".to_owned(),
            "kube-system".to_owned(),
        ),
    ]);
    let now = UnixTime::since_unix_epoch(Duration::from_secs(NOW));
    let found = judge(&good(), Some(&labels), now);
    assert!(
        found
            .iter()
            .any(|it| it.subject == "injection" && it.level == Level::Problem)
    );
}

#[test]
fn what_is_not_there_is_a_problem_and_what_may_not_be_read_is_unknown() {
    let forbidden = || Read::Forbidden(Right::new("get", "things"));
    for (read, level) in [
        (Read::Absent, Level::Problem),
        (forbidden(), Level::Unknown),
    ] {
        let cluster = Cluster {
            crds: [read.clone(), read.clone()],
            mutating: read.clone(),
            validating: read.clone(),
            deployment: read,
            ..good()
        };
        let subjects = [
            "custom resources",
            "custom resources",
            "injection",
            "admission",
            "operator",
        ];
        assert_eq!(bad(&cluster), subjects.map(|subject| (subject, level)));
    }
    let cause = judged(&Cluster {
        mutating: forbidden(),
        ..good()
    });
    let cause = cause.iter().find(|it| it.level == Level::Unknown).unwrap();
    assert_eq!(cause.cause.as_deref(), Some("you may not get things"));
    assert!(cause.decisive);
}

#[test]
fn another_schema_is_worth_a_word() {
    let mut cluster = good();
    let pointer = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/podSelector";
    change(&mut cluster.crds[0], pointer, json!({"type": "string"}));
    assert_eq!(bad(&cluster), [("custom resources", Level::Warning)]);
    let mut cluster = good();
    change(
        &mut cluster.crds[0],
        "/spec/versions/0/served",
        json!(false),
    );
    assert_eq!(bad(&cluster), [("custom resources", Level::Problem)]);
}

#[test]
fn admission_policies_that_are_gone_or_weakened_are_named() {
    let mut cluster = good();
    change(
        &mut cluster.bindings,
        "/0/spec/validationActions",
        json!(["Audit"]),
    );
    let found = judged(&cluster);
    let found = found.iter().find(|it| it.level == Level::Warning).unwrap();
    assert!(
        found.cause.as_ref().unwrap().contains("exeat-pods"),
        "{found:?}"
    );
    cluster.policies = Read::Found(json!([]));
    assert_eq!(
        bad(&cluster),
        [
            ("admission policies", Level::Warning),
            ("admission policies", Level::Warning)
        ]
    );
}

#[test]
fn an_operator_that_is_away_is_a_problem_and_one_less_a_warning() {
    for (available, level) in [(0, Level::Problem), (1, Level::Warning)] {
        let mut cluster = good();
        change(
            &mut cluster.deployment,
            "/status/availableReplicas",
            json!(available),
        );
        assert_eq!(bad(&cluster), [("operator", level)]);
    }
}

#[test]
fn the_certificate_is_judged_as_the_api_server_does() {
    let at = |cluster: &Cluster, seconds| {
        let now = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let list = judge(cluster, None, now);
        list.iter()
            .find(|it| it.subject == "certificate")
            .unwrap()
            .level
    };
    let end = 1_798_761_600;
    assert_eq!(at(&good(), NOW), Level::Ok);
    assert_eq!(at(&good(), end - 3600), Level::Warning);
    assert_eq!(at(&good(), end + 3600), Level::Problem);
    let (_, stranger) = certificates("exeat-operator.exeat-system.svc");
    let mut cluster = good();
    change(&mut cluster.certificate, "/data/tls.crt", json!(stranger));
    assert_eq!(at(&cluster, NOW), Level::Problem);
    let (authority, other) = certificates("elsewhere.exeat-system.svc");
    change(&mut cluster.certificate, "/data/tls.crt", json!(other));
    change(
        &mut cluster.mutating,
        "/webhooks/0/clientConfig/caBundle",
        json!(authority),
    );
    assert_eq!(at(&cluster, NOW), Level::Problem);
}
