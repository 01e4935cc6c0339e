//! Names and addresses against the gate: whom a name leads to, what a number spells, which ports
//! are the gate's own, and what an agent can do to the process beside it.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, TcpListener, TcpStream, UdpSocket},
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use exeat_tests::{
    gate::{Faults, Gate, PROMPT, SECRET, STRANGER, ask, pod_address, request, world},
    netns::Persona,
};

const API: &str = "api.exeat.test";
const PLAIN: &str = "plain.exeat.test";

/// Where the explicit listener is.
const PROXY: &str = "127.0.0.1:15002";

// === A15, A17, B8, B9: whom a name may lead to ===

/// Allows names without naming any special-purpose range, and one with a range that is wide.
const ADDRESSES: &str = r#"
apiVersion: exeat.dev/v1alpha1
kind: ToolPolicy
metadata: {name: addresses}
spec:
  tools:
  - name: none
    http: {hosts: ["*.none.exeat.test"]}
    credential: api
  - name: plain
    http: {hosts: ["*.none.exeat.test"], scheme: http}
  - name: everything
    http: {hosts: ["*.wide.exeat.test"], addresses: [0.0.0.0/0, "::/0"]}
  - name: raw
    tcp: {host: db.none.exeat.test, port: 5432}
  credentials:
  - {name: api, secret: {name: api, key: token}, inject: {bearer: {}}}
"#;

/// Addresses that no rule may lead to unless it names them, in every dress.
const SPECIAL: &[&str] = &[
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "10.77.0.1",
    "100.64.0.1",
    "100.100.100.200",
    "127.0.0.1",
    "127.255.255.254",
    "169.254.1.1",
    "169.254.169.254",
    "169.254.170.2",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.1",
    "192.0.2.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::ffff:10.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "::127.0.0.1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b::7f00:1",
    "64:ff9b:1::a9fe:a9fe",
    "2002:a9fe:a9fe::1",
    "2002:7f00:1::",
    "2001:0:53aa:64c:0:0:5601:5601",
    "fc00::1",
    "fd00:ec2::254",
    "fd77::1",
    "fe80::1",
    "ff02::1",
    "2001:db8::1",
    "100::1",
];

/// The ones that even a rule for everything does not reach.
const METADATA: &[&str] = &[
    "169.254.169.254",
    "100.100.100.200",
    "168.63.129.16",
    "169.254.170.2",
    "fd00:ec2::254",
    "::ffff:169.254.169.254",
    "64:ff9b::a9fe:a9fe",
    "2002:a9fe:a9fe::1",
];

#[test]
fn a_name_leads_to_no_special_address() {
    let mut words = Vec::new();
    for (at, address) in SPECIAL.iter().enumerate() {
        words.extend([
            "--resolve".to_owned(),
            format!("n{at}.none.exeat.test={address}"),
        ]);
    }
    for (at, address) in METADATA.iter().enumerate() {
        words.extend([
            "--resolve".to_owned(),
            format!("m{at}.wide.exeat.test={address}"),
        ]);
    }
    words.extend([
        "--resolve".to_owned(),
        "db.none.exeat.test=169.254.169.254".to_owned(),
    ]);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let gate = Gate::with(ADDRESSES, &words).unwrap();
    let mut faults = Faults::default();
    let names = (0..SPECIAL.len()).map(|at| (SPECIAL[at], format!("n{at}.none.exeat.test")));
    let wide = (0..METADATA.len()).map(|at| (METADATA[at], format!("m{at}.wide.exeat.test")));
    for (address, name) in names.chain(wide) {
        faults.check(format!("{address} by TLS"), || {
            let mut tls = gate.tls(&name)?;
            let start = Instant::now();
            let answers = ask(&mut tls, &request("GET", "/x", &name, ""), 1)?;
            ensure!(
                answers.len() == 1 && answers[0].code().as_deref() == Some("address_forbidden"),
                "{answers:?}"
            );
            ensure!(start.elapsed() < Duration::from_secs(2), "late");
            Ok(())
        });
        if name.contains("none") {
            faults.check(format!("{address} in clear"), || {
                let answers = ask(
                    &mut gate.connect(world(80))?,
                    &request("GET", "/x", &name, ""),
                    1,
                )?;
                ensure!(
                    answers.len() == 1 && answers[0].code().as_deref() == Some("address_forbidden"),
                    "{answers:?}"
                );
                Ok(())
            });
        }
    }
    faults.none();
    let frames: Vec<_> = gate
        .capture
        .take()
        .into_iter()
        .filter(|frame| !frame.neighbour)
        .collect();
    assert!(frames.is_empty(), "something was dialled: {frames:?}");
    assert!(gate.stranger.connections().is_empty() && gate.upstream.connections().is_empty());
}

