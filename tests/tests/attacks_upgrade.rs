//! What outlives a request: WebSockets, event streams, declared TCP, passed-through TLS. A switch
//! that did not happen is no pipe, a WebSocket carries frames and nothing else, an upstream's
//! surprise is nobody's answer, and a policy that is tightened closes what it no longer allows.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    io::{Read, Write},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use exeat_tests::gate::{
    Faults, Gate, POLICY, PROMPT, Raw, SECRET, Tls, ask,
    http2::{
        DATA, END_HEADERS, END_STREAM, HEADERS, exchange, fields, frame, opening, over, reply,
    },
    request, world,
};

/// How long a call may outlive the policy that allowed it, with room for a busy machine.
const REVOKED: Duration = Duration::from_secs(5);

const API: &str = "api.exeat.test";
const PLAIN: &str = "plain.exeat.test";

const HANDSHAKE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// "hi", masked with zeros.
const HELLO: &[u8] = b"\x81\x82\0\0\0\0hi";

fn websocket(gate: &Gate) -> Result<Tls> {
    let mut tls = gate.tls(API)?;
    let answers = ask(&mut tls, &request("GET", "/ws", API, HANDSHAKE), 1)?;
    ensure!(answers[0].status == 101, "{answers:?}");
    tls.write_all(HELLO)?;
    let mut echo = [0; 4];
    tls.read_exact(&mut echo)?;
    ensure!(&echo == b"\x81\x02hi", "{echo:?}");
    Ok(tls)
}

/// What still comes, until the other side closes; an error if it does not.
fn rest(stream: &mut impl Read) -> Result<Vec<u8>> {
    let (mut all, mut buffer, start) = (Vec::new(), [0; 4096], Instant::now());
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(all),
            Ok(length) => all.extend_from_slice(&buffer[..length]),
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                ) =>
            {
                anyhow::bail!("not closed; so far: {}", all.escape_ascii())
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return Ok(all),
        }
        ensure!(start.elapsed() < PROMPT * 2, "never closed");
    }
}

// === F1 ===

#[test]
fn an_upgrade_that_is_answered_with_200_is_no_pipe() {
    let gate = Gate::start().unwrap();
    let mut faults = Faults::default();
    for path in [
        "/allowed/x",
        "/status/200",
        "/status/204",
        "/status/403",
        "/status/426",
        "/bytes/5",
    ] {
        for handshake in [
            HANDSHAKE.to_owned(),
            HANDSHAKE.replace("websocket", "WebSocket"),
            HANDSHAKE.replace("Connection: Upgrade", "Connection: keep-alive, Upgrade"),
        ] {
            faults.check(format!("{path} {handshake:?}"), || {
                let mut tls = gate.tls(API)?;
                let watch = gate.watch();
                let answers = ask(&mut tls, &request("GET", path, API, &handshake), 1)?;
                ensure!(answers[0].status != 101, "{answers:?}");
                watch.allowed(1)?;
                // Judged as any other request.
                let watch = gate.watch();
                let answers = ask(&mut tls, &request("GET", "/admin/pipe", API, ""), 1)?;
                ensure!(
                    answers
                        .iter()
                        .all(|answer| answer.status == 403 || answer.status == 400),
                    "{answers:?}"
                );
                ensure!(
                    watch.requests().is_empty() && !gate.upstream.saw(b"/admin/pipe"),
                    "it was a pipe"
                );
                // And bytes that are no request are none.
                let mut tls = gate.tls(API)?;
                ask(&mut tls, &request("GET", path, API, &handshake), 1)?;
                ask(&mut tls, b"\x81\x85\0\0\0\0piped\r\n\r\n", 1)?;
                ensure!(!gate.upstream.saw(b"piped"), "frames passed");
                Ok(())
            });
        }
    }
    faults.none();
    gate.nothing_strayed().unwrap();
}

// === F2 ===

