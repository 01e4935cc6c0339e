#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;
use std::sync::Arc;

use super::*;

fn judged(in_force: InForce, pods: &[&str], status: Value) -> Judged {
    Judged {
        policy: Arc::new(Policy {
            name: "research".to_owned(),
            uid: "u".to_owned(),
            generation: 3,
            created: 0,
            document: json!({}),
            status,
        }),
        accepted: Accepted {
            yes: in_force == InForce::Now,
            reason: if in_force == InForce::Now {
                "Accepted"
            } else {
                "Invalid"
            },
            message: "m".to_owned(),
        },
        in_force,
        selected: pods
            .iter()
            .map(|pod| (*pod).to_owned())
            .collect::<BTreeSet<_>>(),
    }
}

fn make(judged: &Judged, standings: &[(&'static str, Standing)], at: i64) -> Made {
    let standings: BTreeMap<&str, Standing> = standings.iter().cloned().collect();
    let names = BTreeMap::from([("a", "pod-a"), ("b", "pod-b")]);
    let bundle = (7, "sha256:x".to_owned());
    let now = Timestamp::from_second(at).unwrap();
    of(judged, true, &standings, &names, Some(&bundle), now)
}

type Row = (
    InForce,
    &'static [&'static str],
    Vec<(&'static str, Standing)>,
    &'static str,
    &'static str,
    &'static str,
);

#[test]
fn n_of_m() {
    let lags = || Standing::lags("asleep");
    let table: Vec<Row> = vec![
        (InForce::Now, &[], vec![], "0/0", "Unknown", "NoPods"),
        (
            InForce::Now,
            &["a"],
            vec![("a", Standing::Enforces)],
            "1/1",
            "True",
            "Enforced",
        ),
        (
            InForce::Now,
            &["a", "b"],
            vec![("a", Standing::Enforces), ("b", lags())],
            "1/2",
            "False",
            "Lagging",
        ),
        (
            InForce::Last,
            &["a"],
            vec![("a", Standing::Enforces)],
            "1/1",
            "False",
            "LastAccepted",
        ),
        (
            InForce::Not,
            &["a"],
            vec![("a", Standing::Enforces)],
            "0/1",
            "False",
            "NotAccepted",
        ),
    ];
    for (in_force, pods, standings, count, status, reason) in table {
        let made = make(&judged(in_force, pods, Value::Null), &standings, 0);
        assert_eq!(made.status["enforced"], count);
        let condition = &made.status["conditions"][1];
        assert_eq!(condition["type"], "Enforced");
        assert_eq!(condition["status"], status);
        assert_eq!(condition["reason"], reason);
        assert_eq!(
            made.status.get("digest").is_some(),
            in_force != InForce::Not
        );
    }
}

#[test]
fn lagging_pods_are_named_with_why_and_not_without_end() {
    let uids: Vec<String> = (0..30).map(|n| format!("u{n:02}")).collect();
    let pods: Vec<&str> = uids.iter().map(String::as_str).collect();
    let judged = judged(InForce::Now, &pods, Value::Null);
    let standings: BTreeMap<&str, Standing> = pods
        .iter()
        .map(|uid| (*uid, Standing::lags("asleep")))
        .collect();
    let now = Timestamp::from_second(0).unwrap();
    let made = of(
        &judged,
        true,
        &standings,
        &BTreeMap::new(),
        Some(&(1, String::new())),
        now,
    );
    assert_eq!(
        made.status["lagging"].as_array().unwrap().len(),
        MAX_LAGGING
    );
    assert_eq!(
        made.status["lagging"][0],
        json!({"pod": "u00", "reason": "asleep"})
    );
    assert_eq!(made.status["selected"], 30);
}

#[test]
fn times_and_events_turn_only_when_conditions_do() {
    let first = make(
        &judged(InForce::Now, &["a"], Value::Null),
        &[("a", Standing::Enforces)],
        100,
    );
    assert_eq!(first.transitions.len(), 2);
    let same = make(
        &judged(InForce::Now, &["a"], first.status.clone()),
        &[("a", Standing::Enforces)],
        200,
    );
    assert_eq!(same.status, first.status, "nothing to write");
    assert!(same.transitions.is_empty());
    let turned = make(
        &judged(InForce::Now, &["a"], first.status.clone()),
        &[("a", Standing::lags("gone"))],
        300,
    );
    assert_eq!(turned.transitions.len(), 1);
    assert_eq!(turned.transitions[0].reason, "NotEnforced");
    assert_eq!(
        turned.status["conditions"][0],
        first.status["conditions"][0]
    );
    assert_eq!(
        turned.status["conditions"][1]["lastTransitionTime"],
        "1970-01-01T00:05:00Z"
    );
}
