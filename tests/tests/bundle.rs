//! The operator's bundle and the pod's own Secret, as the real sidecar takes them: two volumes that
//! do not change in one moment.
//!
//! Whatever order they come in, a secret goes only where and as it was given for; no bundle is taken
//! that is of elsewhere or of before; guardrails hold; and every record names what judged it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "bundle/support.rs"]
mod support;

use std::{fs, process::Command, time::Duration};

use exeat_tests::chaos::{API, Stage, until};
use serde_json::{Value, json};
use support::{KEY, OTHER, Operated, allowing, given, guardrail};

/// A volume that changed is read within this.
const SEEN_WITHIN: Duration = Duration::from_secs(3);

#[test]
fn a_secret_goes_only_where_and_as_it_was_given_for() {
    let mut pod = Operated::start();
    let policy = |secret: &str, hosts: &[&str]| {
        let mut policy = allowing("p", hosts);
        policy["spec"]["credentials"] = json!([
            {"name": "api", "secret": {"name": secret, "key": "token"}, "inject": {"bearer": {}}}
        ]);
        policy["spec"]["tools"][0]["credential"] = "api".into();
        policy
    };
    let refused = |pod: &Operated, host: &str, why: &str| {
        let before = pod.stage.world.upstream().requests().len();
        let answer = pod.get(host, "/reports/1");
        assert_eq!(answer.status, 503, "{}", answer.text());
        let body: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(body["error"]["code"], "credential_unavailable", "{body}");
        let message = body["error"]["message"].as_str().unwrap();
        assert!(message.contains(why), "{message}");
        assert_eq!(
            pod.stage.world.upstream().requests().len(),
            before,
            "it went out without its credential"
        );
        // On record with what judged it, and with why nothing came of it.
        let (decision, outcome) = pod.story(body["error"]["id"].as_str().unwrap());
        assert_eq!(decision["credential"], "api");
        let error = outcome["error"].as_str().unwrap();
        assert!(error.starts_with("credential_unavailable"), "{error}");
        assert!(error.contains(why), "{error}");
    };

    pod.secret(&given("p.api", "one", "first", API));
    pod.bundle(1, &[policy("first", &[API])], &[]);
    pod.until(|pod| pod.sent(API).as_deref() == Some("Bearer one"));

    // The policy names another Secret, and what the pod holds is still the one of before.
    pod.bundle(2, &[policy("second", &[API])], &[]);
    refused(&pod, API, "Secret `first`");
    pod.secret(&given("p.api", "two", "second", API));
    pod.until(|pod| pod.sent(API).as_deref() == Some("Bearer two"));

    // The policy sends it to a new host before its owner's consent has come, or without it.
    pod.bundle(3, &[policy("second", &[API, OTHER])], &[]);
    assert_eq!(pod.sent(API).as_deref(), Some("Bearer two"));
    refused(&pod, OTHER, "does not consent to other.exeat.test");
    pod.secret(&given("p.api", "two", "second", "*.exeat.test"));
    pod.until(|pod| pod.sent(OTHER).as_deref() == Some("Bearer two"));

    // Consent taken back, an entry taken away, words that nobody can read.
    pod.secret(&given("p.api", "two", "second", ""));
    pod.until(|pod| pod.get(API, "/reports/1").status == 503);
    refused(&pod, API, "does not consent to api.exeat.test");
    pod.secret(&[("p.api", "two"), ("sources", "{}")]);
    pod.until(|pod| pod.get(API, "/reports/1").text().contains("has not given"));
    refused(&pod, API, "has not given");
    pod.secret(&[("p.api", "two"), ("sources", "[")]);
    pod.until(|pod| pod.get(API, "/reports/1").text().contains("sources"));
    refused(&pod, API, "not what the operator writes");

    // Filled by hand, there are no such words, and it is whoever filled it who answers for it.
    pod.secret(&[("p.api", "three")]);
    pod.until(|pod| pod.sent(API).as_deref() == Some("Bearer three"));
}

