#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;

const EXPECTED: Expected<'_> = Expected {
    uid: "u1",
    digest: "sha256:aa",
};

fn key() -> StatusKey {
    StatusKey::from_hex(&"ab".repeat(32)).unwrap()
}

fn body(nonce: &Nonce, change: impl Fn(&mut serde_json::Value)) -> String {
    let mut value = serde_json::json!({
        "nonce": nonce.as_str(),
        "pod_uid": "u1",
        "bundle": {"generation": 3, "digest": "sha256:aa"},
        "state": "enforcing",
        "problem": null,
        "policies": ["agents/research"],
        "self_test": {"passed": true, "detail": "", "at": "2026-11-25T00:00:00Z"},
        "journal": {"writable": true, "seq": 9},
    });
    change(&mut value);
    value.to_string()
}

fn signed(text: &str, key: &StatusKey) -> String {
    let mac = key.sign(text.as_bytes());
    format!("{},\"mac\":\"{mac}\"}}", text.strip_suffix('}').unwrap())
}

type Change = fn(&mut serde_json::Value);

#[test]
fn a_right_answer_counts() {
    let nonce = Nonce::draw().unwrap();
    let text = signed(&body(&nonce, |_| ()), &key());
    assert_eq!(judge(text.as_bytes(), &nonce, &key(), EXPECTED), Ok(()));
}

#[test]
fn nothing_else_does() {
    let nonce = Nonce::draw().unwrap();
    let table: &[(Change, &str)] = &[
        (|v| v["nonce"] = "00".repeat(16).into(), "old answer"),
        (|v| v["pod_uid"] = "u2".into(), "another pod"),
        (|v| v["bundle"] = serde_json::Value::Null, "no bundle"),
        (
            |v| v["bundle"] = serde_json::json!({"generation": 2, "digest": "sha256:bb"}),
            "generation 2",
        ),
        (|v| v["state"] = "deny-all".into(), "deny-all"),
        (|v| v["self_test"]["passed"] = false.into(), "self-test"),
        (|v| v["journal"]["writable"] = false.into(), "journal"),
    ];
    for (change, expected) in table {
        let text = signed(&body(&nonce, change), &key());
        let error = judge(text.as_bytes(), &nonce, &key(), EXPECTED).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn an_answer_without_the_key_is_not_the_gates() {
    let nonce = Nonce::draw().unwrap();
    let text = body(&nonce, |_| ());
    let other = StatusKey::from_hex(&"cd".repeat(32)).unwrap();
    let mut forged = vec![
        signed(&text, &other),
        text.clone(),
        text.replace('}', ",\"mac\":\"\"}"),
        format!("{},\"mac\":\"zz\"}}", text.strip_suffix('}').unwrap()),
        String::new(),
        "[]".to_owned(),
        "{\"mac\":\"ü\"}".to_owned(),
    ];
    // The right code, moved over another text.
    forged.push(signed(&text, &key()).replace("enforcing", "enforcinG"));
    for text in forged {
        assert!(
            judge(text.as_bytes(), &nonce, &key(), EXPECTED).is_err(),
            "{text}"
        );
    }
}

#[test]
fn keys_have_no_printable_form() {
    assert_eq!(format!("{:?}", key()), "StatusKey(…)");
    assert!(StatusKey::from_hex("ab").is_none());
    assert!(StatusKey::from_hex(&"zz".repeat(32)).is_none());
}
