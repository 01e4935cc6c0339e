//! TLS against the gate: hellos without a name, with two, in pieces, with something hidden in them;
//! clients that refuse the gate's certificate; servers that should not be trusted. Nothing of it
//! may end in a tunnel, a default host, or a credential in the wrong place.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::doc_markdown,
    clippy::large_stack_arrays,
    reason = "a test fails by panicking, and says what it does in its own way"
)]

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    os::unix::fs::symlink,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use exeat_tests::gate::{Faults, Gate, POLICY, PROMPT, SECRET, STRANGER, ask, request, world};
use rustls::{
    ClientConfig, ClientConnection, NamedGroup, RootCertStore,
    client::{
        ClientSessionStore, EchGreaseConfig, EchMode, Tls12ClientSessionValue,
        Tls13ClientSessionValue,
    },
    crypto::{aws_lc_rs, hpke::Hpke as _},
    pki_types::ServerName,
};

const API: &str = "api.exeat.test";
const OPEN: &str = "open.exeat.test";
const PLAIN: &str = "plain.exeat.test";

// === hellos by hand ===

fn sized(prefix: usize, content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    [&length[length.len() - prefix..], content].concat()
}

fn extension(number: u16, content: &[u8]) -> Vec<u8> {
    [number.to_be_bytes().to_vec(), sized(2, content)].concat()
}

/// The server_name extension with these names of type 0.
fn names(names: &[&[u8]]) -> Vec<u8> {
    let list: Vec<u8> = names
        .iter()
        .flat_map(|name| [vec![0], sized(2, name)].concat())
        .collect();
    extension(0, &sized(2, &list))
}

/// A TLS 1.2 hello, because its answer shows the certificate in clear.
fn hello(extensions: &[u8]) -> Vec<u8> {
    record(&handshake(extensions))
}

fn handshake(extensions: &[u8]) -> Vec<u8> {
    let common = [
        extension(10, &sized(2, &[0, 0x1d, 0, 0x17])),
        extension(11, &[1, 0]),
        extension(13, &sized(2, &[4, 3, 8, 4, 4, 1])),
        extension(23, &[]),
    ]
    .concat();
    let all = [extensions, &common].concat();
    let body = [
        vec![3, 3],
        vec![7; 32],
        vec![0],
        sized(2, &[0xc0, 0x2b, 0xc0, 0x2f]),
        vec![1, 0],
        sized(2, &all),
    ]
    .concat();
    [vec![1], sized(3, &body)].concat()
}

fn record(handshake: &[u8]) -> Vec<u8> {
    [vec![0x16, 3, 1], sized(2, handshake)].concat()
}

/// Sends bytes and gives what comes back until the gate closes or has said enough.
fn answer(stream: &mut TcpStream, bytes: &[u8]) -> Result<Vec<u8>> {
    // The gate may close before all is sent.
    let _sent = stream.write_all(bytes);
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
                anyhow::bail!("no prompt answer")
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return Ok(all),
        }
        // ServerHelloDone: the client's turn, which will not come. Or a refusal over HTTP.
        if all.ends_with(&[14, 0, 0, 0]) || all.starts_with(b"HTTP/1.1 4") {
            return Ok(all);
        }
        ensure!(start.elapsed() < PROMPT, "no end to the answer");
    }
}

fn is_server_hello(answer: &[u8]) -> bool {
    answer.first() == Some(&0x16)
}

