//! The admission policies name what the code names.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::path::Path;

use exeat_inject::names::{GOVERNED_LABEL, GUARD, POLICY_CONFIG_MAP, SIDECAR, SIDECAR_ID, VOLUMES};
use exeat_inject::{ADDABLE, DROPPED};

#[test]
fn the_policies_name_what_the_code_names() {
    let file =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/manifests/admission-policies.yaml");
    let text = fs::read_to_string(file).unwrap();
    let quoted = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(|name| format!("'{name}'")).collect();
        names.join(", ")
    };
    let prefixed = ADDABLE.map(|name| format!("CAP_{name}"));
    for wanted in [
        format!("[{}]", quoted(&DROPPED)),
        format!(
            "[{}, {}]",
            quoted(&ADDABLE),
            quoted(&prefixed.each_ref().map(String::as_str))
        ),
        format!("!= {SIDECAR_ID}"),
        format!("['{GUARD}', '{SIDECAR}']"),
        format!("'{POLICY_CONFIG_MAP}'"),
        GOVERNED_LABEL.to_owned(),
    ] {
        assert!(text.contains(&wanted), "{wanted}");
    }
    for volume in VOLUMES {
        assert!(text.contains(&format!("'{volume}'")), "{volume}");
    }
    // Every policy is bound, refuses on failure, and holds in governed namespaces only.
    let count = |word: &str| text.matches(word).count();
    let policies = count("kind: ValidatingAdmissionPolicy\n");
    assert!(policies >= 6);
    for word in [
        "kind: ValidatingAdmissionPolicyBinding\n",
        "failurePolicy: Fail\n",
        "namespaceSelector: {matchLabels: {exeat.dev/governed: \"true\"}}\n",
        "validationActions: [Deny]\n",
    ] {
        assert_eq!(count(word), policies, "{word}");
    }
}
