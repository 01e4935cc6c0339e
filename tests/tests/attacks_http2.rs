//! HTTP/2 against the gate, frame by frame: streams that disagree with their connection, fields that
//! no client would send, floods. What is refused never reaches the upstream; what floods is cut off,
//! and nobody else notices.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::type_complexity,
    reason = "a test fails by panicking, and says what it does in its own way"
)]

use std::{
    io::Write,
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use exeat_tests::gate::{
    Faults, Gate, PROMPT, SECRET, Tls,
    http2::{
        CONTINUATION, DATA, END_HEADERS, END_STREAM, Frame, GOAWAY, HEADERS, PING, RST_STREAM,
        SETTINGS, WINDOW_UPDATE, exchange, fields, frame, get, gone, opening, over, reply, request,
        reset,
    },
    world,
};

/// How long a call may outlive the policy that allowed it, with room for a busy machine.
const REVOKED: Duration = Duration::from_secs(5);

const API: &str = "api.exeat.test";
const OPEN: &str = "open.exeat.test";
const PLAIN: &str = "plain.exeat.test";

/// What the agent brings of its own; it may never arrive.
const OWN_KEY: &str = "the-agents-own-key";

fn http2(gate: &Gate, name: &str) -> Result<Tls> {
    let mut tls = gate.tls_to(&world(443), name, &[b"h2"])?;
    tls.write_all(&opening())?;
    Ok(tls)
}

fn code(frames: &[Frame], stream: u32) -> Option<String> {
    reply(frames, stream).code()
}

/// A stream that must come to nothing. hyper answers malformed ones itself, with a reset.
fn refused(gate: &Gate, name: &str, bytes: &[u8]) -> Result<()> {
    let mut tls = http2(gate, name)?;
    let watch = gate.watch();
    let frames = exchange(&mut tls, bytes, |frames| over(frames, 1))?;
    ensure!(reply(&frames, 1).status != 200, "{frames:?}");
    ensure!(
        reset(&frames, 1) || gone(&frames) || reply(&frames, 1).status >= 400,
        "{frames:?}"
    );
    drop(tls);
    watch.denied(&[
        "invalid_request",
        "invalid_host",
        "identity_mismatch",
        "no_rule",
        "method_not_allowed",
    ])?;
    Ok(())
}

#[test]
fn each_stream_is_judged_by_itself() {
    let gate = Gate::start().unwrap();
    let mut tls = http2(&gate, API).unwrap();
    let watch = gate.watch();
    let with = |mut list: Vec<(&'static str, &'static str)>,
                more: &[(&'static str, &'static str)]| {
        list.extend_from_slice(more);
        list
    };
    let streams: Vec<(Vec<(&str, &str)>, Option<&str>)> = vec![
        (get(API, "/allowed/1"), None),
        (get(OPEN, "/open/1"), Some("identity_mismatch")),
        (get("evil.test", "/allowed/x"), Some("identity_mismatch")),
        (get(API, "/admin"), Some("no_rule")),
        (
            with(get(API, "/allowed/x"), &[("host", "evil.test")]),
            Some("identity_mismatch"),
        ),
        (
            with(get(API, "/allowed/x"), &[("host", API), ("host", API)]),
            Some("invalid_request"),
        ),
        (with(get(API, "/allowed/2"), &[("host", API)]), None),
        (
            get("api.exeat.test:444", "/allowed/x"),
            Some("identity_mismatch"),
        ),
        (
            get("user@api.exeat.test", "/allowed/x"),
            Some("invalid_request"),
        ),
        (get("API.exeat.test.", "/allowed/3"), None),
        (get("api.exeat.test:443", "/allowed/4"), None),
    ];
    let bytes: Vec<u8> = streams
        .iter()
        .zip((1..).step_by(2))
        .flat_map(|((list, _), stream)| request(stream, list))
        .collect();
    let frames = exchange(&mut tls, &bytes, |frames| {
        (1..)
            .step_by(2)
            .take(streams.len())
            .all(|stream| over(frames, stream))
    })
    .unwrap();
    for ((list, expected), stream) in streams.iter().zip((1..).step_by(2)) {
        assert_eq!(
            code(&frames, stream).as_deref(),
            *expected,
            "{list:?}: {:?}",
            reply(&frames, stream)
        );
    }
    assert_eq!(watch.decisions(streams.len()).len(), streams.len());
    let mut seen: Vec<_> = watch
        .requests()
        .iter()
        .map(|r| (r.host.clone(), r.path.clone()))
        .collect();
    seen.sort();
    let expected: Vec<_> = (1..=4)
        .map(|at| (API.to_owned(), format!("/allowed/{at}")))
        .collect();
    assert_eq!(seen, expected);
    gate.nothing_strayed().unwrap();
}

#[test]
fn malformed_heads_are_reset() {
    let gate = Gate::start().unwrap();
    let mut faults = Faults::default();
    let base = get(API, "/allowed/x");
    let replaced = |name: &'static str, value: &'static str| {
        let mut list = base.clone();
        for field in &mut list {
            if field.0 == name {
                field.1 = value;
            }
        }
        list
    };
    let with = |more: &[(&'static str, &'static str)]| [base.clone(), more.to_vec()].concat();
    let without = |name: &str| {
        base.iter()
            .copied()
            .filter(|field| field.0 != name)
            .collect::<Vec<_>>()
    };
    let mut lists: Vec<Vec<(&str, &str)>> = Vec::new();
    for value in [
        "",
        "allowed/x",
        "/allowed/x y",
        "/allowed/x\r\nHost: evil",
        "/allowed/\0",
        "/allowed/\t",
        "/allowed/../admin",
        "/allowed/%2e%2e/admin",
        "//evil.test/allowed/x",
        "/allowed\\x",
        "*",
        "https://evil.test/allowed/x",
        "/allowed/x\u{7f}",
        "/allowed/\u{e9}",
    ] {
        lists.push(replaced(":path", value));
    }
    for value in [
        "",
        "GET ",
        "GET\r\n",
        "G T",
        "\0",
        "GET /admin HTTP/1.1\r\nHost: x\r\n\r\nGET",
    ] {
        lists.push(replaced(":method", value));
    }
    for value in ["", "evil", "http", "https\r\n", "ftp", "file"] {
        lists.push(replaced(":scheme", value));
    }
    for value in [
        "",
        " ",
        "api.exeat.test evil",
        "api.exeat.test\r\nX: 1",
        "api.exeat.test\0",
        "api.exeat.test/",
        "api.exeat.test,evil.test",
        "a:b@api.exeat.test",
        "[api.exeat.test]",
        "api.exeat.test:",
        "api.exeat.test:x",
    ] {
        lists.push(replaced(":authority", value));
    }
    for name in [":method", ":scheme", ":path", ":authority"] {
        lists.push(without(name));
    }
    for more in [
        (":path", "/admin"),
        (":path", "/allowed/x"),
        (":method", "DELETE"),
        (":authority", "evil.test"),
        (":scheme", "https"),
        (":status", "200"),
        (":unknown", "1"),
        (":protocol", "websocket"),
        (":", "1"),
        ("connection", "close"),
        ("connection", "authorization"),
        ("keep-alive", "1"),
        ("proxy-connection", "1"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "h2c"),
        ("te", "gzip"),
        ("X-Upper", "1"),
        ("Host", API),
        ("x-\r\ny", "1"),
        ("x y", "1"),
        ("x:y", "1"),
        ("", "1"),
        ("x\0", "1"),
        ("x", "a\r\nb: c"),
        ("x", "a\0b"),
        ("x", "a\nb"),
        ("x-\u{e9}", "1"),
        ("content-length", "x"),
        ("content-length", "-1"),
    ] {
        lists.push(with(&[more]));
    }
    // Pseudo-fields after others.
    lists.push([vec![("x", "1")], base.clone()].concat());
    lists.push([&base[..3], &[("x", "1")], &base[3..]].concat());
    for list in lists {
        faults.check(format!("{list:?}"), || {
            refused(&gate, API, &request(1, &list))
        });
    }
    faults.none();
    // `#` begins a fragment, which is no part of a target: what is judged is what arrives.
    for path in ["/allowed/x#/../admin", "/allowed/x#", "/allowed/x?q#f"] {
        let mut tls = http2(&gate, API).unwrap();
        let watch = gate.watch();
        exchange(&mut tls, &request(1, &get(API, path)), |frames| {
            over(frames, 1)
        })
        .unwrap();
        for (decision, seen) in watch.decisions(1).iter().zip(watch.requests()) {
            assert_eq!(decision["http"]["path"], seen.path);
            assert!(!seen.path.contains('#') && !seen.query.unwrap_or_default().contains('#'));
        }
    }
    gate.nothing_strayed().unwrap();
}

#[test]
fn what_the_agent_brings_does_not_arrive_over_http2_either() {
    let gate = Gate::start().unwrap();
    let mut tls = http2(&gate, API).unwrap();
    let mut stream = 1;
    for name in [
        "authorization",
        "proxy-authorization",
        "x-api-key",
        "api-key",
        "x-goog-api-key",
        "x-auth-token",
        "private-token",
        "x-amz-security-token",
        "forwarded",
        "via",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-http-method-override",
        "x-original-url",
    ] {
        let watch = gate.watch();
        let list = [
            get(API, "/allowed/x"),
            vec![(name, OWN_KEY), ("x-harmless", "1"), (name, OWN_KEY)],
        ]
        .concat();
        exchange(&mut tls, &request(stream, &list), |frames| {
            over(frames, stream)
        })
        .unwrap();
        let seen = watch.allowed(1).unwrap();
        assert!(!seen[0].mentions(OWN_KEY), "{seen:?}");
        assert_eq!(seen[0].header("x-harmless"), Some("1"));
        assert_eq!(
            seen[0].header("authorization"),
            Some(&*format!("Bearer {SECRET}-api"))
        );
        stream += 2;
    }
    gate.nothing_strayed().unwrap();
}

#[test]
fn a_length_that_lies_is_no_whole_request() {
    let gate = Gate::start().unwrap();
    let mut faults = Faults::default();
    for (name, stated, sent) in [
        ("more than it says", "3", &b"hello"[..]),
        ("less than it says", "9", b"hello"),
        ("something for nothing", "0", b"hello"),
        ("nothing for something", "5", b""),
    ] {
        for padded in [false, true] {
            faults.check(format!("{name}, padded: {padded}"), || {
                let mut tls = http2(&gate, API)?;
                let list = [
                    vec![(":method", "POST")],
                    get(API, "/allowed/x")[1..].to_vec(),
                    vec![("content-length", stated)],
                ]
                .concat();
                let data = if padded {
                    frame(DATA, END_STREAM | 8, 1, &[&[4][..], sent, &[0; 4]].concat())
                } else {
                    frame(DATA, END_STREAM, 1, sent)
                };
                let bytes = [frame(HEADERS, END_HEADERS, 1, &fields(&list)), data].concat();
                let before = gate.upstream.requests().len();
                let frames = exchange(&mut tls, &bytes, |frames| over(frames, 1))?;
                ensure!(reply(&frames, 1).status != 200, "{frames:?}");
                thread::sleep(Duration::from_millis(50));
                let seen = gate.upstream.requests().split_off(before);
                ensure!(seen.iter().all(|request| !request.complete), "{seen:?}");
                Ok(())
            });
        }
    }
    faults.none();
}

// === E6: without TLS ===

#[test]
fn prior_knowledge_is_judged_like_everything_else() {
    let gate = Gate::start().unwrap();
    let plain = |path: &'static str, host: &'static str| {
        let mut list = get(host, path);
        list[1].1 = "http";
        list
    };
    for (path, host, expected) in [
        ("/open/x", PLAIN, None),
        ("/admin", PLAIN, Some("no_rule")),
        ("/allowed/x", API, Some("no_rule")),
        ("/open/x", OPEN, Some("no_rule")),
        ("/x", "evil.test", Some("no_rule")),
    ] {
        let mut stream = gate.connect(world(80)).unwrap();
        let watch = gate.watch();
        let bytes = [opening(), request(1, &plain(path, host))].concat();
        let frames = exchange(&mut stream, &bytes, |frames| over(frames, 1)).unwrap();
        assert_eq!(code(&frames, 1).as_deref(), expected, "{host}{path}");
        match expected {
            None => drop(watch.allowed(1).unwrap()),
            Some(reason) => drop(watch.denied(&[reason]).unwrap()),
        }
    }
    // The preface in every two pieces.
    let bytes = [opening(), request(1, &plain("/open/x", PLAIN))].concat();
    for cut in 1..30 {
        let mut stream = gate.connect(world(80)).unwrap();
        stream.write_all(&bytes[..cut]).unwrap();
        thread::sleep(Duration::from_millis(1));
        let frames = exchange(&mut stream, &bytes[cut..], |frames| over(frames, 1)).unwrap();
        assert_eq!(reply(&frames, 1).status, 200, "cut at {cut}");
    }
    assert!(!gate.upstream.saw(SECRET.as_bytes()));
    gate.nothing_strayed().unwrap();
}

// === E4: floods ===

/// Floods one connection until the gate cuts it off or the flood is over, while others are served.
fn flood(gate: &Gate, name: &str, mut piece: impl FnMut(u32) -> Vec<u8> + Send, pieces: u32) {
    assert_eq!(gate.get(API, "/allowed/x").unwrap().status, 200);
    let before = gate.memory().unwrap();
    let mut tls = http2(gate, API).unwrap();
    // The answers are not read: that is part of the flood.
    tls.sock
        .set_write_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    let (most, slowest) = thread::scope(|scope| {
        let flooding = scope.spawn(move || {
            for at in 0..pieces {
                if tls
                    .write_all(&piece(at))
                    .and_then(|()| tls.flush())
                    .is_err()
                {
                    break;
                }
            }
            tls
        });
        let (mut most, mut slowest, start) = (before, Duration::ZERO, Instant::now());
        while !flooding.is_finished() && start.elapsed() < Duration::from_secs(10)
            || start.elapsed() < Duration::from_millis(500)
        {
            let begun = Instant::now();
            assert_eq!(gate.get(API, "/allowed/x").unwrap().status, 200, "{name}");
            slowest = slowest.max(begun.elapsed());
            most = most.max(gate.memory().unwrap());
        }
        (most, slowest)
    });
    assert!(slowest < PROMPT, "{name}: others waited {slowest:?}");
    assert!(
        most - before < 40 << 20,
        "{name}: memory grew by {} MiB",
        (most - before) >> 20
    );
}

#[test]
fn rapid_resets_are_bounded() {
    let gate = Gate::start().unwrap();
    flood(
        &gate,
        "rapid reset",
        |at| {
            let stream = at * 2 + 1;
            [
                request(stream, &get(API, "/slow?ms=60000")),
                frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]),
            ]
            .concat()
        },
        3000,
    );
    // What was under way upstream has ended with the streams that asked for it.
    let start = Instant::now();
    let open = || {
        let decisions = gate
            .decisions()
            .into_iter()
            .filter(|d| d["decision"] == "allow")
            .count();
        let outcomes = gate
            .journal()
            .iter()
            .filter(|r| r["event"] == "exeat.egress.outcome")
            .count();
        decisions.saturating_sub(outcomes)
    };
    while open() > 0 && start.elapsed() < PROMPT {
        thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(
        open(),
        0,
        "calls whose streams are gone are still under way"
    );
}