#[test]
fn after_the_switch_only_frames_pass() {
    let gate = Gate::start().unwrap();
    let mut faults = Faults::default();
    let smuggled = format!("GET /admin/smuggled HTTP/1.1\r\nHost: {API}\r\n\r\n");
    let unmasked = [
        &[0x81, u8::try_from(smuggled.len()).unwrap()][..],
        smuggled.as_bytes(),
    ]
    .concat();
    let reserved = |first: u8| [&[first, 0x80 | 5, 0, 0, 0, 0][..], b"smugg"].concat();
    let mut variants: Vec<(String, Vec<u8>)> = vec![
        ("HTTP".into(), smuggled.clone().into_bytes()),
        (
            "HTTP/2".into(),
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n smugg".to_vec(),
        ),
        ("TLS".into(), b"\x16\x03\x01\0\x05smugg".to_vec()),
        ("no mask".into(), unmasked),
        ("a continuation of nothing".into(), reserved(0x80)),
        ("a ping in fragments".into(), reserved(0x09)),
        (
            "a length over 63 bits".into(),
            b"\x82\xff\xff\xff\xff\xff\xff\xff\xff\xff\0\0\0\0smugg".to_vec(),
        ),
        (
            "a ping of 126".into(),
            [&b"\x89\xfe\0\x7e\0\0\0\0"[..], &b"smugg ".repeat(21)].concat(),
        ),
        (
            "HTTP after the close".into(),
            [&b"\x88\x82\0\0\0\0\x03\xe8"[..], smuggled.as_bytes()].concat(),
        ),
    ];
    for opcode in (3..8).chain(11..16) {
        variants.push((format!("opcode {opcode}"), reserved(0x80 | opcode)));
    }
    for bits in 1..8 {
        variants.push((format!("reserved bits {bits}"), reserved(0x82 | bits << 4)));
    }
    for (name, bytes) in variants {
        faults.check(name, || {
            let mut tls = websocket(&gate)?;
            let _sent = tls.write_all(&bytes).and_then(|()| tls.flush());
            rest(&mut tls)?;
            ensure!(!gate.upstream.saw(b"smugg"), "it passed");
            Ok(())
        });
    }
    faults.none();
    // In the same segment as the handshake, before anybody knows whether there will be a switch.
    let mut tls = gate.tls(API).unwrap();
    let bytes = [request("GET", "/ws", API, HANDSHAKE), smuggled.into_bytes()].concat();
    tls.write_all(&bytes).unwrap();
    rest(&mut tls).unwrap();
    assert!(!gate.upstream.saw(b"smugg"));
    gate.nothing_strayed().unwrap();
}

#[test]
fn a_handshake_with_a_body_smuggles_nothing() {
    let gate = Gate::start().unwrap();
    let mut faults = Faults::default();
    for framing in [
        "Content-Length: 49\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Content-Length: 0\r\n",
    ] {
        for path in ["/ws", "/allowed/x"] {
            faults.check(format!("{framing:?} {path}"), || {
                let mut tls = gate.tls(API)?;
                let bytes = [
                    request("GET", path, API, &format!("{HANDSHAKE}{framing}")),
                    b"26\r\nGET /admin/smuggled HTTP/1.1\r\nHost: x\r\n\r\n\r\n0\r\n\r\n".to_vec(),
                ]
                .concat();
                let _answers = ask(&mut tls, &bytes, 1)?;
                drop(tls);
                ensure!(
                    !gate
                        .upstream
                        .requests()
                        .iter()
                        .any(|r| r.path.contains("smuggled")),
                    "it became a request"
                );
                // In the body of an allowed request it would be data; in a WebSocket it is nothing.
                ensure!(
                    path != "/ws" || !gate.upstream.saw(b"smuggled"),
                    "it passed"
                );
                Ok(())
            });
        }
    }
    for field in [
        "Sec-WebSocket-Key: x\r\n",
        "Sec-WebSocket-Version: 12\r\n",
        "Upgrade: h2c\r\n",
        "Connection: close\r\n",
    ] {
        faults.check(field, || {
            let mut tls = gate.tls(API)?;
            let answers = ask(
                &mut tls,
                &request("GET", "/ws", API, &format!("{HANDSHAKE}{field}")),
                1,
            )?;
            let _sent = tls.write_all(b"GET /admin/again HTTP/1.1\r\n\r\n");
            ensure!(
                answers.len() <= 1 && !gate.upstream.saw(b"again"),
                "{answers:?}"
            );
            Ok(())
        });
    }
    faults.none();
    gate.nothing_strayed().unwrap();
}

