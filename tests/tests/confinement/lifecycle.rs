//! The rules over time: killed gates, killed inits, repeated inits, other people's rules.

use std::net::{SocketAddr, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use exeat_init::{Backend, Plan};
use exeat_tests::netns::{Persona, Pod};

use crate::support::{Confined, MARKER, PROGRAM, Reach, tcp, udp};

under_every_filter!(
    a_killed_gate_leaves_nothing_open,
    a_killed_init_leaves_nothing_open,
    init_killed_after_its_deny_leaves_the_pod_shut,
    a_second_init_changes_nothing,
    clean_takes_everything_away,
    what_is_not_planned_is_noticed,
    live_traffic_survives_a_second_init,
);

/// Gates killed under each filter.
const GATES: usize = 8;
/// Inits killed under each filter: 3 × 70 rounds, and the steps.
const INITS: u32 = 70;

/// Tries in a loop, from several sockets, until told to stop.
fn flood(pod: &Pod, stop: &AtomicBool, tried: &AtomicU64) {
    let targets: [SocketAddr; 4] = [
        "203.0.113.9:443".parse().unwrap(),
        "[2001:db8::9]:443".parse().unwrap(),
        "8.8.8.8:53".parse().unwrap(),
        "[2001:db8::9]:53".parse().unwrap(),
    ];
    pod.inside
        .run(Persona::Agent, || {
            let v4 = UdpSocket::bind("0.0.0.0:0").unwrap();
            let v6 = UdpSocket::bind("[::]:0").unwrap();
            while !stop.load(Ordering::Relaxed) {
                for to in targets {
                    let socket = if to.is_ipv4() { &v4 } else { &v6 };
                    let _refused = socket.send_to(MARKER, to);
                    let stream =
                        std::net::TcpStream::connect_timeout(&to, Duration::from_millis(200));
                    if let Ok(mut stream) = stream {
                        let _cut = std::io::Write::write_all(&mut stream, MARKER);
                    }
                    tried.fetch_add(1, Ordering::Relaxed);
                }
            }
        })
        .unwrap();
}

fn under_flood(pod: &Confined, work: impl FnOnce()) {
    let (stop, tried) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| flood(&pod.pod, &stop, &tried));
        // Not before the flood is there.
        let begun = Instant::now();
        while tried.load(Ordering::Relaxed) < 4 && begun.elapsed() < Duration::from_secs(5) {
            std::thread::sleep(Duration::from_millis(1));
        }
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        stop.store(true, Ordering::Relaxed);
        if let Err(panic) = done {
            std::panic::resume_unwind(panic);
        }
    });
    assert!(tried.load(Ordering::Relaxed) > 8, "the agent hardly tried");
    let escapes = pod.capture.escapes();
    assert!(
        escapes.is_empty(),
        "{} frames got out, the first: {:?}",
        escapes.len(),
        escapes[0]
    );
}

fn a_killed_gate_leaves_nothing_open(backend: Backend) {
    let pod = Confined::new(backend);
    under_flood(&pod, || {
        for _ in 0..GATES {
            let stub = pod.stub();
            let to = "203.0.113.5:443".parse().unwrap();
            let held = pod.pod.inside.run(Persona::Agent, || {
                let mut stream =
                    std::net::TcpStream::connect_timeout(&to, Duration::from_secs(1)).unwrap();
                assert!(crate::support::read(&mut stream).starts_with("GATE "));
                stream
            });
            let mut held = held.unwrap();
            // SIGKILL, and the connection through it is over at once.
            drop(stub);
            let begun = Instant::now();
            assert_eq!(crate::support::read(&mut held), "");
            assert!(begun.elapsed() < Duration::from_millis(500));
            let refused = pod.pod.inside.run(Persona::Agent, || tcp(to)).unwrap();
            assert_eq!(
                refused,
                Reach::Refused(std::io::ErrorKind::ConnectionRefused)
            );
        }
    });
}