#[test]
fn endless_heads_are_cut_off() {
    let gate = Gate::start().unwrap();
    flood(
        &gate,
        "CONTINUATION flood",
        |at| {
            let block = fields(&[("x-filler", &"a".repeat(10_000))]);
            if at == 0 {
                frame(HEADERS, END_STREAM, 1, &fields(&get(API, "/allowed/x")))
            } else {
                frame(CONTINUATION, 0, 1, &block)
            }
        },
        5000,
    );
    flood(
        &gate,
        "empty CONTINUATION flood",
        |at| {
            if at == 0 {
                frame(HEADERS, END_STREAM, 1, &fields(&get(API, "/allowed/x")))
            } else {
                frame(CONTINUATION, 0, 1, &[])
            }
        },
        100_000,
    );
    // HPACK bomb: one large field put in the table, then named thousands of times in few bytes.
    let mut entry = vec![0x40];
    entry.extend(&fields(&[("x-bomb", &"b".repeat(3900))])[1..]);
    let block = [fields(&get(API, "/allowed/x")), entry, vec![0xbe; 12_000]].concat();
    let mut tls = http2(&gate, API).unwrap();
    let before = gate.memory().unwrap();
    let watch = gate.watch();
    let frames = exchange(
        &mut tls,
        &frame(HEADERS, END_HEADERS | END_STREAM, 1, &block),
        |frames| over(frames, 1),
    )
    .unwrap();
    assert_ne!(reply(&frames, 1).status, 200, "{frames:?}");
    assert!(watch.requests().is_empty());
    assert!(gate.memory().unwrap() - before < 24 << 20);
}

