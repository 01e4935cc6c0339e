//! The ways out, one by one.
//!
//! All go to addresses that are kept for documentation and belong to nobody, so that a leak harms
//! no one.

use std::io::{self, ErrorKind, Read as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::time::{Duration, Instant};

use nix::net::if_::if_nameindex;
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};

use super::watch::Watch;
use super::{Attempt, Outcome};
use crate::plan::Plan;

/// TEST-NET-1 and its IPv6 twin.
const V4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));

/// A refusal inside one kernel takes microseconds, and only a leak waits for all of this. It is as
/// long as it is because a busy node may not let us look for a tenth of a second.
const PATIENCE: Duration = Duration::from_millis(250);

/// Between two looks at what is to be there at once.
const GLANCE: Duration = Duration::from_millis(1);

/// A question for a name that can't exist, with an id that is easy to find in a capture.
const QUESTION: &[u8] =
    b"\xe8\xa7\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x0aexeat-init\x07invalid\x00\x00\x01\x00\x01";

const HTTPS: u16 = 443;
const DNS: u16 = 53;

/// What an attempt is made with.
struct Way<'a> {
    watch: Option<&'a Watch>,
    name: &'static str,
    domain: Domain,
    kind: Type,
    protocol: i32,
    to: SocketAddr,
}

/// What became of an attempt, as far as who made it can tell.
enum Told {
    /// Something.
    Known(Outcome),
    /// Nothing: a leak looks like this, and a packet that was dropped too.
    Silence(String),
}

/// The gate's place, while the proof sits in it.
struct Stand {
    tcp: Vec<TcpListener>,
    udp: Vec<UdpSocket>,
}

const TCP: i32 = 6;
const UDP: i32 = 17;
const UDP_LITE: i32 = 136;
const SCTP: i32 = 132;
const DCCP: i32 = 33;
const MPTCP: i32 = 262;
const ICMP: i32 = 1;
const ICMP_V6: i32 = 58;
const GRE: i32 = 47;
/// `socket(2)` type of DCCP.
const TYPE_DCCP: i32 = 6;

pub(super) fn all(plan: &Plan, watch: Option<&Watch>) -> Vec<Attempt> {
    let gate = Stand::new(plan.ports.transparent);
    let dns = Stand::new(plan.ports.dns);
    let link_local = link_local();
    let mut attempts = Vec::new();
    for (v6, to) in [(false, V4), (true, V6)] {
        let domain = if v6 { Domain::IPV6 } else { Domain::IPV4 };
        let pick = |v4: &'static str, name6: &'static str| if v6 { name6 } else { v4 };
        let way = |name, kind, protocol, port| Way {
            watch,
            name,
            domain,
            kind,
            protocol,
            to: SocketAddr::new(to, port),
        };

        attempts.push(stream(
            &way(pick("tcp4", "tcp6"), Type::STREAM, TCP, HTTPS),
            &gate,
        ));
        attempts.push(stream(
            &way(
                pick("tcp4 to a dns server", "tcp6 to a dns server"),
                Type::STREAM,
                TCP,
                DNS,
            ),
            &dns,
        ));
        attempts.push(stream(
            &way(pick("mptcp4", "mptcp6"), Type::STREAM, MPTCP, HTTPS),
            &gate,
        ));
        attempts.push(question(
            &way(
                pick("udp4 to a dns server", "udp6 to a dns server"),
                Type::DGRAM,
                UDP,
                DNS,
            ),
            &dns,
        ));
        attempts.push(datagram(
            &way(pick("udp4", "udp6"), Type::DGRAM, UDP, HTTPS),
            b"exeat-init",
        ));
        attempts.push(datagram(
            &way(pick("udplite4", "udplite6"), Type::DGRAM, UDP_LITE, DNS),
            QUESTION,
        ));
        let echo: &[u8] = if v6 {
            b"\x80\0\0\0\0\x01\0\x01exeat-init"
        } else {
            b"\x08\0\0\0\0\x01\0\x01exeat-init"
        };
        let icmp = if v6 { ICMP_V6 } else { ICMP };
        attempts.push(datagram(
            &way(pick("icmp4", "icmp6"), Type::DGRAM, icmp, 0),
            echo,
        ));
        attempts.push(stream(
            &way(pick("sctp4", "sctp6"), Type::STREAM, SCTP, HTTPS),
            &gate,
        ));
        attempts.push(stream(
            &way(pick("dccp4", "dccp6"), Type::from(TYPE_DCCP), DCCP, HTTPS),
            &gate,
        ));
        attempts.push(datagram(
            &way(pick("raw icmp4", "raw icmp6"), Type::RAW, icmp, 0),
            echo,
        ));
        attempts.push(datagram(
            &way(pick("raw gre4", "raw gre6"), Type::RAW, GRE, 0),
            b"exeat-init",
        ));
    }
    for (name, to) in [
        (
            "multicast4",
            SocketAddr::new(Ipv4Addr::new(224, 0, 0, 251).into(), 5353),
        ),
        (
            "broadcast",
            SocketAddr::new(Ipv4Addr::BROADCAST.into(), HTTPS),
        ),
    ] {
        attempts.push(datagram(
            &Way {
                watch,
                name,
                domain: Domain::IPV4,
                kind: Type::DGRAM,
                protocol: UDP,
                to,
            },
            b"exeat-init",
        ));
    }
    if let Some(scope) = link_local {
        let to = |address: Ipv6Addr, port| {
            SocketAddr::V6(std::net::SocketAddrV6::new(address, port, 0, scope))
        };
        let neighbour = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0xe8a7);
        let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb);
        let way = |name, kind, protocol, to| Way {
            watch,
            name,
            domain: Domain::IPV6,
            kind,
            protocol,
            to,
        };
        attempts.push(stream(
            &way(
                "tcp6 to a neighbour",
                Type::STREAM,
                TCP,
                to(neighbour, HTTPS),
            ),
            &gate,
        ));
        attempts.push(datagram(
            &way(
                "udp6 to a neighbour",
                Type::DGRAM,
                UDP,
                to(neighbour, HTTPS),
            ),
            b"exeat-init",
        ));
        attempts.push(datagram(
            &way("multicast6", Type::DGRAM, UDP, to(group, 5353)),
            b"exeat-init",
        ));
    }
    attempts.push(frames());
    if let Some(how) = watch.and_then(|watch| watch.saw_late(PATIENCE)) {
        attempts.push(Attempt {
            name: "any of these, later",
            outcome: Outcome::Escaped(how),
        });
    }
    attempts
}

