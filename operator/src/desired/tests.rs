#![allow(clippy::unwrap_used, clippy::expect_used)]

use serde_json::json;

use super::*;

fn policy(name: &str, uid: &str, generation: i64, spec: Value) -> Arc<Policy> {
    Arc::new(Policy {
        name: name.to_owned(),
        uid: uid.to_owned(),
        generation,
        created: generation,
        document: json!({
            "apiVersion": "exeat.dev/v1alpha1",
            "kind": "ToolPolicy",
            "metadata": {"name": name, "namespace": "agents"},
            "spec": spec,
        }),
        status: Value::Null,
    })
}

fn github(host: &str) -> Value {
    json!({
        "podSelector": {"matchLabels": {"app": "research"}},
        "tools": [{"name": "github", "http": {"hosts": [host]}, "credential": "gh"}],
        "credentials": [{
            "name": "gh", "secret": {"name": "gh", "key": "token"}, "inject": {"bearer": {}},
        }],
    })
}

fn secret(name: &str, hosts: Option<&str>, pod_uid: Option<&str>) -> (String, Arc<SecretFacts>) {
    let facts = SecretFacts {
        name: name.to_owned(),
        version: "1".to_owned(),
        hosts: hosts.map(str::to_owned),
        pod_uid: pod_uid.map(str::to_owned),
    };
    (name.to_owned(), Arc::new(facts))
}

fn pod(name: &str, app: &str) -> Arc<Pod> {
    Arc::new(Pod {
        name: name.to_owned(),
        uid: format!("uid-{name}"),
        labels: BTreeMap::from([("app".to_owned(), app.to_owned())]),
        address: None,
        injected: true,
        secret: Some("exeat-pod-0123456789abcdef".to_owned()),
        ended: false,
        alive: true,
        nudged: None,
        told: None,
    })
}

fn objects() -> Objects {
    Objects {
        namespace: "agents".to_owned(),
        labels: BTreeMap::new(),
        governed: true,
        policies: vec![policy("research", "u", 1, github("api.github.com"))],
        guardrails: Vec::new(),
        secrets: BTreeMap::from([secret("gh", Some("api.github.com"), None)]),
        pods: vec![pod("a", "research"), pod("b", "other")],
        current: Current::Absent,
        floor: 0,
    }
}

/// Plans, and has what was planned in force.
fn settle(objects: &mut Objects, checks: &mut Checks) -> Desired {
    let desired = plan(objects, checks);
    if let BundleStep::Write { bundle, .. } = &desired.bundle {
        objects.current = Current::Ours(Arc::clone(bundle));
    }
    desired
}

