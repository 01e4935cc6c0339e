//! HTTP/1 against the gate: hosts that disagree, framing with two readings, requests behind
//! requests, borrowed credentials, endless bodies. Every class in generated variants; what counts is
//! what the upstream saw and what is on record.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::format_collect,
    reason = "a test fails by panicking, and says what it does in its own way"
)]

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, TcpStream},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use exeat_tests::{
    gate::{Faults, Gate, PROMPT, Reply, SECRET, STRANGER, ask, request, world},
    upstream::Received,
};

const API: &str = "api.exeat.test";
const OPEN: &str = "open.exeat.test";
const PLAIN: &str = "plain.exeat.test";
const ANY: &str = "any.exeat.test";

/// What an agent brings of its own; it may never arrive.
const OWN_KEY: &str = "the-agents-own-key";

/// Reasons for a request that is malformed or names no single host.
const MALFORMED: &[&str] = &[
    "invalid_request",
    "invalid_host",
    "identity_mismatch",
    "no_rule",
];

fn plain(gate: &Gate) -> Result<TcpStream> {
    gate.connect(world(80))
}

/// One attempt on a plaintext connection of its own that must come to nothing.
fn refused(gate: &Gate, bytes: &[u8], reasons: &[&str]) -> Result<()> {
    let mut stream = plain(gate)?;
    let watch = gate.watch();
    let answers = ask(&mut stream, bytes, 1)?;
    watch.refused(&answers, reasons).map(drop)
}

fn one(answers: Vec<Reply>) -> Result<Reply> {
    ensure!(answers.len() == 1, "not one answer: {answers:?}");
    answers.into_iter().next().context("no answer")
}

// === D1, D2, D3: whom a request is for ===

#[test]
fn a_request_names_one_host_or_none() {
    let gate = Gate::start().unwrap();
    let mut faults = Faults::default();
    let hosts = [
        "evil.test",
        "evil.test:443",
        "open.exeat.test",
        "api.exeat.test:444",
        "api.exeat.test:0",
        "api.exeat.test:",
        "api.exeat.test:+443",
        "api.exeat.test:443x",
        "api.exeat.test:99999",
        "evil.test@api.exeat.test",
        "api.exeat.test@evil.test",
        "a:b@api.exeat.test",
        "api.exeat.test,evil.test",
        "api.exeat.test, api.exeat.test",
        "api.exeat.test evil.test",
        "[api.exeat.test]",
        "[::1]",
        "127.0.0.1",
        "203.0.113.66",
        "api.exeat.test..",
        ".api.exeat.test",
        "api..exeat.test",
        "api.exeat.test/",
        "api.exeat.test?x",
        "api.exeat.test#x",
        "api.exeat.test\\evil.test",
        "api.exeat.test%00.evil.test",
        "api.exeat.test%2eevil.test",
        "https://api.exeat.test",
        "*",
        "\"api.exeat.test\"",
        "api.exeat.test;evil.test",
        "api\u{3002}exeat.test",
        "",
    ];
    for host in hosts {
        let target = format!("https://{host}/allowed/x");
        let heads = [
            format!("GET /allowed/x HTTP/1.1\r\nHost: {host}\r\n\r\n"),
            format!("GET /allowed/x HTTP/1.1\r\nHost: {API}\r\nHost: {host}\r\n\r\n"),
            format!("GET /allowed/x HTTP/1.1\r\nHost: {host}\r\nhOST: {API}\r\n\r\n"),
            format!("GET {target} HTTP/1.1\r\nHost: {API}\r\n\r\n"),
            format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"),
            format!("GET https://{API}/allowed/x HTTP/1.1\r\nHost: {host}\r\n\r\n"),
        ];
        for head in heads {
            faults.check(head.escape_debug(), || {
                let mut tls = gate.tls(API)?;
                let watch = gate.watch();
                let answers = ask(&mut tls, head.as_bytes(), 1)?;
                watch.refused(&answers, MALFORMED)
            });
        }
    }
    for head in [
        format!("GET /allowed/x HTTP/1.1\r\nHost: {API}\r\nHost: {API}\r\n\r\n"),
        format!("GET http://{API}/allowed/x HTTP/1.1\r\nHost: {API}\r\n\r\n"),
        format!("GET ftp://{API}/allowed/x HTTP/1.1\r\nHost: {API}\r\n\r\n"),
        format!("GET https://{API}/allowed/x HTTP/1.1\r\n\r\n"),
        format!("GET //evil.test/allowed/x HTTP/1.1\r\nHost: {API}\r\n\r\n"),
        format!("GET {API} HTTP/1.1\r\nHost: {API}\r\n\r\n"),
        format!("GET {API}:443 HTTP/1.1\r\nHost: {API}\r\n\r\n"),
        format!("GET * HTTP/1.1\r\nHost: {API}\r\n\r\n"),
        format!("OPTIONS * HTTP/1.1\r\nHost: {API}\r\n\r\n"),
        "GET /allowed/x HTTP/1.1\r\n\r\n".to_owned(),
        "GET /allowed/x HTTP/1.0\r\n\r\n".to_owned(),
    ] {
        faults.check(head.escape_debug(), || {
            let mut tls = gate.tls(API)?;
            let watch = gate.watch();
            let answers = ask(&mut tls, head.as_bytes(), 1)?;
            watch.refused(&answers, MALFORMED)
        });
    }
    faults.none();
    gate.nothing_strayed().unwrap();
}

#[test]
fn one_name_has_one_spelling() {
    let gate = Gate::start().unwrap();
    let mut faults = Faults::default();
    for host in [
        "api.exeat.test",
        "API.exeat.TEST",
        "api.exeat.test.",
        "api.exeat.test:443",
        "aPi.ExEaT.test.:443",
    ] {
        for target in ["/allowed/x".to_owned(), format!("https://{host}/allowed/x")] {
            faults.check(format!("{target} for {host}"), || {
                let mut tls = gate.tls(API)?;
                let watch = gate.watch();
                let reply = one(ask(&mut tls, &request("GET", &target, host, ""), 1)?)?;
                ensure!(reply.status == 200, "{reply:?}");
                let requests = watch.allowed(1)?;
                ensure!(
                    requests[0].host == API && requests[0].path == "/allowed/x",
                    "{requests:?}"
                );
                ensure!(
                    requests[0].headers.get_all("host").iter().count() == 1,
                    "{requests:?}"
                );
                Ok(())
            });
        }
    }
    faults.none();
}