fn holds(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// A hello that must be refused: no ServerHello, one record, nothing upstream.
fn refused(gate: &Gate, bytes: &[u8]) -> Result<()> {
    let mut stream = gate.connect(world(443))?;
    let watch = gate.watch();
    let answer = answer(&mut stream, bytes)?;
    ensure!(!is_server_hello(&answer), "the gate went on with it");
    watch.denied(&[
        "invalid_host",
        "unrecognised_protocol",
        "missing_sni",
        "opaque_not_allowed",
        "identity_mismatch",
    ])?;
    Ok(())
}

#[test]
fn a_name_is_read_in_one_way_or_not_at_all() {
    let gate = Gate::start().unwrap();
    let mut faults = Faults::default();
    let long = [&[b'a'; 250][..], b".test"].concat();
    let label = [&[b'a'; 64][..], b".exeat.test"].concat();
    let bad: Vec<Vec<u8>> = vec![
        names(&[b"api.exeat.test\0.evil.test"]),
        names(&[b"\0api.exeat.test"]),
        names(&[b""]),
        names(&[b"."]),
        names(&[b".api.exeat.test"]),
        names(&[b"api..exeat.test"]),
        names(&[b"api.exeat.test.."]),
        names(&[b"api.exeat.test:443"]),
        names(&[b"api.exeat.test "]),
        names(&[b" api.exeat.test"]),
        names(&[b"api.exeat.test\r\n"]),
        names(&[b"api.exeat.test/"]),
        names(&[b"user@api.exeat.test"]),
        names(&[b"*.exeat.test"]),
        names(&[b"[::1]"]),
        names(&["\u{430}pi.exeat.test".as_bytes()]),
        names(&[b"api\xff.exeat.test"]),
        names(&[b"-api.exeat.test"]),
        names(&[&long]),
        names(&[&label]),
        names(&[API.as_bytes(), b"evil.test"]),
        names(&[b"evil.test", API.as_bytes()]),
        names(&[API.as_bytes(), API.as_bytes()]),
        [names(&[API.as_bytes()]), names(&[b"evil.test"])].concat(),
        [names(&[b"evil.test"]), names(&[API.as_bytes()])].concat(),
        extension(0, &[]),
        extension(0, &[0, 0]),
        extension(0, &[0, 3, 0, 0, 9]),
        extension(
            0,
            &sized(2, &[vec![0], sized(2, API.as_bytes())].concat())[..10],
        ),
        extension(
            0,
            &[
                sized(2, &[vec![0], sized(2, API.as_bytes())].concat()),
                vec![0],
            ]
            .concat(),
        ),
    ];
    for extensions in bad {
        faults.check(extensions.escape_ascii(), || {
            refused(&gate, &hello(&extensions))
        });
    }
    // These mean the same name, and get a certificate for that name and no other.
    for name in ["api.exeat.test", "API.EXEAT.TEST", "aPi.eXeAt.TesT"] {
        faults.check(name, || {
            let mut stream = gate.connect(world(443))?;
            let watch = gate.watch();
            let answer = answer(&mut stream, &hello(&names(&[name.as_bytes()])))?;
            ensure!(
                is_server_hello(&answer) && holds(&answer, API.as_bytes()),
                "{}",
                answer.escape_ascii()
            );
            drop(stream);
            watch.denied(&["opaque_not_allowed"])
        });
    }
    faults.none();
    gate.nothing_strayed().unwrap();
}

#[test]
fn a_hello_without_a_name_is_for_nobody_but_the_address() {
    let gate = Gate::start().unwrap();
    let mut config = ClientConfig::builder()
        .with_root_certificates(gate.roots().unwrap())
        .with_no_client_auth();
    config.enable_sni = false;
    for host in [API, OPEN, "10.77.0.1", "evil.test"] {
        let mut tls = gate
            .tls_with(&world(443), "10.77.0.1", config.clone())
            .unwrap();
        let watch = gate.watch();
        let answers = ask(&mut tls, &request("GET", "/allowed/x", host, ""), 1).unwrap();
        watch
            .refused(&answers, &["identity_mismatch", "no_rule"])
            .unwrap();
    }
    gate.nothing_strayed().unwrap();
}

#[test]
fn the_name_decides_and_the_agents_address_never() {
    let gate = Gate::start().unwrap();
    for address in [STRANGER, "192.0.2.1", "169.254.169.254", "8.8.8.8"] {
        let watch = gate.watch();
        let mut tls = gate
            .tls_to(&format!("{address}:443"), API, &[b"http/1.1"])
            .unwrap();
        let answers = ask(&mut tls, &request("GET", "/allowed/x", API, ""), 1).unwrap();
        assert_eq!(answers[0].status, 200, "{answers:?}");
        assert_eq!(watch.allowed(1).unwrap()[0].host, API);
    }
    // A name in the hello that may pass does not carry one in the request that may not, or may too.
    for (name, host) in [
        (API, OPEN),
        (OPEN, API),
        (OPEN, "evil.test"),
        ("evil.test", API),
        ("a.wild.exeat.test", API),
    ] {
        let mut tls = gate.tls(name).unwrap();
        let watch = gate.watch();
        let answers = ask(&mut tls, &request("GET", "/allowed/x", host, ""), 1).unwrap();
        watch.refused(&answers, &["identity_mismatch"]).unwrap();
    }
    gate.nothing_strayed().unwrap();
}

// === C6, C7: pieces and other versions ===

/// Writes in pieces, so that the gate reads in pieces.
struct Pieces {
    tcp: TcpStream,
    size: usize,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.tcp.read(buffer)
    }
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.tcp.write(&bytes[..bytes.len().min(self.size)])
    }
    fn flush(&mut self) -> std::io::Result<()> {
        self.tcp.flush()
    }
}

