//! Ways that are not an ordinary socket: `io_uring`, other families, addresses and routes that are
//! not the pod's own, several paths for one connection, programs that bring a user of their own.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::Duration;

use exeat_init::Backend;
use exeat_tests::netns::{Persona, WORLD_V4};
use socket2::{Domain, Protocol, Socket, Type};

use crate::support::{Confined, MARKER, PROGRAM, Reach, connected, datagram};

under_every_filter!(
    io_uring_is_no_way_around,
    other_families_have_no_way_out,
    addresses_of_others_lead_nowhere,
    a_route_by_mark_leads_nowhere,
    more_paths_of_a_connection_lead_to_the_gate,
    a_set_user_id_file_gives_no_way_out,
);

/// Where the attempts go: captured over TCP, refused over UDP.
const TARGETS: [&str; 3] = ["203.0.113.9:443", "[2001:db8::9]:443", "10.77.0.1:4000"];

const IPPROTO_MPTCP: i32 = 262;
/// An address family of linux/socket.h that the libraries here have no name for.
const AF_XDP: i32 = 44;

/// What the probe printed for one attempt through `io_uring`.
fn ring(pod: &Confined, persona: Persona, kind: &str, to: SocketAddr) -> String {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/confinement/uring.py");
    let source = std::fs::read_to_string(script).unwrap();
    let output = pod
        .pod
        .inside
        .run(persona, || {
            // Its text and not its path: the agent may not read the folders above it.
            Command::new("python3")
                .args(["-I", "-c", &source, kind])
                .args([to.ip().to_string(), to.port().to_string()])
                .output()
                .unwrap()
        })
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn io_uring_is_no_way_around(backend: Backend) {
    let pod = Confined::new(backend);
    for gate in [false, true] {
        let _stub = gate.then(|| pod.stub());
        for to in TARGETS.map(|to| to.parse::<SocketAddr>().unwrap()) {
            let said = ring(&pod, Persona::Agent, "tcp", to);
            if said.starts_with("no-ring") {
                // A refusal as good as any, but of the kernel's setting or seccomp, not of ours.
                eprintln!("the kernel gives no ring: {said}; sysctl kernel.io_uring_disabled?");
                continue;
            }
            if gate {
                let first = said.lines().next();
                assert_eq!(first, Some(&*format!("answer GATE {to}")));
            } else {
                assert_eq!(said, "refused ECONNREFUSED connect", "{to}");
            }
            let said = ring(&pod, Persona::Agent, "udp", to);
            assert!(said.starts_with("refused "), "{to}: {said}");
        }
    }
    assert_eq!(pod.capture.escapes(), []);
}

/// The probe can do what it is there to be kept from.
#[test]
fn without_rules_io_uring_reaches_the_wire() {
    let pod = Confined::bare();
    let _world = pod.world();
    let to = format!("{WORLD_V4}:4000").parse().unwrap();
    for kind in ["tcp", "udp"] {
        drop(pod.capture.take());
        let said = ring(&pod, Persona::Agent, kind, to);
        if said.starts_with("no-ring") {
            eprintln!("the kernel gives no ring: {said}");
            continue;
        }
        assert_eq!(said, "answer world", "{kind}");
        let seen = pod.capture.escapes();
        assert!(seen.iter().any(|frame| frame.holds(MARKER)), "{kind}");
    }
}

/// Whole frames need a capability that the agent does not have. A socket to the hypervisor knows no
/// packet filter: it is only tried at this machine itself, and docs/CONFINEMENT.md says what refuses
/// it (the container engine's seccomp profile, that of `exeat run`).
fn other_families_have_no_way_out(backend: Backend) {
    let pod = Confined::new(backend);
    let made = |domain: i32, kind: Type, protocol: i32| {
        pod.pod
            .inside
            .run(Persona::Agent, || {
                Socket::new(Domain::from(domain), kind, Some(Protocol::from(protocol)))
                    .map(drop)
                    .map_err(|error| error.kind())
            })
            .unwrap()
    };
    for kind in [Type::RAW, Type::DGRAM] {
        let packet = made(nix::libc::AF_PACKET, kind, 0x0300);
        assert_eq!(packet, Err(ErrorKind::PermissionDenied), "AF_PACKET");
    }
    // Without the capability, or in a kernel without it.
    assert!(made(AF_XDP, Type::RAW, 0).is_err(), "AF_XDP");
    let vsock = pod
        .pod
        .inside
        .run(Persona::Agent, || {
            let address = nix::sys::socket::VsockAddr::new(nix::libc::VMADDR_CID_LOCAL, 4000);
            let socket = nix::sys::socket::socket(
                nix::sys::socket::AddressFamily::Vsock,
                nix::sys::socket::SockType::Stream,
                nix::sys::socket::SockFlag::empty(),
                None,
            )?;
            nix::sys::socket::connect(std::os::fd::AsRawFd::as_raw_fd(&socket), &address)
        })
        .unwrap();
    assert!(vsock.is_err(), "somebody serves vsock on this very machine");
    assert_eq!(pod.capture.escapes(), []);
}

/// `IP_TRANSPARENT` and `IP_FREEBIND`: a source address that is not the pod's.
fn addresses_of_others_lead_nowhere(backend: Backend) {
    let pod = Confined::new(backend);
    let _stub = pod.stub();
    for persona in [Persona::Agent, Persona::DefaultRoot] {
        for (from, to) in [
            ("198.51.100.7:4000", "203.0.113.9:443"),
            ("[2001:db8:bad::1]:4000", "[2001:db8::9]:443"),
            ("[2001:db8:bad::1]:4000", "[2001:db8::9]:53"),
            ("198.51.100.7:4000", "203.0.113.9:53"),
        ] {
            let (from, to): (SocketAddr, SocketAddr) = (from.parse().unwrap(), to.parse().unwrap());
            for kind in [Type::STREAM, Type::DGRAM] {
                for transparent in [false, true] {
                    let attempt = || {
                        let socket = Socket::new(Domain::for_address(to), kind, None).unwrap();
                        let allowed = match (transparent, to.is_ipv4()) {
                            (true, true) => socket.set_ip_transparent_v4(true),
                            // The same option of IPv6 has no name here; free binding has.
                            (_, false) => socket.set_freebind_v6(true),
                            (false, true) => socket.set_freebind_v4(true),
                        };
                        if let Err(error) = allowed.and_then(|()| socket.bind(&from.into())) {
                            return Reach::Refused(error.kind());
                        }
                        if kind == Type::STREAM {
                            connected(socket, to)
                        } else {
                            datagram(&socket, to)
                        }
                    };
                    let reach = pod.pod.inside.run(persona, attempt).unwrap();
                    let name = format!("{persona:?} from {from}, transparent {transparent}");
                    // Over TCP it may also reach the gate, whose answer then finds no way.
                    assert!(
                        matches!(reach, Reach::Refused(_) | Reach::Gate(_) | Reach::Silence),
                        "{name}: {reach:?}"
                    );
                    if persona == Persona::Agent && transparent && to.is_ipv4() {
                        assert_eq!(reach, Reach::Refused(ErrorKind::PermissionDenied), "{name}");
                    }
                }
            }
        }
    }
    assert_eq!(pod.capture.escapes(), []);
}

/// Routes that depend on a packet's mark, as some CNI plugins make: who may set marks gets another
/// route by it, and no other verdict.
fn a_route_by_mark_leads_nowhere(backend: Backend) {
    let pod = Confined::new(backend);
    let _stub = pod.stub();
    let marks: [u32; 5] = [1, 0x40, 0x6578_6501, 0x6578_6502, u32::MAX];
    for mark in marks {
        for family in ["-4", "-6"] {
            let route = format!("{family} rule add fwmark {mark} lookup 100");
            pod.pod.inside.ip(&route).unwrap();
        }
    }
    for route in [
        format!("-4 route add default via {WORLD_V4} dev eth0 table 100"),
        "-6 route add default dev eth0 table 100".to_owned(),
    ] {
        pod.pod.inside.ip(&route).unwrap();
    }
    for persona in [Persona::Agent, Persona::DefaultRoot] {
        for mark in marks {
            for to in TARGETS.map(|to| to.parse::<SocketAddr>().unwrap()) {
                let attempt = |kind| {
                    let socket = Socket::new(Domain::for_address(to), kind, None).unwrap();
                    if let Err(error) = socket.set_mark(mark) {
                        return Reach::Refused(error.kind());
                    }
                    if kind == Type::STREAM {
                        connected(socket, to)
                    } else {
                        datagram(&socket, to)
                    }
                };
                for kind in [Type::STREAM, Type::DGRAM] {
                    let reach = pod.pod.inside.run(persona, || attempt(kind)).unwrap();
                    assert!(
                        matches!(reach, Reach::Refused(_) | Reach::Gate(_)),
                        "{persona:?}, mark {mark}, {to}: {reach:?}"
                    );
                }
            }
        }
    }
    assert_eq!(pod.capture.escapes(), []);
}

/// MPTCP with an address for every path it may want: each path is a connection to the kernel's
/// rules, and goes where the first one goes.
fn more_paths_of_a_connection_lead_to_the_gate(backend: Backend) {
    let pod = Confined::new(backend);
    for words in [
        "addr add 10.77.0.3/24 dev eth0",
        "addr add fd77::3/64 dev eth0 nodad",
        "mptcp limits set subflow 4 add_addr_accepted 4",
        "mptcp endpoint add 10.77.0.3 dev eth0 subflow fullmesh",
        "mptcp endpoint add fd77::3 dev eth0 subflow fullmesh",
        "mptcp endpoint add 10.77.0.2 dev eth0 signal",
    ] {
        pod.pod.inside.ip(words).unwrap();
    }
    for (listen, to) in [
        ("127.0.0.1:15001", "203.0.113.9:443"),
        ("[::1]:15001", "[2001:db8::9]:443"),
    ] {
        let (listen, to): (SocketAddr, SocketAddr) = (listen.parse().unwrap(), to.parse().unwrap());
        let made = |address: SocketAddr| {
            let protocol = Some(Protocol::from(IPPROTO_MPTCP));
            Socket::new(Domain::for_address(address), Type::STREAM, protocol)
        };
        // A gate that speaks it, so that further paths are tried at all.
        let gate = pod
            .pod
            .inside
            .run(Persona::Root, || {
                let socket = made(listen).unwrap();
                socket.set_reuse_address(true).unwrap();
                socket.bind(&listen.into()).unwrap();
                socket.listen(8).unwrap();
                socket
            })
            .unwrap();
        pod.pod
            .inside
            .run(Persona::Agent, || {
                let socket = made(to).unwrap();
                socket
                    .connect_timeout(&to.into(), Duration::from_secs(1))
                    .unwrap();
                let (taken, _) = gate.accept().unwrap();
                for _ in 0..20 {
                    socket.send(MARKER).unwrap();
                    std::io::Write::write_all(&mut &taken, b"gate").unwrap();
                    std::thread::sleep(Duration::from_millis(10));
                }
            })
            .unwrap();
    }
    assert_eq!(pod.capture.escapes(), []);
}

/// A file that an image brings, owned by the gate's user and with the set-user-ID bit. Under
/// `no_new_privs` the bit does nothing; without it, whoever runs the file is the gate, which is why
/// admission refuses `allowPrivilegeEscalation`.
fn a_set_user_id_file_gives_no_way_out(backend: Backend) {
    let folder = tempfile::tempdir().unwrap();
    let mode = std::fs::Permissions::from_mode;
    std::fs::set_permissions(folder.path(), mode(0o755)).unwrap();
    let file = folder.path().join("out");
    std::fs::copy(PROGRAM, &file).unwrap();
    chown(&file, Some(64_100), Some(64_100)).unwrap();
    std::fs::set_permissions(&file, mode(0o6755)).unwrap();

    let pod = Confined::new(backend);
    let under = pod
        .pod
        .inside
        .run(Persona::Agent, || {
            Command::new(&file).arg("out").output().unwrap()
        })
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&under.stdout), "escaped 0\n");
    assert_eq!(pod.capture.escapes(), []);

    let without = pod
        .pod
        .inside
        .run(Persona::Root, || {
            Command::new(&file)
                .arg("out")
                .uid(1000)
                .gid(1000)
                .output()
                .unwrap()
        })
        .unwrap();
    assert_ne!(
        String::from_utf8_lossy(&without.stdout),
        "escaped 0\n",
        "the bit did nothing where it should: is the temporary folder mounted nosuid?"
    );
    assert_ne!(pod.capture.escapes(), []);
}