fn a_killed_init_leaves_nothing_open(backend: Backend) {
    let pod = Confined::new(backend);
    // How long one takes here, so that the kills fall anywhere in it.
    let begun = Instant::now();
    pod.init(&["apply", "--no-prove"]).unwrap();
    let whole = begun.elapsed();
    under_flood(&pod, || {
        for round in 0..INITS {
            let mut child = pod
                .pod
                .inside
                .run(Persona::Root, || {
                    Command::new(PROGRAM)
                        .args(["init", "apply", "--no-prove", "--backend", backend.as_str()])
                        .stdout(Stdio::null())
                        .stderr(Stdio::null())
                        .spawn()
                        .unwrap()
                })
                .unwrap();
            // A low-discrepancy walk over its whole life: no two rounds alike, the same each run.
            let part = (f64::from(round) * 0.618_034).fract();
            std::thread::sleep(whole.mul_f64(part));
            let _ended = child.kill();
            child.wait().unwrap();
        }
        for step in ["1", "2", "3", "4"] {
            let killed = pod
                .init(&["apply", "--no-prove", "--fault-after-step", step])
                .unwrap_err();
            assert_eq!(killed.0, None, "a signal has no exit status: {}", killed.1);
        }
    });
    // Whatever they left, the next one makes whole.
    pod.init(&["apply"]).unwrap();
}

fn init_killed_after_its_deny_leaves_the_pod_shut(backend: Backend) {
    for step in ["2", "3", "4"] {
        let mut pod = Confined::bare();
        pod.backend = backend;
        pod.init(&["apply", "--no-prove", "--fault-after-step", step])
            .unwrap_err();
        drop(pod.capture.take());
        for to in ["203.0.113.9:443", "[2001:db8::9]:443", "203.0.113.9:4000"] {
            let to: SocketAddr = to.parse().unwrap();
            let reach = pod
                .pod
                .inside
                .run(Persona::Agent, || (tcp(to), udp(to)))
                .unwrap();
            assert!(
                matches!(reach, (Reach::Refused(_), Reach::Refused(_))),
                "{to}, step {step}: {reach:?}"
            );
        }
        assert_eq!(pod.capture.escapes(), []);
    }
}

fn a_second_init_changes_nothing(backend: Backend) {
    let pod = Confined::new(backend);
    // iptables takes four programs where nft takes one.
    let rounds = if backend == Backend::Nft { 100 } else { 40 };
    let rules = || dump(&pod);
    let first = rules();
    pod.pod
        .inside
        .run(Persona::Root, || {
            let digest = exeat_init::verify(&Plan::default(), backend).unwrap().rules;
            for _ in 0..rounds {
                let report = exeat_init::apply(&Plan::default(), backend).unwrap();
                assert_eq!(report.rules, digest);
            }
        })
        .unwrap();
    assert_eq!(rules(), first);
}

/// Everything any packet filter has, counters aside.
fn dump(pod: &Confined) -> String {
    let mut all = pod
        .pod
        .inside
        .command("nft", &["--stateless", "list", "ruleset"])
        .unwrap();
    for program in ["iptables-legacy-save", "ip6tables-legacy-save"] {
        let saved = pod.pod.inside.command(program, &[]).unwrap();
        all.extend(
            saved
                .lines()
                .filter(|line| !line.starts_with('#'))
                .map(|line| format!("{}\n", line.split(" [").next().unwrap_or(line))),
        );
    }
    all
}

fn clean_takes_everything_away(backend: Backend) {
    let pod = Confined::new(backend);
    pod.init(&["clean"]).unwrap();
    assert!(
        !dump(&pod).to_lowercase().contains("exeat"),
        "{}",
        dump(&pod)
    );
    let to = "203.0.113.9:4000".parse().unwrap();
    pod.pod.inside.run(Persona::Agent, || udp(to)).unwrap();
    assert!(!pod.capture.escapes().is_empty());
    let (code, _) = pod.init(&["verify", "--no-prove"]).unwrap_err();
    assert_eq!(code, Some(84));
}

