//! What the parsers of the agent's bytes must survive, and what must hold of whatever they make of
//! them. The fuzz targets call these with bytes of their own making; their corpora run as tests.

use std::convert::Infallible;

use bytes::Bytes;
use exeat_policy::{Host, Scheme};
use http::{HeaderName, Request, Response, header};
use http_body_util::Empty;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt as _;

use super::{
    call,
    identify::Identity,
    origin::Origin,
    sniff,
    strict::{Strict, Walk},
};
use crate::upstream::websocket::{Frames, Side};

/// A ClientHello, or what begins like one: the same verdict however it is cut.
///
/// # Panics
///
/// Where that does not hold.
pub fn client_hello(bytes: &[u8]) {
    let whole = sniff::verdict(&[bytes]);
    for cut in cuts(bytes) {
        assert_eq!(
            sniff::verdict(&[&bytes[..cut], &bytes[cut..]]),
            whole,
            "cut at {cut}"
        );
    }
    std::hint::black_box(sniff::has_encrypted_hello(bytes));
}

/// An HTTP/1 request as it comes: what gets through is canonical and carries nothing of the agent's
/// that it may not.
///
/// # Panics
///
/// Where that does not hold.
pub async fn http_head(bytes: &[u8]) {
    let whole = Walk::default().walk(bytes).is_ok();
    for cut in cuts(bytes) {
        let mut walk = Walk::default();
        let parts = walk.walk(&bytes[..cut]).is_ok() && walk.walk(&bytes[cut..]).is_ok();
        assert_eq!(parts, whole, "cut at {cut}");
    }
    let (mut client, server) = tokio::io::duplex(64 * 1024);
    let service = service_fn(|request| async move {
        check(request);
        Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
    });
    let serve =
        crate::serve::http1_server().serve_connection(TokioIo::new(Strict::new(server)), service);
    let send = async {
        drop(client.write_all(bytes).await);
        drop(client.shutdown().await);
        drop(tokio::io::copy(&mut client, &mut tokio::io::sink()).await);
    };
    drop(tokio::join!(serve, send));
}

/// WebSocket frames: the same verdict however they are cut.
///
/// # Panics
///
/// Where that does not hold.
pub fn websocket(bytes: &[u8]) {
    for side in [Side::Client, Side::Server] {
        let whole = Frames::new(side, false).walk(bytes);
        for cut in cuts(bytes) {
            let mut frames = Frames::new(side, false);
            let parts = frames
                .walk(&bytes[..cut])
                .and_then(|()| frames.walk(&bytes[cut..]));
            assert_eq!(parts, whole, "cut at {cut}");
        }
    }
}

/// A few places to cut at: all of them would make long inputs quadratic.
fn cuts(bytes: &[u8]) -> impl Iterator<Item = usize> {
    let step = bytes.len() / 16 + 1;
    (0..bytes.len()).step_by(step)
}

fn check(request: Request<Incoming>) {
    let (parts, _) = request.into_parts();
    let identity = Identity::plain(Origin {
        address: None,
        port: 80,
        name: Host::parse("a.test").ok(),
        caller: None,
    });
    if let Ok(destination) = identity.request(&parts) {
        assert_eq!(
            destination.host.as_str(),
            "a.test",
            "another host got through"
        );
        assert_eq!(destination.port, 80, "another port got through");
    }
    let Ok(received) = call::read(parts, Scheme::Http) else {
        return;
    };
    let path = received.call.path.as_str();
    assert!(path.starts_with('/'), "a path that is none: {path:?}");
    assert!(
        path.bytes().all(|byte| byte.is_ascii_graphic()),
        "a raw path: {path:?}"
    );
    assert!(
        !path
            .split('/')
            .any(|segment| segment == ".." || segment == "."),
        "{path:?}"
    );
    let forbidden = [
        header::AUTHORIZATION,
        header::TRANSFER_ENCODING,
        header::CONNECTION,
        header::HOST,
    ];
    for name in forbidden
        .iter()
        .chain([&HeaderName::from_static("x-forwarded-for")])
    {
        assert!(
            !received.call.headers.contains_key(name),
            "{name} got through"
        );
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{fs, path::Path};

    use super::*;

    /// Each file of a corpus, and what is made of it by cutting and changing it.
    fn corpus(name: &str) -> Vec<Vec<u8>> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../fuzz/corpus")
            .join(name);
        let mut all = Vec::new();
        for entry in fs::read_dir(&folder).unwrap() {
            let bytes = fs::read(entry.unwrap().path()).unwrap();
            for at in cuts(&bytes) {
                all.push(bytes[..at].to_vec());
                let mut changed = bytes.clone();
                changed[at] ^= 0x20;
                all.push(changed);
            }
            all.push(bytes);
        }
        assert!(
            all.len() > 50,
            "the corpus in {} is all but empty",
            folder.display()
        );
        all
    }

    #[test]
    fn the_corpus_of_client_hellos() {
        for bytes in corpus("client_hello") {
            client_hello(&bytes);
        }
    }

    #[tokio::test]
    async fn the_corpus_of_http_heads() {
        for bytes in corpus("http_head") {
            http_head(&bytes).await;
        }
    }

    #[test]
    fn the_corpus_of_websocket_frames() {
        for bytes in corpus("websocket") {
            websocket(&bytes);
        }
    }
}