#[test]
fn control_frames_are_bounded() {
    let gate = Gate::start().unwrap();
    flood(
        &gate,
        "SETTINGS flood",
        |_| frame(SETTINGS, 0, 0, &[]).repeat(100),
        1000,
    );
    flood(
        &gate,
        "PING flood",
        |_| frame(PING, 0, 0, &[7; 8]).repeat(100),
        1000,
    );
    flood(
        &gate,
        "WINDOW_UPDATE flood",
        |at| {
            if at == 0 {
                request(1, &get(API, "/slow?ms=3000"))
            } else {
                frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]).repeat(100)
            }
        },
        1000,
    );
    flood(
        &gate,
        "empty DATA flood",
        |at| {
            if at == 0 {
                let list = [
                    vec![(":method", "POST")],
                    get(API, "/allowed/x")[1..].to_vec(),
                ]
                .concat();
                frame(HEADERS, END_HEADERS, 1, &fields(&list))
            } else {
                frame(DATA, 0, 1, &[]).repeat(100)
            }
        },
        1000,
    );
    flood(
        &gate,
        "unknown frames",
        |_| frame(0x7e, 0xff, 0, &[1; 16]).repeat(100),
        500,
    );
}

#[test]
fn a_window_that_stays_shut_holds_little() {
    let gate = Gate::start().unwrap();
    let before = gate.memory().unwrap();
    // Streams that may never send a byte back, on connections that stay open.
    let mut held = Vec::new();
    for _ in 0..4 {
        let mut tls = gate.tls_to(&world(443), API, &[b"h2"]).unwrap();
        let mut bytes = opening();
        bytes.extend(frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]));
        for stream in (1..=199).step_by(2) {
            bytes.extend(request(stream, &get(API, "/bytes/10000000")));
        }
        tls.write_all(&bytes).unwrap();
        held.push(tls);
    }
    thread::sleep(Duration::from_secs(3));
    let grown = gate.memory().unwrap().saturating_sub(before);
    // 400 streams of at most a window and a chunk each.
    assert!(grown < 220 << 20, "memory grew by {} MiB", grown >> 20);
    assert_eq!(gate.get(API, "/allowed/x").unwrap().status, 200);
    drop(held);
}