#[test]
fn a_hello_in_pieces_is_the_same_hello() {
    let gate = Gate::start().unwrap();
    let mut faults = Faults::default();
    let roots = gate.roots().unwrap();
    for (size, fragment) in [
        (1, None),
        (2, None),
        (7, None),
        (100, None),
        (1400, None),
        (4096, Some(37)),
        (1, Some(37)),
        (4096, Some(64)),
        (4096, Some(600)),
    ] {
        faults.check(format!("pieces of {size}, records of {fragment:?}"), || {
            let mut config = ClientConfig::builder()
                .with_root_certificates(roots.clone())
                .with_no_client_auth();
            config.max_fragment_size = fragment;
            let mut session = ClientConnection::new(Arc::new(config), ServerName::try_from(API)?)?;
            let mut pieces = Pieces {
                tcp: gate.connect(world(443))?,
                size,
            };
            let watch = gate.watch();
            while session.is_handshaking() {
                session.complete_io(&mut pieces)?;
            }
            let mut tls = rustls::Stream::new(&mut session, &mut pieces);
            let answers = ask(&mut tls, &request("GET", "/allowed/x", API, ""), 1)?;
            ensure!(answers[0].status == 200, "{answers:?}");
            watch.allowed(1)
        });
    }
    let whole = hello(&names(&[API.as_bytes()]));
    for cut in 1..whole.len() {
        faults.check(format!("cut at {cut}"), || {
            let mut stream = gate.connect(world(443))?;
            stream.write_all(&whole[..cut])?;
            thread::sleep(Duration::from_millis(1));
            let answer = answer(&mut stream, &whole[cut..])?;
            ensure!(
                is_server_hello(&answer) && holds(&answer, API.as_bytes()),
                "not understood"
            );
            Ok(())
        });
        faults.check(format!("two records, cut at {cut}"), || {
            let shake = handshake(&names(&[API.as_bytes()]));
            let cut = cut.min(shake.len() - 1);
            let two = [record(&shake[..cut]), record(&shake[cut..])].concat();
            let mut stream = gate.connect(world(443))?;
            let answer = answer(&mut stream, &two)?;
            ensure!(
                is_server_hello(&answer) && holds(&answer, API.as_bytes()),
                "not understood"
            );
            Ok(())
        });
    }
    faults.none();
    gate.nothing_strayed().unwrap();
}

