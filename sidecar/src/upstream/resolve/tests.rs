#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;
use hickory_proto::op::{Message, MessageType, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME};
use hickory_proto::rr::{RData, Record};
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::net::UdpSocket;

/// A name server on loopback which answers as told and counts what it was asked.
struct Server {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    questions: Arc<AtomicUsize>,
}

async fn server_that(
    answer: impl Fn(&str, RecordType) -> Option<(ResponseCode, Vec<(u32, RData)>)> + Send + 'static,
) -> Server {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let questions = Arc::new(AtomicUsize::new(0));
    let (log, count) = (Arc::clone(&asked), Arc::clone(&questions));
    tokio::spawn(async move {
        let mut buffer = [0; 4096];
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            let query = Message::from_vec(&buffer[..length]).unwrap();
            let question = query.queries[0].clone();
            log.lock()
                .push(format!("{} {}", question.name(), question.query_type()));
            count.fetch_add(1, Ordering::SeqCst);
            let name = question.name().to_string();
            let Some((code, records)) = answer(&name, question.query_type()) else {
                continue;
            };
            let mut reply = Message::new(
                query.metadata.id,
                MessageType::Response,
                query.metadata.op_code,
            );
            reply.metadata.response_code = code;
            reply.metadata.recursion_desired = true;
            reply.metadata.recursion_available = true;
            reply.add_query(question.clone());
            for (ttl, data) in records {
                let owner = match &data {
                    RData::CNAME(_) => question.name().clone(),
                    _ if name == "alias.example." => Name::from_ascii("real.example.").unwrap(),
                    _ => question.name().clone(),
                };
                reply.add_answer(Record::from_rdata(owner, ttl, data));
            }
            socket
                .send_to(&reply.to_vec().unwrap(), from)
                .await
                .unwrap();
        }
    });
    Server {
        address,
        asked,
        questions,
    }
}

fn resolver(server: &Server) -> Resolver {
    Resolver::new(ResolverSettings {
        servers: vec![server.address],
        ..ResolverSettings::default()
    })
}

fn host(name: &str) -> Host {
    Host::parse(name).unwrap()
}

fn a(text: &str) -> RData {
    RData::A(A(text.parse().unwrap()))
}

fn aaaa(text: &str) -> RData {
    RData::AAAA(AAAA(text.parse().unwrap()))
}

fn shown(answer: &Answer) -> Vec<String> {
    answer
        .as_ref()
        .unwrap()
        .iter()
        .map(ToString::to_string)
        .collect()
}

#[tokio::test]
async fn both_families_are_asked_for_the_full_name_only() {
    let server = server_that(|_, kind| {
        Some(match kind {
            RecordType::A => (
                ResponseCode::NoError,
                vec![(60, a("192.0.2.1")), (60, a("10.0.0.1"))],
            ),
            _ => (ResponseCode::NoError, vec![(60, aaaa("2001:db8::1"))]),
        })
    })
    .await;
    let answer = resolver(&server).resolve(&host("db.ns")).await;
    assert_eq!(shown(&answer), ["192.0.2.1", "10.0.0.1", "2001:db8::1"]);
    let mut asked = server.asked.lock().clone();
    asked.sort();
    assert_eq!(asked, ["db.ns. A", "db.ns. AAAA"]);
}

#[tokio::test]
async fn an_alias_gives_the_addresses_at_its_end() {
    let server = server_that(|_, kind| {
        let alias = RData::CNAME(CNAME(Name::from_ascii("real.example.").unwrap()));
        Some(match kind {
            RecordType::A => (
                ResponseCode::NoError,
                vec![(60, alias), (60, a("192.0.2.7"))],
            ),
            _ => (ResponseCode::NoError, Vec::new()),
        })
    })
    .await;
    let answer = resolver(&server).resolve(&host("alias.example")).await;
    assert_eq!(shown(&answer), ["192.0.2.7"]);
}

