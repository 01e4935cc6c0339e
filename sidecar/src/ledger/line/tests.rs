#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::super::chain::{Chain, MAX_LINE, Sealed};
use super::super::record::*;
use super::*;
use proptest::prelude::*;
use std::time::Duration;

fn value(decision: &Decision) -> serde_json::Value {
    let mut body = Vec::new();
    super::decision(&mut body, &principal(&Principal::default()), decision);
    let mut out = Vec::new();
    Chain::genesis().seal(
        &mut out,
        "exeat.egress.decision",
        decision.id,
        UNIX_EPOCH,
        &body,
    );
    out.pop();
    Sealed::parse(&out).unwrap();
    serde_json::from_slice(&out).unwrap()
}

fn denial() -> Decision {
    let destination = Destination {
        host: Some("a.example".into()),
        port: 443,
        address: None,
    };
    Decision::denied("h2", destination, "no_rule")
}

#[test]
fn times_are_rfc_3339_in_utc() {
    for (seconds, nanos, shown) in [
        (0, 0, "1970-01-01T00:00:00.000000000Z"),
        (951_782_400, 1, "2000-02-29T00:00:00.000000001Z"),
        (1_709_251_199, 999_999_999, "2024-02-29T23:59:59.999999999Z"),
        (1_767_225_599, 0, "2025-12-31T23:59:59.000000000Z"),
        (4_107_542_400, 0, "2100-03-01T00:00:00.000000000Z"),
    ] {
        let mut out = Vec::new();
        time(&mut out, UNIX_EPOCH + Duration::new(seconds, nanos));
        assert_eq!(String::from_utf8(out).unwrap(), format!("\"{shown}\""));
    }
}

#[test]
fn fields_stand_in_the_documented_order() {
    let mut it = denial();
    it.allow = true;
    it.caller_uid = Some(1000);
    it.http = Some(Http {
        method: "GET".into(),
        scheme: "https",
        path: "/v1".into(),
        query: Some("a=secret".into()),
        user_agent: None,
    });
    it.policy = Some("p".into());
    it.rule = Some("r".into());
    it.credential = Some("c".into());
    it.trace_id = Some([0xab; 16]);
    it.span_id = Some([0xcd; 8]);
    let value = value(&it);
    let keys: Vec<_> = value
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    assert_eq!(
        keys,
        [
            "event",
            "id",
            "seq",
            "time",
            "principal",
            "caller",
            "destination",
            "protocol",
            "http",
            "decision",
            "mode",
            "reason",
            "policy",
            "rule",
            "generation",
            "bundle",
            "credential",
            "trace_id",
            "span_id",
            "prev",
            "hash"
        ]
    );
    assert_eq!(value["http"]["query"], "a=*");
    assert_eq!(value["trace_id"], "ab".repeat(16));
    assert_eq!(value["id"], it.id.to_string());
}

#[test]
fn long_values_are_cut_and_keep_their_hash() {
    let mut it = denial();
    let path = format!("/{}", "a/".repeat(500_000));
    it.http = Some(Http {
        path: path.clone(),
        ..Http::default()
    });
    let value = value(&it);
    assert_eq!(value["http"]["path"].as_str().unwrap().len(), PATH_CAP);
    assert_eq!(value["http"]["path_truncated"], true);
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, path.as_bytes());
    let mut expected = Vec::new();
    hex(&mut expected, digest.as_ref());
    assert_eq!(
        value["http"]["path_sha256"].as_str().unwrap().as_bytes(),
        expected
    );
}

#[test]
fn what_fits_exactly_is_not_called_cut() {
    let mut it = denial();
    it.message = Some("é".repeat(MESSAGE_CAP / 2));
    let value = value(&it);
    assert_eq!(value["message"], it.message.unwrap());
    assert!(value.get("message_truncated").is_none() && value.get("message_sha256").is_none());
}

#[test]
fn the_worst_record_is_below_the_longest_line() {
    let worst = "\u{1}".repeat(100_000);
    let name = Some(worst.clone());
    let arc = Some(std::sync::Arc::from(worst.as_str()));
    let labels = (0..1000)
        .map(|n| (format!("{n}{worst}"), worst.clone()))
        .collect();
    let principal = Principal {
        namespace: name.clone(),
        pod: name.clone(),
        uid: name.clone(),
        service_account: name.clone(),
        labels,
    };
    let mut it = denial();
    it.bundle = worst.as_str().into();
    it.destination.host.clone_from(&name);
    it.reason = worst.clone().into();
    it.message.clone_from(&name);
    it.policy.clone_from(&arc);
    it.rule.clone_from(&arc);
    it.credential.clone_from(&arc);
    it.http = Some(Http {
        method: worst.clone(),
        scheme: "https",
        path: worst.clone(),
        query: Some(format!("{worst}=&").repeat(3)),
        user_agent: name.clone(),
    });
    let call = McpCall {
        method: worst.clone(),
        name: name.clone(),
    };
    it.mcp = Some(Mcp {
        calls: vec![call; 100],
    });
    it.inference = Some(Inference {
        dialect: worst.clone().into(),
        model: name.clone(),
        ..Inference::default()
    });
    it.dns = Some(Dns {
        name: worst.clone(),
        kind: worst.clone().into(),
    });
    it.tcp = Some(Tcp {
        opaque: true,
        server_name: name,
    });
    it.mode = Mode::Shadow;
    it.shadowed = Some(Shadowed {
        reason: worst.into(),
        policy: arc.clone(),
        rule: arc,
    });
    let mut body = Vec::new();
    decision(&mut body, &super::principal(&principal), &it);
    count(&mut body, u64::MAX, SystemTime::now(), SystemTime::now());
    let mut out = Vec::new();
    Chain::genesis().seal(
        &mut out,
        "exeat.egress.decision",
        it.id,
        SystemTime::now(),
        &body,
    );
    assert!(out.len() < MAX_LINE, "{} bytes", out.len());
    out.pop();
    Sealed::parse(&out).unwrap();
}

proptest! {
    #[test]
    fn whatever_the_agent_says_is_one_line_of_ascii(
        host in ".{0,300}", path in ".{0,3000}", query in ".{0,2000}", agent in ".{0,300}",
    ) {
        let mut it = denial();
        it.destination.host = Some(host.clone());
        it.http = Some(Http {
            method: "GET".into(), scheme: "https", path: path.clone(),
            query: Some(query), user_agent: Some(agent),
        });
        // `value` proves the line: ASCII, no control character, its own hash, one JSON object.
        let value = value(&it);
        if host.len() <= HOST_CAP {
            prop_assert_eq!(value["destination"]["host"].as_str(), Some(host.as_str()));
        } else {
            prop_assert!(value["destination"]["host_sha256"].is_string());
        }
        let shown = value["http"]["path"].as_str().unwrap();
        prop_assert!(shown == path || value["http"]["path_sha256"].is_string());
    }
}