#[test]
fn more_streams_than_agreed_are_refused() {
    let gate = Gate::start().unwrap();
    let mut tls = http2(&gate, API).unwrap();
    let bytes: Vec<u8> = (0..400)
        .flat_map(|at| request(at * 2 + 1, &get(API, "/slow?ms=2000")))
        .collect();
    let watch = gate.watch();
    let frames = exchange(&mut tls, &bytes, |frames| {
        frames
            .iter()
            .any(|f| f.kind == RST_STREAM || f.kind == GOAWAY)
    })
    .unwrap();
    assert!(
        frames
            .iter()
            .any(|f| f.kind == RST_STREAM || f.kind == GOAWAY),
        "{frames:?}"
    );
    assert!(
        watch.requests().len() <= 128,
        "{} at once",
        watch.requests().len()
    );
}

// === trailers, gRPC, reload ===

#[test]
fn trailers_pass_both_ways_as_data_only() {
    let gate = Gate::start().unwrap();
    for name in [
        "authorization",
        "host",
        "content-length",
        "cookie",
        "x-api-key",
        "x-forwarded-for",
        "content-type",
    ] {
        let mut tls = http2(&gate, API).unwrap();
        let watch = gate.watch();
        let list = [
            vec![(":method", "POST")],
            get(API, "/allowed/x")[1..].to_vec(),
            vec![("te", "trailers")],
        ]
        .concat();
        let bytes = [
            frame(HEADERS, END_HEADERS, 1, &fields(&list)),
            frame(DATA, 0, 1, b"hello"),
            frame(
                HEADERS,
                END_HEADERS | END_STREAM,
                1,
                &fields(&[("x-checksum", "abc"), (name, OWN_KEY)]),
            ),
        ]
        .concat();
        let frames = exchange(&mut tls, &bytes, |frames| over(frames, 1)).unwrap();
        assert_eq!(reply(&frames, 1).status, 200, "{name}");
        let seen = watch.allowed(1).unwrap();
        assert!(
            seen[0]
                .trailers
                .get("x-checksum")
                .is_some_and(|value| value == "abc"),
            "{seen:?}"
        );
        assert!(!seen[0].mentions(OWN_KEY), "{seen:?}");
    }
    // Pseudo-fields in trailers mean nothing to anybody.
    let list = [
        vec![(":method", "POST")],
        get(API, "/allowed/x")[1..].to_vec(),
    ]
    .concat();
    let mut tls = http2(&gate, API).unwrap();
    let bytes = [
        frame(HEADERS, END_HEADERS, 1, &fields(&list)),
        frame(
            HEADERS,
            END_HEADERS | END_STREAM,
            1,
            &fields(&[(":path", "/admin")]),
        ),
    ]
    .concat();
    exchange(&mut tls, &bytes, |frames| over(frames, 1)).unwrap();
    assert!(gate.upstream.requests_to("/admin").is_empty());
    let mut tls = http2(&gate, API).unwrap();
    let frames = exchange(&mut tls, &request(1, &get(API, "/trailers")), |frames| {
        over(frames, 1)
    })
    .unwrap();
    let heads = frames
        .iter()
        .filter(|frame| frame.kind == HEADERS && frame.stream == 1)
        .count();
    assert_eq!(heads, 2, "no trailers came back: {frames:?}");
}