#[test]
fn what_is_no_hello_of_today_is_refused() {
    let gate = Gate::start().unwrap();
    let mut faults = Faults::default();
    let good = hello(&names(&[API.as_bytes()]));
    let with = |at: usize, bytes: &[u8]| {
        let mut changed = good.clone();
        changed[at..at + bytes.len()].copy_from_slice(bytes);
        changed
    };
    let huge = handshake(&[names(&[API.as_bytes()]), extension(21, &[0; 20_000])].concat());
    let in_records: Vec<u8> = huge.chunks(16_000).flat_map(record).collect();
    let tiny: Vec<u8> = handshake(&[names(&[API.as_bytes()]), extension(21, &[0; 5_000])].concat())
        .chunks(1)
        .flat_map(record)
        .collect();
    let variants: Vec<(&str, Vec<u8>)> = vec![
        ("SSL 2", b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10\x01\x00\x80\x02\x00\x80\x03\x00\x80\x04\x00\x80\x05\x00\x80\x06\x00\x80\x07\x00\xc0abcdefghijklmnop".to_vec()),
        ("SSL 3", with(9, &[3, 0])),
        ("TLS 1.0", with(9, &[3, 1])),
        ("TLS 1.1", with(9, &[3, 2])),
        ("no version", with(9, &[0, 0])),
        ("garbage", [&b"\x16\x03\x01\x00\x50"[..], &[0xaa; 0x50]].concat()),
        ("garbage of a hello's length", [&good[..9], &[0xff; 150]].concat()),
        ("another handshake message", with(5, &[2])),
        ("a length that lies", with(6, &[0xff, 0xff, 0xff])),
        ("an empty record", b"\x16\x03\x01\x00\x00\x16\x03\x01\x00\x00".to_vec()),
        ("a record over the limit", [&b"\x16\x03\x01\xff\xff"[..], &[1; 20_000]].concat()),
        ("application data", b"\x17\x03\x03\x00\x05hello".to_vec()),
        ("an alert", b"\x15\x03\x03\x00\x02\x02\x28".to_vec()),
        ("no cipher suites", {
            let body = [vec![3, 3], vec![7; 32], vec![0], sized(2, &[]), vec![1, 0], sized(2, &names(&[API.as_bytes()]))].concat();
            record(&[vec![1], sized(3, &body)].concat())
        }),
        ("over 16 KiB", in_records),
        ("thousands of records", tiny),
    ];
    for (name, bytes) in variants {
        faults.check(name, || refused(&gate, &bytes));
    }
    // Every other version of the protocol in the record's own header is as good as none.
    for byte in [0, 1, 2, 4, 0x7f, 0xff] {
        faults.check(format!("record version {byte}"), || {
            let mut stream = gate.connect(world(443))?;
            let watch = gate.watch();
            answer(&mut stream, &with(1, &[byte]))?;
            drop(stream);
            watch.denied(&["unrecognised_protocol", "opaque_not_allowed"])
        });
    }
    faults.none();
    gate.nothing_strayed().unwrap();
}

// === C4, C8, C9, C18 ===

#[test]
fn a_hidden_hello_hides_nothing() {
    let gate = Gate::start().unwrap();
    let suite = aws_lc_rs::hpke::DH_KEM_X25519_HKDF_SHA256_AES_128;
    let (key, _) = suite.generate_key_pair().unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_ech(EchMode::Grease(EchGreaseConfig::new(suite, key)))
        .unwrap()
        .with_root_certificates(gate.roots().unwrap())
        .with_no_client_auth();
    // Grease works where TLS is terminated: the outer name is the one that is judged.
    let mut tls = gate.tls_with(&world(443), API, config.clone()).unwrap();
    let watch = gate.watch();
    let answers = ask(&mut tls, &request("GET", "/allowed/x", API, ""), 1).unwrap();
    assert_eq!(answers[0].status, 200);
    watch.allowed(1).unwrap();
    // Where it would pass unread, it could hide another name.
    let watch = gate.watch();
    assert!(
        gate.tls_with(&world(443), "blind.exeat.test", config)
            .is_err()
    );
    watch.denied(&["opaque_not_allowed"]).unwrap();
    for content in [&b""[..], b"\0", b"\0\0\x01\0\x01\0\0\0\0\0", &[0; 300]] {
        let watch = gate.watch();
        let extensions = [names(&[b"blind.exeat.test"]), extension(0xfe0d, content)].concat();
        let mut stream = gate.connect(world(443)).unwrap();
        answer(&mut stream, &hello(&extensions)).unwrap();
        watch
            .denied(&["opaque_not_allowed", "unrecognised_protocol"])
            .unwrap();
    }
    gate.nothing_strayed().unwrap();
}

/// Offers the ticket of any host to every host.
#[derive(Debug, Default)]
struct Confused {
    tickets: Mutex<Vec<Tls13ClientSessionValue>>,
}

impl ClientSessionStore for Confused {
    fn set_kx_hint(&self, _: ServerName<'static>, _: NamedGroup) {}
    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        None
    }
    fn set_tls12_session(&self, _: ServerName<'static>, _: Tls12ClientSessionValue) {}
    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }
    fn remove_tls12_session(&self, _: &ServerName<'static>) {}
    fn insert_tls13_ticket(&self, _: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.tickets.lock().unwrap().push(value);
    }
    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.tickets.lock().unwrap().pop()
    }
}

#[test]
fn a_ticket_is_for_its_name_and_carries_no_early_data() {
    let gate = Gate::start().unwrap();
    let store = Arc::new(Confused::default());
    let mut config = ClientConfig::builder()
        .with_root_certificates(gate.roots().unwrap())
        .with_no_client_auth();
    config.resumption =
        rustls::client::Resumption::store(Arc::clone(&store) as Arc<dyn ClientSessionStore>);
    config.enable_early_data = true;
    for (name, host, status) in [
        (API, API, 200),
        (API, API, 200),
        (OPEN, OPEN, 200),
        (API, OPEN, 403),
        (OPEN, API, 403),
        ("evil.test", API, 403),
        (API, API, 200),
    ] {
        let mut tcp = gate.connect(world(443)).unwrap();
        let mut session = ClientConnection::new(
            Arc::new(config.clone()),
            ServerName::try_from(name).unwrap(),
        )
        .unwrap();
        assert!(
            session.early_data().is_none(),
            "the gate's tickets allow early data"
        );
        while session.is_handshaking() {
            session.complete_io(&mut tcp).unwrap();
        }
        let path = if host == API { "/allowed/x" } else { "/open/x" };
        let watch = gate.watch();
        let mut tls = rustls::Stream::new(&mut session, &mut tcp);
        let answers = ask(&mut tls, &request("GET", path, host, ""), 1).unwrap();
        assert_eq!(answers[0].status, status, "{name} for {host}");
        if status == 200 {
            assert_eq!(watch.allowed(1).unwrap()[0].host, host);
        } else {
            watch.refused(&answers, &["identity_mismatch"]).unwrap();
        }
    }
    assert!(
        !store.tickets.lock().unwrap().is_empty(),
        "no ticket was ever given"
    );
    gate.nothing_strayed().unwrap();
}

#[test]
fn the_protocol_is_agreed_on_honestly() {
    let gate = Gate::start().unwrap();
    for (offer, agreed) in [
        (vec![&b"http/1.1"[..]], Some(&b"http/1.1"[..])),
        (vec![b"h2"], Some(b"h2")),
        (vec![b"http/1.1", b"h2"], Some(b"h2")),
        (vec![b"foo", b"http/1.1"], Some(b"http/1.1")),
        (vec![], None),
    ] {
        let tls = gate.tls_to(&world(443), API, &offer).unwrap();
        assert_eq!(tls.conn.alpn_protocol(), agreed, "{offer:?}");
    }
    for offer in [&b"h2c"[..], b"http/1.0", b"H2", b"postgresql", b"\0"] {
        let watch = gate.watch();
        assert!(gate.tls_to(&world(443), API, &[offer]).is_err());
        watch.denied(&["opaque_not_allowed"]).unwrap();
    }
    gate.nothing_strayed().unwrap();
}

// === C10, C11, C12 ===

#[test]
fn another_protocol_on_the_port_is_not_a_way_through() {
    let gate = Gate::start().unwrap();
    let mut faults = Faults::default();
    let reasons = &[
        "unrecognised_protocol",
        "no_rule",
        "identity_mismatch",
        "invalid_request",
        "opaque_not_allowed",
    ];
    let secret = "the agent's payload";
    for (name, bytes) in [
        ("SSH", format!("SSH-2.0-OpenSSH_9.6\r\n{secret}")),
        (
            "PostgreSQL's SSLRequest",
            format!("\0\0\0\x08\x04\u{d2}\x16/{secret}"),
        ),
        ("SMTP", format!("EHLO x\r\n{secret}")),
        ("IRC", format!("NICK x\r\nUSER x\r\n{secret}")),
        ("SOCKS 5", format!("\x05\x01\0{secret}")),
        ("SOCKS 4", format!("\x04\x01\x01\u{bb}{secret}")),
        (
            "PROXY",
            format!("PROXY TCP4 1.2.3.4 1.2.3.4 1 443\r\n{secret}"),
        ),
        ("FTP", format!("USER x\r\n{secret}")),
        ("Redis", format!("*1\r\n$4\r\nPING\r\n{secret}")),
        ("MQTT", format!("\x10\x0c\0\x04MQTT\x04\x02\0<{secret}")),
        ("a long word", "A".repeat(300)),
        ("zeros", "\0".repeat(300)),
        (
            "nearly HTTP/2",
            format!("PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n{secret}"),
        ),
        ("a frame", format!("\0\0\x04\x01{secret}")),
        (
            "plain HTTP",
            format!(
                "POST /allowed/x HTTP/1.1\r\nHost: {API}\r\nContent-Length: 19\r\n\r\n{secret}"
            ),
        ),
        (
            "plain HTTP with its port",
            format!(
                "POST /allowed/x HTTP/1.1\r\nHost: {API}:443\r\nContent-Length: 19\r\n\r\n{secret}"
            ),
        ),
    ] {
        for port in [443, 80, 22, 8443] {
            if port == 80 && name.starts_with("plain HTTP") {
                continue;
            }
            faults.check(format!("{name} on {port}"), || {
                let mut stream = gate.connect(world(port))?;
                let watch = gate.watch();
                answer(&mut stream, bytes.as_bytes())?;
                watch.denied(reasons)
            });
        }
    }
    for (name, port) in [
        (API, 80),
        (PLAIN, 80),
        (PLAIN, 443),
        ("raw.exeat.test", 443),
    ] {
        faults.check(format!("TLS to {name} on {port}"), || {
            let mut tls = gate.tls_to(&world(port), name, &[b"http/1.1"])?;
            let watch = gate.watch();
            let host = format!("{name}:{port}");
            watch.refused(
                &ask(&mut tls, &request("GET", "/open/x", &host, ""), 1)?,
                reasons,
            )
        });
    }
    faults.none();
    gate.nothing_strayed().unwrap();
}

#[test]
fn a_silent_client_is_sent_away() {
    let gate = Gate::start().unwrap();
    let watch = gate.watch();
    let mut quiet = gate.connect(world(443)).unwrap();
    let mut begun = gate.connect(world(443)).unwrap();
    let whole = hello(&names(&[API.as_bytes()]));
    begun.write_all(&whole[..20]).unwrap();
    for stream in [&mut quiet, &mut begun] {
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        let silent = |error: &std::io::Error| error.kind() == std::io::ErrorKind::WouldBlock;
        let ended = stream.read(&mut [0]);
        assert!(
            !matches!(&ended, Ok(1..)) && !ended.as_ref().is_err_and(silent),
            "{ended:?}"
        );
    }
    watch.denied_times(2, &["unrecognised_protocol"]).unwrap();
    gate.nothing_strayed().unwrap();
}

#[test]
fn a_client_that_rejects_our_certificate_gets_nothing_else() {
    let gate = Gate::start().unwrap();
    for attempt in 0..6 {
        for name in [API, "evil.test"] {
            let config = ClientConfig::builder()
                .with_root_certificates(RootCertStore::empty())
                .with_no_client_auth();
            let mut session =
                ClientConnection::new(Arc::new(config), ServerName::try_from(name).unwrap())
                    .unwrap();
            let mut tcp = gate.connect(world(443)).unwrap();
            let watch = gate.watch();
            let mut result = Ok((0, 0));
            while session.is_handshaking() && result.is_ok() {
                result = session.complete_io(&mut tcp);
            }
            assert!(result.is_err(), "a certificate from nowhere was trusted");
            // The alert is out. Now, perhaps, the connection is a pipe?
            let _sent = tcp.write_all(&request("GET", "/allowed/pipe", API, ""));
            let mut rest = Vec::new();
            let _ended = tcp.read_to_end(&mut rest);
            assert!(!holds(&rest, b"HTTP/1.1 200"), "attempt {attempt}");
            watch.denied(&["opaque_not_allowed"]).unwrap();
        }
    }
    gate.nothing_strayed().unwrap();
}

#[test]
fn an_upstream_that_cannot_be_verified_gets_nothing() {
    let gate = Gate::start().unwrap();
    for name in [
        "expired.exeat.test",
        "self-signed.exeat.test",
        "untrusted.exeat.test",
        "wrong-name.exeat.test",
    ] {
        for alpn in [&b"http/1.1"[..], b""] {
            let offer: Vec<&[u8]> = if alpn.is_empty() { vec![] } else { vec![alpn] };
            let mut tls = gate.tls_to(&world(443), name, &offer).unwrap();
            let watch = gate.watch();
            let more = "Content-Length: 7\r\nX-Insecure: 1\r\n";
            let bytes = [
                request("POST", "/allowed/x", name, more),
                b"payload".to_vec(),
            ]
            .concat();
            let answers = ask(&mut tls, &bytes, 1).unwrap();
            assert_eq!(
                (answers[0].status, answers[0].code().as_deref()),
                (502, Some("upstream_untrusted")),
                "{name}"
            );
            let decisions = watch.decisions(1);
            assert_eq!(
                (decisions.len(), &decisions[0]["decision"]),
                (1, &"allow".into()),
                "{name}"
            );
            let outcome = gate.outcome(&decisions[0]).expect("an outcome");
            assert!(
                outcome.to_string().contains("upstream_untrusted"),
                "{outcome:#}"
            );
        }
    }
    assert!(
        gate.upstream
            .connections()
            .iter()
            .all(|connection| connection.bytes.is_empty())
    );
    gate.nothing_strayed().unwrap();
}

// === C13 to C16 ===

#[test]
fn a_flood_of_names_harms_nobody() {
    let gate = Gate::start().unwrap();
    assert_eq!(gate.get(API, "/allowed/x").unwrap().status, 200);
    let before = gate.memory().unwrap();
    let (start, length) = (Instant::now(), Duration::from_secs(8));
    let (hellos, slowest) = thread::scope(|scope| {
        let flood: Vec<_> = (0..4)
            .map(|thread| {
                let gate = &gate;
                scope.spawn(move || {
                    let mut sent = 0;
                    while start.elapsed() < length {
                        let name = format!("n{sent}-{thread}.random.exeat.test");
                        let Ok(mut stream) = gate.connect(world(443)) else {
                            continue;
                        };
                        if stream.write_all(&hello(&names(&[name.as_bytes()]))).is_ok() {
                            let _first = stream.read(&mut [0; 16]);
                            sent += 1;
                        }
                    }
                    sent
                })
            })
            .collect();
        let mut slowest = Duration::ZERO;
        while start.elapsed() < length {
            let begun = Instant::now();
            assert_eq!(gate.get(API, "/allowed/x").unwrap().status, 200);
            slowest = slowest.max(begun.elapsed());
        }
        (
            flood
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .sum::<u32>(),
            slowest,
        )
    });
    assert!(hellos > 100, "only {hellos} hellos were tried");
    assert!(slowest < PROMPT, "others waited {slowest:?}");
    let grown = gate.memory().unwrap().saturating_sub(before);
    assert!(
        grown < 48 << 20,
        "memory grew by {} MiB after {hellos} names",
        grown >> 20
    );
    gate.nothing_strayed().unwrap();
}

#[test]
fn the_authoritys_key_is_in_no_file_and_two_pods_share_none() {
    let (gate, other) = (Gate::start().unwrap(), Gate::start().unwrap());
    for entry in [
        "policy.yaml",
        "upstream-ca.pem",
        "ca.pem",
        "state/ca.pem",
        "state/journal.jsonl",
        "sidecar.log",
    ] {
        let text = fs::read(gate.path(entry)).unwrap();
        assert!(!holds(&text, b"PRIVATE KEY"), "{entry}");
    }
    gate.agent(|| {
        for secret in ["state/journal.jsonl", "credentials/api"] {
            assert!(
                fs::read(gate.path(secret)).is_err(),
                "the agent can read {secret}"
            );
        }
        let process = format!("/proc/{}", gate.process());
        for file in ["environ", "mem", "maps", "auxv", "io"] {
            assert!(
                fs::read(format!("{process}/{file}")).is_err(),
                "the agent can read {file}"
            );
        }
        for folder in ["fd", "map_files"] {
            assert!(
                fs::read_dir(format!("{process}/{folder}")).is_err(),
                "the agent can list {folder}"
            );
        }
        assert!(
            fs::read_link(format!("{process}/exe")).is_err()
                && fs::read_dir(format!("{process}/root/")).is_err()
        );
    })
    .unwrap();
    let config = ClientConfig::builder()
        .with_root_certificates(other.roots().unwrap())
        .with_no_client_auth();
    assert!(
        gate.tls_with(&world(443), API, config).is_err(),
        "another pod's authority was as good"
    );
}

#[test]
fn the_certificate_is_not_written_through_a_link() {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(
        folder.path(),
        std::os::unix::fs::PermissionsExt::from_mode(0o777),
    )
    .unwrap();
    let (victim, link) = (
        folder.path().join("victim"),
        folder.path().join("ca-copy.pem"),
    );
    fs::write(&victim, "untouched").unwrap();
    fs::set_permissions(&victim, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
    symlink(&victim, &link).unwrap();
    // It may refuse to start, or replace the link; it may not follow it.
    let gate = Gate::with(POLICY, &["--ca-bundle-out", link.to_str().unwrap()]);
    assert_eq!(fs::read_to_string(&victim).unwrap(), "untouched");
    if let Ok(gate) = gate {
        assert!(!gate.upstream.saw(SECRET.as_bytes()));
    }
}
