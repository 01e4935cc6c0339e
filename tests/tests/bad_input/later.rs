//! What fails, fills or is tampered with while a sidecar runs.

use std::{
    fs,
    process::Command,
    time::{Duration, Instant},
};

use exeat_tests::{
    chaos::{
        API, Sidecar, Stage,
        client::{Answer, Client},
        journal::{self, is_allow},
        until,
    },
    netns::Persona,
};
use serde_json::Value;

use super::support::{POLICY, code, get};

fn ready(stage: &Stage) -> Answer {
    let ask = || {
        Client::plain("10.77.0.2:15021".parse().unwrap())
            .unwrap()
            .get("gate", "/healthz/ready", "")
            .unwrap()
    };
    stage.pod.outside.run(Persona::Root, ask).unwrap()
}

/// Calls until the journal takes no more; each call that arrived is on record.
fn fill(stage: &Stage, name: &str) -> Answer {
    for call in 0..1000 {
        let answer = get(stage, &format!("/c/{name}/{call}"));
        if answer.status != 200 {
            return answer;
        }
    }
    panic!("the journal does not fill");
}

fn all_on_record(stage: &Stage, records: &[Value]) {
    for request in stage.world.upstream().requests() {
        let found = records
            .iter()
            .any(|record| is_allow(record) && record["http"]["path"] == request.path.as_str());
        assert!(found, "{} arrived and is not on record", request.path);
    }
}

#[test]
fn a_full_disk_denies_and_recovers() {
    let stage = Stage::new(POLICY).unwrap();
    let mut sidecar = stage.spawn_on_small_disk("size=64k", &[]).unwrap();
    sidecar.ready().unwrap();
    let seen = format!("/proc/{}/root{}", sidecar.id(), stage.journal().display());
    let answer = fill(&stage, "first");
    assert_eq!(
        (answer.status, code(&answer).as_str()),
        (503, "journal_unavailable"),
        "{}",
        answer.text()
    );
    assert!(answer.text().contains("disk full"), "{}", answer.text());
    let sent = stage.world.upstream().requests().len();
    for call in 0..20 {
        assert_eq!(get(&stage, &format!("/c/none/{call}")).status, 503);
    }
    assert_eq!(
        stage.world.upstream().requests().len(),
        sent,
        "a call left with no record"
    );
    let health = ready(&stage);
    assert!(
        health.status == 503 && health.text().contains("journal"),
        "{}",
        health.text()
    );
    all_on_record(&stage, &journal::read(seen.as_ref()).unwrap());

    let enlarged = Command::new("nsenter")
        .args([
            "--mount",
            "--target",
            &sidecar.id().to_string(),
            "mount",
            "-o",
            "remount,size=1m",
        ])
        .arg(stage.path("journal"))
        .status()
        .unwrap();
    assert!(enlarged.success());
    until("calls go again", Duration::from_secs(3), || {
        get(&stage, "/c/again/1").status == 200
    })
    .unwrap();
    until("it is ready again", Duration::from_secs(3), || {
        ready(&stage).status == 200
    })
    .unwrap();
    let records = journal::read(seen.as_ref()).unwrap();
    let resumed = records
        .iter()
        .find(|record| record["event"] == "exeat.journal.resumed");
    assert!(
        resumed.expect("what was not recorded is told")["refused"]
            .as_u64()
            .unwrap()
            >= 20,
        "{resumed:?}"
    );
    all_on_record(&stage, &records);
}

#[test]
fn a_journal_at_its_limit_denies() {
    let stage = Stage::new(POLICY).unwrap();
    let sidecar = stage.start(&["--journal-max-bytes", "40000"]).unwrap();
    let answer = fill(&stage, "limit");
    assert_eq!(
        (answer.status, code(&answer).as_str()),
        (503, "journal_unavailable"),
        "{}",
        answer.text()
    );
    assert!(answer.text().contains("full"), "{}", answer.text());
    sidecar.stop().unwrap();
    let records = journal::read(&stage.journal()).unwrap();
    all_on_record(&stage, &records);
    let outcomes = records
        .iter()
        .filter(|record| record["event"] == "exeat.egress.outcome")
        .count();
    assert_eq!(
        outcomes,
        records.iter().filter(|record| is_allow(record)).count(),
        "each call has its end"
    );
    let length = fs::metadata(stage.journal()).unwrap().len();
    assert!(length <= 40_000, "{length}");
}