fn in_force(objects: &Objects) -> Arc<Bundle> {
    match &objects.current {
        Current::Ours(bundle) => Arc::clone(bundle),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_accepted_policy_goes_in_and_only_its_pods_get_its_credentials() {
    let (mut objects, mut checks) = (objects(), Checks::default());
    let desired = settle(&mut objects, &mut checks);
    assert_eq!(in_force(&objects).policies().len(), 1);
    assert_eq!(in_force(&objects).generation(), 1);
    assert!(desired.judged[0].accepted.yes);
    assert_eq!(desired.judged[0].selected.len(), 1);
    let keys: Vec<usize> = desired.secrets.iter().map(|s| s.keys.len()).collect();
    assert_eq!(keys, [1, 0]);
    assert!(desired.secrets[0].keys.contains_key("research.gh"));
    let again = plan(&objects, &mut checks);
    assert!(matches!(again.bundle, BundleStep::Keep(_)), "a fixpoint");
}

#[test]
fn without_consent_nothing_is_accepted() {
    for (hosts, reason) in [
        (None, "NoConsent"),
        (Some("*"), "NoConsent"),
        (Some("github.com"), "NoConsent"),
        (Some("evil.com, api.github.co"), "NoConsent"),
    ] {
        let (mut objects, mut checks) = (objects(), Checks::default());
        objects.secrets = BTreeMap::from([secret("gh", hosts, None)]);
        let desired = settle(&mut objects, &mut checks);
        assert_eq!(desired.judged[0].accepted.reason, reason, "{hosts:?}");
        assert_eq!(desired.judged[0].in_force, InForce::Not);
        assert!(in_force(&objects).policies().is_empty());
        assert!(desired.secrets.iter().all(|secret| secret.keys.is_empty()));
    }
    let (mut objects, mut checks) = (objects(), Checks::default());
    objects.secrets = BTreeMap::from([secret("gh", Some("api.github.com"), Some("x"))]);
    let desired = settle(&mut objects, &mut checks);
    assert_eq!(desired.judged[0].accepted.reason, "SecretReserved");
    objects.secrets.clear();
    let desired = settle(&mut objects, &mut checks);
    assert_eq!(desired.judged[0].accepted.reason, "SecretNotFound");
}

#[test]
fn a_bad_edit_leaves_the_last_accepted_form_in_force() {
    let (mut objects, mut checks) = (objects(), Checks::default());
    settle(&mut objects, &mut checks);
    let before = in_force(&objects).digest().to_owned();
    for spec in [github("api.evil.com"), json!({"tools": 3})] {
        objects.policies = vec![policy("research", "u", 2, spec)];
        let desired = settle(&mut objects, &mut checks);
        assert!(!desired.judged[0].accepted.yes);
        assert_eq!(desired.judged[0].in_force, InForce::Last);
        assert_eq!(in_force(&objects).digest(), before);
        assert_eq!(desired.secrets[0].keys.len(), 1, "still consented to");
        checks = Checks::default();
    }
    objects.policies.clear();
    settle(&mut objects, &mut checks);
    assert!(in_force(&objects).policies().is_empty(), "deleted is gone");
    assert_eq!(in_force(&objects).generation(), 2);
}

#[test]
fn consent_taken_back_takes_the_credential_and_not_the_policy() {
    let (mut objects, mut checks) = (objects(), Checks::default());
    settle(&mut objects, &mut checks);
    objects.secrets = BTreeMap::from([secret("gh", Some("other.com"), None)]);
    let desired = settle(&mut objects, &mut checks);
    assert!(!desired.judged[0].accepted.yes);
    assert_eq!(in_force(&objects).policies().len(), 1);
    assert!(desired.secrets[0].keys.is_empty());
}

#[test]
fn generations_only_grow() {
    let (mut objects, mut checks) = (objects(), Checks::default());
    objects.current = Current::Foreign { generation: 7 };
    settle(&mut objects, &mut checks);
    assert_eq!(
        in_force(&objects).generation(),
        8,
        "above what somebody put there"
    );
    objects.current = Current::Absent;
    objects.floor = 20;
    settle(&mut objects, &mut checks);
    assert_eq!(
        in_force(&objects).generation(),
        21,
        "above what gates may know"
    );
}

#[test]
fn what_somebody_else_wrote_is_no_last_accepted_form() {
    let (mut objects, mut checks) = (objects(), Checks::default());
    objects.current = Current::Foreign { generation: 7 };
    objects.policies = vec![policy("research", "u", 1, json!({"tools": 3}))];
    let desired = settle(&mut objects, &mut checks);
    assert_eq!(desired.judged[0].in_force, InForce::Not);
    assert!(in_force(&objects).policies().is_empty());
}

#[test]
fn a_conflict_refuses_the_newer_policy() {
    let (mut objects, mut checks) = (objects(), Checks::default());
    settle(&mut objects, &mut checks);
    let passthrough = json!({
        "podSelector": {"matchLabels": {"app": "research"}},
        "tools": [{
            "name": "unread",
            "http": {"hosts": ["api.github.com"], "tls": {"mode": "Passthrough"}},
        }],
    });
    objects.policies.push(policy("unread", "v", 2, passthrough));
    let desired = settle(&mut objects, &mut checks);
    let reasons: Vec<_> = desired.judged.iter().map(|j| j.accepted.reason).collect();
    assert_eq!(reasons, ["Accepted", "Conflict"]);
    assert_eq!(in_force(&objects).policies().len(), 1);
}

#[test]
fn a_bundle_that_does_not_fit_is_refused_whole() {
    let (mut objects, mut checks) = (objects(), Checks::default());
    settle(&mut objects, &mut checks);
    // Text that does not compress: hexadecimal of a running hash.
    let mut seed = 1_u64;
    let hosts: Vec<String> = (0..40_000)
        .map(|_| {
            let mut name = String::new();
            for _ in 0..3 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                name = format!("{name}{:x}", seed.rotate_left(29));
            }
            format!("{name}.example.com")
        })
        .collect();
    let spec = json!({
        "podSelector": {"matchLabels": {"app": "x"}},
        "tools": [{"name": "many", "http": {"hosts": hosts}}],
    });
    objects.policies.push(policy("many", "v", 2, spec));
    let desired = settle(&mut objects, &mut checks);
    let many = desired
        .judged
        .iter()
        .find(|j| j.policy.name == "many")
        .unwrap();
    assert!(!many.accepted.yes, "{:?}", many.accepted);
    assert_eq!(in_force(&objects).policies().len(), 1, "nothing was cut");
}

#[test]
fn guardrails_are_for_the_namespaces_that_they_select() {
    let (mut objects, mut checks) = (objects(), Checks::default());
    let guardrail = |label: &str| {
        Arc::new(Policy {
            name: format!("no-{label}"),
            uid: label.to_owned(),
            generation: 1,
            created: 1,
            document: json!({
                "apiVersion": "exeat.dev/v1alpha1",
                "kind": "ClusterToolPolicy",
                "metadata": {"name": format!("no-{label}")},
                "spec": {
                    "namespaceSelector": {"matchLabels": {"team": label}},
                    "deny": [{"name": "no", "http": {"methods": ["DELETE"]}}],
                },
            }),
            status: Value::Null,
        })
    };
    objects.labels = BTreeMap::from([("team".to_owned(), "red".to_owned())]);
    objects.guardrails = vec![guardrail("red"), guardrail("blue")];
    settle(&mut objects, &mut checks);
    let names: Vec<_> = in_force(&objects)
        .guardrails()
        .iter()
        .map(|g| name_of(g).to_owned())
        .collect();
    assert_eq!(names, ["no-red"]);
}

#[test]
fn an_ungoverned_namespace_is_served_until_its_last_gate_is_gone() {
    let (mut objects, mut checks) = (objects(), Checks::default());
    settle(&mut objects, &mut checks);
    objects.governed = false;
    assert!(matches!(
        plan(&objects, &mut checks).bundle,
        BundleStep::Keep(_)
    ));
    objects.pods.clear();
    let desired = plan(&objects, &mut checks);
    assert!(matches!(desired.bundle, BundleStep::Remove));
    objects.current = Current::Absent;
    assert!(matches!(
        plan(&objects, &mut checks).bundle,
        BundleStep::Nothing
    ));
}

#[test]
fn secrets_of_pods_that_are_gone_are_removed_and_no_others() {
    let (mut objects, mut checks) = (objects(), Checks::default());
    objects.secrets.extend([
        secret("exeat-pod-00000000000000aa", None, Some("uid-gone")),
        secret("exeat-pod-00000000000000bb", None, Some("uid-a")),
        secret("exeat-pod-00000000000000cc", None, None),
        secret("mine", None, Some("uid-gone")),
    ]);
    assert_eq!(
        plan(&objects, &mut checks).orphans,
        ["exeat-pod-00000000000000aa"]
    );
}
