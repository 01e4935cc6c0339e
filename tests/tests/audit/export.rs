//! Collectors get every record as it stands in the journal; what they do not get is told.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use exeat_sidecar::ledger::chain::Verifier;
use exeat_sidecar::ledger::{ExportConfig, ExportStatus, Ledger};
use exeat_tests::otlp::{Mood, Receiver, attribute, body};

use super::{call, joined, open};

const PATIENCE: Duration = Duration::from_secs(10);

fn config(address: SocketAddr, protocol: &str) -> ExportConfig {
    ExportConfig::new(
        &format!("http://{address}"),
        Some(protocol),
        Some("authorization=Bearer%20t"),
    )
    .unwrap()
}

async fn some_calls(ledger: &Ledger, calls: usize) {
    for n in 0..calls {
        let receipt = ledger
            .decide(&call(true, &format!("/v1/{n}")))
            .await
            .unwrap();
        ledger.guard(&receipt).settled();
    }
    ledger.deny(&call(false, "/admin")).unwrap();
}

fn gaps(path: &Path) -> Vec<serde_json::Value> {
    fs::read_to_string(path)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .filter(|record| record["event"] == "exeat.export.gap")
        .collect()
}

async fn status(ledger: &Ledger, done: impl Fn(&ExportStatus) -> bool) -> ExportStatus {
    let began = Instant::now();
    loop {
        let status = ledger.export_status().unwrap();
        if done(&status) {
            return status;
        }
        assert!(began.elapsed() < PATIENCE, "{status:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_is_the_journal_over_grpc_and_over_http() {
    for protocol in ["grpc", "http/protobuf"] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("j");
        let receiver = Receiver::start().await.unwrap();
        let ledger = open(&path);
        ledger.export(config(receiver.address(), protocol)).unwrap();
        let mut traced = call(true, "/traced");
        traced.trace_id = Some([0xab; 16]);
        traced.span_id = Some([0xcd; 8]);
        drop(ledger.decide(&traced).await.unwrap());
        some_calls(&ledger, 700).await;
        ledger.shutdown().await;

        let records = receiver.records();
        let exported = joined(records.iter().map(|record| body(record).unwrap()));
        assert_eq!(exported, fs::read_to_string(&path).unwrap(), "{protocol}");
        let mut verifier = Verifier::default();
        for (index, record) in records.iter().enumerate() {
            verifier
                .line(body(record).unwrap().as_bytes(), index == 0)
                .unwrap();
        }

        let of = |key: &str, value: &str| {
            records
                .iter()
                .find(|it| attribute(it, key).as_deref() == Some(value))
                .unwrap()
        };
        let allowed = of("url.path", "/traced");
        assert_eq!(allowed.event_name, "exeat.egress.decision");
        assert_eq!(
            (allowed.severity_number, allowed.severity_text.as_str()),
            (9, "")
        );
        assert_eq!(
            (&allowed.trace_id[..], &allowed.span_id[..]),
            (&[0xab; 16][..], &[0xcd; 8][..])
        );
        assert!(allowed.time_unix_nano > 1_700_000_000_000_000_000);
        for (key, value) in [
            ("exeat.decision", "allow"),
            ("server.address", "api.example"),
            ("server.port", "443"),
            ("http.request.method", "GET"),
            ("url.query", "key=*"),
            ("security_rule.name", "github.read"),
            ("security_rule.ruleset.name", "research"),
        ] {
            assert_eq!(attribute(allowed, key).as_deref(), Some(value), "{key}");
        }
        assert_eq!(of("exeat.decision", "deny").severity_number, 13);
        let outcome = records
            .iter()
            .find(|it| it.event_name == "exeat.egress.outcome")
            .unwrap();
        assert!(attribute(outcome, "exeat.decision.id").is_some());
        let resource = &receiver.resources()[0];
        assert!(
            resource
                .attributes
                .iter()
                .any(|it| it.key == "service.name")
        );
        assert!(
            resource
                .attributes
                .iter()
                .any(|it| it.key == "k8s.pod.name")
        );
        assert_eq!(receiver.headers()[0]["authorization"], "Bearer t");

        let status = ledger.export_status().unwrap();
        assert_eq!(status.exported, records.len() as u64);
        assert_eq!(
            (status.rejected, status.dropped, status.failures),
            (0, 0, 0)
        );
        assert!(gaps(&path).is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_costs_the_calls_nothing_and_loses_nothing() {
    for protocol in ["grpc", "http/protobuf"] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("j");
        let receiver = Receiver::start().await.unwrap();
        let address = receiver.address();
        drop(receiver);
        let ledger = open(&path);
        ledger.export(config(address, protocol)).unwrap();
        let failing = status(&ledger, |status| status.failures > 0).await;
        assert!(failing.error.is_some());
        let began = Instant::now();
        some_calls(&ledger, 1000).await;
        assert!(
            began.elapsed() < Duration::from_secs(5),
            "calls waited for the collector"
        );
        let receiver = Receiver::start_on(address).await.unwrap();
        receiver.set_mood(Mood::Busy);
        assert!(receiver.asked(1, PATIENCE).await, "it did not come back");
        assert!(receiver.records().is_empty());
        receiver.set_mood(Mood::Takes);
        assert!(
            receiver.has(2000, PATIENCE).await,
            "{:?}",
            ledger.export_status()
        );
        ledger.shutdown().await;
        let records = receiver.records();
        let exported = joined(records.iter().map(|record| body(record).unwrap()));
        assert_eq!(exported, fs::read_to_string(&path).unwrap(), "{protocol}");
        assert_eq!(ledger.export_status().unwrap().dropped, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_collector_never_took_is_counted_and_written_down() {
    let folder = tempfile::tempdir().unwrap();
    for (name, mood) in [
        ("absent", None),
        ("silent", Some(Mood::Silent)),
        ("busy", Some(Mood::Busy)),
    ] {
        let path = folder.path().join(name);
        let mut receiver = Some(Receiver::start().await.unwrap());
        let address = receiver.as_ref().unwrap().address();
        match mood {
            Some(mood) => receiver.as_ref().unwrap().set_mood(mood),
            None => receiver = None,
        }
        let ledger = open(&path);
        ledger.export(config(address, "grpc")).unwrap();
        some_calls(&ledger, 20).await;
        let began = Instant::now();
        ledger.shutdown().await;
        assert!(
            began.elapsed() < Duration::from_secs(8),
            "{name}: shutdown has a bound"
        );
        // Opened, the key, 20 calls with their outcomes, a denial, closed, a checkpoint.
        let all = 2 + 20 + 20 + 1 + 2;
        let status = ledger.export_status().unwrap();
        assert_eq!((status.exported, status.dropped), (0, all), "{name}");
        let gaps = gaps(&path);
        assert_eq!(gaps.len(), 1, "{name}");
        assert_eq!(
            (&gaps[0]["count"], &gaps[0]["first_seq"]),
            (&all.into(), &1.into()),
            "{name}"
        );
        assert_eq!(gaps[0]["last_seq"], all, "{name}");
        drop(receiver);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_collector_refuses_is_counted_and_written_down_once() {
    for (protocol, mood) in [
        ("grpc", Mood::Refuses),
        ("http/protobuf", Mood::Refuses),
        ("grpc", Mood::Rejects(3)),
        ("http/protobuf", Mood::Rejects(3)),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("j");
        let receiver = Receiver::start().await.unwrap();
        receiver.set_mood(mood);
        let ledger = open(&path);
        some_calls(&ledger, 20).await;
        ledger.export(config(receiver.address(), protocol)).unwrap();
        let refused = status(&ledger, |status| status.rejected > 0).await;
        let began = Instant::now();
        while gaps(&path).is_empty() {
            assert!(
                began.elapsed() < PATIENCE,
                "{protocol} {mood:?}: no gap was written"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        // A gap is exported too, and refused too: that must not go round for ever.
        tokio::time::sleep(Duration::from_millis(800)).await;
        assert_eq!(gaps(&path).len(), 1, "{protocol} {mood:?}");
        assert!(receiver.requests() < 10);
        receiver.set_mood(Mood::Takes);
        ledger.shutdown().await;
        assert!(refused.rejected >= 3);
        assert!(gaps(&path)[0]["count"].as_u64().unwrap() >= 3);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tls_only_a_trusted_collector_is_told() {
    for protocol in ["grpc", "http/protobuf"] {
        let folder = tempfile::tempdir().unwrap();
        let (receiver, pem) = Receiver::start_tls().await.unwrap();
        let roots = folder.path().join("roots.pem");
        fs::write(&roots, pem).unwrap();
        let endpoint = format!("https://localhost:{}", receiver.address().port());
        let config = || ExportConfig::new(&endpoint, Some(protocol), None).unwrap();

        let path = folder.path().join("untrusted");
        let ledger = open(&path);
        ledger.export(config()).unwrap();
        some_calls(&ledger, 3).await;
        status(&ledger, |status| status.failures > 0).await;
        ledger.shutdown().await;
        assert_eq!(receiver.requests(), 0, "{protocol}: a stranger was told");
        assert_eq!(gaps(&path).len(), 1);

        let path = folder.path().join("trusted");
        let ledger = open(&path);
        ledger.export(config().trusting(&[roots])).unwrap();
        some_calls(&ledger, 3).await;
        ledger.shutdown().await;
        assert_eq!(ledger.export_status().unwrap().dropped, 0, "{protocol}");
        let records = receiver.records();
        let exported = joined(records.iter().map(|record| body(record).unwrap()));
        assert_eq!(exported, fs::read_to_string(&path).unwrap(), "{protocol}");
    }
}