/// A handshake that announces a body, and is declined: had the announcement gone upstream without
/// the body, the next call on that connection would be read as it.
#[test]
fn a_declined_handshake_leaves_nothing_for_the_next_call_to_fall_into() {
    let gate = Gate::start().unwrap();
    let mut faults = Faults::default();
    for length in [1, 20, 44, 200] {
        for path in ["/status/403", "/status/200", "/bytes/5"] {
            faults.check(format!("{length} bytes to {path}"), || {
                let more = format!("{HANDSHAKE}Content-Length: {length}\r\n");
                let bytes = [request("GET", path, API, &more), vec![b'x'; length]].concat();
                let _answers = ask(&mut gate.tls(API)?, &bytes, 1)?;
                for _ in 0..3 {
                    let watch = gate.watch();
                    // What is left of this, if its beginning is swallowed, is another request.
                    let more = format!(
                        "X-A: {}GET /admin/swallowed HTTP/1.1\r\n",
                        "y".repeat(length)
                    );
                    let answers = ask(
                        &mut gate.tls(API)?,
                        &request("GET", "/allowed/next", API, &more),
                        1,
                    )?;
                    ensure!(
                        answers.len() == 1 && answers[0].status == 200,
                        "{answers:?}"
                    );
                    let seen = watch.allowed(1)?;
                    ensure!(seen[0].path == "/allowed/next", "{seen:?}");
                }
                Ok(())
            });
        }
    }
    faults.none();
    assert!(gate.upstream.requests_to("/admin").is_empty());
    for request in gate.upstream.requests() {
        assert!(request.complete, "still waiting for a body: {request:?}");
    }
    gate.nothing_strayed().unwrap();
}

// === E5: RFC 8441 ===

fn extended(path: &str, protocol: &str) -> Vec<u8> {
    let list = [
        (":method", "CONNECT"),
        (":protocol", protocol),
        (":scheme", "https"),
        (":authority", API),
        (":path", path),
        ("sec-websocket-version", "13"),
    ];
    frame(HEADERS, END_HEADERS, 1, &fields(&list))
}