// === D4: framing ===

/// Heads of a POST, each with a body and a second request that a lenient reader would see in it.
fn ambiguous() -> Vec<Vec<u8>> {
    let smuggled = format!("GET /open/smuggled HTTP/1.1\r\nHost: {PLAIN}\r\n\r\n");
    let mut framings: Vec<String> = Vec::new();
    let length = smuggled.len() + 5;
    for coding in [
        "chunked",
        "Chunked",
        " chunked",
        "chunked ",
        "\tchunked",
        "identity",
        "xchunked",
        "chunked, identity",
        "gzip, chunked",
        "\"chunked\"",
        "chunked;q=1",
        "",
        "chunked, chunked",
        "\u{b}chunked",
        "CHUNKED\u{a0}",
    ] {
        for name in [
            "Transfer-Encoding",
            "transfer-encoding",
            "TRANSFER-ENCODING",
        ] {
            framings.push(format!("Content-Length: {length}\r\n{name}: {coding}\r\n"));
            framings.push(format!("{name}: {coding}\r\nContent-Length: {length}\r\n"));
        }
    }
    for name in [
        "Transfer-Encoding ",
        "Transfer-Encoding\t",
        " Transfer-Encoding",
        "Transfer_Encoding\u{0}",
        "Transfer-Encoding\r",
        "X: 1\r\n Transfer-Encoding",
        "X: 1\n Transfer-Encoding",
        "X\r\n\tTransfer-Encoding",
    ] {
        framings.push(format!("{name}: chunked\r\n"));
        framings.push(format!("Content-Length: {length}\r\n{name}: chunked\r\n"));
    }
    for value in [
        "-1",
        "+5",
        "0x5",
        "5,5",
        "5, 6",
        "5 5",
        "05x",
        "5;",
        "\"5\"",
        "",
        " ",
        "5.0",
        "1e1",
        "18446744073709551616",
        "99999999999999999999999999",
        "\u{665}",
        "0\u{b}",
    ] {
        framings.push(format!("Content-Length: {value}\r\n"));
    }
    for pair in [("0", "5"), ("5", "0"), ("5", "5"), ("5", "6"), ("0", "0")] {
        framings.push(format!(
            "Content-Length: {}\r\nContent-Length: {}\r\n",
            pair.0, pair.1
        ));
    }
    framings.push("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n".to_owned());
    framings.push("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n".to_owned());
    let mut all: Vec<Vec<u8>> = framings
        .iter()
        .map(|framing| {
            format!("POST /open/x HTTP/1.1\r\nHost: {PLAIN}\r\n{framing}\r\n0\r\n\r\n{smuggled}")
                .into_bytes()
        })
        .collect();
    for chunks in [
        "0;ext\r\n\r\n",
        "5;a=b\r\nhello\r\n0\r\n\r\n",
        "5 \r\nhello\r\n0\r\n\r\n",
        " 5\r\nhello\r\n0\r\n\r\n",
        "5\nhello\n0\n\n",
        "5\r\nhello0\r\n\r\n",
        "5\r\nhelloo\r\n0\r\n\r\n",
        "-1\r\n\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "fffffffffffffffff\r\n",
        "10000000000000005\r\nhello\r\n0\r\n\r\n",
        "\r\n0\r\n\r\n",
        "g\r\n",
        "5\r\rhello\r\n0\r\n\r\n",
        "0\r\nbad trailer\r\n\r\n",
        "0\r\n folded: 1\r\n\r\n",
        "0\r\nx: 1\n\r\n",
        "0\n\r\n",
        "0\r\n\n",
        "00000000000000000\r\n\r\n",
    ] {
        all.push(format!("POST /open/x HTTP/1.1\r\nHost: {PLAIN}\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}{smuggled}").into_bytes());
    }
    for head in [
        "POST /open/x HTTP/1.1\nHost: HOST\n\n",
        "POST /open/x HTTP/1.1\r\nHost: HOST\n\r\n",
        "POST /open/x HTTP/1.1\nHost: HOST\r\n\r\n",
        "POST /open/x HTTP/1.1\r\nHost: HOST\r\r\n\r\n",
        "POST /open/x HTTP/1.1\r\nHost: HOST\r\n\n",
        "POST  /open/x HTTP/1.1\r\nHost: HOST\r\n\r\n\u{0}",
        "POST /open/x HTTP/1.2\r\nHost: HOST\r\n\r\n",
        "POST /open/x HTTP/2.0\r\nHost: HOST\r\n\r\n",
        "POST /open/x\r\nHost: HOST\r\n\r\n",
        "POST /open/x HTTP/1.1 x\r\nHost: HOST\r\n\r\n",
        "POST\t/open/x HTTP/1.1\r\nHost: HOST\r\n\r\n",
        "POST /open/x HTTP/1.1\r\n Host: HOST\r\n\r\n",
        "POST /open/x HTTP/1.1\r\nHost : HOST\r\n\r\n",
        "POST /open/x http/1.1\r\nHost: HOST\r\n\r\n",
        "POST /open/ x HTTP/1.1\r\nHost: HOST\r\n\r\n",
        "POST /open/x HTTP/0.9\r\nHost: HOST\r\n\r\n",
        "POST /open/x HTTP/1.1\r\nHost: HOST\r\n: x\r\n\r\n",
        "POST /open/x HTTP/1.1\r\nHost: HOST\r\nX\r\n\r\n",
    ] {
        all.push(format!("{}{smuggled}", head.replace("HOST", PLAIN)).into_bytes());
    }
    all
}