#[tokio::test]
async fn who_comes_while_it_is_asked_waits_for_the_same() {
    let server = server_that(|_, kind| {
        (kind == RecordType::A).then(|| (ResponseCode::NoError, vec![(0, a("192.0.2.1"))]))
    })
    .await;
    let resolver = Arc::new(resolver(&server));
    let calls: Vec<_> = (0..50)
        .map(|_| {
            let resolver = Arc::clone(&resolver);
            tokio::spawn(async move { resolver.resolve(&host("one.example")).await })
        })
        .collect();
    for call in calls {
        assert_eq!(shown(&call.await.unwrap()), ["192.0.2.1"]);
    }
    assert!(server.questions.load(Ordering::SeqCst) <= 2);
}

#[tokio::test]
async fn a_short_life_ends_and_no_such_name_is_told() {
    let turn = AtomicUsize::new(0);
    let server = server_that(move |name, kind| {
        Some(match (name, kind) {
            ("moves.example.", RecordType::A) => {
                let n = turn.fetch_add(1, Ordering::SeqCst);
                (ResponseCode::NoError, vec![(0, a(&format!("192.0.2.{n}")))])
            }
            ("moves.example.", _) => (ResponseCode::NoError, Vec::new()),
            ("broken.example.", _) => (ResponseCode::ServFail, Vec::new()),
            _ => (ResponseCode::NXDomain, Vec::new()),
        })
    })
    .await;
    let resolver = resolver(&server);
    assert_eq!(
        shown(&resolver.resolve(&host("moves.example")).await),
        ["192.0.2.0"]
    );
    assert_eq!(
        shown(&resolver.resolve(&host("moves.example")).await),
        ["192.0.2.0"]
    );
    tokio::time::sleep(TTL_MIN + Duration::from_millis(50)).await;
    assert_eq!(
        shown(&resolver.resolve(&host("moves.example")).await),
        ["192.0.2.1"]
    );

    let none = resolver.resolve(&host("none.example")).await.unwrap_err();
    assert_eq!(none, ResolveError::NoSuchName(host("none.example")));
    let asked = server.questions.load(Ordering::SeqCst);
    assert!(resolver.resolve(&host("none.example")).await.is_err());
    assert_eq!(server.questions.load(Ordering::SeqCst), asked);

    let broken = resolver.resolve(&host("broken.example")).await.unwrap_err();
    assert!(matches!(broken, ResolveError::Failed { .. }), "{broken}");
}

#[tokio::test]
async fn a_silent_family_does_not_hold_up_the_other() {
    let server = server_that(|_, kind| {
        (kind == RecordType::A).then(|| (ResponseCode::NoError, vec![(60, a("192.0.2.1"))]))
    })
    .await;
    let start = Instant::now();
    let answer = resolver(&server).resolve(&host("one.example")).await;
    assert_eq!(shown(&answer), ["192.0.2.1"]);
    assert!(
        start.elapsed() < Duration::from_millis(500),
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test]
async fn overrides_and_the_hosts_file_come_first() {
    let server = server_that(|_, _| Some((ResponseCode::NXDomain, Vec::new()))).await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hosts");
    std::fs::write(&path, "10.9.9.9 both.example file.example\n").unwrap();
    let resolver = Resolver::new(ResolverSettings {
        overrides: vec![
            (host("both.example"), "127.0.0.1".parse().unwrap()),
            (host("both.example"), "::1".parse().unwrap()),
        ],
        servers: vec![server.address],
        hosts_file: Some(path),
    });
    assert_eq!(
        shown(&resolver.resolve(&host("BOTH.example.")).await),
        ["127.0.0.1", "::1"]
    );
    assert_eq!(
        shown(&resolver.resolve(&host("file.example")).await),
        ["10.9.9.9"]
    );
    assert_eq!(
        shown(&resolver.resolve(&host("0x7f.1")).await),
        ["127.0.0.1"]
    );
    assert_eq!(server.questions.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn the_memory_is_bounded() {
    let server = server_that(|_, _| Some((ResponseCode::NXDomain, Vec::new()))).await;
    let resolver = resolver(&server);
    for n in 0..MAX_NAMES + 10 {
        let cell = resolver
            .remembered(&host(&format!("n{n}.example")))
            .unwrap();
        let error = ResolveError::Busy(host("x"));
        cell.set((Err(error), Instant::now() + TTL_MAX)).unwrap();
    }
    assert_eq!(resolver.known.lock().len(), MAX_NAMES);
}