#[test]
fn an_extended_connect_is_a_websocket_or_nothing() {
    let gate = Gate::start().unwrap();
    let http2 = || {
        let mut tls = gate.tls_to(&world(443), API, &[b"h2"]).unwrap();
        tls.write_all(&opening()).unwrap();
        tls
    };
    let mut tls = http2();
    let watch = gate.watch();
    let bytes = [extended("/ws", "websocket"), frame(DATA, 0, 1, HELLO)].concat();
    let frames = exchange(&mut tls, &bytes, |frames| {
        frames
            .iter()
            .any(|f| f.kind == DATA && f.stream == 1 && !f.payload.is_empty())
    })
    .unwrap();
    assert_eq!(
        (reply(&frames, 1).status, &*reply(&frames, 1).body),
        (200, &b"\x81\x02hi"[..])
    );
    let seen = watch.allowed(1).unwrap();
    assert_eq!(
        (seen[0].method.as_str(), seen[0].header("authorization")),
        ("GET", Some(&*format!("Bearer {SECRET}-api")))
    );
    // Frames only, here too.
    exchange(
        &mut tls,
        &frame(DATA, 0, 1, b"GET /admin/smuggled HTTP/1.1\r\n\r\n"),
        |frames| over(frames, 1),
    )
    .unwrap();
    assert!(!gate.upstream.saw(b"smuggled"));

    let mut faults = Faults::default();
    for (path, protocol) in [
        ("/admin", "websocket"),
        ("/ws", "connect-udp"),
        ("/ws", "connect-ip"),
        ("/ws", "h2c"),
        ("/ws", ""),
        ("/ws", "WebSocket\0"),
        ("/ws", "tls"),
        ("/../ws", "websocket"),
    ] {
        faults.check(format!("{protocol:?} {path}"), || {
            let mut tls = http2();
            let watch = gate.watch();
            let bytes = [extended(path, protocol), frame(DATA, END_STREAM, 1, HELLO)].concat();
            let frames = exchange(&mut tls, &bytes, |frames| over(frames, 1))?;
            ensure!(reply(&frames, 1).status != 200, "{frames:?}");
            drop(tls);
            watch.denied(&["no_rule", "invalid_request", "method_not_allowed"])
        });
    }
    for list in [
        vec![(":method", "CONNECT"), (":authority", "evil.test:443")],
        vec![(":method", "CONNECT"), (":authority", API)],
        vec![(":method", "CONNECT"), (":authority", "api.exeat.test:443")],
        vec![
            (":method", "CONNECT"),
            (":scheme", "https"),
            (":authority", API),
            (":path", "/allowed/x"),
        ],
        vec![
            (":method", "GET"),
            (":protocol", "websocket"),
            (":scheme", "https"),
            (":authority", API),
            (":path", "/ws"),
        ],
        vec![
            (":method", "CONNECT"),
            (":protocol", "websocket"),
            (":scheme", "https"),
            (":authority", "evil.test"),
            (":path", "/ws"),
        ],
    ] {
        faults.check(format!("{list:?}"), || {
            let mut tls = http2();
            let watch = gate.watch();
            let bytes = [
                frame(HEADERS, END_HEADERS, 1, &fields(&list)),
                frame(DATA, END_STREAM, 1, b"tunnelled"),
            ]
            .concat();
            let frames = exchange(&mut tls, &bytes, |frames| over(frames, 1))?;
            ensure!(reply(&frames, 1).status != 200, "{frames:?}");
            drop(tls);
            watch.denied(&[
                "no_rule",
                "invalid_request",
                "identity_mismatch",
                "method_not_allowed",
            ])
        });
    }
    faults.none();
    assert!(!gate.upstream.saw(b"tunnelled"));
    gate.nothing_strayed().unwrap();
}

// === upstreams that surprise ===

#[test]
fn an_upstreams_surprise_is_nobodys_answer() {
    let gate = Gate::start().unwrap();
    let mut faults = Faults::default();
    let accept = "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
    let cases: Vec<(&str, String, bool)> = vec![
        ("101 for an ordinary request", "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n".into(), false),
        ("101 with the wrong accept", "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\n".into(), true),
        ("101 without accept", "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n".into(), true),
        ("101 to h2c", format!("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n{accept}\r\n\r\n"), true),
        ("no HTTP", "SSH-2.0-OpenSSH\r\n".into(), false),
        ("two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 5\r\n\r\nhello".into(), false),
        ("bad status", "HTTP/1.1 9 x\r\n\r\n".into(), false),
        ("a head of 1 MiB", format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "a".repeat(1 << 20)), false),
        ("NUL in a field", "HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 0\r\n\r\n".into(), false),
        ("HTTP/2 unasked", "\0\0\0\x04\0\0\0\0\0".into(), false),
    ];
    let raw = Raw::start(&gate, &world(8081), b"").unwrap();
    for (name, say, switch) in cases {
        raw.say(say.as_bytes());
        faults.check(name, || {
            let more = if switch { HANDSHAKE } else { "" };
            let mut stream = gate.connect(world(8081))?;
            let answers = ask(
                &mut stream,
                &request("GET", "/x", &format!("{PLAIN}:8081"), more),
                1,
            )?;
            ensure!(
                answers.len() == 1 && answers[0].status == 502,
                "{answers:?}"
            );
            // Nothing of it becomes a pipe.
            let _sent = stream.write_all(b"piped through");
            Ok(())
        });
    }
    faults.none();
    thread::sleep(Duration::from_millis(50));
    assert!(!raw.heard().concat().ends_with(b"piped through"));
    gate.nothing_strayed().unwrap();
}