#[test]
fn a_journal_that_is_tampered_with_denies() {
    for (what, tamper) in [
        (
            "deleted",
            (|stage: &Stage| fs::remove_file(stage.journal()).unwrap()) as fn(&Stage),
        ),
        ("cut", |stage| {
            fs::OpenOptions::new()
                .write(true)
                .open(stage.journal())
                .unwrap()
                .set_len(10)
                .unwrap();
        }),
        ("written to", |stage| {
            use std::io::Write as _;
            exeat_tests::chaos::append(&stage.journal())
                .unwrap()
                .write_all(b"{}\n")
                .unwrap();
        }),
    ] {
        let stage = Stage::new(POLICY).unwrap();
        let sidecar = stage.start(&[]).unwrap();
        assert_eq!(get(&stage, "/c/before").status, 200);
        until("its outcome is written", Duration::from_secs(2), || {
            journal::read(&stage.journal()).unwrap().len() == 3
        })
        .unwrap();
        tamper(&stage);
        let answer = get(&stage, "/c/after");
        assert_eq!(
            (answer.status, code(&answer).as_str()),
            (503, "journal_unavailable"),
            "{what}: {}",
            answer.text()
        );
        assert!(
            stage.world.upstream().requests_to("/c/after").is_empty(),
            "{what}"
        );
        drop(sidecar);
    }
}

#[test]
fn a_collector_that_is_away_stops_nothing() {
    let stage = Stage::new(POLICY).unwrap();
    for collector in [
        "http://10.77.0.1:9",
        "http://collector.invalid:4318/v1/logs",
    ] {
        let sidecar = stage.start(&["--otlp", collector]).unwrap();
        for call in 0..20 {
            let begun = Instant::now();
            assert_eq!(get(&stage, &format!("/c/{call}")).status, 200);
            assert!(begun.elapsed() < Duration::from_secs(1));
        }
        assert_eq!(ready(&stage).status, 200);
        sidecar.says("can't export records").unwrap();
        let begun = Instant::now();
        assert!(sidecar.stop().unwrap().success());
        assert!(
            begun.elapsed() < Duration::from_secs(10),
            "stopping took {:?}",
            begun.elapsed()
        );
    }
    let records = journal::read(&stage.journal()).unwrap();
    let gaps = records
        .iter()
        .filter(|record| record["event"] == "exeat.export.gap")
        .count();
    assert!(gaps >= 2, "what was not sent is on record");
}

#[test]
fn a_credential_without_its_file_denies() {
    let with = POLICY
        .replace("scheme: http, ", "")
        .replace("\"/c/**\"]}", "\"/c/**\"]}\n    credential: api\n  credentials:\n  - {name: api, secret: {name: s, key: k}, inject: {bearer: {}}}");
    let stage = Stage::new(&with).unwrap();
    let missing = format!("api={}", stage.path("credentials/api").display());
    for flags in [vec![], vec!["--credential", &missing]] {
        let sidecar = stage.start(&flags).unwrap();
        let (to, authority) = (stage.world.tls(), stage.authority());
        let answer = stage.agent(|| {
            Client::tls(to, API, &authority)
                .unwrap()
                .get(API, "/c/1", "")
                .unwrap()
        });
        assert_eq!(
            (answer.status, code(&answer).as_str()),
            (503, "credential_unavailable"),
            "{}",
            answer.text()
        );
        assert!(answer.text().contains("api"), "{}", answer.text());
        drop(sidecar);
    }
    assert!(stage.world.upstream().requests().is_empty());
}

#[test]
fn a_stop_ends_idle_connections_and_tells_the_rest() {
    let stage = Stage::new(POLICY).unwrap();
    let sidecar: Sidecar = stage.start(&["--grace-seconds", "10"]).unwrap();
    let (world, proxy) = (stage.world.plain(), ([127, 0, 0, 1], 15002).into());
    // One that was used, one that was not, of each listener.
    let mut idle =
        stage.agent(|| [world, proxy, world, proxy].map(|to| Client::plain(to).unwrap()));
    assert_eq!(idle[0].get(API, "/c/1", "").unwrap().status, 200);
    let proxied = "GET http://api.exeat.test/c/2 HTTP/1.1\r\nhost: api.exeat.test\r\n\r\n";
    idle[1].send(proxied.as_bytes()).unwrap();
    assert_eq!(idle[1].answer().unwrap().status, 200);
    let begun = Instant::now();
    assert!(sidecar.stop().unwrap().success());
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "idle connections held it up for {:?}",
        begun.elapsed()
    );
    let records = journal::read(&stage.journal()).unwrap();
    let events = records
        .iter()
        .rev()
        .map(|record| record["event"].as_str().unwrap());
    let last: Vec<_> = events.take(2).collect();
    assert_eq!(last, ["exeat.audit.checkpoint", "exeat.journal.closed"]);
}
