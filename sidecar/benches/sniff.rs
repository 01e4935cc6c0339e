//! What it costs to tell what a connection speaks, and to mint a leaf for it.
#![allow(missing_docs, clippy::expect_used)]

use std::sync::Arc;

use bytes::BytesMut;
use divan::{Bencher, black_box};
use exeat_policy::Host;
use exeat_sidecar::agent::{leaf::Authority, sniff::sniff, strict::Walk};

fn main() {
    divan::main();
}

/// A client's first flight, with a post-quantum key share as clients send it now.
fn hello() -> Vec<u8> {
    let config = rustls::ClientConfig::builder()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let name = "api.example.com".try_into().expect("a name");
    let mut client = rustls::ClientConnection::new(Arc::new(config), name).expect("a client");
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).expect("memory");
    bytes
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime")
}

#[divan::bench]
fn client_hello(bencher: Bencher<'_, '_>) {
    let (bytes, runtime) = (hello(), runtime());
    bencher.bench_local(|| {
        let mut ahead = BytesMut::new();
        runtime.block_on(async {
            let sniffed = sniff(&mut black_box(&bytes[..]), &mut ahead).await;
            black_box(sniffed.is_ok())
        })
    });
}

#[divan::bench]
fn http1(bencher: Bencher<'_, '_>) {
    let runtime = runtime();
    bencher.bench_local(|| {
        let mut ahead = BytesMut::new();
        let mut bytes =
            black_box(&b"GET /repos/acme/site HTTP/1.1\r\nHost: api.github.com\r\n\r\n"[..]);
        runtime.block_on(async { black_box(sniff(&mut bytes, &mut ahead).await.is_ok()) })
    });
}

/// The strict walk over the head of an ordinary API call, 480 bytes.
#[divan::bench]
fn strict_head(bencher: Bencher<'_, '_>) {
    let mut head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: api.openai.com\r\n".to_vec();
    while head.len() < 440 {
        head.extend(b"X-Stainless-Arch: x64-and-some\r\n");
    }
    head.extend(b"Content-Length: 0\r\n\r\n");
    bencher.bench_local(|| Walk::default().walk(black_box(&head)).is_ok());
}

#[divan::bench]
fn leaf_minted(bencher: Bencher<'_, '_>) {
    let authority = Authority::generate().expect("an authority");
    let mut number = 0_u64;
    bencher.bench_local(|| {
        number += 1;
        let host = Host::parse(&format!("h{number}.example.com")).expect("a host");
        black_box(authority.leaf(&host).is_ok())
    });
}

#[divan::bench]
fn leaf_cached(bencher: Bencher<'_, '_>) {
    let authority = Authority::generate().expect("an authority");
    let host = Host::parse("api.example.com").expect("a host");
    bencher.bench_local(|| black_box(authority.leaf(&host).is_ok()));
}