#[test]
fn framing_is_read_in_one_way_or_not_at_all() {
    let gate = Gate::start().unwrap();
    let mut faults = Faults::default();
    for bytes in ambiguous() {
        faults.check(bytes.escape_ascii(), || {
            refused(&gate, &bytes, &["invalid_request", "unrecognised_protocol"])
        });
    }
    faults.none();
    assert!(!gate.upstream.saw(b"smuggled"));
    gate.nothing_strayed().unwrap();
}

#[test]
fn no_cut_of_the_bytes_smuggles_a_request() {
    let gate = Gate::start().unwrap();
    let mut faults = Faults::default();
    let smuggled = format!("GET /open/smuggled HTTP/1.1\r\nHost: {PLAIN}\r\n\r\n");
    for framing in [
        "Content-Length: 80\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n0;x\r\n\r\n",
    ] {
        let bytes =
            format!("POST /open/x HTTP/1.1\r\nHost: {PLAIN}\r\n{framing}{smuggled}").into_bytes();
        for cut in 1..bytes.len() {
            faults.check(format!("{framing:?} cut at {cut}"), || {
                let mut stream = plain(&gate)?;
                stream.write_all(&bytes[..cut])?;
                std::thread::sleep(Duration::from_millis(1));
                ask(&mut stream, &bytes[cut..], 2)?;
                ensure!(!gate.upstream.saw(b"smuggled"), "it was smuggled");
                Ok(())
            });
        }
    }
    faults.none();
    let bad = gate
        .upstream
        .requests()
        .iter()
        .filter(|request| request.complete)
        .count();
    assert_eq!(bad, 0, "an ambiguous request arrived whole");
}

/// A request that asks for another protocol and does not get it is followed by requests that are
/// read as strictly as before.
#[test]
fn strictness_survives_an_upgrade_that_did_not_happen() {
    let gate = Gate::start().unwrap();
    let mut faults = Faults::default();
    for upgrade in ["websocket", "h2c", "TLS/1.0", "x", "websocket, h2c", ""] {
        for connection in ["Upgrade", "upgrade, keep-alive", "keep-alive"] {
            for method in ["GET", "POST", "PUT"] {
                let first = format!(
                    "{method} /open/x HTTP/1.1\r\nHost: {PLAIN}\r\nConnection: {connection}\r\nUpgrade: {upgrade}\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
                );
                let second = format!(
                    "POST /open/second HTTP/1.1\r\nHost: {PLAIN}\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /open/smuggled HTTP/1.1\r\nHost: {PLAIN}\r\n\r\n"
                );
                faults.check(format!("{method} {upgrade} {connection}"), || {
                    let mut stream = plain(&gate)?;
                    ask(&mut stream, first.as_bytes(), 1)?;
                    let answers = ask(&mut stream, second.as_bytes(), 1)?;
                    ensure!(
                        answers.iter().all(|answer| answer.status == 400),
                        "{answers:?}"
                    );
                    let seen = gate.upstream.saw(b"/open/second") || gate.upstream.saw(b"smuggled");
                    ensure!(!seen, "the second request arrived");
                    Ok(())
                });
            }
        }
    }
    faults.none();
}

// === D5, D6: one connection, many requests ===

#[test]
fn each_request_of_a_connection_is_judged_by_itself() {
    let gate = Gate::start().unwrap();
    let get = |path: &str, host: &str| request("GET", path, host, "");
    let cases = [("pipelined", true), ("one after the other", false)];
    for (name, pipelined) in cases {
        let requests = [
            (get("/allowed/1", API), 200),
            (get("/admin", API), 403),
            (get("/allowed/2", API), 200),
            (get("/allowed/3", "evil.test"), 403),
            (request("DELETE", "/allowed/4", API, ""), 403),
            (get("/allowed/5", OPEN), 403),
            (get("/allowed/6", API), 200),
        ];
        let mut tls = gate.tls(API).unwrap();
        let watch = gate.watch();
        let statuses: Vec<u16> = if pipelined {
            let all = requests
                .iter()
                .flat_map(|(bytes, _)| bytes.clone())
                .collect::<Vec<_>>();
            let answers = ask(&mut tls, &all, requests.len()).unwrap();
            answers.iter().map(|answer| answer.status).collect()
        } else {
            let ask = |(bytes, _): &(Vec<u8>, u16)| ask(&mut tls, bytes, 1).unwrap()[0].status;
            requests.iter().map(ask).collect()
        };
        let expected: Vec<u16> = requests.iter().map(|(_, status)| *status).collect();
        assert_eq!(statuses, expected, "{name}");
        assert_eq!(watch.decisions(7).len(), 7, "{name}");
        let seen: Vec<_> = watch
            .requests()
            .iter()
            .map(|request| request.path.clone())
            .collect();
        assert_eq!(seen, ["/allowed/1", "/allowed/2", "/allowed/6"], "{name}");
    }
    gate.nothing_strayed().unwrap();
}

// === D7, D8, D9: methods and switches ===