// === declared opaque ===

#[test]
fn declared_tcp_is_for_its_name_and_port() {
    let gate = Gate::start().unwrap();
    let raw = Raw::start(&gate, &world(5432), b"hello from the database").unwrap();
    // By the proxy's CONNECT: the name is known, whatever the protocol.
    let tunnel = |target: &str| -> Result<std::net::TcpStream> {
        let mut stream = gate.connect("127.0.0.1:15002")?;
        stream
            .write_all(format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n").as_bytes())?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            ensure!(
                stream.read(&mut byte)? == 1,
                "closed: {}",
                head.escape_ascii()
            );
            head.push(byte[0]);
        }
        ensure!(head.starts_with(b"HTTP/1.1 200"), "{}", head.escape_ascii());
        Ok(stream)
    };
    let watch = gate.watch();
    let mut stream = tunnel("raw.exeat.test:5432").unwrap();
    stream.write_all(b"\0\0\0\x08query").unwrap();
    let mut answer = [0; 23];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"hello from the database");
    let decision = watch.decisions(1).remove(0);
    assert!(
        decision["decision"] == "allow" && decision["tcp"]["opaque"] == true,
        "{decision:#}"
    );
    assert_eq!(raw.heard(), [b"\0\0\0\x08query"]);
    let mut faults = Faults::default();
    for target in [
        "raw.exeat.test:5433",
        "raw.exeat.test:22",
        "api.exeat.test:5432",
        "10.77.0.1:5432",
        "evil.test:5432",
        "203.0.113.66:5432",
    ] {
        faults.check(target, || {
            let watch = gate.watch();
            let mut stream = tunnel(target)?;
            let _sent = stream.write_all(b"\0\0\0\x08escaping");
            rest(&mut stream)?;
            watch.denied(&["unrecognised_protocol", "no_rule", "address_forbidden"])
        });
    }
    faults.none();
    assert_eq!(raw.heard().len(), 1);
    gate.nothing_strayed().unwrap();
}

#[test]
fn passthrough_is_for_its_name_and_says_opaque() {
    let gate = Gate::start().unwrap();
    // The upstream's own certificate: nobody is in between.
    let mut roots = rustls::RootCertStore::empty();
    let ca = std::fs::read(gate.path("upstream-ca.pem")).unwrap();
    roots
        .add(rustls::pki_types::pem::PemObject::from_pem_slice(&ca).unwrap())
        .unwrap();
    let config = rustls::ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let watch = gate.watch();
    let mut tls = gate
        .tls_with(&world(443), "blind.exeat.test", config.clone())
        .unwrap();
    let answers = ask(
        &mut tls,
        &request("GET", "/anything", "blind.exeat.test", ""),
        1,
    )
    .unwrap();
    assert_eq!(answers[0].status, 200);
    assert!(
        !gate.upstream.saw(SECRET.as_bytes()),
        "a credential in bytes that nobody reads"
    );
    let decision = watch.decisions(1).remove(0);
    assert!(
        decision["decision"] == "allow" && decision["tcp"]["opaque"] == true,
        "{decision:#}"
    );
    for name in [
        API,
        "evil.test",
        "blind.exeat.test.evil.test",
        "x.blind.exeat.test",
    ] {
        assert!(
            gate.tls_with(&world(443), name, config.clone()).is_err(),
            "{name} was passed through"
        );
    }
    // Without TLS there is nothing to pass through.
    let mut stream = gate.connect(world(443)).unwrap();
    let answers = ask(
        &mut stream,
        &request("GET", "/x", "blind.exeat.test:443", ""),
        1,
    )
    .unwrap();
    assert!(
        answers.iter().all(|answer| answer.status >= 400),
        "{answers:?}"
    );
    gate.nothing_strayed().unwrap();
}