#[test]
fn grpc_is_told_in_its_own_terms() {
    let gate = Gate::start().unwrap();
    let call = |path: &'static str| {
        let list = [
            vec![(":method", "POST")],
            get(API, path)[1..].to_vec(),
            vec![("content-type", "application/grpc"), ("te", "trailers")],
        ]
        .concat();
        [
            frame(HEADERS, END_HEADERS, 1, &fields(&list)),
            frame(DATA, END_STREAM, 1, b"\0\0\0\0\x05hello"),
        ]
        .concat()
    };
    let mut tls = http2(&gate, API).unwrap();
    let watch = gate.watch();
    let frames = exchange(&mut tls, &call("/exeat.test.Echo/Say"), |frames| {
        over(frames, 1)
    })
    .unwrap();
    assert_eq!(reply(&frames, 1).status, 200);
    let heads: Vec<_> = frames
        .iter()
        .filter(|f| f.kind == HEADERS && f.stream == 1)
        .collect();
    assert_eq!(heads.len(), 2, "the status is in trailers: {frames:?}");
    assert_eq!(watch.allowed(1).unwrap()[0].body, b"\0\0\0\0\x05hello");
    for path in [
        "/exeat.test.Admin/Drop",
        "/exeat.test.Echo",
        "/exeat.test.Echo/Say/x",
        "/EXEAT.test.Echo/Say",
    ] {
        let mut tls = http2(&gate, API).unwrap();
        let watch = gate.watch();
        let frames = exchange(&mut tls, &call(path), |frames| over(frames, 1)).unwrap();
        // Trailers only: one head, no body, the stream ended with it.
        let heads: Vec<_> = frames
            .iter()
            .filter(|f| f.kind == HEADERS && f.stream == 1)
            .collect();
        assert!(
            heads.len() == 1 && heads[0].flags & END_STREAM != 0,
            "{path}: {frames:?}"
        );
        watch.denied(&["no_rule"]).unwrap();
    }
    gate.nothing_strayed().unwrap();
}

