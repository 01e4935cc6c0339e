#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;

fn policy(name: &str, host: &str) -> Value {
    json!({
        "kind": "ToolPolicy", "apiVersion": API_VERSION,
        "metadata": {"name": name, "namespace": "agents", "uid": "1", "managedFields": [{}]},
        "spec": {
            "podSelector": {"matchLabels": {"app": name}},
            "tools": [{"name": "a", "http": {"hosts": [host]}, "when": "request.path != '\u{1F980}\"\\\\\u{feff}'"}],
        },
        "status": {"conditions": []},
    })
}

fn guardrail(name: &str) -> Value {
    json!({
        "apiVersion": API_VERSION, "kind": "ClusterToolPolicy", "metadata": {"name": name},
        "spec": {"deny": [{"name": "no", "http": {"methods": ["DELETE"]}}]},
    })
}

fn bundle() -> Bundle {
    let policies = vec![policy("b", "b.example"), policy("a", "a.example")];
    Bundle::new("agents", 7, policies, vec![guardrail("g")]).unwrap()
}

#[test]
fn what_is_written_is_read() {
    let bundle = bundle();
    assert_eq!(Bundle::read(&bundle.to_bytes()).unwrap(), bundle);
    assert_eq!(bundle.policies()[0]["metadata"]["name"], "a");
    let text = String::from_utf8(bundle.to_bytes()).unwrap();
    assert!(!text.contains("managedFields") && !text.contains("status"));
    assert!(text.starts_with(r#"{"digest":"sha256:"#), "{text}");
}

#[test]
fn the_digest_is_of_what_it_says() {
    let digest = bundle().digest().to_owned();
    assert_eq!(bundle().with_generation(8).digest(), digest);
    let policies = vec![policy("a", "a.example"), policy("b", "b.example")];
    let same = Bundle::new("agents", 7, policies.clone(), vec![guardrail("g")]).unwrap();
    assert_eq!(same.digest(), digest);
    let other = Bundle::new("agents", 7, policies, Vec::new()).unwrap();
    assert_ne!(other.digest(), digest);
    // As anyone else would compute it.
    let mut value: Value = serde_json::from_slice(&bundle().to_bytes()).unwrap();
    let object = value.as_object_mut().unwrap();
    object.remove("digest");
    object.remove("generation");
    assert_eq!(canonical::digest(&value), digest);
}

#[test]
fn it_compiles_for_a_pod() {
    let labels = BTreeMap::from([("app".to_owned(), "a".to_owned())]);
    let plan = bundle().compile(Some(&labels), 3).unwrap();
    assert_eq!(plan.generation(), 3);
    assert_eq!(plan.policies().len(), 1);
    assert_eq!(&*plan.policies()[0], "agents/a");
    assert_eq!(&*plan.guardrails()[0], "g");
    assert_eq!(bundle().compile(None, 3).unwrap().policies().len(), 2);
    let mut broken = policy("c", "c.example");
    broken["spec"]["tools"][0]["hots"] = json!([]);
    let broken = Bundle::new("agents", 1, vec![broken], Vec::new()).unwrap();
    let found = broken.compile(None, 1).unwrap_err();
    let first = found.iter().next().unwrap();
    assert_eq!(
        (first.file.as_str(), first.field.as_str()),
        ("ToolPolicy/c", "spec.tools[0].hots")
    );
}

#[test]
fn what_is_no_bundle() {
    let text = String::from_utf8(bundle().to_bytes()).unwrap();
    let read = |text: &str| Bundle::read(text.as_bytes()).unwrap_err();
    let changed = |from: &str, to: &str| {
        assert!(text.contains(from), "{from}");
        read(&text.replacen(from, to, 1))
    };
    assert!(matches!(
        changed("a.example", "x.example"),
        BundleError::Digest { .. }
    ));
    assert!(matches!(
        changed("sha256:", "sha256:0"),
        BundleError::Digest { .. }
    ));
    assert!(matches!(
        changed("\"schemaVersion\":1", "\"schemaVersion\":2"),
        BundleError::Version(_)
    ));
    assert!(matches!(
        changed("\"namespace\":\"agents\"}", "\"namespace\":\"other\"}"),
        BundleError::Shape(_)
    ));
    assert!(matches!(
        changed("\"generation\":7", "\"generation\":-7"),
        BundleError::Shape(_)
    ));
    assert!(matches!(
        changed("\"guardrails\"", "\"guardrail\""),
        BundleError::Shape(_)
    ));
    assert!(matches!(
        changed("ClusterToolPolicy", "ToolPolicy"),
        BundleError::Shape(_)
    ));
    assert_eq!(
        read(&text.replacen(':', ": ", 1)),
        BundleError::NotCanonical
    );
    let twice = text.replacen("\"generation\":7", "\"generation\":9,\"generation\":7", 1);
    assert_eq!(read(&twice), BundleError::NotCanonical);
    for none in ["", "[]", "{}", "null", "\u{0}"] {
        read(none);
    }
    assert_eq!(
        Bundle::read(&vec![b' '; MAX_BYTES + 1]),
        Err(BundleError::TooLarge)
    );
    let same = Bundle::new("agents", 1, vec![policy("a", "a.example"); 2], Vec::new());
    assert_eq!(same, Err(BundleError::Duplicate("ToolPolicy a".to_owned())));
    let foreign = Bundle::new("other", 1, vec![policy("a", "a.example")], Vec::new());
    assert!(matches!(foreign, Err(BundleError::Shape(_))));
}