// === D14, D15: spellings ===

/// Opens a tunnel and says something in it, or sends a request for a whole URL.
fn by_proxy(gate: &Gate, host: &str) -> Result<()> {
    for port in [80, 443, 15_001, 15_021] {
        let target = format!("{host}:{port}");
        let watch = gate.watch();
        let mut stream = gate.connect(PROXY)?;
        let more = "X: the agents payload\r\n";
        let mut bytes = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n").into_bytes();
        bytes.extend(request("GET", "/latest/meta-data", host, more));
        stream.write_all(&bytes)?;
        let mut all = Vec::new();
        let start = Instant::now();
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = stream.read(&mut buffer) {
            all.extend_from_slice(&buffer[..length]);
            if holds(&all, b"\"egress_denied\"")
                || holds(&all, b"\"invalid_request\"")
                || holds(&all, b"error\":{")
            {
                break;
            }
            ensure!(
                start.elapsed() < PROMPT,
                "never refused: {}",
                all.escape_ascii()
            );
        }
        ensure!(
            start.elapsed() < PROMPT,
            "never refused: {}",
            all.escape_ascii()
        );
        ensure!(!holds(&all, b"the-gates"), "a secret came back");
        watch.denied(DENIED)?;

        let watch = gate.watch();
        let bytes = format!(
            "GET http://{target}/latest/meta-data HTTP/1.1\r\nHost: {target}\r\n{more}\r\n"
        );
        let answers = ask(&mut gate.connect(PROXY)?, bytes.as_bytes(), 1)?;
        watch.refused(&answers, DENIED)?;
    }
    Ok(())
}

const DENIED: &[&str] = &[
    "no_rule",
    "invalid_host",
    "invalid_request",
    "identity_mismatch",
    "address_forbidden",
    "unrecognised_protocol",
    "self_call",
];

