//! The upstream itself, called by curl: a fixture that lies would make every other test lie.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::process::{Command, Output};

use super::Upstream;

/// Runs curl against `https://NAME/PATH` on the upstream, trusting only its root.
async fn curl(upstream: &Upstream, name: &str, path: &str, options: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, upstream.ca_pem()).unwrap();
    let port = upstream.tls().port();
    let mut command = Command::new("curl");
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .args(["-sS", "--max-time", "20", "--cacert"])
        .arg(&ca)
        .args(["--resolve", &format!("{name}:{port}:127.0.0.1")])
        .args(options)
        .arg(format!("https://{name}:{port}{path}"));
    let output = tokio::task::spawn_blocking(move || command.output());
    let output = output.await.unwrap().expect("curl must be installed");
    drop(folder);
    output
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn records_each_request_and_its_raw_bytes() {
    let upstream = Upstream::start().await.unwrap();
    let output = curl(
        &upstream,
        "api.test",
        "/echo?a=b",
        &["--http1.1", "-d", "hello"],
    )
    .await;
    assert!(text(&output).contains("\"body\":\"hello\""), "{output:?}");

    let requests = upstream.requests();
    assert_eq!(requests.len(), 1);
    let request = &requests[0];
    assert_eq!(
        (request.method.as_str(), request.path.as_str()),
        ("POST", "/echo")
    );
    assert_eq!(request.query.as_deref(), Some("a=b"));
    assert!(request.complete && request.mentions("hello"));
    let connection = &upstream.connections()[request.connection];
    assert_eq!(connection.server_name.as_deref(), Some("api.test"));
    assert!(upstream.saw(b"POST /echo?a=b HTTP/1.1\r\n"));
    assert!(!upstream.saw(b"POST /other"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_certificate_is_bad_for_its_own_reason() {
    let upstream = Upstream::start().await.unwrap();
    for (name, complaint) in [
        ("expired.test", "expired"),
        ("self-signed.test", "self-signed"),
        ("untrusted.test", "issuer"),
        (
            "wrong-name.test",
            "does not match|no alternative certificate",
        ),
    ] {
        let output = curl(&upstream, name, "/echo", &[]).await;
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            complaint
                .split('|')
                .any(|complaint| error.contains(complaint)),
            "{name}: {error}"
        );
    }
    assert!(upstream.requests().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_is_granted_at_one_path_only() {
    let upstream = Upstream::start().await.unwrap();
    let upgrade = [
        "--http1.1",
        "-i",
        "--max-time",
        "2",
        "-H",
        "Connection: Upgrade",
        "-H",
        "Upgrade: websocket",
        "-H",
        "Sec-WebSocket-Version: 13",
        "-H",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    ];
    // The key and its answer are RFC 6455's own example.
    let granted = text(&curl(&upstream, "api.test", "/ws", &upgrade).await);
    assert!(granted.starts_with("HTTP/1.1 101"), "{granted}");
    assert!(
        granted.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
        "{granted}"
    );
    let refused = text(&curl(&upstream, "api.test", "/echo", &upgrade).await);
    assert!(refused.starts_with("HTTP/1.1 200"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_trailers_and_cuts() {
    let upstream = Upstream::start().await.unwrap();
    let events = text(&curl(&upstream, "api.test", "/sse?events=3", &["-N"]).await);
    assert_eq!(events.matches("event: tick").count(), 3);
    let big = curl(&upstream, "api.test", "/bytes/1000000", &[]).await;
    assert_eq!(big.stdout.len(), 1_000_000);
    let head = text(&curl(&upstream, "api.test", "/bytes/1000000", &["-I"]).await);
    assert!(head.contains("content-length: 1000000"), "{head}");
    let cut = curl(&upstream, "api.test", "/cut", &["--http1.1"]).await;
    assert!(!cut.status.success());
}
