//! Policies that change under load, as kubelet changes them.
//!
//! Every generation allows one path and puts its own number into a field of the request, so what
//! arrives in the world tells which generation judged it and which one it was sent under: they must
//! be the one in its record. What a new generation no longer allows must end, and soon.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use std::{
    collections::{HashMap, HashSet},
    io::{self, Read as _, Write as _},
    net::TcpListener,
    sync::{
        Arc, Barrier, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use exeat_tests::{
    chaos::{
        API, Stage,
        client::Client,
        journal::{self, is_allow, outcome},
        until,
    },
    netns::{Persona, WORLD_V4},
};
use serde_json::Value;

/// docs/OPERATIONS.md publishes what was measured; this is the promise.
const CLOSED_WITHIN: Duration = Duration::from_secs(2);

/// Swaps under load, and how long each is left in peace: less than the gate takes to settle, so
/// that some are seen half way and some not at all.
const SWAPS: u64 = 250;
const BETWEEN_SWAPS: Duration = Duration::from_millis(40);

/// The swaps after which the policy is for a while one that nobody can read.
const BREAK_EVERY: u64 = 40;

const CALLERS: u64 = 4;

fn generation(token: u64) -> String {
    format!(
        r#"
apiVersion: exeat.dev/v1alpha1
kind: ToolPolicy
metadata: {{name: tokens}}
spec:
  tools:
  - name: token-{token}
    http: {{hosts: [{API}], addresses: [10.77.0.0/24], methods: [GET], paths: ["/t/{token}/**"]}}
    credential: mark
  credentials:
  - {{name: mark, secret: {{name: mark, key: token}}, inject: {{header: {{name: x-token, prefix: "{token}-"}}}}}}
"#
    )
}

#[test]
fn each_request_is_judged_by_one_generation() {
    let mut stage = Stage::new(&generation(0)).unwrap();
    let credential = stage.credential("mark", "mark").unwrap();
    let sidecar = stage.start(&["--credential", &credential]).unwrap();
    let (token, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let (answered, refused) = (AtomicU64::new(0), AtomicU64::new(0));
    let (world, authority) = (stage.world.tls(), stage.authority());
    let inside = stage.pod.inside.clone();

    thread::scope(|scope| {
        for caller in 0..CALLERS {
            let (token, stop, answered, refused) = (&token, &stop, &answered, &refused);
            let (inside, authority) = (&inside, &authority);
            scope.spawn(move || {
                let mut client = None;
                for call in 0_u64.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let connected = client.get_or_insert_with(|| {
                        inside
                            .run(Persona::Agent, || {
                                Client::tls(world, API, authority).unwrap()
                            })
                            .unwrap()
                    });
                    // The one before, this one, and the one that is to come.
                    let token = (token.load(Ordering::Relaxed) + call % 3).saturating_sub(1);
                    let path = format!("/t/{token}/{caller}/{call}");
                    let Ok(answer) = connected.get(API, &path, "") else {
                        // Its rule went while the answer was on its way.
                        client = None;
                        continue;
                    };
                    match answer.status {
                        200 => answered.fetch_add(1, Ordering::Relaxed),
                        403 => refused.fetch_add(1, Ordering::Relaxed),
                        status => panic!("{status}: {}", answer.text()),
                    };
                }
            });
        }
        let swapping = thread::Builder::new().spawn_scoped(scope, || {
            for swap in 1..=SWAPS {
                stage
                    .policies
                    .publish(&[("policy.yaml", &generation(swap))])
                    .unwrap();
                token.store(swap, Ordering::Relaxed);
                thread::sleep(BETWEEN_SWAPS);
                if swap % BREAK_EVERY == 0 {
                    stage
                        .policies
                        .publish(&[("policy.yaml", "spec: [")])
                        .unwrap();
                    sidecar.says("the last good one stays in force").unwrap();
                }
            }
            stop.store(true, Ordering::Relaxed);
        });
        let swapped = swapping.unwrap().join();
        stop.store(true, Ordering::Relaxed);
        swapped.unwrap();
    });
    let (answered, refused) = (answered.into_inner(), refused.into_inner());
    sidecar.stop().unwrap();

    let records = journal::read(&stage.journal()).unwrap();
    let (mut bundles, mut rules, mut allowed) = (HashMap::new(), HashMap::new(), HashMap::new());
    for record in &records {
        if record["event"] != "exeat.egress.decision" {
            continue;
        }
        let generation = record["generation"]
            .as_u64()
            .expect("each record names a generation");
        let bundle = record["bundle"].as_str().unwrap().to_owned();
        assert_eq!(
            *bundles.entry(generation).or_insert_with(|| bundle.clone()),
            bundle,
            "{record}"
        );
        if !is_allow(record) {
            continue;
        }
        let rule = record["rule"].as_str().unwrap().to_owned();
        assert_eq!(
            *rules.entry(generation).or_insert_with(|| rule.clone()),
            rule,
            "{record}"
        );
        let path = record["http"]["path"].as_str().unwrap().to_owned();
        assert!(
            path.starts_with(&format!("/t/{}/", rule.trim_start_matches("token-"))),
            "{record}"
        );
        assert!(
            allowed.insert(path, rule).is_none(),
            "two decisions for one call: {record}"
        );
    }
    let requests = stage.world.upstream().requests();
    for request in &requests {
        let rule = allowed
            .get(&request.path)
            .expect("a request has its decision");
        let sent_under = request
            .header("x-token")
            .map(|value| value.replace("-mark", ""));
        assert_eq!(
            Some(rule.trim_start_matches("token-")),
            sent_under.as_deref(),
            "{request:?}"
        );
    }
    println!(
        "{SWAPS} swaps, {} generations decided, {} allowed something; {answered} answered, {refused} refused",
        bundles.len(),
        rules.len(),
    );
    // Some were under way when their rule went: the world has seen them, and they were refused.
    let cut = records.iter().filter(|record| {
        record["error"]
            .as_str()
            .is_some_and(|error| error.starts_with("policy_changed"))
    });
    assert!((answered..=answered + cut.count() as u64).contains(&(requests.len() as u64)));
    assert_eq!(
        rules.values().collect::<HashSet<_>>().len(),
        rules.len(),
        "one rule under two generations"
    );
    // Otherwise nothing was tried.
    assert!(
        rules.len() > 20 && answered > SWAPS && refused > SWAPS,
        "{answered} {refused} {rules:?}"
    );
}

#[test]
fn a_bad_policy_keeps_the_last_good_one_and_none_denies() {
    let mut stage = Stage::new(&generation(1)).unwrap();
    let credential = stage.credential("mark", "mark").unwrap();
    let sidecar = stage.start(&["--credential", &credential]).unwrap();
    let (world, authority) = (stage.world.tls(), stage.authority());
    let get = |stage: &Stage, path: &str| {
        let answer = stage.agent(|| {
            Client::tls(world, API, &authority)
                .unwrap()
                .get(API, path, "")
                .unwrap()
        });
        let code: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        (
            answer.status,
            code["error"]["code"]
                .as_str()
                .unwrap_or_default()
                .to_owned(),
        )
    };
    let metrics = |stage: &Stage| {
        let ask = || Client::plain("10.77.0.2:15021".parse().unwrap())?.get("gate", "/metrics", "");
        stage
            .pod
            .outside
            .run(Persona::Root, ask)
            .unwrap()
            .unwrap()
            .text()
    };
    assert_eq!(get(&stage, "/t/1/a").0, 200);
    assert!(
        metrics(&stage).contains("exeat_policy_current 1"),
        "{}",
        metrics(&stage)
    );

    let unknown_field = generation(2).replace("methods:", "mehtods:");
    for (bad, why) in [
        ("spec: [".to_owned(), "policy.yaml"),
        (unknown_field, "mehtods"),
        (
            generation(2).replace("kind: ToolPolicy", "kind: ToolPolice"),
            "ToolPolice",
        ),
    ] {
        stage.policies.publish(&[("policy.yaml", &bad)]).unwrap();
        sidecar.says(why).unwrap();
        sidecar.says("the last good one stays in force").unwrap();
        until("the metrics say so", CLOSED_WITHIN, || {
            metrics(&stage).contains("exeat_policy_current 0")
        })
        .unwrap();
        assert!(
            metrics(&stage).contains("exeat_policy_generation 1"),
            "{}",
            metrics(&stage)
        );
        assert_eq!(
            get(&stage, "/t/1/b").0,
            200,
            "the last good one still allows"
        );
        assert_eq!(
            get(&stage, "/t/2/b").0,
            403,
            "nothing of the bad one counts"
        );
    }
    stage
        .policies
        .publish(&[("policy.yaml", &generation(3))])
        .unwrap();
    until("the good one is in force", CLOSED_WITHIN, || {
        get(&stage, "/t/3/a").0 == 200
    })
    .unwrap();
    assert!(
        metrics(&stage).contains("exeat_policy_current 1"),
        "{}",
        metrics(&stage)
    );

    // Deleted: an empty folder, then none.
    stage.policies.publish(&[]).unwrap();
    until("no policy denies", CLOSED_WITHIN, || {
        get(&stage, "/t/3/b") == (403, "no_policy".to_owned())
    })
    .unwrap();
    sidecar.says("everything is denied").unwrap();
    stage
        .policies
        .publish(&[("policy.yaml", &generation(4))])
        .unwrap();
    until("a policy came back", CLOSED_WITHIN, || {
        get(&stage, "/t/4/a").0 == 200
    })
    .unwrap();
    std::fs::remove_dir_all(stage.policies.path()).unwrap();
    until("a folder that is gone denies", CLOSED_WITHIN, || {
        get(&stage, "/t/4/b").0 == 403
    })
    .unwrap();
}

const OPEN: &str = r#"
apiVersion: exeat.dev/v1alpha1
kind: ToolPolicy
metadata: {name: streams}
spec:
  tools:
  - name: kept
    http: {hosts: [api.exeat.test], addresses: [10.77.0.0/24], methods: [GET], paths: ["/sse/kept"]}
"#;

const MORE: &str = r#"
  - name: streams
    http: {hosts: [api.exeat.test], addresses: [10.77.0.0/24], methods: [GET, POST], paths: ["/ws", "/sse", "/digest", "/bytes/*"]}
  - name: opaque
    http: {hosts: [other.exeat.test], addresses: [10.77.0.0/24], tls: {mode: Passthrough}}
  - name: raw
    tcp: {host: 10.77.0.1, port: 5432, addresses: [10.77.0.0/24]}
"#;

/// A stream that lasts until somebody ends it.
type Stream = (&'static str, fn(&Reach) -> io::Result<()>);

/// What a stream needs to be opened.
struct Reach {
    world: std::net::SocketAddr,
    authority: std::path::PathBuf,
    upstream_ca: std::path::PathBuf,
    opened: Arc<Barrier>,
    over: AtomicBool,
}

/// Each opens its stream, tells so, and returns when the stream is at its end.
const STREAMS: [Stream; 8] = [
    ("websocket", websocket),
    ("events", events),
    ("upload", upload),
    ("download that nobody reads", stalled),
    ("tunnel", tunnel),
    ("passthrough", passthrough),
    ("passthrough in a tunnel", tunnelled_passthrough),
    ("tcp", raw),
];

#[test]
fn a_tightened_policy_ends_what_it_no_longer_allows() {
    let mut stage = Stage::new(&format!("{OPEN}{MORE}")).unwrap();
    let sidecar = stage.start(&[]).unwrap();
    echo(&stage);
    let reach = Reach {
        world: stage.world.tls(),
        authority: stage.authority(),
        upstream_ca: stage.path("upstream-ca.pem"),
        opened: Arc::new(Barrier::new(STREAMS.len() + 1)),
        over: AtomicBool::new(false),
    };
    let closed = Mutex::new(HashMap::new());
    let stage_journal = stage.journal();
    let inside = stage.pod.inside.clone();
    // What the new generation still allows goes on.
    let mut kept = stage.agent(|| {
        let mut kept = Client::tls(reach.world, API, &reach.authority).unwrap();
        kept.send(sse("/sse/kept").as_bytes()).unwrap();
        kept.head().unwrap();
        kept
    });
    let told = || {
        let records = journal::read(&stage_journal).unwrap();
        let ended = |decision: &&Value| is_allow(decision) && decision["rule"] != "kept";
        let pair = |decision: &Value| (decision.clone(), outcome(&records, decision).cloned());
        records.iter().filter(ended).map(pair).collect::<Vec<_>>()
    };
    let tightened = thread::scope(|scope| {
        for (name, open) in STREAMS {
            let (reach, closed, inside) = (&reach, &closed, &inside);
            scope.spawn(move || {
                let ended = inside.run(Persona::Agent, || open(reach)).unwrap();
                let ended = (Instant::now(), ended.map_err(|error| error.kind()));
                closed.lock().unwrap().insert(name, ended);
            });
        }
        reach.opened.wait();
        thread::sleep(Duration::from_millis(100));
        assert!(
            closed.lock().unwrap().is_empty(),
            "ended by itself: {closed:?} {}",
            sidecar.last_words()
        );
        let tightened = Instant::now();
        stage.policies.publish(&[("policy.yaml", OPEN)]).unwrap();
        // Also of the one whose agent does not read.
        let all = || told().iter().all(|(_, outcome)| outcome.is_some());
        let ended = until("each has its outcome", CLOSED_WITHIN, all);
        println!("outcomes after {:?}", tightened.elapsed());
        reach.over.store(true, Ordering::Relaxed);
        ended.unwrap();
        tightened
    });
    let closed = closed.into_inner().unwrap();
    for (name, (at, how)) in &closed {
        let after = at.duration_since(tightened);
        println!("{name}: {after:?}, {how:?}");
        let hung = matches!(
            how,
            Err(io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
        );
        assert!(
            !hung && after < CLOSED_WITHIN,
            "{name} ended after {after:?}: {how:?}"
        );
    }
    for _ in 0..3 {
        assert!(
            !kept.some().unwrap().is_empty(),
            "what is still allowed goes on"
        );
    }
    let told = told();
    assert_eq!(told.len(), STREAMS.len(), "{told:#?}");
    for (decision, outcome) in told {
        let error = outcome
            .as_ref()
            .and_then(|outcome| outcome["error"].as_str())
            .unwrap_or_default();
        assert!(
            error.starts_with("policy_changed"),
            "{decision} {outcome:?}"
        );
    }
    drop(kept);
    // In the world too.
    until("the upload is cut off", CLOSED_WITHIN, || {
        stage
            .world
            .upstream()
            .requests_to("/digest")
            .iter()
            .all(|request| !request.complete)
    })
    .unwrap();
}

fn connect(reach: &Reach) -> io::Result<Client> {
    Client::tls(reach.world, API, &reach.authority).map_err(io::Error::other)
}

fn sse(path: &str) -> String {
    format!("GET {path}?events=100000&ms=20 HTTP/1.1\r\nhost: {API}\r\n\r\n")
}

fn events(reach: &Reach) -> io::Result<()> {
    let mut client = connect(reach)?;
    watch(&mut client, reach)
}

/// Asks for events, and reads them to their end.
fn watch(client: &mut Client, reach: &Reach) -> io::Result<()> {
    client.send(sse("/sse").as_bytes())?;
    let head = client.head()?;
    if !head.starts_with("HTTP/1.1 200") {
        return Err(io::Error::other(head));
    }
    client.some()?;
    reach.opened.wait();
    client.drain()
}

fn websocket(reach: &Reach) -> io::Result<()> {
    let mut client = connect(reach)?;
    let ask = format!(
        "GET /ws HTTP/1.1\r\nhost: {API}\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    client.send(ask.as_bytes())?;
    let head = client.head()?;
    if !head.starts_with("HTTP/1.1 101") {
        return Err(io::Error::other(head));
    }
    client.send(&[0x81, 0x82, 1, 2, 3, 4, b'h' ^ 1, b'i' ^ 2])?;
    client.some()?;
    reach.opened.wait();
    client.drain()
}

fn upload(reach: &Reach) -> io::Result<()> {
    let mut client = connect(reach)?;
    client.send(
        format!("POST /digest HTTP/1.1\r\nhost: {API}\r\ntransfer-encoding: chunked\r\n\r\n")
            .as_bytes(),
    )?;
    let chunk = |client: &mut Client| client.send(b"4\r\nmore\r\n");
    for _ in 0..5 {
        chunk(&mut client)?;
        thread::sleep(Duration::from_millis(10));
    }
    reach.opened.wait();
    client
        .tcp()
        .set_read_timeout(Some(Duration::from_millis(10)))?;
    for _ in 0..500 {
        chunk(&mut client)?;
        match client.some() {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::TimedOut.into())
}

/// The agent lets the answer pile up; the world must not be kept waiting for it all the same.
fn stalled(reach: &Reach) -> io::Result<()> {
    let mut client = connect(reach)?;
    client.send(format!("GET /bytes/500000000 HTTP/1.1\r\nhost: {API}\r\n\r\n").as_bytes())?;
    client.head()?;
    reach.opened.wait();
    // Not a byte is read until all is over.
    while !reach.over.load(Ordering::Relaxed) {
        thread::sleep(Duration::from_millis(5));
    }
    client.drain()
}

fn tunnel(reach: &Reach) -> io::Result<()> {
    let mut client = opened_tunnel(API)?
        .secured(API, &reach.authority)
        .map_err(io::Error::other)?;
    watch(&mut client, reach)
}

fn passthrough(reach: &Reach) -> io::Result<()> {
    let mut client = Client::tls(reach.world, "other.exeat.test", &reach.upstream_ca)
        .map_err(io::Error::other)?;
    watch(&mut client, reach)
}

fn tunnelled_passthrough(reach: &Reach) -> io::Result<()> {
    let name = "other.exeat.test";
    let mut client = opened_tunnel(name)?
        .secured(name, &reach.upstream_ca)
        .map_err(io::Error::other)?;
    watch(&mut client, reach)
}

fn opened_tunnel(name: &str) -> io::Result<Client> {
    let mut client = Client::plain(([127, 0, 0, 1], 15002).into())?;
    client.send(format!("CONNECT {name}:443 HTTP/1.1\r\nhost: {name}:443\r\n\r\n").as_bytes())?;
    let head = client.head()?;
    if head.starts_with("HTTP/1.1 200") {
        Ok(client)
    } else {
        Err(io::Error::other(head))
    }
}

fn raw(reach: &Reach) -> io::Result<()> {
    let mut client = Client::plain(format!("{WORLD_V4}:5432").parse().unwrap())?;
    client.send(b"hello")?;
    client.some()?;
    reach.opened.wait();
    client.drain()
}

/// A server of the world that says again what it is told.
fn echo(stage: &Stage) {
    let bind = || TcpListener::bind((WORLD_V4, 5432));
    let listener = stage.pod.outside.run(Persona::Root, bind).unwrap().unwrap();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut buffer = [0; 64];
        while let Ok(length @ 1..) = stream.read(&mut buffer) {
            stream.write_all(&buffer[..length]).unwrap();
        }
    });
}
