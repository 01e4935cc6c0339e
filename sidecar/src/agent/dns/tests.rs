#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test"
)]

use super::*;
use crate::agent::names::NameLimits;
use crate::ledger::{Durability, JournalConfig, Principal};
use exeat_policy::{Source, compile};
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::RecordType::{ANY, CNAME, HTTPS, MX, NULL, SRV, SVCB, TXT};
use hickory_proto::rr::{DNSClass, Name, RecordType};
use proptest::prelude::*;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::time::timeout;

const POLICY: &str = "apiVersion: exeat.dev/v1alpha1\nkind: ToolPolicy\nmetadata: {name: p}\nspec:\n  \
    tools:\n  - name: a\n    http: {hosts: [api.github.com, \"*.wild.example\", db.ns.svc], paths: [\"/**\"]}\n";

fn plan() -> Plan {
    compile(
        &[Source {
            name: "p.yaml".into(),
            text: POLICY.into(),
        }],
        None,
        7,
    )
    .unwrap()
}

struct Bed {
    context: DnsContext,
    lines: tokio::sync::broadcast::Receiver<Arc<str>>,
    dir: tempfile::TempDir,
}

fn bed() -> Bed {
    let dir = tempfile::tempdir().unwrap();
    let config = JournalConfig {
        path: dir.path().join("journal"),
        durability: Durability::Written,
        max_bytes: 1 << 20,
    };
    let ledger = Arc::new(Ledger::open(config, Principal::default()).unwrap());
    let names = Arc::new(VirtualNames::default());
    let mut context = DnsContext::new(&Policies::fixed(plan()), &names, &ledger);
    context.search = SearchDomains::parse("search ns.svc.cluster.local cluster.local");
    Bed {
        context,
        lines: ledger.subscribe(),
        dir,
    }
}