#[test]
fn no_method_opens_a_tunnel_or_mirrors_the_credential() {
    let gate = Gate::start().unwrap();
    let mut faults = Faults::default();
    for target in [
        "evil.test:443",
        "any.exeat.test:443",
        "203.0.113.66:22",
        "any.exeat.test",
        "/",
        "/x",
        "https://any.exeat.test/x",
        "*",
    ] {
        for method in ["CONNECT", "TRACE", "TRACK"] {
            faults.check(format!("{method} {target}"), || {
                let mut tls = gate.tls(ANY)?;
                let watch = gate.watch();
                let host = if method == "CONNECT" { target } else { ANY };
                let mut bytes = request(method, target, host, "");
                bytes.extend(b"\x16\x03\x01 these are not yours to pass on");
                let answers = ask(&mut tls, &bytes, 1)?;
                ensure!(
                    answers.iter().all(|answer| answer.status >= 400),
                    "{answers:?}"
                );
                // The bytes behind it may be refused on their own record, or not be read at all.
                for decision in watch.decisions(1) {
                    ensure!(decision["decision"] == "deny", "{decision:#}");
                }
                ensure!(watch.requests().is_empty(), "{:?}", watch.requests());
                Ok(())
            });
        }
    }
    for method in ["trace", "Trace", "DELETE", "delete", "Delete"] {
        faults.check(method, || {
            let mut tls = gate.tls(API)?;
            let watch = gate.watch();
            let answers = ask(&mut tls, &request(method, "/allowed/x", API, ""), 1)?;
            watch.refused(
                &answers,
                &[
                    "denied_by_rule",
                    "method_not_allowed",
                    "no_rule",
                    "invalid_request",
                ],
            )
        });
    }
    for method in ["delete", "Delete", "trace", "tRACK", "connect"] {
        // A server that folds case would see the method that is denied.
        faults.check(format!("{method} where every method is allowed"), || {
            let mut tls = gate.tls(ANY)?;
            let watch = gate.watch();
            let answers = ask(&mut tls, &request(method, "/x", ANY, ""), 1)?;
            watch.refused(
                &answers,
                &[
                    "denied_by_rule",
                    "method_not_allowed",
                    "no_rule",
                    "invalid_request",
                ],
            )
        });
    }
    faults.none();
    gate.nothing_strayed().unwrap();
}