/// Rules before ours, in ours, and instead of ours, each with its own exit status.
fn what_is_not_planned_is_noticed(backend: Backend) {
    let tamperings: &[(&str, i32)] = match backend {
        Backend::Nft => &[
            ("nft insert rule inet exeat output accept", 84),
            (
                "nft add rule inet exeat capture meta l4proto udp accept",
                84,
            ),
            ("nft flush chain inet exeat refuse", 84),
            ("nft delete table netdev exeat", 84),
            ("nft add chain inet exeat more", 84),
            ("iptables-legacy -I OUTPUT 1 -j ACCEPT", 83),
            ("iptables-nft -t nat -A OUTPUT -p tcp -j ACCEPT", 83),
        ],
        Backend::IptablesNft => &[
            ("iptables-nft -I OUTPUT 1 -j ACCEPT", 83),
            ("ip6tables-nft -t nat -I OUTPUT 1 -j ACCEPT", 83),
            ("iptables-nft -I EXEAT_OUTPUT 3 -j ACCEPT", 84),
            ("ip6tables-nft -F EXEAT_OUTPUT", 84),
            ("ip6tables-nft -P OUTPUT ACCEPT", 84),
            ("iptables-nft -F OUTPUT", 84),
            ("iptables-legacy -I OUTPUT 1 -j ACCEPT", 83),
        ],
        _ => &[
            ("iptables-legacy -I OUTPUT 1 -j ACCEPT", 83),
            ("ip6tables-legacy -t nat -I OUTPUT 1 -j ACCEPT", 83),
            ("iptables-legacy -I EXEAT_OUTPUT 3 -j ACCEPT", 84),
            ("ip6tables-legacy -F EXEAT_OUTPUT", 84),
            ("ip6tables-legacy -P OUTPUT ACCEPT", 84),
            ("iptables-legacy -t mangle -D EXEAT_LEAVE 1", 84),
        ],
    };
    for (tampering, code) in tamperings {
        let pod = Confined::new(backend);
        pod.init(&["verify", "--no-prove"])
            .expect("untouched, they are as planned");
        let words: Vec<&str> = tampering.split(' ').collect();
        pod.pod.inside.command(words[0], &words[1..]).unwrap();
        let (status, complaint) = pod.init(&["verify", "--no-prove"]).unwrap_err();
        assert_eq!(status, Some(*code), "{tampering}: {complaint}");
        assert!(complaint.contains("hint: "), "{complaint}");
        if *code == 83 {
            assert_eq!(
                pod.init(&["apply", "--no-prove"]).unwrap_err().0,
                Some(83),
                "{tampering}"
            );
        } else {
            pod.init(&["apply"])
                .expect("what was damaged is made whole");
            pod.init(&["verify"]).unwrap();
        }
    }
}

fn live_traffic_survives_a_second_init(backend: Backend) {
    let pod = Confined::new(backend);
    let _stub = pod.stub();
    let _world = pod.world();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let agent = scope.spawn(|| {
            let mut rounds = 0;
            pod.pod
                .inside
                .run(Persona::Agent, || {
                    let mut held = std::net::TcpStream::connect("203.0.113.5:443").unwrap();
                    assert!(crate::support::read(&mut held).starts_with("GATE "));
                    while !stop.load(Ordering::Relaxed) {
                        std::io::Write::write_all(&mut held, b"t")
                            .expect("the connection lives on");
                        let mut said = String::new();
                        while said.lines().count() < 2 || !said.ends_with('\n') {
                            let more = crate::support::read(&mut held);
                            assert!(!more.is_empty(), "it was cut after {said:?}");
                            said.push_str(&more);
                        }
                        assert_eq!(said, "world\nworld\n");
                        let to = "8.8.8.8:53".parse().unwrap();
                        assert_eq!(udp(to), Reach::Gate(to));
                        rounds += 1;
                    }
                })
                .unwrap();
            rounds
        });
        for _ in 0..10 {
            pod.init(&["apply", "--no-prove"]).unwrap();
        }
        stop.store(true, Ordering::Relaxed);
        assert!(agent.join().unwrap() > 3);
    });
    assert_eq!(pod.capture.escapes(), []);
}