fn query(name: &str, kind: RecordType) -> Message {
    let mut message = Message::new(0x1234, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

fn ask(context: &DnsContext, message: &Message) -> Message {
    match context.reply(&message.to_vec().unwrap()) {
        Reply::Send(bytes) | Reply::Malformed(Some(bytes)) => Message::from_vec(&bytes).unwrap(),
        Reply::Malformed(None) | Reply::Drop => panic!("no reply"),
    }
}

fn address(context: &DnsContext, name: &str, kind: RecordType) -> std::net::IpAddr {
    let reply = ask(context, &query(name, kind));
    assert_eq!(
        reply.metadata.response_code,
        ResponseCode::NoError,
        "{name}"
    );
    assert_eq!(reply.answers.len(), 1, "{name}");
    reply.answers[0].data.ip_addr().unwrap()
}

fn code(context: &DnsContext, name: &str, kind: RecordType) -> ResponseCode {
    let reply = ask(context, &query(name, kind));
    assert!(reply.answers.is_empty(), "{name}: {reply}");
    reply.metadata.response_code
}

/// The names on record so far, with their reasons.
fn recorded(bed: &mut Bed) -> Vec<String> {
    let mut names = Vec::new();
    while let Ok(line) = bed.lines.try_recv() {
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(line["decision"], "deny", "{line}");
        assert_eq!(line["generation"], 7, "{line}");
        let host = line["destination"]["host"].as_str().unwrap_or("-");
        names.push(format!("{host} {}", line["reason"].as_str().unwrap()));
    }
    names
}

#[test]
fn a_name_that_a_rule_could_allow_has_its_virtual_addresses() {
    let bed = bed();
    let v4 = address(&bed.context, "api.github.com.", RecordType::A);
    let v6 = address(&bed.context, "api.github.com.", RecordType::AAAA);
    assert!(VirtualNames::is_virtual(v4) && VirtualNames::is_virtual(v6));
    let host = Host::parse("api.github.com").unwrap();
    assert_eq!(bed.context.names.name_of(v4), Some(host.clone()));
    assert_eq!(bed.context.names.name_of(v6), Some(host));
    // B16: one canonical name.
    for spelling in ["API.GitHub.COM.", "aPi.gItHuB.cOm."] {
        assert_eq!(address(&bed.context, spelling, RecordType::A), v4);
    }
    assert!(VirtualNames::is_virtual(address(
        &bed.context,
        "a.wild.example.",
        RecordType::A
    )));
}

#[test]
fn the_spelling_of_the_question_comes_back() {
    let bed = bed();
    for name in ["aPi.gItHuB.cOm.", "nO.sUcH.nAmE."] {
        let reply = ask(&bed.context, &query(name, RecordType::A));
        assert_eq!(reply.metadata.id, 0x1234);
        assert!(reply.metadata.recursion_desired && reply.metadata.recursion_available);
        assert_eq!(reply.queries[0].name().to_ascii(), name);
        for answer in &reply.answers {
            assert_eq!(answer.name.to_ascii(), name);
            assert!(answer.ttl <= 60);
        }
    }
}

/// B5: refused here, and on record once for both families.
#[test]
fn other_names_do_not_exist_and_are_on_record() {
    let mut bed = bed();
    for kind in [RecordType::A, RecordType::AAAA] {
        assert_eq!(
            code(&bed.context, "c2VjcmV0.attacker.tld.", kind),
            ResponseCode::NXDomain
        );
    }
    assert_eq!(
        recorded(&mut bed),
        ["c2vjcmv0.attacker.tld name_not_allowed"]
    );
    for name in [
        "github.com.",
        "x.api.github.com.",
        "wild.example.",
        "wild.example.attacker.tld.",
    ] {
        assert_eq!(
            code(&bed.context, name, RecordType::A),
            ResponseCode::NXDomain,
            "{name}"
        );
    }
    assert_eq!(recorded(&mut bed).len(), 4);
    assert_eq!(bed.context.metrics.dns.denied.get(), 6);
}

/// B7: only addresses are answered, whatever else is asked for.
#[test]
fn other_types_have_no_data() {
    let bed = bed();
    for kind in [
        TXT,
        NULL,
        ANY,
        SVCB,
        HTTPS,
        CNAME,
        MX,
        SRV,
        RecordType::Unknown(65280),
    ] {
        let reply = ask(&bed.context, &query("api.github.com.", kind));
        assert_eq!(
            reply.metadata.response_code,
            ResponseCode::NoError,
            "{kind}"
        );
        assert!(
            reply.answers.is_empty() && reply.additionals.is_empty(),
            "{kind}"
        );
        assert_eq!(
            code(&bed.context, "attacker.tld.", kind),
            ResponseCode::NXDomain,
            "{kind}"
        );
    }
}

/// B12: what `ndots` makes of an allowed name fails at once and is no attempt.
#[test]
fn search_domains_cost_nothing() {
    let mut bed = bed();
    for name in [
        "api.github.com.ns.svc.cluster.local.",
        "api.github.com.cluster.local.",
    ] {
        assert_eq!(
            code(&bed.context, name, RecordType::A),
            ResponseCode::NXDomain
        );
    }
    assert_eq!(recorded(&mut bed), [""; 0]);
    assert_eq!(
        code(&bed.context, "evil.cluster.local.", RecordType::A),
        ResponseCode::NXDomain
    );
    assert_eq!(recorded(&mut bed).len(), 1);
    // A name of the cluster that a rule allows follows the same path.
    assert!(VirtualNames::is_virtual(address(
        &bed.context,
        "db.ns.svc.",
        RecordType::A
    )));
}

#[test]
fn localhost_reverse_and_odd_names() {
    let mut bed = bed();
    assert!(address(&bed.context, "localhost.", RecordType::A).is_loopback());
    assert!(address(&bed.context, "x.LOCALHOST.", RecordType::AAAA).is_loopback());
    for name in ["1.0.18.198.in-addr.arpa.", "1.ip6.arpa."] {
        assert_eq!(
            code(&bed.context, name, RecordType::PTR),
            ResponseCode::NXDomain
        );
    }
    for name in ["1.2.3.4.", "0x7f.1.", "2130706433."] {
        assert_eq!(
            code(&bed.context, name, RecordType::A),
            ResponseCode::NXDomain
        );
    }
    assert_eq!(recorded(&mut bed), [""; 0]);

    // A label that holds a dot is not two labels.
    let labels: [&[u8]; 2] = [b"api.github", b"com"];
    let mut message = query("x.", RecordType::A);
    message.queries[0].set_name(Name::from_labels(labels).unwrap());
    assert_eq!(
        ask(&bed.context, &message).metadata.response_code,
        ResponseCode::NXDomain
    );
    assert_eq!(recorded(&mut bed), ["api\\046github.com name_not_allowed"]);
    assert_eq!(
        code(&bed.context, ".", RecordType::A),
        ResponseCode::NXDomain
    );
}

/// B6: new names under a wildcard run out, and that is on record.
#[test]
fn a_wildcard_is_no_channel() {
    let mut bed = bed();
    let limits = NameLimits {
        burst_bytes: 1024,
        ..NameLimits::default()
    };
    bed.context.names = Arc::new(VirtualNames::new(limits));
    let label = "x".repeat(50);
    let mut given = 0;
    for n in 0..200 {
        let reply = ask(
            &bed.context,
            &query(&format!("{n}{label}.wild.example."), RecordType::A),
        );
        given += reply.answers.len();
        if reply.answers.is_empty() {
            assert_eq!(reply.metadata.response_code, ResponseCode::Refused);
        }
    }
    assert!((10..20).contains(&given), "{given}");
    assert!(
        recorded(&mut bed)
            .iter()
            .all(|line| line.ends_with("limit_exceeded"))
    );
}

/// B14: rejected with a reason where there is one to tell, and no crash.
#[test]
fn what_is_no_single_question_is_refused() {
    let bed = bed();
    let refuse = |bytes: &[u8], expected: ResponseCode| {
        let Reply::Malformed(Some(reply)) = bed.context.reply(bytes) else {
            panic!("answered: {bytes:?}");
        };
        let reply = Message::from_vec(&reply).unwrap();
        assert_eq!(reply.metadata.response_code, expected);
        assert_eq!(reply.metadata.id, 0x1234);
        assert!(reply.answers.is_empty());
    };
    let good = query("api.github.com.", RecordType::A);
    let bytes = good.to_vec().unwrap();

    let mut two = good.clone();
    two.add_query(good.queries[0].clone());
    refuse(&two.to_vec().unwrap(), ResponseCode::FormErr);
    let mut none = good.clone();
    none.queries.clear();
    refuse(&none.to_vec().unwrap(), ResponseCode::FormErr);
    let mut update = good.clone();
    update.metadata.op_code = OpCode::Notify;
    refuse(&update.to_vec().unwrap(), ResponseCode::NotImp);
    let mut chaos = good.clone();
    chaos.queries[0].set_query_class(DNSClass::CH);
    refuse(&chaos.to_vec().unwrap(), ResponseCode::Refused);
    let mut truncated = good.clone();
    truncated.metadata.truncation = true;
    refuse(&truncated.to_vec().unwrap(), ResponseCode::FormErr);
    let mut trailing = bytes.clone();
    trailing.push(0);
    refuse(&trailing, ResponseCode::FormErr);
    for length in 12..bytes.len() {
        refuse(&bytes[..length], ResponseCode::FormErr);
    }
    let mut looped = bytes[..12].to_vec();
    looped.extend([0xc0, 12, 0, 1, 0, 1]);
    refuse(&looped, ResponseCode::FormErr);
    let mut many = bytes.clone();
    many[4..6].copy_from_slice(&[0xff, 0xff]);
    refuse(&many, ResponseCode::FormErr);
    let mut huge = bytes.clone();
    huge.resize(5000, 0);
    refuse(&huge, ResponseCode::FormErr);

    assert!(matches!(
        bed.context.reply(&bytes[..11]),
        Reply::Malformed(None)
    ));
    assert!(matches!(bed.context.reply(b""), Reply::Malformed(None)));
    let mut response = good;
    response.metadata.message_type = MessageType::Response;
    let response = response.to_vec().unwrap();
    assert!(matches!(bed.context.reply(&response), Reply::Drop));
}

#[test]
fn edns_is_answered_in_kind() {
    let bed = bed();
    let mut message = query("api.github.com.", RecordType::A);
    let mut edns = Edns::new();
    edns.set_max_payload(4096).set_version(0);
    message.set_edns(edns.clone());
    let reply = ask(&bed.context, &message);
    assert_eq!(reply.answers.len(), 1);
    assert_eq!(reply.edns.unwrap().max_payload(), 1232);

    edns.set_version(1);
    message.set_edns(edns);
    let reply = ask(&bed.context, &message);
    // 16 is BADVERS here, and BADSIG where there are signatures.
    assert_eq!(u16::from(reply.metadata.response_code), 16);
    assert!(reply.answers.is_empty());

    let plain = ask(&bed.context, &query("api.github.com.", RecordType::A));
    assert!(plain.edns.is_none());
}

/// B15: a flood is dropped, and an honest pace is answered again a moment later.
#[tokio::test(start_paused = true)]
async fn a_flood_is_dropped() {
    let bed = bed();
    let bytes = query("api.github.com.", RecordType::A).to_vec().unwrap();
    let mut answered = 0;
    for _ in 0..50_000 {
        answered += usize::from(matches!(bed.context.reply(&bytes), Reply::Send(_)));
    }
    assert_eq!(answered, 4000);
    assert_eq!(bed.context.metrics.dns.throttled.get(), 46_000);
    tokio::time::advance(Duration::from_millis(10)).await;
    assert!(matches!(bed.context.reply(&bytes), Reply::Send(_)));
}

async fn udp(address: &str) -> (SocketAddr, Bed2) {
    let bed = bed();
    let socket = UdpSocket::bind(address).await.unwrap();
    let at = socket.local_addr().unwrap();
    let context = Arc::new(bed.context);
    tokio::spawn(serve_udp(socket, Arc::clone(&context)));
    (
        at,
        Bed2 {
            lines: bed.lines,
            _dir: bed.dir,
        },
    )
}

struct Bed2 {
    lines: tokio::sync::broadcast::Receiver<Arc<str>>,
    _dir: tempfile::TempDir,
}

async fn tcp() -> (SocketAddr, Bed2) {
    let bed = bed();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let context = Arc::new(bed.context);
    tokio::spawn(serve_tcp(listener, context));
    (
        at,
        Bed2 {
            lines: bed.lines,
            _dir: bed.dir,
        },
    )
}

#[tokio::test]
async fn over_udp_the_reply_comes_from_where_the_question_went() {
    // A wildcard socket, asked at an address that routing would not choose by itself.
    for (listen, asked) in [
        ("0.0.0.0:0", "127.0.0.1"),
        ("0.0.0.0:0", "127.7.7.7"),
        ("[::]:0", "127.7.7.7"),
        ("[::]:0", "::1"),
        ("127.0.0.1:0", "127.0.0.1"),
    ] {
        let (at, _bed) = udp(listen).await;
        let client = if asked.contains(':') {
            "[::1]:0"
        } else {
            "127.0.0.1:0"
        };
        let client = UdpSocket::bind(client).await.unwrap();
        client.connect((asked, at.port())).await.unwrap();
        client.send(b"\0").await.unwrap();
        client
            .send(&query("api.github.com.", RecordType::A).to_vec().unwrap())
            .await
            .unwrap();
        let mut buffer = [0; 512];
        // Connected, so that a reply from elsewhere would not be seen.
        let received = timeout(Duration::from_secs(5), client.recv(&mut buffer)).await;
        let length = received
            .unwrap_or_else(|_| panic!("no reply from {asked} at {listen}"))
            .unwrap();
        let reply = Message::from_vec(&buffer[..length]).unwrap();
        assert_eq!(reply.answers.len(), 1);
    }
}

async fn exchange(stream: &mut TcpStream, message: &Message) -> Message {
    let bytes = message.to_vec().unwrap();
    let length = u16::try_from(bytes.len()).unwrap().to_be_bytes();
    // Byte by byte: a length may come in two segments.
    stream.write_all(&length[..1]).await.unwrap();
    stream.flush().await.unwrap();
    tokio::time::sleep(Duration::from_millis(5)).await;
    stream.write_all(&length[1..]).await.unwrap();
    stream.write_all(&bytes).await.unwrap();
    let length = stream.read_u16().await.unwrap();
    let mut reply = vec![0; usize::from(length)];
    stream.read_exact(&mut reply).await.unwrap();
    Message::from_vec(&reply).unwrap()
}

#[tokio::test]
async fn over_tcp_several_questions_are_answered_in_order() {
    let (at, _bed) = tcp().await;
    let mut stream = TcpStream::connect(at).await.unwrap();
    for name in ["api.github.com.", "a.wild.example."] {
        let reply = exchange(&mut stream, &query(name, RecordType::A)).await;
        assert_eq!(reply.queries[0].name().to_ascii(), name);
        assert_eq!(reply.answers.len(), 1);
    }
}

/// B2: a stream of other bytes is closed at once, and on record once.
#[tokio::test]
async fn over_tcp_other_bytes_close_the_connection() {
    for bytes in [
        &b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..],
        b"SSH-2.0-x\r\n",
        b"\0\x03abc",
        b"\0\0",
    ] {
        let (at, mut bed) = tcp().await;
        let mut stream = TcpStream::connect(at).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut rest = Vec::new();
        let ended = timeout(Duration::from_secs(2), stream.read_to_end(&mut rest)).await;
        // A reset is as good: unread bytes make the close one.
        drop(ended.expect("it was left open"));
        assert_eq!(rest, b"");
        let line = timeout(Duration::from_secs(2), bed.lines.recv())
            .await
            .unwrap()
            .unwrap();
        assert!(line.contains("unrecognised_protocol"), "{line}");
        assert!(bed.lines.try_recv().is_err());
    }
}

#[tokio::test(start_paused = true)]
async fn over_tcp_silence_ends() {
    let (at, _bed) = tcp().await;
    let mut stream = TcpStream::connect(at).await.unwrap();
    stream.write_all(&[0]).await.unwrap();
    let mut rest = Vec::new();
    timeout(Duration::from_secs(20), stream.read_to_end(&mut rest))
        .await
        .unwrap()
        .unwrap();
}

/// The fuzzer's corpus, and what is made of each by cutting and changing it.
#[test]
fn the_corpus_is_survived() {
    let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/dns");
    let (plan, names) = (plan(), VirtualNames::default());
    let mut read = 0;
    for entry in std::fs::read_dir(&corpus).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        survive(&plan, &names, &bytes);
        for at in 0..bytes.len() {
            survive(&plan, &names, &bytes[..at]);
            let mut changed = bytes.clone();
            changed[at] ^= 0xc0;
            survive(&plan, &names, &changed);
        }
        read += 1;
    }
    assert!(
        read >= 10,
        "the corpus in {} has only {read} entries",
        corpus.display()
    );
}

/// Whatever comes, what goes back is a small response to the same question, or nothing.
fn survive(plan: &Plan, names: &VirtualNames, bytes: &[u8]) {
    let Some(reply) = answer_bytes(plan, names, bytes) else {
        return;
    };
    assert!(reply.len() <= 1232);
    let parsed = Message::from_vec(&reply).expect("a reply that is no DNS");
    assert_eq!(parsed.metadata.message_type, MessageType::Response);
    assert_eq!(reply[..2], bytes[..2]);
    for answer in &parsed.answers {
        let address = answer.data.ip_addr().expect("an answer that is no address");
        assert!(address.is_loopback() || VirtualNames::is_virtual(address));
    }
}

proptest! {
    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        survive(&plan(), &VirtualNames::default(), &bytes);
    }

    #[test]
    fn any_body_after_an_honest_header_is_survived(body in prop::collection::vec(any::<u8>(), 0..300), additional: bool) {
        let mut bytes = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, additional.into()];
        bytes.extend(body);
        survive(&plan(), &VirtualNames::default(), &bytes);
    }
}