fn holds(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[test]
fn an_address_is_an_address_in_every_spelling() {
    let gate = Gate::start().unwrap();
    let mut faults = Faults::default();
    for host in [
        "127.0.0.1",
        "127.1",
        "127.0.1",
        "2130706433",
        "0x7f000001",
        "0x7f.1",
        "0X7F.0.0.0x1",
        "0177.0.0.1",
        "017700000001",
        "127.0.0.1.",
        "0",
        "0x0",
        "00",
        "0.0.0.0",
        "169.254.169.254",
        "0xa9fea9fe",
        "2852039166",
        "0251.0376.0251.0376",
        "0xa9.0xfe.0xa9.0xfe",
        "169.254.43518",
        "169.16689662",
        "4294967295",
        "4294967296",
        "203.0.113.66",
        "0xcb007142",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[0:0:0:0:0:0:0:1]",
        "[fd00:ec2::254]",
        "[::1%25lo]",
        "[::1%lo]",
        "[v1.x]",
        "[]",
        "localhost",
        "LOCALHOST.",
        "localhost.localdomain",
        "ip6-localhost",
        "10.77.0.2",
        "256.1.1.1",
        "1.2.3.4.5",
        "127.0.0.0x",
        "127.0..1",
    ] {
        faults.check(host, || by_proxy(&gate, host));
    }
    // Other digits, other dots, other alphabets, other names for the allowed one.
    for host in [
        "\u{ff11}\u{ff12}\u{ff17}.0.0.1",
        "127\u{3002}0\u{3002}0\u{3002}1",
        "\u{2460}\u{2461}\u{2466}.0.0.1",
        "\u{661}\u{662}\u{667}.0.0.1",
        "\u{430}pi.exeat.test",
        "ap\u{456}.exeat.test",
        "api.\u{435}xeat.test",
        "xn--pi-7kc.exeat.test",
        "xn--ap-fja.exeat.test",
        "xn--api.exeat.test",
        "api.exeat.test.evil.test",
        "api-exeat.test",
        "apiexeat.test",
        "api.exeat.tes",
        "xapi.exeat.test",
        "api.exeat.test-",
        "\u{ad}api.exeat.test.x",
        "api\u{200d}.exeat.test",
        "api.exeat\u{ff0e}test.x",
        "%61pi.exeat.test",
        "api.exeat.test%2f",
        "api.exeat.test%23",
        "exeat.test",
        "test",
    ] {
        faults.check(host.escape_unicode(), || {
            let watch = gate.watch();
            let bytes = format!("GET http://{host}/x HTTP/1.1\r\nHost: {host}\r\n\r\n");
            let answers = ask(&mut gate.connect(PROXY)?, bytes.as_bytes(), 1)?;
            watch.refused(&answers, DENIED)?;
            let watch = gate.watch();
            let answers = ask(
                &mut gate.connect(world(80))?,
                &request("GET", "/x", host, ""),
                1,
            )?;
            watch.refused(&answers, DENIED)
        });
    }
    faults.none();
    gate.nothing_strayed().unwrap();
}

#[test]
fn the_proxys_door_gives_nothing_that_the_other_does_not() {
    let gate = Gate::start().unwrap();
    // What may pass, passes.
    let watch = gate.watch();
    let bytes = format!(
        "GET http://{PLAIN}/open/x HTTP/1.1\r\nHost: {PLAIN}\r\nProxy-Authorization: Basic eDp5\r\nProxy-Connection: keep-alive\r\n\r\n"
    );
    let answers = ask(&mut gate.connect(PROXY).unwrap(), bytes.as_bytes(), 1).unwrap();
    assert_eq!(answers[0].status, 200, "{answers:?}");
    let seen = watch.allowed(1).unwrap();
    assert!(
        seen[0].header("proxy-authorization").is_none()
            && seen[0].header("proxy-connection").is_none()
    );

    let mut faults = Faults::default();
    for head in [
        format!("GET http://{PLAIN}/open/x HTTP/1.1\r\nHost: {API}\r\n\r\n"),
        format!("GET http://{API}/allowed/x HTTP/1.1\r\nHost: {API}\r\n\r\n"),
        format!("GET https://{API}/allowed/x HTTP/1.1\r\nHost: {API}\r\n\r\n"),
        format!("GET http://{API}:443/allowed/x HTTP/1.1\r\nHost: {API}:443\r\n\r\n"),
        format!("GET http://u:p@{PLAIN}/open/x HTTP/1.1\r\nHost: {PLAIN}\r\n\r\n"),
        format!("GET http://{PLAIN}:81/open/x HTTP/1.1\r\nHost: {PLAIN}:81\r\n\r\n"),
        format!("GET ftp://{PLAIN}/open/x HTTP/1.1\r\nHost: {PLAIN}\r\n\r\n"),
        format!("GET /open/x HTTP/1.1\r\nHost: {PLAIN}\r\n\r\n"),
        format!("GET http:///open/x HTTP/1.1\r\nHost: {PLAIN}\r\n\r\n"),
        format!("CONNECT {API} HTTP/1.1\r\nHost: {API}\r\n\r\n"),
        format!("CONNECT {API}:0 HTTP/1.1\r\nHost: {API}:0\r\n\r\n"),
        format!("CONNECT u@{API}:443 HTTP/1.1\r\nHost: {API}:443\r\n\r\n"),
        format!("CONNECT {API}:443 HTTP/1.1\r\nHost: evil.test:443\r\n\r\n"),
        format!("CONNECT /x HTTP/1.1\r\nHost: {API}\r\n\r\n"),
        format!("CONNECT https://{API}:443/ HTTP/1.1\r\nHost: {API}\r\n\r\n"),
        format!(
            "POST http://{PLAIN}/open/x HTTP/1.1\r\nHost: {PLAIN}\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
        ),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
    ] {
        faults.check(head.escape_debug(), || {
            let watch = gate.watch();
            let answers = ask(&mut gate.connect(PROXY)?, head.as_bytes(), 1)?;
            watch.refused(&answers, DENIED)
        });
    }
    // In a tunnel, everything has to agree with what the tunnel was opened for.
    for (target, name, host) in [
        ("open.exeat.test:443", API, API),
        ("api.exeat.test:443", API, "open.exeat.test"),
        ("api.exeat.test:8443", API, API),
        ("evil.test:443", API, API),
    ] {
        faults.check(format!("{target}, {name}, {host}"), || {
            let mut tcp = gate.connect(PROXY)?;
            tcp.write_all(
                format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n").as_bytes(),
            )?;
            let mut head = [0; 512];
            let length = tcp.read(&mut head)?;
            ensure!(
                head.starts_with(b"HTTP/1.1 200") && head[..length].ends_with(b"\r\n\r\n"),
                "no tunnel"
            );
            let config = rustls::ClientConfig::builder()
                .with_root_certificates(gate.roots()?)
                .with_no_client_auth();
            let mut session = rustls::ClientConnection::new(config.into(), name.try_into()?)?;
            let watch = gate.watch();
            while session.is_handshaking() {
                if session.complete_io(&mut tcp).is_err() {
                    watch.denied(DENIED)?;
                    return Ok(());
                }
            }
            let answers = ask(
                &mut rustls::Stream::new(&mut session, &mut tcp),
                &request("GET", "/allowed/x", host, ""),
                1,
            )?;
            watch.refused(&answers, DENIED).map(drop)
        });
    }
    // A proxy within the tunnel is none.
    faults.check("CONNECT in a tunnel", || {
        let watch = gate.watch();
        let inner = "CONNECT evil.test:443 HTTP/1.1\r\nHost: evil.test:443\r\n\r\n";
        let bytes = format!("CONNECT {PLAIN}:80 HTTP/1.1\r\nHost: {PLAIN}:80\r\n\r\n{inner}");
        let answers = ask(&mut gate.connect(PROXY)?, bytes.as_bytes(), 2)?;
        ensure!(
            answers.len() <= 1 || answers[1].status >= 400,
            "{answers:?}"
        );
        watch.denied(DENIED)
    });
    faults.none();
    assert!(!gate.upstream.saw(SECRET.as_bytes()));
    gate.nothing_strayed().unwrap();
}

// === B5, B7, B11, B14, B16: DNS ===

fn query(name: &[&[u8]], kind: u16) -> Vec<u8> {
    let mut packet = b"\x12\x34\x01\x00\0\x01\0\0\0\0\0\0".to_vec();
    for label in name {
        packet.push(u8::try_from(label.len()).unwrap());
        packet.extend_from_slice(label);
    }
    packet.push(0);
    packet.extend(kind.to_be_bytes());
    packet.extend([0, 1]);
    packet
}

fn dns(gate: &Gate, server: &str, packet: &[u8]) -> Result<Vec<u8>> {
    let socket = gate.agent(|| UdpSocket::bind("0.0.0.0:0"))??;
    socket.set_read_timeout(Some(Duration::from_secs(2)))?;
    socket.send_to(packet, format!("{server}:53"))?;
    let mut answer = vec![0; 2048];
    let length = socket.recv(&mut answer)?;
    answer.truncate(length);
    Ok(answer)
}

fn a_record(answer: &[u8]) -> Option<Ipv4Addr> {
    let one = answer.get(6..8) == Some(&[0, 1]);
    let tail = answer.len().checked_sub(4)?;
    let bytes: [u8; 4] = answer.get(tail..)?.try_into().ok()?;
    one.then(|| bytes.into())
}

#[test]
fn a_name_is_answered_here_and_asked_nowhere() {
    let gate = Gate::start().unwrap();
    let api: &[&[u8]] = &[b"api", b"exeat", b"test"];
    for server in ["8.8.8.8", "1.1.1.1", STRANGER, "10.77.0.1"] {
        for spelling in [api, &[b"API", b"ExEaT", b"tEsT"]] {
            let answer = dns(&gate, server, &query(spelling, 1)).unwrap();
            let address = a_record(&answer).expect("an address");
            assert_eq!(address.octets()[0], 198, "{address} is no virtual one");
            // It stands for the name, whatever is then said; and the name must be said as well.
            let mut tls = gate
                .tls_to(&format!("{address}:443"), API, &[b"http/1.1"])
                .unwrap();
            let answers = ask(&mut tls, &request("GET", "/allowed/x", API, ""), 1).unwrap();
            assert_eq!(answers[0].status, 200);
            let watch = gate.watch();
            assert!(
                gate.tls_to(&format!("{address}:443"), "open.exeat.test", &[b"http/1.1"])
                    .is_err()
            );
            watch.denied(&["identity_mismatch"]).unwrap();
            let mut config = rustls::ClientConfig::builder()
                .with_root_certificates(gate.roots().unwrap())
                .with_no_client_auth();
            config.enable_sni = false;
            let watch = gate.watch();
            assert!(
                gate.tls_with(&format!("{address}:443"), API, config)
                    .is_err()
            );
            watch.denied(&["missing_sni"]).unwrap();
        }
    }
    let long = [b'x'; 63];
    let refused: [&[&[u8]]; 8] = [
        &[b"evil", b"test"],
        &[b"c2VjcmV0IHBheWxvYWQ", b"attacker", b"test"],
        &[&long, &long, &long, b"attacker", b"test"],
        &[b"x", b"api", b"exeat", b"test"],
        &[b"exeat", b"test"],
        &[b"api", b"exeat", b"test", b"evil", b"test"],
        &[b"wild", b"exeat", b"test"],
        &[b"169", b"254", b"169", b"254"],
    ];
    for name in refused {
        for kind in [1, 28, 16, 255, 65, 64, 10, 15, 33, 5] {
            let answer = dns(&gate, "8.8.8.8", &query(name, kind)).unwrap();
            assert!(
                answer[3] & 15 != 0 && answer[6..8] == [0, 0],
                "{kind} of {name:?}: {}",
                answer.escape_ascii()
            );
        }
    }
    for kind in [16, 255, 65, 64, 10, 15, 33, 5, 2, 6, 252] {
        let answer = dns(&gate, "8.8.8.8", &query(api, kind)).unwrap();
        assert_eq!(&answer[6..8], [0, 0], "records of type {kind}");
    }
    gate.nothing_strayed().unwrap();
}

#[test]
fn broken_questions_break_nothing() {
    let gate = Gate::start().unwrap();
    let good = query(&[b"api", b"exeat", b"test"], 1);
    let mut packets: Vec<Vec<u8>> = (0..good.len()).map(|cut| good[..cut].to_vec()).collect();
    for at in 0..good.len() {
        for byte in [0, 0x3f, 0x40, 0xc0, 0xff] {
            let mut changed = good.clone();
            changed[at] = byte;
            packets.push(changed);
        }
    }
    let mut looped = good[..12].to_vec();
    looped.extend(b"\xc0\x0c\0\x01\0\x01");
    packets.push(looped);
    let mut two = good.clone();
    two[5] = 2;
    two.extend(&good[12..]);
    packets.push(two);
    packets.push([&good[..], &[0; 1400]].concat());
    let socket = gate
        .agent(|| UdpSocket::bind("0.0.0.0:0"))
        .unwrap()
        .unwrap();
    for packet in &packets {
        socket.send_to(packet, "8.8.8.8:53").unwrap();
    }
    // Over TCP: the same, and what is no DNS at all.
    for bytes in [
        &b"\xff\xffGET / HTTP/1.1\r\n\r\n"[..],
        b"\0\0",
        b"\0\x01x",
        b"\0\x0cxxxxxxxxxxxx",
        &[&[0, u8::try_from(good.len()).unwrap()][..], &good].concat(),
    ] {
        let mut stream = gate.connect(format!("{STRANGER}:53")).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(1)))
            .unwrap();
        let _sent = stream.write_all(bytes);
        let _answer = stream.read(&mut [0; 512]);
    }
    assert!(
        a_record(&dns(&gate, "8.8.8.8", &good).unwrap()).is_some(),
        "the server is gone"
    );
    gate.nothing_strayed().unwrap();
}