#[test]
fn every_record_names_the_bundle_that_judged_it() {
    let mut pod = Operated::start();
    let mine = allowing("p", &[API]);
    let mut others = allowing("others", &["elsewhere.example"]);
    others["spec"]["podSelector"] = json!({"matchLabels": {"app": "another"}});
    let digest = pod.bundle(7, std::slice::from_ref(&mine), &[]);
    let judged = |pod: &Operated, path: &str| {
        let answer = pod.get(API, path);
        let records = pod.records();
        let of_path = |record: &&Value| record["http"]["path"] == path;
        let record = records.iter().rfind(of_path).cloned().unwrap();
        assert_eq!(record["decision"] == "allow", answer.status == 200);
        record
    };
    for path in ["/allowed/1", "/denied"] {
        let record = judged(&pod, path);
        assert_eq!(record["generation"], 7, "{record}");
        assert_eq!(record["bundle"], digest.as_str());
        assert!(record["plan"].as_str().unwrap().starts_with("sha256:"));
    }
    let plan = judged(&pod, "/allowed/2")["plan"].clone();

    // Another pod's policy: nothing changes for this one, but the bundle is another.
    let digest = pod.bundle(8, &[mine.clone(), others], &[]);
    let record = judged(&pod, "/allowed/3");
    assert_eq!(record["generation"], 8, "{record}");
    assert_eq!(record["bundle"], digest.as_str());
    assert_eq!(record["plan"], plan);

    // A policy of this pod's own.
    let digest = pod.bundle(9, &[mine, allowing("more", &[OTHER])], &[]);
    let record = judged(&pod, "/allowed/4");
    assert_eq!(
        (&record["generation"], &record["bundle"]),
        (&json!(9), &json!(digest))
    );
    assert_ne!(record["plan"], plan);

    // DNS is judged by it too.
    pod.ask("nowhere.example");
    until("the question is on record", SEEN_WITHIN, || {
        let records = pod.records();
        let dns = records.iter().rfind(|record| record["protocol"] == "dns");
        dns.is_some_and(|dns| dns["generation"] == 9 && dns["bundle"] == digest.as_str())
    })
    .unwrap();
}

#[test]
fn a_bundle_of_elsewhere_or_before_is_refused_and_that_is_told() {
    let mut pod = Operated::start();
    pod.secret(&[("status-key", KEY)]);
    // Nothing is in force before the first good one.
    pod.publish(&support::packed("others", 3, &[allowing("p", &[API])], &[]).1);
    pod.sidecar.says("of the namespace `others`").unwrap();
    assert_eq!(pod.get(API, "/allowed/1").status, 403);

    let digest = pod.bundle(5, &[allowing("p", &[API])], &[]);
    assert_eq!(pod.get(API, "/allowed/1").status, 200);
    let wide = [allowing("p", &[API, OTHER])];
    for (refusals, (namespace, generation, why)) in [
        (
            "others",
            9,
            "is of the namespace `others`, and this pod is in `agents`",
        ),
        ("agents", 4, "is of generation 4, older than 5"),
        ("agents", 5, "under generation 5, under which"),
    ]
    .into_iter()
    .enumerate()
    {
        pod.publish(&support::packed(namespace, generation, &wide, &[]).1);
        pod.sidecar.says(why).unwrap();
        pod.until(|pod| {
            let status = pod.status();
            status["state"] == "kept-last-good" && status["problem"].as_str().unwrap().contains(why)
        });
        let status = pod.status();
        assert_eq!(
            status["bundle"],
            json!({"generation": 5, "digest": digest}),
            "{status}"
        );
        let metrics = pod.page("/metrics");
        assert!(metrics.contains("exeat_policy_current 0\n"), "{metrics}");
        assert!(metrics.contains("exeat_policy_generation 5\n"), "{metrics}");
        let counted = format!("exeat_policy_refused_total {}\n", refusals + 2);
        assert!(metrics.contains(&counted), "{metrics}");
        // What was in force is, and no more.
        assert_eq!(pod.get(API, "/allowed/1").status, 200);
        assert_eq!(pod.get(OTHER, "/allowed/1").status, 403);
    }
    pod.bundle(6, &wide, &[]);
    assert_eq!(pod.status()["state"], "enforcing");
    assert_eq!(pod.get(OTHER, "/allowed/1").status, 200);

    // Deleted, everything is denied; and then there is nothing that another would be older than.
    pod.publish(&[]);
    pod.until(|pod| pod.get(API, "/allowed/1").status == 403);
    assert_eq!(pod.status()["state"], "deny-all");
    pod.bundle(1, &[allowing("p", &[API])], &[]);
    assert_eq!(pod.get(API, "/allowed/1").status, 200);
}

