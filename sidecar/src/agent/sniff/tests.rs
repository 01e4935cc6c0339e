#![allow(clippy::unwrap_used)]
use std::sync::Arc;

use super::*;

/// A real client's first flight.
fn hello(name: &str) -> Vec<u8> {
    let config = rustls::ClientConfig::builder()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let mut client = rustls::ClientConnection::new(
        Arc::new(config),
        rustls_pki_types::ServerName::try_from(name.to_owned()).unwrap(),
    )
    .unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

async fn sniff_in_pieces(pieces: &[&[u8]]) -> Result<(Sniffed, BytesMut), SniffError> {
    let (mut client, mut server) = tokio::io::duplex(64 * 1024);
    let mut ahead = BytesMut::new();
    let pieces: Vec<Vec<u8>> = pieces.iter().map(|piece| piece.to_vec()).collect();
    let writer = async move {
        for piece in pieces {
            tokio::io::AsyncWriteExt::write_all(&mut client, &piece)
                .await
                .ok();
            tokio::task::yield_now().await;
        }
        client
    };
    let (sniffed, _client) = tokio::join!(sniff(&mut server, &mut ahead), writer);
    Ok((sniffed?, ahead))
}

fn name(sniffed: &Sniffed) -> &'static str {
    match sniffed {
        Sniffed::Tls(_) => "tls",
        Sniffed::Http1 => "http1",
        Sniffed::Http2 => "http2",
    }
}

#[tokio::test(start_paused = true)]
async fn every_cut_in_two_gives_the_same() {
    for (bytes, expected) in [
        (hello("api.example.com"), "tls"),
        (b"GET / HTTP/1.1\r\n".to_vec(), "http1"),
        (HTTP2_PREFACE.to_vec(), "http2"),
        (b"PROPFIND /x HTTP/1.1\r\n".to_vec(), "http1"),
    ] {
        for cut in 0..bytes.len() {
            let (sniffed, ahead) = sniff_in_pieces(&[&bytes[..cut], &bytes[cut..]])
                .await
                .unwrap();
            assert_eq!(name(&sniffed), expected, "cut at {cut}");
            assert!(bytes.starts_with(&ahead) || ahead.starts_with(&bytes));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_hello_byte_by_byte_is_the_same_hello() {
    let bytes = hello("api.example.com");
    let pieces: Vec<&[u8]> = bytes.chunks(1).collect();
    let (sniffed, ahead) = sniff_in_pieces(&pieces).await.unwrap();
    let Sniffed::Tls(hello) = sniffed else {
        panic!("not tls")
    };
    assert_eq!(
        hello.accepted.client_hello().server_name(),
        Some("api.example.com")
    );
    assert_eq!(hello.consumed, bytes.len());
    assert_eq!(ahead, bytes);
}

#[tokio::test(start_paused = true)]
async fn a_hello_in_many_records_is_the_same_hello() {
    let whole = hello("api.example.com");
    let mut cut = Vec::new();
    for chunk in whole[5..].chunks(40) {
        cut.extend([0x16, 3, 1]);
        cut.extend(u16::try_from(chunk.len()).unwrap().to_be_bytes());
        cut.extend(chunk);
    }
    let (sniffed, _) = sniff_in_pieces(&[&cut]).await.unwrap();
    let Sniffed::Tls(hello) = sniffed else {
        panic!("not tls")
    };
    assert_eq!(
        hello.accepted.client_hello().server_name(),
        Some("api.example.com")
    );
    assert!(!hello.encrypted_hello);
}

#[tokio::test(start_paused = true)]
async fn what_is_neither_is_refused() {
    for bytes in [
        &b"\x00\x00\x00\x08\x04\xd2\x16\x2f"[..], // Postgres SSLRequest
        b"\x80\x2e\x01\x03\x01",                  // SSLv2 hello
        b"GE\x00",
        b" GET / HTTP/1.1",
        b"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA / HTTP/1.1",
        b"\r\n",
        b"\x15\x03\x01\x00\x02\x02\x28", // a TLS alert first
    ] {
        assert!(sniff_in_pieces(&[bytes]).await.is_err(), "{bytes:x?}");
    }
    assert!(matches!(
        sniff_in_pieces(&[b"\x16\x03garbage that is no handshake at all"]).await,
        Err(SniffError::MalformedHello(_) | SniffError::Silent)
    ));
}

#[tokio::test(start_paused = true)]
async fn silence_and_endless_hellos_end() {
    assert!(matches!(
        sniff_in_pieces(&[b"G"]).await,
        Err(SniffError::Silent)
    ));
    assert!(matches!(
        sniff_in_pieces(&[b"\x16\x03\x01\x40\x00\x01\x00\x3f\xfc"]).await,
        Err(SniffError::Silent)
    ));
    let mut endless = vec![0x16, 3, 1, 0x40, 0, 1, 0, 0xff, 0xff];
    endless.resize(LIMIT * 2, 3);
    assert!(sniff_in_pieces(&[&endless]).await.is_err());
}

#[test]
fn an_encrypted_hello_is_seen_and_a_stump_counts_as_one() {
    let whole = hello("api.example.com");
    assert!(!has_encrypted_hello(&whole));
    assert!(has_encrypted_hello(&whole[..60]));
    assert!(has_encrypted_hello(&[]));
}