#[test]
fn a_flood_of_questions_is_bounded() {
    let gate = Gate::start().unwrap();
    let before = gate.memory().unwrap();
    let socket = gate
        .agent(|| UdpSocket::bind("0.0.0.0:0"))
        .unwrap()
        .unwrap();
    let (start, mut sent) = (Instant::now(), 0_u32);
    while start.elapsed() < Duration::from_secs(4) {
        let label = format!("n{sent}");
        let host = if sent % 2 == 0 { &b"wild"[..] } else { b"evil" };
        // Neither is anybody waiting for the answers.
        let _sent = socket.send_to(
            &query(&[label.as_bytes(), host, b"exeat", b"test"], 1),
            "8.8.8.8:53",
        );
        sent += 1;
    }
    assert!(gate.get(API, "/allowed/x").unwrap().status == 200 && sent > 1000);
    // B6: names that the wildcard allows, each a message to the zone's owner, run into a budget.
    let over = |record: &serde_json::Value| {
        let name = record["dns"]["name"].as_str().unwrap_or_default();
        record["decision"] == "deny" && name.ends_with(".wild.exeat.test")
    };
    assert!(gate.decisions().iter().any(over), "no budget for new names");
    let grown = gate.memory().unwrap().saturating_sub(before);
    assert!(
        grown < 48 << 20,
        "memory grew by {} MiB in {sent} questions",
        grown >> 20
    );
    gate.nothing_strayed().unwrap();
}