#[test]
fn a_guardrail_holds_whatever_the_namespace_allows() {
    let mut pod = Operated::start();
    let guardrails = [guardrail("no-deletes")];
    for (generation, mode) in [(1, "Enforce"), (2, "Shadow")] {
        let mut open = allowing("open", &[API]);
        open["spec"]["mode"] = mode.into();
        let mut wider = allowing("wider", &[API]);
        wider["spec"]["mode"] = mode.into();
        wider["spec"]["tools"][0]["http"]["methods"] = json!(["DELETE"]);
        wider["spec"]["tools"][0]["http"]["paths"] = json!(["/allowed/users"]);
        pod.bundle(generation, &[open, wider], &guardrails);
        let before = pod.stage.world.upstream().requests().len();
        let answer = pod.request("DELETE", API, "/allowed/users");
        assert_eq!(answer.status, 403, "{mode}: {}", answer.text());
        assert_eq!(pod.stage.world.upstream().requests().len(), before);
        let body: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(body["error"]["code"], "denied_by_rule", "{body}");
        let message = body["error"]["message"].as_str().unwrap();
        assert!(
            message.contains("no-deletes.all of a guardrail"),
            "{message}"
        );
        let records = pod.records();
        let id = &body["error"]["id"];
        let record = records.iter().find(|record| record["id"] == *id).unwrap();
        assert_eq!(record["decision"], "deny");
        assert_eq!(record["policy"], "no-deletes");
        assert_eq!(record["rule"], "no-deletes.all");
        // The rest of what the namespace allows still is.
        assert_eq!(pod.request("GET", API, "/allowed/users").status, 200);
    }
    pod.bundle(3, &[allowing("open", &[API])], &[]);
    assert_eq!(pod.request("DELETE", API, "/allowed/users").status, 200);
}

#[test]
fn java_reads_the_key_store_that_the_gate_writes() {
    let stage = Stage::new("").unwrap();
    let (bundle, store) = (
        stage.path("public/bundle.pem"),
        stage.path("public/cacerts.jks"),
    );
    let _sidecar = stage
        .start(&[
            "--ca-bundle-out",
            bundle.to_str().unwrap(),
            "--ca-java-out",
            store.to_str().unwrap(),
        ])
        .unwrap();
    let listed = Command::new("keytool")
        .args(["-list", "-rfc", "-storepass", "changeit", "-keystore"])
        .arg(&store)
        .output()
        .expect("a Java must be installed");
    let listed = String::from_utf8(listed.stdout)
        .unwrap()
        .replace("\r\n", "\n");
    let count = |text: &str| text.matches("BEGIN CERTIFICATE").count();
    let pem = fs::read_to_string(bundle).unwrap();
    assert!(count(&pem) >= 1);
    assert_eq!(count(&listed), count(&pem), "{listed}");
    // The gate's own, byte for byte.
    let authority = fs::read_to_string(stage.authority()).unwrap();
    assert!(listed.contains(authority.trim()), "{listed}");
}