/// A connection must be refused at once, or arrive where it is sent to with where it was going.
#[expect(
    clippy::disallowed_methods,
    reason = "an attempt to get out, which must fail"
)]
fn stream(way: &Way<'_>, stand: &Stand) -> Attempt {
    let socket = match way.socket() {
        Ok(socket) => socket,
        Err(none) => return none,
    };
    let outcome = match socket.connect_timeout(&way.to.into(), PATIENCE) {
        Ok(()) => Told::Known(stand.arrived(way.to)),
        Err(error) => answer(&error),
    };
    way.made(outcome)
}

/// A datagram must not be accepted for sending, or an error must come back for it at once: an
/// IPv6 ping socket takes what is refused and only then says so.
#[expect(
    clippy::disallowed_methods,
    reason = "an attempt to get out, which must fail"
)]
fn datagram(way: &Way<'_>, payload: &[u8]) -> Attempt {
    let socket = match way.socket() {
        Ok(socket) => socket,
        Err(none) => return none,
    };
    // Without it, a broadcast is refused by the socket and proves nothing about the rules.
    let _not_a_datagram_socket = socket.set_broadcast(true);
    let sent = socket
        .connect(&way.to.into())
        .and_then(|()| socket.send(payload));
    let outcome = match sent {
        Err(error) => answer(&error),
        Ok(_) => match heard(&socket) {
            Err(error) if !matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock) => {
                Told::Known(Outcome::Refused(error.to_string()))
            }
            Ok(_) => Told::Known(Outcome::Escaped("answered".to_owned())),
            Err(_) => Told::Silence("sent".to_owned()),
        },
    };
    way.made(outcome)
}

/// A question must arrive at the gate's port, whichever server it was for.
#[expect(
    clippy::disallowed_methods,
    reason = "an attempt to get out, which must fail"
)]
fn question(way: &Way<'_>, stand: &Stand) -> Attempt {
    let socket = match way.socket() {
        Ok(socket) => socket,
        Err(none) => return none,
    };
    let asked = socket
        .connect(&way.to.into())
        .and_then(|()| socket.send(QUESTION));
    let outcome = match asked {
        Err(error) => answer(&error),
        Ok(_) if stand.udp.is_empty() => {
            // Somebody is there already: an answer, or a port that is closed, comes from here.
            Told::Known(match heard(&socket) {
                Ok(_) => Outcome::Captured,
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                    Outcome::Refused(error.to_string())
                }
                Err(_) => Outcome::Escaped("nobody answered".to_owned()),
            })
        }
        Ok(_) => Told::Known(stand.asked()),
    };
    way.made(outcome)
}