// === A26, A27, J2, J9 ===

#[test]
fn the_gates_own_ports_lead_nowhere() {
    let gate = Gate::start().unwrap();
    for target in [
        "127.0.0.1:15001",
        "127.0.0.2:15001",
        "10.77.0.2:15001",
        "[::1]:15001",
    ] {
        // Before it: the connection itself is what is refused.
        let watch = gate.watch();
        let Ok(mut stream) = gate.connect(target) else {
            continue; // refused by the kernel: that is an answer too
        };
        let answers = ask(&mut stream, &request("GET", "/allowed/x", API, ""), 1).unwrap();
        watch.refused(&answers, &["self_call"]).unwrap();
    }
    for port in [15_001, 15_002, 15_053, 15_021] {
        // By way of the gate itself.
        let watch = gate.watch();
        for host in ["127.0.0.1", "10.77.0.2"] {
            let bytes =
                format!("GET http://{host}:{port}/ HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n");
            let answers = ask(&mut gate.connect(PROXY).unwrap(), bytes.as_bytes(), 1).unwrap();
            assert!(
                answers.iter().all(|answer| answer.status >= 400),
                "{answers:?}"
            );
        }
        watch.denied_times(2, DENIED).unwrap();
    }
    // From outside only the probe's port is there.
    for port in [15_001, 15_002, 15_053] {
        let target = pod_address(port).parse().unwrap();
        let reached = gate
            .pod
            .outside
            .run(Persona::Root, || {
                TcpStream::connect_timeout(&target, Duration::from_secs(1))
            })
            .unwrap();
        assert!(reached.is_err(), "{port} is open to the world");
    }
    drop(gate.capture.take());
    gate.healthy().unwrap();
}

