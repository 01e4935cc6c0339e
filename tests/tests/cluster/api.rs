//! The custom resources as an API server has them.

use anyhow::ensure;
use exeat_tests::cluster::{cluster, eventually};
use serde_json::{Value, json};

use super::{governed::policy, support::MINUTE};

/// Structural, established, under the names that were asked for.
#[test]
fn the_definitions_conform() {
    let cluster = &*cluster().installed();
    for name in ["toolpolicies.exeat.dev", "clustertoolpolicies.exeat.dev"] {
        let (conditions, _) = eventually("the definition to be served", MINUTE, || {
            let crd = cluster.kubectl.get(&["crd", name])?;
            let conditions = crd["status"]["conditions"].clone();
            ensure!(conditions.is_array(), "{crd}");
            Ok(conditions)
        })
        .unwrap();
        let status = |kind: &str| {
            let all = conditions.as_array().unwrap();
            let found = all.iter().find(|it| it["type"] == kind);
            found.map_or(Value::Null, |it| it["status"].clone())
        };
        assert_eq!(status("Established"), "True", "{conditions}");
        assert_eq!(status("NamesAccepted"), "True", "{conditions}");
        assert_ne!(status("NonStructuralSchema"), "True", "{conditions}");
    }
}

/// Defaults are written in, unknown fields refused, the schema's own rules held, and two managers of
/// one policy keep to their own fields.
#[test]
fn policies_are_defaulted_checked_and_applied_by_field() {
    let cluster = &*cluster().installed();
    let namespace = cluster.governed("api").unwrap();
    let kubectl = &cluster.kubectl;
    kubectl
        .apply(&policy(&namespace, "plain", &["/a"], None))
        .unwrap();
    let stored = kubectl
        .get(&["toolpolicy", "-n", &namespace, "plain"])
        .unwrap();
    assert_eq!(stored["spec"]["mode"], "Enforce", "{stored}");

    let mut unknown = policy(&namespace, "unknown", &["/a"], None);
    unknown["spec"]["tools"][0]["http"]["method"] = json!(["GET"]);
    let complaint = kubectl.apply(&unknown).unwrap_err().to_string();
    assert!(
        complaint.contains("spec.tools[0].http.method"),
        "{complaint}"
    );
    let mut wrong = policy(&namespace, "wrong", &["/a"], None);
    wrong["spec"]["mode"] = "Enforced".into();
    let complaint = kubectl.apply(&wrong).unwrap_err().to_string();
    assert!(complaint.contains("spec.mode"), "{complaint}");
    // A rule over several fields, by the API server's own CEL: it holds also for a dry run.
    let mut two = policy(&namespace, "two", &["/a"], None);
    two["spec"]["tools"][0]["tcp"] = json!({"hosts": ["db.upstream.test"], "ports": [5432]});
    let complaint = kubectl.apply(&two).unwrap_err().to_string();
    assert!(complaint.contains("spec.tools[0]"), "{complaint}");

    let mut mine = policy(&namespace, "shared", &["/a"], None);
    let apply = |manager: &str, object: &Value| {
        let manager = format!("--field-manager={manager}");
        kubectl.fed(
            &["apply", "--server-side", &manager, "-f", "-"],
            &object.to_string(),
        )
    };
    apply("one", &mine).unwrap();
    let labelled = json!({
        "apiVersion": mine["apiVersion"], "kind": mine["kind"],
        "metadata": {"name": "shared", "namespace": namespace, "labels": {"team": "two"}},
    });
    apply("two", &labelled).unwrap();
    let stored = kubectl
        .get(&["toolpolicy", "-n", &namespace, "shared"])
        .unwrap();
    assert_eq!(stored["metadata"]["labels"]["team"], "two");
    assert_eq!(stored["spec"]["tools"][0]["name"], "api");
    mine["spec"]["tools"][0]["http"]["paths"] = json!(["/b"]);
    let conflict = apply("two", &mine).unwrap_err().to_string();
    assert!(conflict.contains("conflict"), "{conflict}");
}

/// Whoever has only kubectl finds out what a field is for.
#[test]
fn explain_says_what_fields_are_for() {
    let cluster = &*cluster().installed();
    for (field, words) in [
        ("toolpolicy", "Nothing is allowed that no rule allows"),
        ("toolpolicy.spec.mode", "Shadow"),
        ("toolpolicy.spec.tools.http.paths", "/"),
        ("toolpolicy.spec.credentials.secret", "Secret"),
        ("toolpolicy.status.lagging", "pod"),
        ("clustertoolpolicy.spec", "guardrail"),
    ] {
        let (said, _) = eventually("the schema to be published", MINUTE, || {
            cluster.kubectl.run(&["explain", field])
        })
        .unwrap();
        assert!(said.contains("DESCRIPTION"), "{said}");
        let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(
            said.to_lowercase().contains(&words.to_lowercase()),
            "`{words}`: {said}"
        );
        assert!(!said.contains("<empty>"), "{field}: {said}");
    }
    // No field is without a text.
    let said = cluster
        .kubectl
        .run(&["explain", "toolpolicy.spec", "--recursive"])
        .unwrap();
    assert!(said.contains("when"), "{said}");
}
