#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test"
)]

use super::*;
use crate::ledger::{Durability, JournalConfig, Principal};
use exeat_policy::Plan;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

struct Bed {
    at: SocketAddr,
    health: Arc<Health>,
    _dir: tempfile::TempDir,
}

async fn bed() -> Bed {
    let dir = tempfile::tempdir().unwrap();
    let config = JournalConfig {
        path: dir.path().join("journal"),
        durability: Durability::Written,
        max_bytes: 1 << 20,
    };
    let ledger = Arc::new(Ledger::open(config, Principal::default()).unwrap());
    let policies = Policies::fixed(Plan::deny_all(5));
    let health = Health::new(&policies, &ledger, &Arc::default(), None, None);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(serve(listener, Arc::clone(&health)));
    Bed {
        at,
        health,
        _dir: dir,
    }
}

/// Everything that comes back for these bytes until the connection ends.
async fn send(at: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(at).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    let ended = timeout(Duration::from_secs(15), stream.read_to_end(&mut answer)).await;
    drop(ended.expect("it was left open"));
    String::from_utf8(answer).unwrap()
}

async fn get(at: SocketAddr, path: &str) -> String {
    send(
        at,
        format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes(),
    )
    .await
}

async fn probe(at: SocketAddr, stage: Stage) -> Result<(), String> {
    let asked = tokio::task::spawn_blocking(move || ask(at, stage))
        .await
        .unwrap();
    asked.map_err(|error| error.to_string())
}

#[tokio::test]
async fn the_stages_of_a_life() {
    let bed = bed().await;
    assert!(probe(bed.at, Stage::Live).await.is_ok());
    assert!(
        probe(bed.at, Stage::Started)
            .await
            .unwrap_err()
            .contains("starting")
    );
    assert!(
        probe(bed.at, Stage::Ready)
            .await
            .unwrap_err()
            .contains("starting")
    );
    bed.health.started();
    for stage in [Stage::Live, Stage::Started, Stage::Ready] {
        assert_eq!(probe(bed.at, stage).await, Ok(()));
    }
    bed.health.stopping();
    bed.health.started();
    assert!(
        probe(bed.at, Stage::Ready)
            .await
            .unwrap_err()
            .contains("stopping")
    );
    assert_eq!(probe(bed.at, Stage::Started).await, Ok(()));
}

#[tokio::test]
async fn nobody_there_is_told_as_such() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    drop(listener);
    let told = probe(at, Stage::Live).await.unwrap_err();
    assert!(told.contains("is the gate running"), "{told}");
}

#[tokio::test]
async fn metrics_are_there() {
    let bed = bed().await;
    bed.health.metrics.allowed();
    let page = get(bed.at, "/metrics").await;
    assert!(page.starts_with("HTTP/1.1 200 OK"), "{page}");
    assert!(
        page.contains("exeat_decisions_total{decision=\"allow\",reason=\"\"} 1"),
        "{page}"
    );
    assert!(page.contains("exeat_policy_generation 5"), "{page}");
    assert!(page.contains("exeat_journal_writable 1"), "{page}");
}

/// J3: there is nothing to change.
#[tokio::test]
async fn it_is_read_only() {
    let bed = bed().await;
    for method in [
        "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "CONNECT", "TRACE",
    ] {
        let request = format!("{method} /metrics HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n");
        let answer = send(bed.at, request.as_bytes()).await;
        assert!(!answer.starts_with("HTTP/1.1 2"), "{method}: {answer}");
    }
    for path in [
        "/",
        "/quitquitquit",
        "/debug/pprof",
        "/healthz",
        "/metrics/../config",
    ] {
        let answer = get(bed.at, path).await;
        assert!(answer.starts_with("HTTP/1.1 404"), "{path}: {answer}");
    }
}

#[tokio::test]
async fn what_is_too_much_is_turned_away() {
    let bed = bed().await;
    let mut many = "GET /metrics HTTP/1.1\r\nhost: x\r\n".to_owned();
    for n in 0..100 {
        many.extend(["x", &n.to_string(), ": y\r\n"]);
    }
    let answer = send(bed.at, format!("{many}\r\n").as_bytes()).await;
    assert!(!answer.starts_with("HTTP/1.1 2"), "{answer}");
    let long = format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "a".repeat(64 * 1024));
    let answer = send(bed.at, long.as_bytes()).await;
    assert!(!answer.starts_with("HTTP/1.1 2"), "{answer}");
}

#[tokio::test]
async fn silence_holds_no_place_for_long() {
    let bed = bed().await;
    let mut silent = Vec::new();
    for _ in 0..CONNECTIONS {
        silent.push(TcpStream::connect(bed.at).await.unwrap());
    }
    // All places are taken; they come back by themselves.
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(probe(bed.at, Stage::Live).await.is_err());
    tokio::time::sleep(HEAD_PATIENCE + Duration::from_millis(500)).await;
    assert_eq!(probe(bed.at, Stage::Live).await, Ok(()));
}

#[tokio::test]
async fn status_is_signed_over_the_nonce_and_needs_a_key() {
    use aws_lc_rs::hmac;
    let dir = tempfile::tempdir().unwrap();
    let config = JournalConfig {
        path: dir.path().join("journal"),
        durability: Durability::Written,
        max_bytes: 1 << 20,
    };
    let ledger = Arc::new(Ledger::open(config, Principal::default()).unwrap());
    let policies = Policies::fixed(Plan::deny_all(5));
    let folder = dir.path().join("credentials");
    std::fs::create_dir(&folder).unwrap();
    let credentials = crate::upstream::credential::Credentials::new(
        Some(folder.clone()),
        std::collections::BTreeMap::new(),
    );
    let credentials = Arc::new(credentials.unwrap());
    let status = Status::new(&credentials, Some("uid-1"));
    let health = Health::new(&policies, &ledger, &Arc::default(), None, Some(status));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(serve(listener, health));
    let nonce = "0123456789abcdef0123456789abcdef";
    let path = format!("/status?nonce={nonce}");
    assert!(get(at, &path).await.contains(" 503 "));

    // The Secret comes after the start.
    std::fs::write(folder.join("status-key"), "00".repeat(31) + "01").unwrap();
    credentials.reload();
    assert!(credentials.get("status-key").is_err());
    for bad in [
        "/status",
        "/status?nonce=ab",
        "/status?nonce=0123456789abcdef0123456789abcdeg",
    ] {
        assert!(get(at, bad).await.contains(" 400 "), "{bad}");
    }
    let answer = get(at, &path).await;
    let body = answer.split_once("\r\n\r\n").unwrap().1;
    let (text, mac) = body.split_once(",\"mac\":\"").unwrap();
    let mut bytes = [0_u8; 32];
    bytes[31] = 1;
    let key = hmac::Key::new(hmac::HMAC_SHA256, &bytes);
    let made = hmac::sign(&key, format!("{text}}}").as_bytes());
    let made = made
        .as_ref()
        .iter()
        .fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
    assert_eq!(mac, format!("{made}\"}}"));
    let value: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!(value["nonce"], nonce);
    assert_eq!(value["pod_uid"], "uid-1");
    assert_eq!(value["self_test"]["passed"], false);
    assert_eq!(value["bundle"], serde_json::Value::Null);
    assert_eq!(value["journal"]["writable"], true);

    // Another key, another code, without a restart.
    std::fs::write(folder.join("status-key"), "00".repeat(32)).unwrap();
    credentials.reload();
    assert!(!get(at, &path).await.contains(mac));
}