/// H16: whoever in the pod uses the gate, its record names the user that did.
#[test]
fn another_user_of_the_pod_is_on_record() {
    let gate = Gate::start().unwrap();
    for (persona, uid) in [(Persona::Agent, 1000), (Persona::DefaultRoot, 0)] {
        for target in [world(80), PROXY.to_owned()] {
            let to: std::net::SocketAddr = target.parse().unwrap();
            let path = "/open/x";
            let bytes = if target == PROXY {
                format!("GET http://{PLAIN}{path} HTTP/1.1\r\nHost: {PLAIN}\r\n\r\n").into_bytes()
            } else {
                request("GET", path, PLAIN, "")
            };
            let watch = gate.watch();
            let mut stream = gate
                .pod
                .inside
                .run(persona, || TcpStream::connect_timeout(&to, PROMPT))
                .unwrap()
                .unwrap();
            let answers = ask(&mut stream, &bytes, 1).unwrap();
            assert_eq!(answers[0].status, 200, "{target}");
            let decisions = watch.decisions(1);
            assert_eq!(
                decisions[0]["caller"]["uid"], uid,
                "{target}: {decisions:?}"
            );
        }
    }
    // Denied as well, and of another family.
    let watch = gate.watch();
    let mut stream = gate.connect("[2001:db8::9]:80").unwrap();
    ask(&mut stream, &request("GET", "/", "evil.test", ""), 1).unwrap();
    assert_eq!(watch.decisions(1)[0]["caller"]["uid"], 1000);
    gate.nothing_strayed().unwrap();
}