#[test]
fn a_tightened_policy_resets_the_streams_it_denies() {
    let gate = Gate::start().unwrap();
    let mut tls = http2(&gate, API).unwrap();
    let watch = gate.watch();
    let bytes = [
        request(1, &get(API, "/chunked?chunks=1000&ms=50")),
        request(3, &get(API, "/bytes/10")),
    ]
    .concat();
    exchange(&mut tls, &bytes, |frames| {
        over(frames, 3) && frames.iter().any(|f| f.kind == DATA && f.stream == 1)
    })
    .unwrap();
    let allowed = watch.decisions(2);
    let policy = exeat_tests::gate::POLICY.replace("\"/chunked\", ", "");
    let start = Instant::now();
    gate.set_policy(&policy).unwrap();
    let frames = exchange(&mut tls, b"", |frames| reset(frames, 1)).unwrap();
    assert!(
        reset(&frames, 1) && start.elapsed() < REVOKED,
        "{:?}",
        start.elapsed()
    );
    let streaming = allowed
        .iter()
        .find(|decision| decision["http"]["path"] == "/chunked")
        .unwrap();
    let outcome = gate.outcome(streaming).expect("an outcome");
    assert!(
        outcome.to_string().contains("policy_changed"),
        "{outcome:#}"
    );
    // The connection goes on with what is still allowed, judged by the new generation.
    let frames = exchange(&mut tls, &request(5, &get(API, "/bytes/10")), |frames| {
        over(frames, 5)
    })
    .unwrap();
    assert!(!reset(&frames, 5));
    let frames = exchange(&mut tls, &request(7, &get(API, "/chunked")), |frames| {
        over(frames, 7)
    })
    .unwrap();
    assert_eq!(code(&frames, 7).as_deref(), Some("no_rule"));
    let generations: Vec<_> = gate
        .decisions()
        .iter()
        .map(|d| d["generation"].as_u64())
        .collect();
    assert!(
        generations.windows(2).all(|pair| pair[0] <= pair[1]),
        "{generations:?}"
    );
    drop::<TcpStream>(tls.sock);
}