fn frames() -> Attempt {
    let outcome = match Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0x0300))) {
        Ok(_) => Outcome::Escaped("a socket for whole frames was opened".to_owned()),
        Err(error) => Outcome::NoSocket(error.to_string()),
    };
    Attempt {
        name: "frames",
        outcome,
    }
}

fn answer(error: &io::Error) -> Told {
    if matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock) {
        Told::Silence(format!("nothing came back in {} ms", PATIENCE.as_millis()))
    } else {
        Told::Known(Outcome::Refused(error.to_string()))
    }
}

/// What is there soon. In Linux it is there at once; in gVisor the one end of a connection can know of
/// it before the other does.
fn shortly<T>(mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let started = Instant::now();
    loop {
        let found = look();
        if found.is_some() || started.elapsed() > PATIENCE {
            return found;
        }
        std::thread::sleep(GLANCE);
    }
}

/// What comes back for what was sent, an error included.
fn heard(mut socket: &Socket) -> io::Result<usize> {
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.read(&mut [0; 512])
}

/// An interface through which neighbours can be reached, if there is one.
fn link_local() -> Option<u32> {
    let listed = if_nameindex().ok()?;
    listed
        .iter()
        .map(nix::net::if_::Interface::index)
        .find(|index| *index != 1)
}

// === impl Way ===

impl Way<'_> {
    fn socket(&self) -> Result<Socket, Attempt> {
        Socket::new(self.domain, self.kind, Some(Protocol::from(self.protocol)))
            .map_err(|error| self.made(Told::Known(Outcome::NoSocket(error.to_string()))))
    }

    fn made(&self, told: Told) -> Attempt {
        let seen = self.watch.map(|watch| watch.saw(Some(self.to.ip())));
        let outcome = match (told, seen) {
            // Whatever it was told, and be it a refusal: that may have come from outside.
            (_, Some(Some(how))) => Outcome::Escaped(how),
            (Told::Known(outcome), _) => outcome,
            (Told::Silence(_), Some(None)) => {
                Outcome::Refused("dropped, and no frame of it left".to_owned())
            }
            (Told::Silence(how), None) => Outcome::Escaped(how),
        };
        Attempt {
            name: self.name,
            outcome,
        }
    }
}

// === impl Stand ===

impl Stand {
    /// Where the port is taken, the gate is there already and its own tests speak for it.
    fn new(port: u16) -> Self {
        let loopbacks = [
            IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(Ipv6Addr::LOCALHOST),
        ];
        let tcp: Vec<TcpListener> = loopbacks
            .iter()
            .filter_map(|address| TcpListener::bind((*address, port)).ok())
            .filter(|listener| listener.set_nonblocking(true).is_ok())
            .collect();
        let udp: Vec<UdpSocket> = loopbacks
            .iter()
            .filter_map(|address| UdpSocket::bind((*address, port)).ok())
            .filter(|socket| socket.set_nonblocking(true).is_ok())
            .collect();
        Self { tcp, udp }
    }

    /// Whether a connection to `to` was taken here.
    fn arrived(&self, to: SocketAddr) -> Outcome {
        if self.tcp.is_empty() {
            return Outcome::Captured;
        }
        // The pod's other processes are captured as well: look through what has come.
        let taken = || {
            let accept = |listener: &TcpListener| listener.accept().ok();
            self.tcp.iter().find_map(accept).map(|taken| taken.0)
        };
        while let Some(mut stream) = shortly(taken) {
            let socket = SockRef::from(&stream);
            let original = if to.is_ipv4() {
                socket.original_dst_v4()
            } else {
                socket.original_dst_v6()
            };
            let original = original.ok().as_ref().and_then(SockAddr::as_socket);
            let _none_to_read = stream
                .set_nonblocking(true)
                .and_then(|()| stream.read(&mut []));
            if original
                .is_some_and(|original| original.ip() == to.ip() && original.port() == to.port())
            {
                return Outcome::Captured;
            }
        }
        Outcome::Escaped("somebody else answered".to_owned())
    }

    /// Whether our question was taken here.
    fn asked(&self) -> Outcome {
        let mut buffer = [0; 512];
        let mut taken = || {
            let mut heard = |socket: &UdpSocket| {
                let length = socket.recv(&mut buffer).ok()?;
                Some(buffer[..length] == *QUESTION)
            };
            self.udp.iter().find_map(&mut heard)
        };
        // The pod's other processes ask as well: look through what has come.
        if std::iter::from_fn(|| shortly(&mut taken)).any(|ours| ours) {
            Outcome::Captured
        } else {
            Outcome::Escaped("it did not arrive at the gate".to_owned())
        }
    }
}