/// The gate notices that the rules around it are gone, or that others were put before them.
#[test]
fn a_gate_that_is_not_confined_is_not_ready() {
    let gate = Gate::with(exeat_tests::gate::POLICY, &["--self-test"]).unwrap();
    let page = |path: &str| -> String {
        gate.pod
            .outside
            .run(Persona::Root, || {
                let mut stream =
                    TcpStream::connect_timeout(&pod_address(15_021).parse().unwrap(), PROMPT)
                        .unwrap();
                stream.write_all(&request("GET", path, "x", "")).unwrap();
                let mut text = String::new();
                stream.read_to_string(&mut text).unwrap();
                text
            })
            .unwrap()
    };
    let until = |ready: bool| {
        let start = Instant::now();
        loop {
            let text = page("/healthz/ready");
            if text.starts_with("HTTP/1.1 200") == ready {
                break;
            }
            assert!(start.elapsed() < Duration::from_secs(20), "{text}");
            std::thread::sleep(Duration::from_millis(100));
        }
        let metric = format!("exeat_self_test_passed {}\n", u8::from(ready));
        assert!(page("/metrics").contains(&metric));
    };
    until(true);
    let inside = |program: &str, words: &[&str]| gate.pod.inside.command(program, words).unwrap();
    let init = exeat_tests::governed::program("exeat-init").unwrap();
    for opened in [
        "insert rule inet exeat output accept",
        "flush chain inet exeat output",
        "delete table inet exeat",
    ] {
        let words: Vec<&str> = opened.split(' ').collect();
        if opened.starts_with("flush") {
            // Its policy is to drop: shut, but not as planned; the gate itself gets nowhere.
            inside("nft", &["add", "rule", "inet", "exeat", "input", "accept"]);
            inside(
                "nft",
                &[
                    "add",
                    "chain",
                    "inet",
                    "exeat",
                    "output",
                    "{ policy accept; }",
                ],
            );
        }
        if opened.starts_with("delete") {
            // Else no frame leaves at all, the probe's answer among them: none bears the stamp.
            inside("nft", &["delete", "table", "netdev", "exeat"]);
        }
        inside("nft", &words);
        until(false);
        assert!(page("/healthz/ready").contains("self-test"));
        inside(init.to_str().unwrap(), &["apply"]);
        until(true);
    }
    assert!(gate.log().contains("the self-test failed"));
}

/// A24: the pod is told to end, and the agent does not care.
#[test]
fn a_gate_that_is_told_to_stop_opens_nothing() {
    use nix::{
        sys::signal::{Signal, kill},
        unistd::Pid,
    };
    let gate = Gate::with(exeat_tests::gate::POLICY, &["--grace-seconds", "2"]).unwrap();
    // Held open for all of the grace.
    let mut held = gate.connect(world(80)).unwrap();
    held.write_all(b"POST /open/x HTTP/1.1\r\nHost: plain.exeat.test\r\nContent-Length: 9\r\n\r\n")
        .unwrap();
    drop(gate.capture.take());
    let process = Pid::from_raw(i32::try_from(gate.process()).unwrap());
    kill(process, Signal::SIGTERM).unwrap();
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(4) {
        gate.agent(|| {
            for to in ["203.0.113.66:443", "[2001:db8::9]:443"] {
                let to = to.parse::<std::net::SocketAddr>().unwrap();
                if let Ok(mut stream) = TcpStream::connect_timeout(&to, Duration::from_secs(1)) {
                    let _cut = stream.write_all(b"the agent's own words");
                }
                let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
                let sent = UdpSocket::bind(any)
                    .unwrap()
                    .send_to(b"the agent's own words", to);
                assert!(sent.is_err(), "{to}");
            }
        })
        .unwrap();
        std::thread::sleep(Duration::from_millis(20));
    }
    let gone = gate.agent(|| {
        TcpStream::connect_timeout(&"203.0.113.66:443".parse().unwrap(), Duration::from_secs(1))
    });
    assert!(gone.unwrap().is_err(), "somebody is still there");
    for frame in gate.capture.take() {
        assert!(!frame.holds(b"the agent's own words"), "{frame:?}");
    }
    gate.nothing_strayed().unwrap();
}

#[test]
fn a_squatted_port_stops_the_start_and_opens_nothing() {
    // The agent is there first, on one of the gate's ports.
    for port in [15_001, 15_002, 15_053, 15_021] {
        let pod = exeat_tests::netns::Pod::new().unwrap();
        let capture = exeat_tests::sink::Capture::start(&pod).unwrap();
        let init = exeat_tests::governed::program("exeat-init").unwrap();
        pod.inside
            .command(init.to_str().unwrap(), &["apply"])
            .unwrap();
        drop(capture.take());
        let squatter = pod
            .inside
            .run(Persona::Agent, || {
                TcpListener::bind((Ipv4Addr::LOCALHOST, port))
            })
            .unwrap()
            .unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("policy.yaml"), ADDRESSES).unwrap();
        let sidecar = exeat_tests::governed::program("exeat-sidecar").unwrap();
        let output = pod
            .inside
            .output(
                "timeout",
                &[
                    "5",
                    sidecar.to_str().unwrap(),
                    "--policy",
                    folder.path().join("policy.yaml").to_str().unwrap(),
                    "--audit",
                    folder.path().join("journal").to_str().unwrap(),
                ],
            )
            .unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(78), "port {port}: {told}");
        assert!(told.contains(&port.to_string()), "{told}");
        let reached = pod
            .inside
            .run(Persona::Agent, || {
                TcpStream::connect_timeout(
                    &"203.0.113.66:443".parse().unwrap(),
                    Duration::from_secs(1),
                )
                .map(drop)
            })
            .unwrap();
        // Where the squatter holds the redirect's target, it reaches itself and nobody else.
        assert!(port == 15_001 || reached.is_err());
        assert!(capture.escapes().is_empty());
        drop(squatter);
    }
}

