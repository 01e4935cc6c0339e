#![allow(clippy::unwrap_used)]
use proptest::prelude::*;

use super::*;

/// Walks the bytes whole and in every two pieces; all must agree.
fn accepts(bytes: &[u8]) -> bool {
    let whole = Walk::default().walk(bytes).is_ok();
    for cut in 0..bytes.len() {
        let mut walk = Walk::default();
        let parts = walk.walk(&bytes[..cut]).is_ok() && walk.walk(&bytes[cut..]).is_ok();
        assert_eq!(
            parts,
            whole,
            "cut at {cut} of {:?}",
            String::from_utf8_lossy(bytes)
        );
    }
    whole
}

#[test]
fn ordinary_requests_pass() {
    for request in [
        &b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..],
        b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
        b"POST / HTTP/1.1\r\nContent-Length:  0 \r\nHost:a\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTrailer: x\r\n\r\nA\r\n0123456789\r\n0\r\nx: 1\r\n\r\n",
        b"GET /ws HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n\x81\x85\x00\x00\x00\x00hello",
        b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n\x16\x03\x01",
        b"GET / HTTP/1.1\r\nX: caf\xc3\xa9\t1\r\n\r\n",
    ] {
        assert!(accepts(request), "{:?}", String::from_utf8_lossy(request));
    }
}

#[test]
fn what_two_servers_could_read_differently_does_not() {
    for request in [
        &b"POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"[..],
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
        b"POST / HTTP/1.1\r\nContent-Length: 5, 5\r\n\r\nhello",
        b"POST / HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: +5\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 0x5\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: \r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 0000000000000000000000000000000005\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding : chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: xchunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding:\x0bchunked\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: 1\r\n folded\r\n\r\n",
        b"GET / HTTP/1.1\nHost: a\n\n",
        b"GET / HTTP/1.1\r\nHost: a\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\0b\r\n\r\n",
        b"GET / HTTP/1.1\r\n: empty\r\n\r\n",
        b"GET / HTTP/1.1\r\nNo colon\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5;ext=1\r\nhello\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloX\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n\r\n",
    ] {
        assert!(!accepts(request), "{:?}", String::from_utf8_lossy(request));
    }
}

#[test]
fn a_bad_message_does_not_take_the_good_one_before_it() {
    let good = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut bytes = good.to_vec();
    bytes.extend(b"GET /2 HTTP/1.1\nHost: a\n\n");
    assert_eq!(Walk::default().walk(&bytes), Err((Ambiguous, good.len())));
}

proptest! {
    #[test]
    fn any_bytes_in_any_pieces_give_one_verdict(
        bytes in proptest::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(b':'), Just(b' '), Just(b'0'), any::<u8>()], 0..200),
        cut in 0usize..200,
    ) {
        let head = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
        for prefix in [&b""[..], head] {
            let bytes = [prefix, &bytes].concat();
            let cut = cut.min(bytes.len());
            let mut walk = Walk::default();
            let parts = walk.walk(&bytes[..cut]).is_ok() && walk.walk(&bytes[cut..]).is_ok();
            prop_assert_eq!(parts, Walk::default().walk(&bytes).is_ok());
        }
    }
}