// === F4 ===

#[test]
fn a_tightened_policy_closes_what_is_open() {
    let gate = Gate::start().unwrap();
    let raw = Raw::start(&gate, &world(5432), b"hello").unwrap();
    let watch = gate.watch();
    let mut socket = websocket(&gate).unwrap();
    let mut events = gate.tls(API).unwrap();
    events
        .write_all(&request("GET", "/sse?events=10000&ms=50", API, ""))
        .unwrap();
    assert!(events.read(&mut [0; 512]).unwrap() > 0);
    let mut tcp = gate.connect("127.0.0.1:15002").unwrap();
    tcp.write_all(b"CONNECT raw.exeat.test:5432 HTTP/1.1\r\nHost: raw.exeat.test:5432\r\n\r\n")
        .unwrap();
    thread::sleep(Duration::from_millis(100));
    tcp.write_all(b"query").unwrap();
    thread::sleep(Duration::from_millis(100));
    assert_eq!(raw.heard(), [b"query"]);
    let mut kept = gate.tls(API).unwrap();
    kept.write_all(&request("GET", "/chunked?chunks=60&ms=50", API, ""))
        .unwrap();
    let open = watch.decisions(4);
    assert_eq!(open.len(), 4, "{open:#?}");

    let policy = POLICY
        .replace("\"/ws\", \"/sse\", ", "")
        .replace("port: 5432", "port: 5431");
    let start = Instant::now();
    gate.set_policy(&policy).unwrap();
    for stream in [&mut socket as &mut dyn Read, &mut events, &mut tcp] {
        let mut all = Vec::new();
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = stream.read(&mut buffer) {
            all.extend_from_slice(&buffer[..length]);
            assert!(start.elapsed() < REVOKED, "still open");
        }
        assert!(
            start.elapsed() < REVOKED,
            "closed after {:?}",
            start.elapsed()
        );
        assert!(!all.ends_with(b"0\r\n\r\n"), "told as a whole answer");
    }
    // What both policies allow goes on.
    let mut whole = Vec::new();
    let begun = Instant::now();
    while !whole.ends_with(b"0\r\n\r\n") && begun.elapsed() < PROMPT * 2 {
        let mut buffer = [0; 4096];
        let length = kept.read(&mut buffer).unwrap();
        assert!(length > 0, "the allowed one was cut");
        whole.extend_from_slice(&buffer[..length]);
    }
    for decision in &open {
        if decision["http"]["path"] == "/chunked" {
            continue;
        }
        let outcome = gate.outcome(decision).expect("an outcome");
        assert!(
            outcome.to_string().contains("policy_changed"),
            "{outcome:#}"
        );
        let text = outcome.to_string();
        assert!(text.contains("bytes"), "{text}");
    }
    gate.nothing_strayed().unwrap();
}

#[test]
fn an_answer_is_never_followed_by_another_ones() {
    let gate = Gate::start().unwrap();
    // The upstream says more than it was asked, on a connection that would be used again.
    let _raw = Raw::start(&gate, &world(8081), b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfirstHTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\npoisoned").unwrap();
    let host = format!("{PLAIN}:8081");
    for at in 0..5 {
        let mut stream = gate.connect(world(8081)).unwrap();
        let answers = ask(
            &mut stream,
            &request("GET", &format!("/{at}"), &host, ""),
            1,
        )
        .unwrap();
        assert!(
            answers.len() == 1 && answers[0].body != b"poisoned",
            "{answers:?}"
        );
        thread::sleep(Duration::from_millis(20));
    }
}
