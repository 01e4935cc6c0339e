//! kill -9 of the sidecar, over and over, while the agent calls and tries to get out.
//!
//! The oracle is outside. What the agent sends carries a mark that the gate takes away, so a frame
//! on the cable that has it left without the gate. Every request has a path of its own, so what the
//! world saw is looked up in the journal: the record must have been there when the sidecar died.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use std::{
    collections::HashMap,
    env,
    io::{self, Write as _},
    net::{SocketAddr, TcpStream, UdpSocket},
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use exeat_tests::{
    chaos::{
        API, Stage, append,
        client::Client,
        journal::{self, Reader},
    },
    netns::{Persona, Pod, WORLD_V4, WORLD_V6},
    sink::Capture,
};
use serde_json::Value;

/// What the agent puts into all that it sends, and the gate into nothing.
const MARK: &str = "agentmark7f3a9c";

/// `EXEAT_ROUNDS` asks for another number; docs/OPERATIONS.md has what a long run came to.
const ROUNDS: u64 = 200;

/// From asking to knowing, for whatever the agent tries: refused at once, also with no gate there.
const AT_ONCE: Duration = Duration::from_secs(2);

const POLICY: &str = r#"
apiVersion: exeat.dev/v1alpha1
kind: ToolPolicy
metadata: {name: crash}
spec:
  tools:
  - name: plain
    http: {hosts: [api.exeat.test], scheme: http, addresses: [10.77.0.0/24], methods: [GET], paths: ["/c/**"]}
  - name: secure
    http: {hosts: [api.exeat.test], addresses: [10.77.0.0/24], methods: [GET], paths: ["/c/**"]}
"#;

/// What the agent's threads came to.
#[derive(Debug, Default)]
struct Tally {
    answered: AtomicU64,
    broken: AtomicU64,
    refused: AtomicU64,
    escapes_tried: AtomicU64,
    slowest: Mutex<Duration>,
}

/// The agent's threads.
struct Load {
    tally: Arc<Tally>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// What the world saw against what is on record.
struct Ledger {
    reader: Reader,
    allowed: HashMap<String, Value>,
    events: Vec<(String, u64)>,
    seen: usize,
}

#[test]
fn no_call_without_its_record_and_no_packet_without_the_gate() {
    let rounds = env::var("EXEAT_ROUNDS").map_or(ROUNDS, |text| text.parse().unwrap());
    let stage = Stage::new(POLICY).unwrap();
    let capture = Capture::start(&stage.pod).unwrap();
    let load = Load::start(&stage);
    let mut ledger = Ledger::new(&stage);
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let (mut started, mut torn) = (0, 0);
    let begun = Instant::now();

    for round in 0..rounds {
        let mut sidecar = stage.spawn(&[]).unwrap();
        if round % 4 == 3 {
            // At any instant of its start.
            thread::sleep(Duration::from_millis(dice.below(80)));
        } else {
            sidecar.ready().unwrap();
            started += 1;
            thread::sleep(Duration::from_millis(5 + dice.below(60)));
        }
        sidecar.kill().unwrap();
        if round % 10 == 9 {
            ledger.settle(&stage);
            for frame in capture.take() {
                let to_the_world = matches!(frame.ports, Some((_, 80 | 443)));
                assert!(frame.neighbour || to_the_world, "{frame:?} left the pod");
                assert!(
                    !frame.holds(MARK.as_bytes()),
                    "{frame:?} left as the agent sent it"
                );
            }
            // What a torn write would have left.
            let record = b"{\"event\":\"exeat.egress.decision\",\"id\":";
            let left = &record[..=usize::try_from(dice.below(37)).unwrap()];
            append(&stage.journal())
                .and_then(|mut file| file.write_all(left))
                .unwrap();
            torn += 1;
        }
    }
    let mut last = stage.spawn(&[]).unwrap();
    last.ready().unwrap();
    let tally = load.stop();
    last.stop().unwrap();
    ledger.settle(&stage);
    assert!(
        capture
            .take()
            .iter()
            .all(|frame| !frame.holds(MARK.as_bytes()))
    );

    let count = |event: &str| {
        ledger
            .events
            .iter()
            .filter(|(name, _)| name == event)
            .count() as u64
    };
    let (answered, refused) = (
        tally.answered.load(Ordering::Relaxed),
        tally.refused.load(Ordering::Relaxed),
    );
    let slowest = *tally.slowest.lock().unwrap();
    println!(
        "{rounds} kills in {:?}: {} requests seen, {answered} answered, {} broken off, {refused} refused, \
         {} escapes tried, slowest refusal {slowest:?}; {} records, {} opened, {} recovered",
        begun.elapsed(),
        ledger.seen,
        tally.broken.load(Ordering::Relaxed),
        tally.escapes_tried.load(Ordering::Relaxed),
        ledger.events.len(),
        count("exeat.journal.opened"),
        count("exeat.journal.recovered"),
    );
    // A kill may tear one by itself.
    assert!(
        count("exeat.journal.recovered") >= torn,
        "each torn tail is cut and on record"
    );
    assert!(
        count("exeat.journal.opened") > started,
        "each start is on record"
    );
    assert_eq!(
        count("exeat.journal.closed"),
        1,
        "only the last one had a last word"
    );
    // Otherwise nothing was tried.
    assert!(ledger.seen as u64 > rounds / 2 && answered > rounds / 2 && refused > rounds);
    assert!(tally.escapes_tried.load(Ordering::Relaxed) > rounds);
    assert!(slowest < AT_ONCE, "something took {slowest:?}");
}

// === impl Ledger ===

impl Ledger {
    fn new(stage: &Stage) -> Self {
        Self {
            reader: Reader::new(stage.journal()),
            allowed: HashMap::new(),
            events: Vec::new(),
            seen: 0,
        }
    }