/// Exit status, cause and remedy, for each way in which it can fail before it has done anything.
#[test]
fn init_says_why_it_failed() {
    let pod = Confined::bare();
    let as_agent = pod
        .pod
        .inside
        .run(Persona::Agent, || {
            Command::new(PROGRAM)
                .args(["init", "apply"])
                .output()
                .unwrap()
        })
        .unwrap();
    assert_eq!(
        as_agent.status.code(),
        Some(77),
        "{}",
        String::from_utf8_lossy(&as_agent.stderr)
    );
    for arguments in [
        &["apply", "--uid", "0"][..],
        &["apply", "--dns-port", "53"],
        &["apply", "--backend", "sh"],
        &["open"],
    ] {
        let mut all = vec!["init"];
        all.extend(arguments);
        assert_eq!(
            pod.pod.inside.output(PROGRAM, &all).unwrap().status.code(),
            Some(64),
            "{arguments:?}"
        );
    }
    // Programs are looked for in fixed places: put others there, in a mount namespace.
    let legacy = std::fs::canonicalize("/usr/sbin/iptables-legacy-restore").unwrap();
    for (programs, broken, code) in [
        (&[][..], &[][..], 80),
        (
            &["iptables-legacy-save", "iptables-legacy-restore"],
            &[],
            80,
        ),
        (
            &[
                "iptables-legacy-save",
                "iptables-legacy-restore",
                "ip6tables-legacy-save",
            ],
            &["ip6tables-legacy-restore"],
            82,
        ),
    ] {
        let pod = Confined::bare();
        let folder = tempfile::tempdir().unwrap();
        let multi = folder.path().join("xtables-legacy-multi");
        std::fs::copy(&legacy, &multi).unwrap();
        for program in programs {
            std::os::unix::fs::symlink("xtables-legacy-multi", folder.path().join(program))
                .unwrap();
        }
        for program in broken {
            std::fs::copy("/bin/false", folder.path().join(program)).unwrap();
        }
        let script = "mount --bind \"$1\" /usr/sbin && exec \"$2\" init apply --backend iptables-legacy --format json";
        let folder = folder.path().display().to_string();
        let output = pod
            .pod
            .inside
            .output(
                "unshare",
                &["--mount", "sh", "-c", script, "sh", &folder, PROGRAM],
            )
            .unwrap();
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert_eq!(
            output.status.code(),
            Some(code),
            "{programs:?}: {complaint}"
        );
        assert!(complaint.contains("\"remedy\":"), "{complaint}");
        if code == 82 {
            // IPv4 alone is not left open because IPv6 could not be shut.
            let to = "203.0.113.9:443".parse().unwrap();
            let reach = pod.pod.inside.run(Persona::Agent, || udp(to)).unwrap();
            assert!(matches!(reach, Reach::Refused(_)), "{reach:?}");
        }
    }
}

/// The namespace of `exeat run`: loopback only, every address local, the gate outside.
#[test]
fn without_an_exempt_user_every_address_is_captured() {
    for backend in [Backend::Nft, Backend::IptablesNft, Backend::IptablesLegacy] {
        let namespace = exeat_tests::netns::Namespace::new().unwrap();
        namespace.ip("route add local default dev lo").unwrap();
        namespace.ip("-6 route add local default dev lo").unwrap();
        namespace
            .run(Persona::Root, || {
                exeat_init::apply(&Plan::outside(), backend).unwrap();
                exeat_init::verify(&Plan::outside(), backend).unwrap();
                exeat_init::prove(&Plan::outside()).unwrap();
            })
            .unwrap();
        let gate: Vec<std::net::TcpListener> = namespace
            .run(Persona::Root, || {
                ["127.0.0.1:15001", "[::1]:15001"]
                    .map(|at| std::net::TcpListener::bind(at).unwrap())
                    .into()
            })
            .unwrap();
        namespace
            .run(Persona::Agent, || {
                for (listener, to) in gate.iter().zip(["203.0.113.9:443", "[2001:db8::9]:443"]) {
                    let to: SocketAddr = to.parse().unwrap();
                    let mut agent =
                        std::net::TcpStream::connect_timeout(&to, Duration::from_secs(1)).unwrap();
                    let (mut taken, _) = listener.accept().unwrap();
                    let socket = socket2::SockRef::from(&taken);
                    let original = if to.is_ipv4() {
                        socket.original_dst_v4()
                    } else {
                        socket.original_dst_v6()
                    };
                    assert_eq!(original.unwrap().as_socket(), Some(to));
                    std::io::Write::write_all(&mut taken, b"gate").unwrap();
                    assert_eq!(crate::support::read(&mut agent), "gate");
                    assert!(matches!(udp(to), Reach::Refused(_)));
                }
                // Its own servers are its own.
                for host in ["127.0.0.1", "::1"] {
                    let _server = std::net::TcpListener::bind((host, 3000)).unwrap();
                    crate::support::connect((host, 3000)).unwrap();
                    let socket = UdpSocket::bind((host, 3000)).unwrap();
                    socket.send_to(b"mine", (host, 3000)).unwrap();
                    assert_eq!(socket.recv(&mut [0; 8]).unwrap(), 4);
                }
            })
            .unwrap();
    }
}