#[test]
fn an_upgrade_is_not_passed_on() {
    let gate = Gate::start().unwrap();
    let mut faults = Faults::default();
    for upgrade in [
        "h2c",
        "h2c, websocket",
        "TLS/1.0, HTTP/1.1",
        "HTTP/2.0",
        "H2C",
        "foo",
    ] {
        for connection in ["Upgrade, HTTP2-Settings", "keep-alive", "Upgrade"] {
            faults.check(format!("{upgrade}, {connection}"), || {
            let mut tls = gate.tls(API)?;
            let watch = gate.watch();
            let more = format!("Connection: {connection}\r\nUpgrade: {upgrade}\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n");
            // A denied upgrade to a WebSocket is as good as one that is ignored.
            let reply = one(ask(&mut tls, &request("POST", "/allowed/x", API, &format!("{more}Content-Length: 0\r\n")), 1)?)?;
            ensure!(reply.status == 200, "{reply:?}");
            let seen = watch.allowed(1)?;
            for field in ["upgrade", "connection", "http2-settings"] {
                ensure!(seen[0].header(field).is_none(), "{field} arrived: {seen:?}");
            }
            // What follows is HTTP/1 still, and frames are none.
            let watch = gate.watch();
            let answers = ask(&mut tls, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0", 1)?;
            ensure!(answers.iter().all(|answer| answer.status >= 400), "{answers:?}");
            ensure!(watch.requests().is_empty(), "frames arrived");
            Ok(())
        });
        }
    }
    faults.none();
}

// === D10: Expect ===

#[test]
fn nothing_is_sent_for_a_body_that_is_withheld() {
    let gate = Gate::start().unwrap();
    let expect = "Expect: 100-continue\r\nContent-Length: 40\r\nContent-Type: application/json\r\n";
    // Denied by its head: refused at once, and no body is asked for.
    let mut tls = gate.tls(API).unwrap();
    let watch = gate.watch();
    let start = Instant::now();
    let answers = ask(&mut tls, &request("POST", "/admin", API, expect), 1).unwrap();
    watch.refused(&answers, &["no_rule"]).unwrap();
    assert!(start.elapsed() < Duration::from_secs(1), "late");
    // A rule looks into the body: without it there is no verdict, and nothing goes out.
    for (host, path) in [
        ("tools.exeat.test", "/mcp"),
        ("models.exeat.test", "/v1/chat/completions"),
    ] {
        let mut tls = gate.tls(host).unwrap();
        let watch = gate.watch();
        tls.write_all(&request("POST", path, host, expect)).unwrap();
        tls.write_all(b"{\"half\"").unwrap();
        tls.flush().unwrap();
        std::thread::sleep(Duration::from_millis(300));
        assert!(
            watch.requests().is_empty() && !gate.upstream.saw(SECRET.as_bytes()),
            "{host}"
        );
        drop(tls);
        let decision = watch.denied(&["invalid_request", "body_invalid"]).unwrap();
        assert_eq!(decision["decision"], "deny", "{host}");
    }
    gate.nothing_strayed().unwrap();
}

// === D11, D19, G11, H10: fields ===

#[test]
fn what_connection_nominates_does_not_take_our_credential() {
    let gate = Gate::start().unwrap();
    let mut faults = Faults::default();
    let names = [
        "authorization",
        "Authorization",
        "host",
        "x-custom-key",
        "content-length",
        "transfer-encoding",
        "cookie",
        "te",
        "close",
        "upgrade",
        ":path",
        "*",
        "",
        "x-nominated",
    ];
    for name in names {
        for spelling in [
            name.to_owned(),
            format!("keep-alive, {name}"),
            format!(" {name} ,"),
            format!("{name},{name}"),
        ] {
            for (path, field, value) in [
                (
                    "/allowed/x",
                    "authorization",
                    format!("Bearer {SECRET}-api"),
                ),
                ("/key/x", "x-custom-key", format!("{SECRET}-key")),
            ] {
                let host = if field == "authorization" { API } else { OPEN };
                faults.check(format!("{spelling:?} {path}"), || {
                    let mut tls = gate.tls(host)?;
                    let watch = gate.watch();
                    let more = format!("Connection: {spelling}\r\nX-Nominated: {OWN_KEY}\r\n");
                    let reply = one(ask(&mut tls, &request("GET", path, host, &more), 1)?)?;
                    ensure!(reply.status == 200, "{reply:?}");
                    let seen = watch.allowed(1)?;
                    ensure!(seen[0].header(field) == Some(&value), "{seen:?}");
                    ensure!(seen[0].header("host") == Some(host), "{seen:?}");
                    ensure!(
                        name != "x-nominated" || !seen[0].mentions(OWN_KEY),
                        "{seen:?}"
                    );
                    Ok(())
                });
            }
        }
    }
    faults.none();
}

/// Fields that carry credentials, or with which an agent passes for somebody else.
const BROUGHT: &[&str] = &[
    "Authorization",
    "Proxy-Authorization",
    "X-Api-Key",
    "Api-Key",
    "ApiKey",
    "X-Goog-Api-Key",
    "X-Goog-User-Project",
    "X-Auth-Token",
    "X-Access-Token",
    "X-Amz-Security-Token",
    "Private-Token",
    "Job-Token",
    "Deploy-Token",
    "X-GitLab-Token",
    "X-Vault-Token",
    "X-Functions-Key",
    "Ocp-Apim-Subscription-Key",
    "X-Api-Token",
    "X-Token",
    "X-Authorization",
    "Forwarded",
    "Via",
    "X-Forwarded-For",
    "X-Forwarded-Host",
    "X-Forwarded-Proto",
    "X-Forwarded-Port",
    "X-Forwarded-Prefix",
    "X-Forwarded-Client-Cert",
    "X-Forwarded-User",
    "X-Real-Ip",
    "X-Client-Ip",
    "X-Host",
    "X-Original-Host",
    "X-Original-Url",
    "X-Rewrite-Url",
    "X-Original-Method",
    "X-Http-Method",
    "X-Http-Method-Override",
    "X-Method-Override",
    "Proxy-Connection",
    "Keep-Alive",
    "True-Client-Ip",
    "X-Auth-Key",
    "X-Subscription-Token",
    "X-Shopify-Access-Token",
    "X-Figma-Token",
    "X-Redmine-Api-Key",
    "X-Rapidapi-Key",
    "X-Csrf-Token-Authorization",
    "X-Ms-Token-Aad-Access-Token",
    "X-Goog-Iam-Authorization-Token",
    "X-Algolia-Api-Key",
    "X-Typesense-Api-Key",
    "DD-Api-Key",
    "DD-Application-Key",
    "X-Nuget-Apikey",
    "Circle-Token",
    "X-Jfrog-Art-Api",
    "X-Consul-Token",
    "X-Nomad-Token",
    "X-Auth-Email",
    "X-Auth-User",
    "X-Auth-User-Key",
    "X-Secret-Key",
    "X-Api-Secret",
    "X-Session-Token",
    "X-Id-Token",
    "X-Refresh-Token",
];

#[test]
fn nothing_that_the_agent_brings_of_its_own_arrives() {
    let gate = Gate::start().unwrap();
    let mut faults = Faults::default();
    // With a credential of the gate's and without; twice, so that a removal takes all.
    for (host, path) in [(API, "/allowed/x"), (OPEN, "/open/x")] {
        let mut tls = gate.tls(host).unwrap();
        for name in BROUGHT {
            let spellings = [
                (*name).to_owned(),
                name.to_lowercase(),
                name.to_uppercase(),
                name.replace('-', "_"),
            ];
            for (at, spelling) in spellings.iter().enumerate() {
                faults.check(format!("{spelling} to {host}"), || {
                    let watch = gate.watch();
                    let scheme = ["Bearer ", "Basic ", "", ""][at];
                    let more = format!("{spelling}: {scheme}{OWN_KEY}\r\nX-Harmless: 1\r\n{spelling}: {OWN_KEY}\r\n");
                    let reply = one(ask(&mut tls, &request("GET", path, host, &more), 1)?)?;
                    ensure!(reply.status == 200, "{reply:?}");
                    let seen = watch.allowed(1)?;
                    ensure!(!seen[0].mentions(OWN_KEY), "it arrived: {seen:?}");
                    ensure!(seen[0].header("x-harmless") == Some("1"), "{seen:?}");
                    let ours = seen[0].headers.get_all("authorization").iter().count();
                    ensure!(ours == usize::from(host == API), "{seen:?}");
                    Ok(())
                });
            }
        }
    }
    faults.none();
}

/// Query parameters that are somebody's key or signature.
const SIGNED: &[&str] = &[
    "X-Amz-Signature",
    "X-Amz-Credential",
    "X-Amz-Security-Token",
    "AWSAccessKeyId",
    "X-Goog-Signature",
    "X-Goog-Credential",
    "GoogleAccessId",
    "access_token",
    "api_key",
    "apikey",
    "api-key",
    "private_token",
    "client_secret",
    "x-api-key",
];

#[test]
fn a_key_in_the_query_is_not_passed_on() {
    let gate = Gate::start().unwrap();
    let mut faults = Faults::default();
    for name in SIGNED {
        let first = format!("%{:02x}", name.as_bytes()[0]);
        let encoded = format!("{first}{}", &name[1..]);
        for name in [
            (*name).to_owned(),
            name.to_lowercase(),
            name.to_uppercase(),
            encoded,
        ] {
            for (host, path) in [(API, "/allowed/x"), (OPEN, "/open/x")] {
                faults.check(format!("{name} to {host}"), || {
                    let mut tls = gate.tls(host)?;
                    let path = format!("{path}?a=1&{name}={OWN_KEY}&b=2");
                    ask(&mut tls, &request("GET", &path, host, ""), 1)?;
                    ensure!(!gate.upstream.saw(OWN_KEY.as_bytes()), "it arrived");
                    Ok(())
                });
            }
        }
    }
    // The parameter that carries the gate's own is ours alone.
    for name in ["key", "KEY", "%6bey", "k%65y", "key=a&key"] {
        faults.check(name, || {
            let mut tls = gate.tls(OPEN)?;
            let watch = gate.watch();
            let reply = one(ask(
                &mut tls,
                &request("GET", &format!("/query/x?{name}={OWN_KEY}&q=1"), OPEN, ""),
                1,
            )?)?;
            if reply.status == 200 {
                let seen = watch.allowed(1)?;
                ensure!(
                    seen[0].query.as_deref() == Some(&format!("q=1&key={SECRET}-query")),
                    "{seen:?}"
                );
            }
            ensure!(!gate.upstream.saw(OWN_KEY.as_bytes()), "it arrived");
            Ok(())
        });
    }
    faults.none();
    gate.nothing_strayed().unwrap();
}

// === D12: bytes that may not be there ===

#[test]
fn control_bytes_reach_nobody() {
    let gate = Gate::start().unwrap();
    let mut faults = Faults::default();
    let bytes: Vec<u8> = (0..=0x1f).chain([0x7f, 0x80, 0xa0, 0xc0, 0xff]).collect();
    for byte in bytes {
        let at = |template: &str| {
            let (before, after) = template.split_once('@').expect("a place for the byte");
            [before.as_bytes(), &[byte], after.as_bytes()].concat()
        };
        for template in [
            "GET /open/a@b HTTP/1.1\r\nHost: plain.exeat.test\r\n\r\n",
            "GET /open/a?q=@b HTTP/1.1\r\nHost: plain.exeat.test\r\n\r\n",
            "GET /open/a HTTP/1.1\r\nHost: plain.exeat.test\r\nX-@: 1\r\n\r\n",
            "GET /open/a HTTP/1.1\r\nHost: plain.@exeat.test\r\n\r\n",
            "GET /open/a HTTP/1.1@\r\nHost: plain.exeat.test\r\n\r\n",
            "G@ET /open/a HTTP/1.1\r\nHost: plain.exeat.test\r\n\r\n",
        ] {
            faults.check(format!("0x{byte:02x} in {template:?}"), || {
                refused(
                    &gate,
                    &at(template),
                    &["invalid_request", "invalid_host", "unrecognised_protocol"],
                )
            });
        }
        if byte >= 0x80 || byte == b'\t' {
            continue; // opaque to HTTP in a value (RFC 9110 section 5.5)
        }
        faults.check(format!("0x{byte:02x} in a value"), || {
            refused(
                &gate,
                &at("GET /open/a HTTP/1.1\r\nHost: plain.exeat.test\r\nX: a@b\r\n\r\n"),
                &["invalid_request"],
            )
        });
    }
    faults.none();
    for line in gate.journal() {
        let line = line.to_string();
        assert!(
            line.is_ascii() && !line.chars().any(char::is_control),
            "{line}"
        );
    }
}

// === D13: paths ===

#[test]
fn the_path_that_was_judged_is_the_path_that_arrives() {
    let gate = Gate::start().unwrap();
    let mut faults = Faults::default();
    let dots = [
        ".",
        "%2e",
        "%2E",
        "%252e",
        "%25%32%65",
        "%c0%ae",
        "%u002e",
        "\u{ff0e}",
    ];
    let separators = [
        "/", "%2f", "%2F", "%252f", "\\", "%5c", "%5C", "//", ";x=/", "%00/", "/./", "%c0%af",
        "%0a/", "/;/", "%09/",
    ];
    let mut paths = Vec::new();
    for first in dots {
        for second in dots {
            for separator in separators {
                paths.push(format!("/open{separator}{first}{second}{separator}admin"));
            }
        }
    }
    for path in [
        "/open//admin",
        "//open/x",
        "/open/x/..",
        "/open/x/.",
        "/open/%",
        "/open/%4",
        "/open/%zz",
        "/open/a%00",
        "/open/a#/../admin",
        "/OPEN/x",
        "/open%2fx",
        "/open/..;/admin",
        "/open/%ff",
        "/open/ %20",
        "/open/a%0d%0aX:1",
        "/%6fpen/x",
        "/open/%41",
        "/open/a+b",
        "/open/~a",
        "/open/(a)",
        "/open/a%20b",
        "/open/a%2Fb",
        "/open/%e2%82%ac",
    ] {
        paths.push(path.to_owned());
    }
    let mut stream = plain(&gate).unwrap();
    for path in paths {
        faults.check(path.clone().escape_debug(), || {
            let watch = gate.watch();
            let answers = ask(&mut stream, &request("GET", &path, PLAIN, ""), 1);
            if !matches!(&answers, Ok(answers) if answers.iter().all(|answer| answer.field("connection").is_none() && answer.status != 0) && !answers.is_empty()) || path.contains(' ') || path.contains('#') {
                stream = plain(&gate)?;
            }
            let answers = answers?;
            let decisions = watch.decisions(1);
            let requests = watch.requests();
            ensure!(decisions.len() == 1, "{decisions:#?}");
            if requests.is_empty() {
                ensure!(answers.iter().all(|answer| answer.status >= 400), "{answers:?}");
                return Ok(());
            }
            let (judged, arrived) = (decisions[0]["http"]["path"].as_str(), &requests[0].path);
            ensure!(requests.len() == 1 && judged == Some(arrived), "judged {judged:?}, arrived {requests:?}");
            ensure!(arrived.starts_with("/open/"), "{arrived} is not allowed");
            let lower = arrived.to_ascii_lowercase();
            for part in ["..", "%2e", "//", "\\", "%5c", "%25", "%00", "%0d", "%0a", "/./", "#"] {
                ensure!(!lower.contains(part), "{arrived} holds {part}");
            }
            Ok(())
        });
    }
    faults.none();
    gate.nothing_strayed().unwrap();
}

// === D16, H1 to H4: where a credential goes ===

#[test]
fn a_credential_stays_with_its_host_port_and_scheme() {
    let gate = Gate::start().unwrap();
    let mut faults = Faults::default();
    let denied = &["no_rule", "identity_mismatch", "method_not_allowed"];
    faults.check("H1: without TLS", || {
        refused(&gate, &request("GET", "/allowed/x", API, ""), denied)
    });
    for port in [80, 8443, 444, 22] {
        faults.check(format!("H2: TLS on port {port}"), || {
            let mut tls = gate.tls_to(&world(port), API, &[b"http/1.1"])?;
            let watch = gate.watch();
            let host = format!("{API}:{port}");
            watch.refused(
                &ask(&mut tls, &request("GET", "/allowed/x", &host, ""), 1)?,
                denied,
            )
        });
    }
    for (name, host) in [
        ("a.wild.exeat.test", "b.wild.exeat.test"),
        ("a.wild.exeat.test", API),
        ("wild.exeat.test", "wild.exeat.test"),
        ("wild.exeat.test", "a.wild.exeat.test"),
        ("awild.exeat.test", "awild.exeat.test"),
        ("a.wild.exeat.test.evil.test", "a.wild.exeat.test.evil.test"),
        ("exeat.test", "exeat.test"),
    ] {
        faults.check(format!("H3: {name} for {host}"), || {
            let mut tls = gate.tls(name)?;
            let watch = gate.watch();
            watch.refused(
                &ask(&mut tls, &request("GET", "/allowed/x", host, ""), 1)?,
                denied,
            )
        });
    }
    faults.none();
    assert!(!gate.upstream.saw(SECRET.as_bytes()));
    let reply = gate.get("a.wild.exeat.test", "/allowed/x").unwrap();
    assert_eq!(reply.status, 200, "the wildcard itself works");
    gate.nothing_strayed().unwrap();
}

#[test]
fn a_redirect_is_a_new_call() {
    let gate = Gate::start().unwrap();
    let mut faults = Faults::default();
    for (host, address) in [
        (STRANGER, STRANGER),
        ("169.254.169.254", "169.254.169.254"),
        ("127.0.0.1", "127.0.0.1"),
        ("evil.test", STRANGER),
        ("[::1]", "[::1]"),
    ] {
        for port in [80, 443] {
            let location = format!("http://{host}:{port}/latest/meta-data");
            faults.check(location.clone(), || {
                let reply = gate.get(API, &format!("/redirect?to={location}"))?;
                ensure!(
                    reply.status == 302 && reply.field("location") == Some(&location),
                    "{reply:?}"
                );
                // An HTTP client would go there now, with the fields it had.
                let watch = gate.watch();
                let stream = gate.connect(format!("{address}:{port}"));
                let loopback = address == "127.0.0.1" || address == "[::1]";
                if loopback {
                    return Ok(()); // the agent's own loopback: nobody there, and no way out
                }
                let more = format!("Authorization: Bearer {OWN_KEY}\r\n");
                let answers = ask(
                    &mut stream?,
                    &request("GET", "/latest/meta-data", host, &more),
                    1,
                )?;
                watch
                    .refused(
                        &answers,
                        &[
                            "no_rule",
                            "no_policy",
                            "address_forbidden",
                            "identity_mismatch",
                        ],
                    )
                    .map(drop)
            });
        }
    }
    faults.none();
    gate.nothing_strayed().unwrap();
}

// === D17, D18 and F5: much of everything ===

#[test]
fn large_heads_are_refused_and_large_bodies_stream() {
    let gate = Gate::start().unwrap();
    let mut faults = Faults::default();
    let many = |count: usize| {
        (0..count)
            .map(|i| format!("X-{i}: 1\r\n"))
            .collect::<String>()
    };
    for (name, more) in [
        (
            "a field of 64 KiB",
            format!("X: {}\r\n", "a".repeat(64 * 1024)),
        ),
        (
            "a field of 1 MiB",
            format!("X: {}\r\n", "a".repeat(1024 * 1024)),
        ),
        (
            "a name of 70 KiB",
            format!("{}: 1\r\n", "a".repeat(70 * 1024)),
        ),
        ("10 000 fields", many(10_000)),
        ("129 fields", many(129)),
    ] {
        faults.check(name, || {
            let mut stream = plain(&gate)?;
            let watch = gate.watch();
            let answers = ask(&mut stream, &request("GET", "/open/x", PLAIN, &more), 1)?;
            watch.refused(&answers, &["invalid_request", "limit_exceeded"])
        });
    }
    for length in [8 * 1024, 60 * 1024] {
        faults.check(format!("a target of {length}"), || {
            let mut stream = plain(&gate)?;
            let watch = gate.watch();
            let path = format!("/open/{}", "a".repeat(length));
            let answers = ask(&mut stream, &request("GET", &path, PLAIN, ""), 1)?;
            watch.refused(&answers, &["invalid_request", "limit_exceeded"])
        });
    }
    faults.none();

    let before = gate.memory().unwrap();
    let mut stream = plain(&gate).unwrap();
    stream
        .write_all(&request(
            "POST",
            "/digest",
            PLAIN,
            "Transfer-Encoding: chunked\r\n",
        ))
        .unwrap();
    let piece = [b"10000\r\n".to_vec(), vec![b'x'; 0x10000], b"\r\n".to_vec()].concat();
    let (mut most, pieces) = (before, 400);
    for at in 0..pieces {
        stream.write_all(&piece).unwrap();
        if at % 20 == 0 {
            most = most.max(gate.memory().unwrap());
        }
    }
    let answers = ask(&mut stream, b"0\r\n\r\n", 1).unwrap();
    let decision = gate.decisions().pop().unwrap();
    let told = format!("{answers:?}, {:#?}", gate.outcome(&decision));
    assert!(answers.len() == 1, "{told}");
    assert_eq!(answers[0].json()["length"], pieces * 0x10000, "{told}");
    assert!(
        most - before < 24 << 20,
        "memory grew by {} MiB",
        (most - before) >> 20
    );
}

#[test]
fn an_endless_line_is_streamed_and_not_gathered() {
    let gate = Gate::start().unwrap();
    let before = gate.memory().unwrap();
    let mut stream = plain(&gate).unwrap();
    stream
        .write_all(&request("GET", "/endless-line", PLAIN, ""))
        .unwrap();
    let mut buffer = vec![0; 64 * 1024];
    let (start, mut read) = (Instant::now(), 0);
    let first = stream.read(&mut buffer).unwrap();
    assert!(
        first > 0 && start.elapsed() < Duration::from_secs(2),
        "the first bytes are late"
    );
    while read < 200 << 20 && start.elapsed() < Duration::from_secs(10) {
        read += stream.read(&mut buffer).unwrap();
    }
    assert!(read > 10 << 20, "only {read} bytes came");
    // A reader that stops is not read for.
    std::thread::sleep(Duration::from_millis(500));
    let grown = gate.memory().unwrap().saturating_sub(before);
    assert!(grown < 24 << 20, "memory grew by {} MiB", grown >> 20);
}

#[test]
fn trailers_are_data_and_nothing_else() {
    let gate = Gate::start().unwrap();
    let mut faults = Faults::default();
    let names = [
        "Authorization",
        "Host",
        "Content-Length",
        "Transfer-Encoding",
        "Cookie",
        "X-Forwarded-For",
        "X-Api-Key",
        "Content-Type",
        "Trailer",
        "TE",
        "Connection",
        "Proxy-Authorization",
        "Expect",
        "X-Http-Method-Override",
    ];
    for name in names {
        for spelling in [name.to_owned(), name.to_lowercase(), name.to_uppercase()] {
            faults.check(spelling.clone(), || {
                let mut tls = gate.tls(API)?;
                let watch = gate.watch();
                let mut bytes = request(
                    "POST",
                    "/allowed/x",
                    API,
                    &format!("Transfer-Encoding: chunked\r\nTrailer: X-Checksum, {spelling}\r\n"),
                );
                bytes.extend(
                    format!("5\r\nhello\r\n0\r\nX-Checksum: abc\r\n{spelling}: {OWN_KEY}\r\n\r\n")
                        .into_bytes(),
                );
                let reply = one(ask(&mut tls, &bytes, 1)?)?;
                ensure!(reply.status == 200, "{reply:?}");
                let seen = watch.allowed(1)?;
                ensure!(
                    seen[0]
                        .trailers
                        .get("x-checksum")
                        .is_some_and(|value| value == "abc"),
                    "{seen:?}"
                );
                ensure!(!seen[0].mentions(OWN_KEY), "{seen:?}");
                Ok(())
            });
        }
    }
    faults.none();
    // And back.
    let mut tls = gate.tls(API).unwrap();
    let bytes = request("GET", "/trailers", API, "TE: trailers\r\n");
    tls.write_all(&bytes).unwrap();
    let (mut raw, mut buffer, start) = (Vec::new(), [0; 4096], Instant::now());
    while !raw.ends_with(b"\r\n\r\n")
        || !raw.windows(5).any(|w| w == b"0\r\nx-" || w == b"0\r\n\r\n")
    {
        assert!(start.elapsed() < PROMPT, "{}", raw.escape_ascii());
        let length = tls.read(&mut buffer).unwrap();
        assert!(length > 0, "{}", raw.escape_ascii());
        raw.extend_from_slice(&buffer[..length]);
    }
    assert!(
        raw.windows(18).any(|w| w == b"x-checksum: abc123"),
        "{}",
        raw.escape_ascii()
    );
}

// === the ordinary, which an attack must not need ===

#[test]
fn head_and_half_close_are_answered() {
    let gate = Gate::start().unwrap();
    let mut tls = gate.tls(API).unwrap();
    let watch = gate.watch();
    tls.write_all(&request("HEAD", "/bytes/1000", API, ""))
        .unwrap();
    let mut raw = vec![0; 4096];
    let length = tls.read(&mut raw).unwrap();
    let text = String::from_utf8_lossy(&raw[..length]).to_lowercase();
    assert!(
        text.starts_with("http/1.1 200") && text.contains("content-length: 1000"),
        "{text}"
    );
    assert!(text.ends_with("\r\n\r\n"), "a body for HEAD: {text}");
    assert_eq!(watch.allowed(1).unwrap()[0].method, "HEAD");
    // The connection is good for the next one.
    let reply = one(ask(&mut tls, &request("GET", "/allowed/x", API, ""), 1).unwrap()).unwrap();
    assert_eq!(reply.status, 200);

    let mut stream = plain(&gate).unwrap();
    stream
        .write_all(&request("GET", "/open/x", PLAIN, ""))
        .unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

/// The secret is in the request that arrives and in nothing else.
#[test]
fn the_secret_is_seen_upstream_only() {
    let gate = Gate::start().unwrap();
    let watch = gate.watch();
    // The upstream's echo would give it back; a status does not.
    let reply = gate.get(API, "/status/401").unwrap();
    assert_eq!(reply.status, 401);
    let seen: Vec<Received> = watch.allowed(1).unwrap();
    assert_eq!(
        seen[0].header("authorization"),
        Some(&*format!("Bearer {SECRET}-api"))
    );
    assert!(!reply.head.contains(SECRET) && !String::from_utf8_lossy(&reply.body).contains(SECRET));
    for path in ["/admin", "/cut"] {
        let reply = gate.get(API, path);
        assert!(!format!("{reply:?}").contains(SECRET), "{reply:?}");
    }
    gate.nothing_strayed().unwrap();
}

// === B4: DNS inside of HTTPS ===

/// A question to a resolver on an allowed host is a request like any other: judged by its path.
#[test]
fn a_resolver_on_an_allowed_host_is_a_path_like_any_other() {
    let gate = Gate::start().unwrap();
    let mut faults = Faults::default();
    let question = "AAABAAABAAAAAAAAB2F0dGFja2VyB2V4YW1wbGUAAAEAAQ";
    for path in ["/dns-query", "/resolve", "/open/../dns-query"] {
        for (method, more, body) in [
            ("GET", "Accept: application/dns-message\r\n".to_owned(), ""),
            (
                "POST",
                "Content-Type: application/dns-message\r\nContent-Length: 17\r\n".to_owned(),
                "\0\0\x01\0\0\x01\0\0\0\0\0\0\0\0\x01\0\x01",
            ),
        ] {
            let target = if method == "GET" {
                format!("{path}?dns={question}")
            } else {
                path.to_owned()
            };
            let mut bytes = request(method, &target, PLAIN, &more);
            bytes.extend_from_slice(body.as_bytes());
            faults.check(format!("{method} {target}"), || {
                refused(
                    &gate,
                    &bytes,
                    &["no_rule", "invalid_path", "invalid_request"],
                )
            });
        }
    }
    faults.none();
    gate.nothing_strayed().unwrap();
}
