//! Every rule is there for a reason: without it something gets out, hangs, or stops working, and
//! the rest of these tests would notice.
//!
//! The rules are installed with one of them missing, and the check named beside it must fail.

use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use exeat_init::render;
use exeat_init::ruleset::{Family, Interface};
use exeat_init::{Backend, Plan, Ruleset, Surroundings};
use exeat_tests::netns::{POD_V4, POD_V6, Persona, WORLD_V4, WORLD_V6};
use exeat_tests::sink::GATE_PORT;
use nix::net::if_::if_nametoindex;
use socket2::{Domain, SockRef, Socket, Type};

use crate::attempts;
use crate::support::{Confined, MARKER, PROMPT, Reach, connect, order, tcp, udp};

under_every_filter!(no_rule_can_be_left_out);

/// A rule, and what must hold with it and must not hold without it.
type Reason = (&'static str, fn(&Confined) -> bool);

const REASONS: [Reason; 30] = [
    ("the gate is not its own caller", |pod| {
        the_gate_is_no_caller(pod, 15001)
    }),
    ("the gate asks others", the_gate_does_not_ask_itself),
    ("the gate asks others over tcp", |pod| {
        the_gate_is_no_caller(pod, 15053)
    }),
    ("gate opens", the_gate_ends_its_connections_in_good_order),
    ("gate tcp", the_gate_dials),
    ("gate udp", the_gate_asks),
    ("health is not for the agent", health_is_closed_to_the_agent),
    ("nobody else answers for health", health_is_not_squatted),
    ("in another's name", the_gate_answers_nobody_elsewhere),
    ("itself", own_servers_are_reached),
    ("replies", inbound_is_answered),
    ("the agent", a_process_is_not_the_kernel),
    (
        "gate's last words",
        the_gate_ends_its_connections_in_good_order,
    ),
    ("neighbour solicitation", the_neighbour_is_found),
    ("neighbour advertisement", the_neighbour_finds_us),
    ("refuse tcp", |pod| prompt(pod, || tcp(neighbour(443)))),
    ("refuse udp", udp_is_told_that_the_port_is_closed),
    ("transparent is for the pod", |pod| {
        closed_to_neighbours(pod, 15001)
    }),
    ("explicit is for the pod", |pod| {
        closed_to_neighbours(pod, 15002)
    }),
    ("dns/tcp is for the pod", |pod| {
        closed_to_neighbours(pod, 15053)
    }),
    ("dns/udp is for the pod", dns_is_closed_to_neighbours),
    ("came from outside", inbound_is_answered),
    ("local stays local", a_bound_socket_stays_here),
    ("gate is not captured", the_gate_dials),
    ("link-local v6", |pod| prompt(pod, || tcp(neighbour(443)))),
    ("capture dns/udp", |pod| captured(pod, udp, 53)),
    ("capture dns/tcp", dns_over_tcp_is_for_the_resolver),
    ("itself is not captured", own_servers_are_reached),
    ("capture tcp", |pod| captured(pod, tcp, 443)),
    ("stamp", the_gate_dials),
];

/// Rules whose absence nothing here can show, each with why it is there all the same.
const WITHOUT_A_CHECK: [(&str, &str); 6] = [
    (
        "router solicitation",
        "asks for a router that this pod's cable does not have",
    ),
    (
        "everything else",
        "the chain's policy drops what it refuses: it only makes the refusal audible",
    ),
    ("refuse the rest", "the same"),
    (
        "multicast v4",
        "the output chain accepts nothing that is redirected to loopback by mistake",
    ),
    ("broadcast", "the same"),
    ("multicast v6", "the same"),
];

fn no_rule_can_be_left_out(backend: Backend) {
    let all = Ruleset::new(
        &Plan::default(),
        &Surroundings {
            interfaces: vec![],
            stamp: 1,
            highest_uid: 1,
            addresses: vec![],
        },
    );
    for name in all.names() {
        let checked = REASONS.iter().any(|(rule, _)| *rule == name);
        let explained = WITHOUT_A_CHECK.iter().any(|(rule, _)| *rule == name);
        assert!(
            checked != explained,
            "`{name}` needs a check, or a reason for having none"
        );
    }
    let mut wrong = Vec::new();
    for (name, holds) in REASONS {
        assert!(all.names().contains(&name), "no rule is named `{name}`");
        if name == "stamp" && backend != Backend::Nft {
            continue;
        }
        let with = Confined::bare();
        install(&with, backend, None);
        if !holds(&with) {
            wrong.push(format!("with all rules, the check of `{name}` fails"));
        }
        let without = Confined::bare();
        install(&without, backend, Some(name));
        if holds(&without) {
            wrong.push(format!("without `{name}`, its check still holds"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The gate's answers go to who asked, and who asked is in the pod.
fn the_gate_answers_nobody_elsewhere(pod: &Confined) -> bool {
    let _stub = pod.stub();
    // Until the interface has its link-local address, no neighbour is found and nothing leaves.
    std::thread::sleep(Duration::from_secs(2));
    drop(pod.capture.take());
    pod.pod
        .inside
        .run(Persona::Agent, || {
            attempts::in_anothers_name(Type::DGRAM, 53);
            attempts::in_anothers_name(Type::STREAM, 443);
        })
        .unwrap();
    std::thread::sleep(Duration::from_millis(500));
    pod.capture.escapes().is_empty()
}

/// As init does, but with a rule missing.
fn install(pod: &Confined, backend: Backend, missing: Option<&str>) {
    let interface = pod
        .pod
        .inside
        .run(Persona::Root, || Interface {
            index: if_nametoindex("eth0").unwrap(),
            name: "eth0".to_owned(),
        })
        .unwrap();
    let surroundings = Surroundings {
        interfaces: vec![interface],
        stamp: 0x1234_5678,
        highest_uid: u32::MAX - 1,
        addresses: vec![],
    };
    let mut rules = Ruleset::new(&Plan::default(), &surroundings);
    if let Some(name) = missing {
        rules = rules.without(name);
    }
    let feed = |program: &str, arguments: &[&str], text: &str| {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let mut all = arguments.to_vec();
        let path = file.path().display().to_string();
        all.push(&path);
        pod.pod.inside.command(program, &all).unwrap();
    };
    if backend == Backend::Nft {
        feed(
            "nft",
            &["-f"],
            &render::nft::script(&rules, render::nft::Existing::Refill),
        );
    } else {
        let kind = if backend == Backend::IptablesNft {
            "nft"
        } else {
            "legacy"
        };
        for (family, program) in [(Family::V4, "iptables"), (Family::V6, "ip6tables")] {
            let jumps = render::iptables::Jumps::Absent { stale: vec![] };
            let text: String = render::iptables::TABLES
                .into_iter()
                .map(|table| render::iptables::script(&rules, family, table, &jumps))
                .collect();
            feed(
                &format!("{program}-{kind}-restore"),
                &["--noflush", "--wait", "5"],
                &text,
            );
        }
    }
    drop(pod.capture.take());
}

fn world(port: u16) -> SocketAddr {
    SocketAddr::new("203.0.113.9".parse().unwrap(), port)
}

fn neighbour(port: u16) -> SocketAddr {
    SocketAddr::V6(std::net::SocketAddrV6::new(
        "fe80::1".parse().unwrap(),
        port,
        0,
        if_nametoindex("eth0").unwrap_or(2),
    ))
}

fn as_agent<T: Send>(pod: &Confined, work: impl FnOnce() -> T + Send) -> T {
    pod.pod.inside.run(Persona::Agent, work).unwrap()
}

fn as_gate<T: Send>(pod: &Confined, work: impl FnOnce() -> T + Send) -> T {
    pod.pod
        .inside
        .run(Persona::Root, || {
            let (gid, uid) = (
                rustix::thread::Gid::from_raw(64_100),
                rustix::thread::Uid::from_raw(64_100),
            );
            rustix::thread::set_thread_res_gid(gid, gid, gid).unwrap();
            rustix::thread::set_thread_res_uid(uid, uid, uid).unwrap();
            work()
        })
        .unwrap()
}

fn the_gate_is_no_caller(pod: &Confined, port: u16) -> bool {
    let _stub = pod.stub();
    as_gate(pod, || {
        ["127.0.0.1", "::1"]
            .iter()
            .all(|host| connect((host, port)).is_err())
    })
}

fn the_gate_does_not_ask_itself(pod: &Confined) -> bool {
    let _stub = pod.stub();
    as_gate(pod, || {
        ["127.0.0.1", "::1"].iter().all(|host| {
            udp(SocketAddr::new(host.parse().unwrap(), 15053))
                != Reach::Gate(SocketAddr::new(host.parse().unwrap(), 15053))
        })
    })
}

fn prompt(pod: &Confined, attempt: impl Fn() -> Reach + Send) -> bool {
    let begun = Instant::now();
    let reach = as_agent(pod, attempt);
    matches!(reach, Reach::Refused(_)) && begun.elapsed() < PROMPT
}

/// As a closed port would: what QUIC clients take as their sign to fall back.
fn udp_is_told_that_the_port_is_closed(pod: &Confined) -> bool {
    as_agent(pod, || {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.connect(world(443)).unwrap();
        socket.set_read_timeout(Some(PROMPT / 4)).unwrap();
        let _refused = socket.send(b"x");
        let told = socket
            .take_error()
            .unwrap()
            .or_else(|| socket.recv(&mut [0; 8]).err());
        told.is_some_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
    })
}

fn captured(pod: &Confined, attempt: fn(SocketAddr) -> Reach, port: u16) -> bool {
    let _stub = pod.stub();
    as_agent(pod, || attempt(world(port))) == Reach::Gate(world(port))
}

fn dns_over_tcp_is_for_the_resolver(pod: &Confined) -> bool {
    as_agent(pod, || {
        let _resolver = TcpListener::bind("127.0.0.1:15053").unwrap();
        connect(("203.0.113.9", 53)).is_ok()
    })
}

fn the_gate_dials(pod: &Confined) -> bool {
    let (_stub, _world) = (pod.stub(), pod.world());
    as_agent(pod, || order("203.0.113.5:443", b"t"))[1..] == ["world", "world"]
}

fn the_gate_asks(pod: &Confined) -> bool {
    let (_stub, _world) = (pod.stub(), pod.world());
    as_agent(pod, || order("203.0.113.5:443", b"u"))[1..] == ["world", "world"]
}

/// A connection that the gate has closed is ended by packets that have no socket.
fn the_gate_ends_its_connections_in_good_order(pod: &Confined) -> bool {
    for (any, world) in [("0.0.0.0:0", WORLD_V4), ("[::]:0", WORLD_V6)] {
        let listener = pod
            .pod
            .outside
            .run(Persona::Root, || {
                TcpListener::bind((world, GATE_PORT)).unwrap()
            })
            .unwrap();
        SockRef::from(&listener)
            .set_read_timeout(Some(Duration::from_secs(1)))
            .unwrap();
        let to = SocketAddr::new(world.parse().unwrap(), GATE_PORT);
        let socket = as_gate(pod, || {
            let domain = if any.starts_with('0') {
                Domain::IPV4
            } else {
                Domain::IPV6
            };
            let socket = Socket::new(domain, Type::STREAM, None).unwrap();
            socket
                .connect_timeout(&to.into(), Duration::from_secs(1))
                .unwrap();
            socket
        });
        let (mut taken, _) = listener.accept().unwrap();
        // Closed by the gate with bytes still coming: its kernel answers them with a reset, for a
        // socket that is no more.
        drop(socket);
        std::thread::sleep(Duration::from_millis(20));
        for _ in 0..3 {
            let _reset = std::io::Write::write_all(&mut taken, b"late");
            std::thread::sleep(Duration::from_millis(20));
        }
        let error = taken.take_error().unwrap();
        if error.is_none() && std::io::Write::write_all(&mut taken, b"late").is_ok() {
            return false;
        }
    }
    true
}

fn health_is_closed_to_the_agent(pod: &Confined) -> bool {
    let _stub = pod.stub();
    as_agent(pod, || {
        ["127.0.0.1", "::1", POD_V4, POD_V6]
            .iter()
            .all(|host| connect((host, 15021)).is_err())
    })
}

fn health_is_not_squatted(pod: &Confined) -> bool {
    let _squatter = as_agent(pod, || TcpListener::bind((POD_V4, 15021)).unwrap());
    let to = SocketAddr::new(POD_V4.parse().unwrap(), 15021);
    pod.pod
        .outside
        .run(Persona::Root, || {
            TcpStream::connect_timeout(&to, Duration::from_millis(200)).is_err()
        })
        .unwrap()
}

fn own_servers_are_reached(pod: &Confined) -> bool {
    as_agent(pod, || {
        ["127.0.0.1", "::1", POD_V4, POD_V6].iter().all(|host| {
            let _server = TcpListener::bind((*host, 3000)).unwrap();
            connect((host, 3000)).is_ok()
        })
    })
}

fn inbound_is_answered(pod: &Confined) -> bool {
    [POD_V4, POD_V6].iter().all(|host| {
        let _server = as_agent(pod, || TcpListener::bind((*host, 8080)).unwrap());
        pod.pod
            .outside
            .run(Persona::Root, || connect((host, 8080)).is_ok())
            .unwrap()
    })
}

/// Neighbour discovery with a process's words in it must not be taken for the kernel's.
fn a_process_is_not_the_kernel(pod: &Confined) -> bool {
    for attempt in attempts::raw()
        .into_iter()
        .filter(|attempt| attempt.name.starts_with("forged"))
    {
        pod.pod
            .inside
            .run(Persona::DefaultRoot, || (attempt.run)())
            .unwrap();
    }
    !pod.capture.take().iter().any(|frame| frame.holds(MARKER))
}

fn the_neighbour_is_found(pod: &Confined) -> bool {
    pod.pod.inside.ip("neigh flush dev eth0").unwrap();
    let (_stub, _world) = (pod.stub(), pod.world());
    as_agent(pod, || order("203.0.113.5:443", b"t"))[2] == "world"
}

fn the_neighbour_finds_us(pod: &Confined) -> bool {
    let _server = as_agent(pod, || TcpListener::bind((POD_V6, 8080)).unwrap());
    pod.pod.outside.ip("neigh flush dev eth0").unwrap();
    pod.pod
        .outside
        .run(Persona::Root, || connect((POD_V6, 8080)).is_ok())
        .unwrap()
}

fn closed_to_neighbours(pod: &Confined, port: u16) -> bool {
    [POD_V4, POD_V6].iter().all(|host| {
        let _server = as_agent(pod, || TcpListener::bind((*host, port)).unwrap());
        pod.pod
            .outside
            .run(Persona::Root, || connect((host, port)).is_err())
            .unwrap()
    })
}

fn dns_is_closed_to_neighbours(pod: &Confined) -> bool {
    [POD_V4, POD_V6].iter().all(|host| {
        let server = as_agent(pod, || UdpSocket::bind((*host, 15053)).unwrap());
        server
            .set_read_timeout(Some(Duration::from_millis(100)))
            .unwrap();
        pod.pod
            .outside
            .run(Persona::Root, || {
                let any = if *host == POD_V4 {
                    "0.0.0.0:0"
                } else {
                    "[::]:0"
                };
                UdpSocket::bind(any)
                    .unwrap()
                    .send_to(b"x", (*host, 15053))
                    .unwrap();
            })
            .unwrap();
        server.recv(&mut [0; 8]).is_err()
    })
}

fn a_bound_socket_stays_here(pod: &Confined) -> bool {
    for attempt in attempts::all()
        .into_iter()
        .filter(|attempt| attempt.name.contains("bound to eth0"))
    {
        let _ = as_agent(pod, || (attempt.run)());
    }
    pod.capture.escapes().is_empty()
}