    /// With no sidecar alive: whatever the world has seen, or is about to, is on record already.
    fn settle(&mut self, stage: &Stage) {
        for record in self.reader.more().unwrap() {
            if journal::is_allow(&record) {
                let path = record["http"]["path"].as_str().unwrap().to_owned();
                let before = self.allowed.insert(path, record.clone());
                assert_eq!(before, None, "two decisions for one call: {record}");
            }
            let event = record["event"].as_str().unwrap().to_owned();
            self.events.push((event, record["seq"].as_u64().unwrap()));
        }
        // What was on the cable has arrived.
        thread::sleep(Duration::from_millis(20));
        let requests = stage.world.upstream().requests();
        for request in &requests[self.seen..] {
            assert!(
                self.allowed.contains_key(&request.path),
                "{} reached the world with no decision on record",
                request.path
            );
            assert!(!request.mentions(MARK), "{request:?}");
        }
        self.seen = requests.len();
    }
}

// === impl Load ===

impl Load {
    fn start(stage: &Stage) -> Self {
        let mut load = Self {
            tally: Arc::default(),
            stop: Arc::default(),
            threads: Vec::new(),
        };
        for thread in 0..3 {
            load.caller(&stage.pod, thread, stage.world.plain(), None);
        }
        let secure = Some(stage.authority());
        load.caller(&stage.pod, 3, stage.world.tls(), secure);
        load.escaper(&stage.pod);
        load
    }

    fn stop(self) -> Arc<Tally> {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().unwrap();
        }
        self.tally
    }

    /// Calls as fast as it can, on one connection while it lasts.
    fn caller(&mut self, pod: &Pod, number: u64, to: SocketAddr, authority: Option<PathBuf>) {
        self.thread(pod, move |tally, stop| {
            let mut client: Option<Client> = None;
            let mut call = 0;
            while !stop.load(Ordering::Relaxed) {
                call += 1;
                let begun = Instant::now();
                let done = once(&mut client, to, authority.as_ref(), number, call);
                match done {
                    Ok(()) => &tally.answered,
                    Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                        tally.took(begun.elapsed());
                        thread::sleep(Duration::from_millis(1));
                        &tally.refused
                    }
                    Err(error) => {
                        assert_ne!(error.kind(), io::ErrorKind::WouldBlock, "a call hangs");
                        thread::sleep(Duration::from_millis(2));
                        client = None;
                        &tally.broken
                    }
                }
                .fetch_add(1, Ordering::Relaxed);
            }
        });
    }

    /// Tries other ways out, all the time.
    fn escaper(&mut self, pod: &Pod) {
        self.thread(pod, |tally, stop| {
            while !stop.load(Ordering::Relaxed) {
                for (world, any) in [(WORLD_V4, "0.0.0.0:0"), (WORLD_V6, "[::]:0")] {
                    let to = |port| SocketAddr::new(world.parse().unwrap(), port);
                    let begun = Instant::now();
                    let socket = UdpSocket::bind(any).unwrap();
                    for port in [443, 123, 9999] {
                        // Refused by the kernel, or thrown away by it: the cable tells.
                        drop(socket.send_to(MARK.as_bytes(), to(port)));
                    }
                    for port in [9999, 25] {
                        if let Ok(mut tcp) = TcpStream::connect_timeout(&to(port), AT_ONCE) {
                            // The gate takes it, and has to let it go again.
                            drop(tcp.write_all(MARK.as_bytes()));
                        }
                    }
                    tally.took(begun.elapsed());
                    tally.escapes_tried.fetch_add(5, Ordering::Relaxed);
                }
                thread::sleep(Duration::from_millis(20));
            }
        });
    }

    fn thread(&mut self, pod: &Pod, work: impl FnOnce(&Tally, &AtomicBool) + Send + 'static) {
        let (inside, tally, stop) = (
            pod.inside.clone(),
            Arc::clone(&self.tally),
            Arc::clone(&self.stop),
        );
        self.threads.push(thread::spawn(move || {
            inside.run(Persona::Agent, || work(&tally, &stop)).unwrap();
        }));
    }
}

fn once(
    client: &mut Option<Client>,
    to: SocketAddr,
    authority: Option<&PathBuf>,
    thread: u64,
    call: u64,
) -> io::Result<()> {
    let client = match client {
        Some(client) => client,
        None => client.insert(connect(to, authority)?),
    };
    let fields = format!("x-forwarded-for: {MARK}\r\n");
    let answer = client.get(API, &format!("/c/{thread}/{call}"), &fields)?;
    if answer.status == 200 {
        return Ok(());
    }
    Err(io::Error::other(answer.text()))
}

fn connect(to: SocketAddr, authority: Option<&PathBuf>) -> io::Result<Client> {
    let Some(authority) = authority else {
        return Client::plain(to);
    };
    if !authority.exists() {
        // Nobody has started yet.
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    // The authority may be one of a sidecar that is dead: that is an error like others.
    Client::tls(to, API, authority).map_err(|error| match error.downcast::<io::Error>() {
        Ok(error) => error,
        Err(error) => io::Error::other(error),
    })
}

// === impl Tally ===

impl Tally {
    fn took(&self, time: Duration) {
        let mut slowest = self.slowest.lock().unwrap();
        *slowest = time.max(*slowest);
    }
}

/// Repeatable dice: xorshift64.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}