#[test]
fn the_process_beside_the_agent_is_out_of_its_reach() {
    use nix::{
        errno::Errno,
        sys::{
            signal::{Signal, kill},
            uio::{RemoteIoVec, process_vm_readv},
        },
        unistd::Pid,
    };
    let gate = Gate::start().unwrap();
    let process = Pid::from_raw(i32::try_from(gate.process()).unwrap());
    gate.agent(|| {
        for signal in [
            Signal::SIGSTOP,
            Signal::SIGKILL,
            Signal::SIGTERM,
            Signal::SIGUSR1,
            Signal::SIGHUP,
            Signal::SIGQUIT,
        ] {
            assert_eq!(kill(process, signal), Err(Errno::EPERM), "{signal}");
        }
        let mut buffer = [0; 8];
        let mut local = [std::io::IoSliceMut::new(&mut buffer)];
        let read = process_vm_readv(
            process,
            &mut local,
            &[RemoteIoVec {
                base: 0x40_0000,
                len: 8,
            }],
        );
        assert_eq!(read, Err(Errno::EPERM));
    })
    .unwrap();
    assert_eq!(gate.get(API, "/allowed/x").unwrap().status, 200);
    // No name in the abstract space that could be squatted (J5).
    let unix = gate.pod.inside.command("cat", &["/proc/net/unix"]).unwrap();
    assert!(!unix.contains("exeat"), "{unix}");
}

#[test]
fn slow_and_idle_connections_have_a_limit_and_health_is_not_in_it() {
    let gate = Gate::with(exeat_tests::gate::POLICY, &["--connection-limit", "64"]).unwrap();
    let before = gate.memory().unwrap();
    let mut held = Vec::new();
    for at in 0..300 {
        let Ok(mut stream) = gate.connect(world(80)) else {
            continue;
        };
        // Silent, in the middle of a head, in the middle of a body.
        let piece: &[u8] = match at % 3 {
            0 => b"",
            1 => b"GET /open/x HTTP/1.1\r\nHost: plain.exeat.test\r\nX-Slow: ",
            _ => {
                b"POST /open/x HTTP/1.1\r\nHost: plain.exeat.test\r\nContent-Length: 1000\r\n\r\nx"
            }
        };
        let _sent = stream.write_all(piece);
        held.push(stream);
    }
    std::thread::sleep(Duration::from_millis(200));
    // One more is refused at once, not left hanging.
    let start = Instant::now();
    if let Ok(mut stream) = gate.connect(world(80)) {
        let answers = ask(&mut stream, &request("GET", "/open/x", PLAIN, ""), 1).unwrap();
        assert!(
            answers.iter().all(|answer| answer.status >= 400),
            "{answers:?}"
        );
    }
    assert!(
        start.elapsed() < Duration::from_secs(2),
        "left hanging for {:?}",
        start.elapsed()
    );
    gate.healthy().expect("the probe is starved");
    assert!(gate.memory().unwrap().saturating_sub(before) < 32 << 20);
    drop(held);
    let start = Instant::now();
    while gate
        .connect(world(80))
        .ok()
        .and_then(|mut stream| ask(&mut stream, &request("GET", "/open/x", PLAIN, ""), 1).ok())
        .is_none_or(|answers| answers.first().is_none_or(|answer| answer.status != 200))
    {
        assert!(
            start.elapsed() < Duration::from_secs(5),
            "places are not given back"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    let world: IpAddr = exeat_tests::netns::WORLD_V4.parse().unwrap();
    assert!(world.is_ipv4());
    gate.nothing_strayed().unwrap();
}
