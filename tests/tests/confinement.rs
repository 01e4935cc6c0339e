//! One way out: every attempt of an agent to send something past the gate, in real namespaces,
//! under every packet filter, judged by what an observer outside sees.
//!
//! These tests make namespaces and need root. Without it they fail; nothing is skipped.

#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub)]

macro_rules! under_every_filter {
    ($($name:ident),* $(,)?) => {
        mod nft { $(#[test] fn $name() { super::$name(exeat_init::Backend::Nft); })* }
        mod iptables_nft { $(#[test] fn $name() { super::$name(exeat_init::Backend::IptablesNft); })* }
        mod iptables_legacy { $(#[test] fn $name() { super::$name(exeat_init::Backend::IptablesLegacy); })* }
    };
}

#[path = "confinement/attempts.rs"]
mod attempts;
#[path = "confinement/failures.rs"]
mod failures;
#[path = "confinement/kinds.rs"]
mod kinds;
#[path = "confinement/lifecycle.rs"]
mod lifecycle;
#[path = "confinement/mutations.rs"]
mod mutations;
#[path = "confinement/support.rs"]
mod support;

use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use exeat_init::Backend;
use exeat_tests::netns::{POD_V4, POD_V6, Persona, WORLD_V4, WORLD_V6};
use exeat_tests::sink::INBOUND_PORT;
use socket2::SockRef;
use support::{Confined, MARKER, Reach, tcp, udp};

under_every_filter!(
    an_agent_has_no_way_out,
    root_with_default_capabilities_has_no_way_out_either,
    the_gate_has_its_way,
    an_address_and_an_interface_added_later_change_nothing,
    inbound_is_answered_and_nothing_more,
    a_forged_inbound_flow_opens_nothing,
    what_was_open_before_is_cut,
    the_agents_own_servers_are_reached,
    the_gates_ports_are_for_the_pod_only,
    a_namespace_of_its_own_leads_nowhere,
    who_takes_the_gates_place_gets_nowhere,
    the_gate_dialled_as_itself_is_told_so,
);

/// The oracle must see what it is there to see, or every other test here proves nothing.
#[test]
fn without_rules_the_oracle_sees_every_attempt() {
    let pod = Confined::bare();
    let mut unseen = Vec::new();
    for attempt in attempts::all() {
        drop(pod.capture.take());
        let reach = pod
            .pod
            .inside
            .run(Persona::Agent, || (attempt.run)())
            .unwrap();
        let escapes = pod.capture.escapes();
        if escapes.is_empty() && !matches!(reach, Reach::NoSocket(_)) {
            unseen.push(format!("{}: {reach:?}", attempt.name));
        }
    }
    // What goes to these never leaves a host, confined or not.
    unseen.retain(|line| {
        !attempts::NEVER_LEAVES
            .iter()
            .any(|name| line.starts_with(name))
    });
    assert!(
        unseen.is_empty(),
        "these left nothing on the wire: {unseen:#?}"
    );
}

fn an_agent_has_no_way_out(backend: Backend) {
    let pod = Confined::new(backend);
    // First with nobody at the gate, then with the gate there: refused or captured, never sent.
    for gate in [false, true] {
        let _stub = gate.then(|| pod.stub());
        pod.nothing_escapes(Persona::Agent, gate);
    }
}

fn root_with_default_capabilities_has_no_way_out_either(backend: Backend) {
    let pod = Confined::new(backend);
    let _stub = pod.stub();
    pod.nothing_escapes(Persona::DefaultRoot, true);
    for attempt in attempts::raw() {
        let reach = pod
            .pod
            .inside
            .run(Persona::DefaultRoot, || (attempt.run)())
            .unwrap();
        let escapes = pod.capture.escapes();
        assert!(
            escapes.is_empty(),
            "{}: {reach:?} let {} frames out",
            attempt.name,
            escapes.len()
        );
    }
    let reach = pod
        .pod
        .inside
        .run(Persona::DefaultRoot, attempts::whole_frame)
        .unwrap();
    let escaped = pod
        .capture
        .escapes()
        .iter()
        .any(|frame| frame.holds(MARKER));
    // Where frames can't be looked at, only the missing capability stops a packet socket: this is
    // why admission refuses NET_RAW, and this line says so if it ever changes.
    assert_eq!(escaped, backend != Backend::Nft, "{reach:?}");
}

fn the_gate_has_its_way(backend: Backend) {
    let pod = Confined::new(backend);
    let _stub = pod.stub();
    let _world = pod.world();
    let answers = pod
        .pod
        .inside
        .run(Persona::Agent, || support::order("203.0.113.5:443", b"tu"))
        .unwrap();
    assert_eq!(
        answers,
        ["GATE 203.0.113.5:443", "world", "world", "world", "world"]
    );
    let escapes = pod.capture.escapes();
    assert!(escapes.is_empty(), "{escapes:?}");
}

fn an_address_and_an_interface_added_later_change_nothing(backend: Backend) {
    let pod = Confined::new(backend);
    let _stub = pod.stub();
    pod.pod
        .inside
        .ip("addr add fd88::2/64 dev eth0 nodad")
        .unwrap();
    pod.pod.inside.ip("addr add 10.88.0.2/24 dev eth0").unwrap();
    pod.pod.cable(1).unwrap();
    for (namespace, v4, v6) in [
        (&pod.pod.inside, "10.99.0.2", "fd99::2"),
        (&pod.pod.outside, "10.99.0.1", "fd99::1"),
    ] {
        namespace.ip(&format!("addr add {v4}/24 dev eth1")).unwrap();
        namespace
            .ip(&format!("addr add {v6}/64 dev eth1 nodad"))
            .unwrap();
    }
    pod.pod
        .inside
        .ip("route add 203.0.113.0/24 via 10.99.0.1")
        .unwrap();
    pod.pod
        .inside
        .ip("-6 route add 2001:db8::/32 via fd99::1")
        .unwrap();
    drop(pod.capture.take());
    for to in [
        "10.99.0.1:443",
        "[fd99::1]:443",
        "[fd88::9]:443",
        "10.88.0.9:443",
    ] {
        let to: SocketAddr = to.parse().unwrap();
        let (tcp, udp) = pod
            .pod
            .inside
            .run(Persona::Agent, || (tcp(to), udp(to)))
            .unwrap();
        assert_eq!(tcp, Reach::Gate(to));
        assert!(matches!(udp, Reach::Refused(_)), "{to}: {udp:?}");
    }
    pod.nothing_escapes(Persona::Agent, true);
    // And init, run again, takes the new interface under its eyes as well.
    let report = pod.init(&["apply"]).expect("init runs again");
    assert!(
        backend != Backend::Nft || report.contains("eth1"),
        "{report}"
    );
}

fn inbound_is_answered_and_nothing_more(backend: Backend) {
    let pod = Confined::new(backend);
    let _stub = pod.stub();
    for (host, world) in [(POD_V4, WORLD_V4), (POD_V6, WORLD_V6)] {
        let server = pod
            .pod
            .inside
            .run(Persona::Agent, || {
                TcpListener::bind((host, INBOUND_PORT)).unwrap()
            })
            .unwrap();
        SockRef::from(&server)
            .set_read_timeout(Some(Duration::from_secs(2)))
            .unwrap();
        let echo = pod
            .pod
            .inside
            .run(Persona::Agent, || {
                UdpSocket::bind((host, INBOUND_PORT)).unwrap()
            })
            .unwrap();
        echo.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let (mut stream, _) = server.accept().unwrap();
                std::io::Write::write_all(&mut stream, b"served").unwrap();
                let mut buffer = [0; 16];
                let (_, from) = echo.recv_from(&mut buffer).unwrap();
                echo.send_to(b"served", from).unwrap();
            });
            pod.pod
                .outside
                .run(Persona::Root, || {
                    let mut stream = support::connect((host, INBOUND_PORT)).unwrap();
                    assert_eq!(support::read(&mut stream), "served");
                    let socket = UdpSocket::bind((world, 0)).unwrap();
                    socket
                        .set_read_timeout(Some(Duration::from_secs(1)))
                        .unwrap();
                    socket.send_to(b"hello", (host, INBOUND_PORT)).unwrap();
                    assert_eq!(socket.recv(&mut [0; 16]).unwrap(), 6);
                    // The kubelet's probe.
                    let mut health = support::connect((host, 15021)).unwrap();
                    assert_eq!(support::read(&mut health), "GATE health");
                })
                .unwrap();
        });
    }
    let foreign: Vec<_> = pod
        .capture
        .escapes()
        .into_iter()
        .filter(|frame| frame.ports.is_none_or(|(from, _)| from != 15021))
        .collect();
    assert!(foreign.is_empty(), "{foreign:?}");
}

/// An IPv6 socket may send from any address, so a process can make a flow look as if it had been
/// opened from outside, and then «answer» it.
fn a_forged_inbound_flow_opens_nothing(backend: Backend) {
    let pod = Confined::new(backend);
    let reach = pod
        .pod
        .inside
        .run(Persona::Agent, attempts::forged_inbound)
        .unwrap();
    assert!(matches!(reach, Reach::Refused(_)), "{reach:?}");
    assert_eq!(pod.capture.escapes(), []);
}

fn what_was_open_before_is_cut(backend: Backend) {
    for tracked in [false, true] {
        let pod = Confined::bare();
        if tracked {
            // Any earlier rule that asks for the state of a flow makes the kernel keep it.
            pod.pod
                .inside
                .command("nft", &["add table inet early"])
                .unwrap();
            pod.pod
                .inside
                .command(
                    "nft",
                    &["add chain inet early x { type filter hook input priority 0; }"],
                )
                .unwrap();
            pod.pod
                .inside
                .command("nft", &["add rule inet early x ct state new accept"])
                .unwrap();
        }
        let _world = pod.world();
        let mut streams = Vec::new();
        for world in [WORLD_V4, WORLD_V6] {
            let mut stream = pod
                .pod
                .inside
                .run(Persona::Agent, || support::connect((world, 4000)).unwrap())
                .unwrap();
            std::io::Write::write_all(&mut stream, b"before").unwrap();
            assert_eq!(support::read(&mut stream), "world");
            let socket = pod
                .pod
                .inside
                .run(Persona::Agent, || {
                    let socket = UdpSocket::bind(if world == WORLD_V4 {
                        "0.0.0.0:0"
                    } else {
                        "[::]:0"
                    })
                    .unwrap();
                    socket.connect((world, 4000)).unwrap();
                    socket
                })
                .unwrap();
            socket.send(b"before").unwrap();
            streams.push((stream, socket));
        }
        pod.confine(backend);
        drop(pod.capture.take());
        for (stream, socket) in &mut streams {
            assert!(socket.send(MARKER).is_err());
            // Its bytes are taken by the socket; what matters is that they stay here.
            let _cut = std::io::Write::write_all(stream, MARKER);
        }
        std::thread::sleep(Duration::from_millis(300));
        drop(streams);
        let escapes = pod.capture.escapes();
        assert!(
            escapes.iter().all(|frame| !frame.holds(MARKER)),
            "tracked {tracked}: {escapes:?}"
        );
        assert_eq!(escapes, [], "tracked {tracked}");
    }
}

fn the_agents_own_servers_are_reached(backend: Backend) {
    let pod = Confined::new(backend);
    let _stub = pod.stub();
    let started = Instant::now();
    pod.pod
        .inside
        .run(Persona::Agent, || {
            for host in ["127.0.0.1", "127.8.8.8", "::1", POD_V4, POD_V6] {
                let server = TcpListener::bind((host, 3000)).unwrap();
                let mut client = support::connect((host, 3000)).unwrap();
                let (mut taken, _) = server.accept().unwrap();
                std::io::Write::write_all(&mut taken, b"mine").unwrap();
                assert_eq!(support::read(&mut client), "mine", "{host}");
                let socket = UdpSocket::bind((host, 3000)).unwrap();
                socket.send_to(b"mine", (host, 3000)).unwrap();
                assert_eq!(socket.recv(&mut [0; 16]).unwrap(), 4, "{host}");
                // A closed port says so, and the gate's health is closed to the agent.
                for port in [3001, 15021] {
                    let refused = support::connect((host, port)).unwrap_err();
                    assert_eq!(
                        refused.kind(),
                        std::io::ErrorKind::ConnectionRefused,
                        "{host}:{port}"
                    );
                }
                // A resolver on loopback is the gate's as well.
                let to = SocketAddr::new(host.parse().unwrap(), 53);
                assert_eq!(tcp(to), Reach::Gate(to));
                assert_eq!(udp(to), Reach::Gate(to));
            }
        })
        .unwrap();
    assert!(
        started.elapsed() < Duration::from_secs(3),
        "something had to be waited for"
    );
    assert_eq!(pod.capture.escapes(), []);
}

/// Another pod must not use this pod's gate, and who takes its place can't speak for its health.
fn the_gates_ports_are_for_the_pod_only(backend: Backend) {
    let pod = Confined::new(backend);
    for host in [POD_V4, POD_V6] {
        let servers: Vec<TcpListener> = pod
            .pod
            .inside
            .run(Persona::Agent, || {
                [15001, 15002, 15053, 15021]
                    .map(|port| TcpListener::bind((host, port)).unwrap())
                    .into()
            })
            .unwrap();
        pod.pod
            .outside
            .run(Persona::Root, || {
                for port in [15001, 15002, 15053] {
                    let refused = support::connect((host, port)).unwrap_err();
                    assert_eq!(
                        refused.kind(),
                        std::io::ErrorKind::ConnectionRefused,
                        "{host}:{port}"
                    );
                }
                let to = SocketAddr::new(host.parse().unwrap(), 15021);
                assert!(
                    TcpStream::connect_timeout(&to, Duration::from_millis(200)).is_err(),
                    "{to} was squatted"
                );
            })
            .unwrap();
        drop(servers);
    }
}

fn a_namespace_of_its_own_leads_nowhere(backend: Backend) {
    let pod = Confined::new(backend);
    let said = pod
        .pod
        .inside
        .run(Persona::Agent, || {
            std::process::Command::new("unshare")
                .args([
                    "--user",
                    "--map-root-user",
                    "--net",
                    support::PROGRAM,
                    "out",
                ])
                .output()
                .unwrap()
        })
        .unwrap();
    assert_eq!(
        String::from_utf8_lossy(&said.stdout),
        "escaped 0\n",
        "{}",
        String::from_utf8_lossy(&said.stderr)
    );
    assert_eq!(pod.capture.escapes(), []);
}

/// The port is free while the gate is down. Who takes it talks to the pod, and to nobody else.
fn who_takes_the_gates_place_gets_nowhere(backend: Backend) {
    let pod = Confined::new(backend);
    let to: SocketAddr = "203.0.113.9:443".parse().unwrap();
    let (answer, onward) = pod
        .pod
        .inside
        .run(Persona::Agent, || {
            let squatter = TcpListener::bind("127.0.0.1:15001").unwrap();
            let mut victim = TcpStream::connect_timeout(&to, Duration::from_secs(1)).unwrap();
            let (mut taken, _) = squatter.accept().unwrap();
            std::io::Write::write_all(&mut taken, b"squatted").unwrap();
            let onward = udp("203.0.113.9:4000".parse().unwrap());
            (support::read(&mut victim), onward)
        })
        .unwrap();
    assert_eq!(answer, "squatted");
    assert!(matches!(onward, Reach::Refused(_)), "{onward:?}");
    assert_eq!(pod.capture.escapes(), []);
}

/// Its port on any local address, and its port as a destination: the gate sees itself, and can
/// refuse the loop.
fn the_gate_dialled_as_itself_is_told_so(backend: Backend) {
    let pod = Confined::new(backend);
    let _stub = pod.stub();
    for to in ["127.0.0.1:15001", "[::1]:15001"] {
        let to: SocketAddr = to.parse().unwrap();
        let reach = pod.pod.inside.run(Persona::Agent, || tcp(to)).unwrap();
        assert_eq!(reach, Reach::Gate(to));
    }
    let elsewhere: SocketAddr = "203.0.113.9:15001".parse().unwrap();
    let reach = pod
        .pod
        .inside
        .run(Persona::Agent, || tcp(elsewhere))
        .unwrap();
    assert_eq!(reach, Reach::Gate(elsewhere));
    assert_eq!(pod.capture.escapes(), []);
}
