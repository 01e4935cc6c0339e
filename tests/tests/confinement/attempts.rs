//! The ways out that an agent tries. Rows are made from lists, so that a class is tried and not an
//! example of it.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};

use exeat_tests::netns::{POD_V6, WORLD_V6};
use nix::net::if_::if_nametoindex;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::support::{MARKER, PROMPT, Reach, connected, datagram, tcp, udp};

/// One way out.
pub struct Attempt {
    pub name: String,
    /// Where the gate must say that it was going, if it is to be captured.
    pub captured: Option<SocketAddr>,
    /// Nothing may leave, but the kernel has no way to say so at once.
    pub may_be_silent: bool,
    pub run: Box<dyn Fn() -> Reach + Send + Sync>,
}

/// Destinations that this machine itself would not let out, rules or no rules.
pub const NEVER_LEAVES: [&str; 4] = ["tcp [ff02", "tcp [::ffff", "udp [::ffff", "namespace"];

/// Public, private, metadata, translated, the node's and the cluster's own.
const HOSTS: [&str; 14] = [
    "203.0.113.9",
    "8.8.8.8",
    "10.0.0.1",
    "10.77.0.1",
    "169.254.169.254",
    "169.254.170.2",
    "100.100.100.200",
    "168.63.129.16",
    "198.18.0.1",
    "2001:db8::9",
    "64:ff9b::a9fe:a9fe",
    "2002:a9fe:a9fe::1",
    "2001:0:a9fe:a9fe::1",
    "fd00:ec2::254",
];
const TCP_PORTS: [u16; 12] = [
    22, 53, 80, 443, 853, 2379, 5432, 6443, 6667, 8443, 10250, 15001,
];
const UDP_PORTS: [u16; 9] = [123, 137, 443, 853, 3478, 5353, 5355, 51820, 15053];

const MPTCP: i32 = 262;
const UDP_LITE: i32 = 136;
const SCTP: i32 = 132;
const DCCP: (i32, i32) = (6, 33);
/// `MSG_FASTOPEN`.
const FAST_OPEN: i32 = 0x2000_0000;

pub fn all() -> Vec<Attempt> {
    let mut all = Vec::new();
    for (index, host) in HOSTS.iter().enumerate() {
        let host: IpAddr = host.parse().unwrap();
        // Every host on two ports and every port on some host, in both families.
        for (at, port) in TCP_PORTS.into_iter().enumerate() {
            if port == 443 || at % HOSTS.len() == index || (index + at) % 7 == 0 {
                let to = SocketAddr::new(host, port);
                all.push(captured(format!("tcp {to}"), to, move || tcp(to)));
            }
        }
        for (at, port) in UDP_PORTS.into_iter().enumerate() {
            if port == 443 || at % HOSTS.len() == index || (index + at) % 5 == 0 {
                let to = SocketAddr::new(host, port);
                all.push(refused(format!("udp {to}"), move || udp(to)));
            }
        }
        let resolver = SocketAddr::new(host, 53);
        all.push(captured(format!("udp {resolver}"), resolver, move || {
            udp(resolver)
        }));
    }
    all.extend(families());
    all.extend(neighbours());
    all.extend(odd());
    all
}

/// Transport protocols and socket options, in both families.
fn families() -> Vec<Attempt> {
    let mut all = Vec::new();
    for host in ["203.0.113.9", "2001:db8::9"] {
        let to = SocketAddr::new(host.parse().unwrap(), 443);
        let domain = Domain::for_address(to);
        let (icmp, echo) = if to.is_ipv4() { (1, 8) } else { (58, 128) };
        all.push(captured(format!("mptcp {to}"), to, move || {
            stream(domain, Type::STREAM, MPTCP, to)
        }));
        all.push(captured(format!("fast open {to}"), to, move || {
            fast_open(to)
        }));
        all.push(captured(format!("low source port {to}"), to, move || {
            from_port(to, 40_000)
        }));
        for (name, kind, protocol) in [
            ("sctp", Type::STREAM, SCTP),
            ("dccp", Type::from(DCCP.0), DCCP.1),
            ("raw", Type::RAW, 253),
        ] {
            all.push(refused(format!("{name} {to}"), move || {
                stream(domain, kind, protocol, to)
            }));
        }
        all.push(refused(format!("udplite {to}"), move || {
            packet(domain, Type::DGRAM, UDP_LITE, to, MARKER)
        }));
        let resolver = SocketAddr::new(to.ip(), 53);
        all.push(refused(format!("udplite {resolver}"), move || {
            packet(domain, Type::DGRAM, UDP_LITE, resolver, MARKER)
        }));
        let mut ping = vec![echo, 0, 0, 0, 0, 1, 0, 1];
        ping.extend_from_slice(MARKER);
        all.push(refused(format!("ping {to}"), move || {
            packet(domain, Type::DGRAM, icmp, to, &ping)
        }));
        all.push(refused(format!("fragments {to}"), move || {
            packet(domain, Type::DGRAM, 17, to, &MARKER.repeat(400))
        }));
        for (name, port) in [
            ("tcp bound to eth0", 443),
            ("tcp bound to eth0 for dns", 53),
        ] {
            let to = SocketAddr::new(to.ip(), port);
            // Its redirected packet can't be routed, and TCP takes its time to believe that.
            all.push(silent(format!("{name} {to}"), move || {
                bound(Type::STREAM, 6, to)
            }));
        }
        for port in [53, 443] {
            let to = SocketAddr::new(to.ip(), port);
            all.push(refused(format!("udp bound to eth0 {to}"), move || {
                bound(Type::DGRAM, 17, to)
            }));
        }
    }
    all
}

/// On the link: multicast, broadcast, link-local.
fn neighbours() -> Vec<Attempt> {
    let mut all = Vec::new();
    for to in [
        "224.0.0.251:5353",
        "224.0.0.252:5355",
        "239.1.2.3:443",
        "224.0.0.251:53",
        "255.255.255.255:137",
        "10.77.0.255:138",
        "255.255.255.255:53",
    ] {
        let to: SocketAddr = to.parse().unwrap();
        all.push(refused(format!("udp {to}"), move || udp(to)));
    }
    for (address, ports) in [
        ("fe80::1", [53, 443]),
        ("ff02::fb", [53, 5353]),
        ("ff02::1:3", [5355, 443]),
    ] {
        for port in ports {
            let address: Ipv6Addr = address.parse().unwrap();
            all.push(refused(format!("udp [{address}%eth0]:{port}"), move || {
                udp(scoped(address, port))
            }));
            all.push(refused(format!("tcp [{address}%eth0]:{port}"), move || {
                tcp(scoped(address, port))
            }));
        }
    }
    // Joining a group tells the link its address, and the address is the joiner's to choose.
    all.push(silent("join v4".to_owned(), || {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        joined(
            socket.join_multicast_v4(
                &"239.83.69.67".parse().unwrap(),
                &"10.77.0.2".parse().unwrap(),
            ),
            socket,
        )
    }));
    all.push(silent("join v6".to_owned(), || {
        let socket = UdpSocket::bind("[::]:0").unwrap();
        joined(
            socket.join_multicast_v6(&"ff02::7365:6372:6574".parse().unwrap(), interface()),
            socket,
        )
    }));
    all
}

/// What only one of the rules stands against.
fn odd() -> Vec<Attempt> {
    let mapped: SocketAddr = "[::ffff:10.0.0.1]:443".parse().unwrap();
    let plain: SocketAddr = "10.0.0.1:443".parse().unwrap();
    vec![
        captured(format!("tcp {mapped}"), plain, move || tcp(mapped)),
        refused(format!("udp {mapped}"), move || udp(mapped)),
        refused("mark".to_owned(), || {
            let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
            // Refused to who has no capability; without effect for who has.
            let _without_effect = socket.set_mark(0x6578_6501);
            datagram(&socket, "203.0.113.9:443".parse().unwrap())
        }),
        silent("dns from another's address".to_owned(), || {
            in_anothers_name(Type::DGRAM, 53)
        }),
        silent("tcp from another's address".to_owned(), || {
            in_anothers_name(Type::STREAM, 443)
        }),
        refused("from another's address".to_owned(), || {
            let socket = Socket::new(Domain::IPV6, Type::DGRAM, None).unwrap();
            socket.set_freebind_v6(true).unwrap();
            let from: SocketAddr = "[2001:db8:bad::1]:4000".parse().unwrap();
            socket.bind(&from.into()).unwrap();
            datagram(&socket, SocketAddr::new(WORLD_V6.parse().unwrap(), 443))
        }),
    ]
}

/// Raw sockets: for who has `NET_RAW`.
pub fn raw() -> Vec<Attempt> {
    let mut all = Vec::new();
    for host in ["203.0.113.9", "2001:db8::9"] {
        let to = SocketAddr::new(host.parse().unwrap(), 0);
        for protocol in [1, 2, 4, 17, 41, 47, 50, 58, 89, 99, 132, 136, 253, 255] {
            all.push(refused(format!("raw {protocol} {host}"), move || {
                packet(
                    Domain::for_address(to),
                    Type::RAW,
                    protocol,
                    to,
                    &MARKER.repeat(2),
                )
            }));
        }
    }
    // Neighbour discovery with a message in it.
    let link: Ipv6Addr = "ff02::1".parse().unwrap();
    for kind in [133, 135, 136] {
        all.push(refused(format!("forged discovery {kind}"), move || {
            let mut payload = vec![kind, 0, 0, 0];
            payload.extend_from_slice(&MARKER.repeat(2));
            let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6)).unwrap();
            socket.set_multicast_hops_v6(255).unwrap();
            sent(&socket, &payload, scoped(link, 0))
        }));
    }
    all
}

/// A frame of our own making, past every IP rule.
pub fn whole_frame() -> Reach {
    let socket = match Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0x0300))) {
        Ok(socket) => socket,
        Err(error) => return Reach::NoSocket(error.kind()),
    };
    let link = nix::ifaddrs::getifaddrs()
        .unwrap()
        .filter(|listed| listed.interface_name == "eth0")
        .find_map(|listed| {
            listed
                .address
                .as_ref()
                .and_then(|address| address.as_link_addr().copied())
        })
        .expect("eth0 has a hardware address");
    let mut reach = Reach::Refused(ErrorKind::Other);
    // As IPv4, and as ARP with something at its end.
    for kind in [[8, 0], [8, 6]] {
        let mut frame = vec![0xff; 6];
        frame.extend_from_slice(&exeat_tests::netns::POD_MAC);
        frame.push(0);
        frame.extend_from_slice(&kind);
        frame.extend_from_slice(&MARKER.repeat(4));
        let sent = nix::sys::socket::sendto(
            std::os::fd::AsRawFd::as_raw_fd(&socket),
            &frame,
            &link,
            nix::sys::socket::MsgFlags::empty(),
        );
        reach = if sent.is_ok() { Reach::Sent } else { reach };
    }
    reach
}

/// Goes to the gate from an address that is somebody else's, who would get the gate's answer.
pub fn in_anothers_name(kind: Type, port: u16) -> Reach {
    let to = SocketAddr::new("2001:db8::9".parse().unwrap(), port);
    let socket = Socket::new(Domain::IPV6, kind, None).unwrap();
    socket.set_freebind_v6(true).unwrap();
    let from: SocketAddr = "[2001:db8:bad::1]:4000".parse().unwrap();
    socket.bind(&from.into()).unwrap();
    if kind == Type::STREAM {
        connected(socket, to)
    } else {
        datagram(&socket, to)
    }
}

/// Opens a flow to ourselves in the world's name, and answers it.
pub fn forged_inbound() -> Reach {
    let world = SocketAddr::new(WORLD_V6.parse().unwrap(), 4000);
    let own = SocketAddr::new(POD_V6.parse().unwrap(), 4001);
    let forged = Socket::new(Domain::IPV6, Type::DGRAM, None).unwrap();
    forged.set_freebind_v6(true).unwrap();
    forged.bind(&world.into()).unwrap();
    let answering = UdpSocket::bind(own).unwrap();
    if let Err(error) = forged.send_to(b"open", &own.into()) {
        return Reach::Refused(error.kind());
    }
    match answering.send_to(MARKER, world) {
        Ok(_) => Reach::Sent,
        Err(error) => Reach::Refused(error.kind()),
    }
}

// How they are made.

fn captured(
    name: String,
    to: SocketAddr,
    run: impl Fn() -> Reach + Send + Sync + 'static,
) -> Attempt {
    Attempt {
        name,
        captured: Some(to),
        may_be_silent: false,
        run: Box::new(run),
    }
}

fn refused(name: String, run: impl Fn() -> Reach + Send + Sync + 'static) -> Attempt {
    Attempt {
        name,
        captured: None,
        may_be_silent: false,
        run: Box::new(run),
    }
}

fn silent(name: String, run: impl Fn() -> Reach + Send + Sync + 'static) -> Attempt {
    Attempt {
        name,
        captured: None,
        may_be_silent: true,
        run: Box::new(run),
    }
}

fn stream(domain: Domain, kind: Type, protocol: i32, to: SocketAddr) -> Reach {
    match Socket::new(domain, kind, Some(Protocol::from(protocol))) {
        Ok(socket) if kind == Type::RAW => sent(&socket, MARKER, SocketAddr::new(to.ip(), 0)),
        Ok(socket) => connected(socket, to),
        Err(error) => Reach::NoSocket(error.kind()),
    }
}

fn packet(domain: Domain, kind: Type, protocol: i32, to: SocketAddr, payload: &[u8]) -> Reach {
    match Socket::new(domain, kind, Some(Protocol::from(protocol))) {
        Ok(socket) => sent(&socket, payload, to),
        Err(error) => Reach::NoSocket(error.kind()),
    }
}

/// IPv6 ping sockets take what is refused, and say so a moment later.
fn sent(socket: &Socket, payload: &[u8], to: SocketAddr) -> Reach {
    if let Err(error) = socket
        .connect(&to.into())
        .and_then(|()| socket.send(payload))
    {
        return Reach::Refused(error.kind());
    }
    socket.set_read_timeout(Some(PROMPT / 2)).unwrap();
    match std::io::Read::read(&mut &*socket, &mut [0; 64]) {
        Err(error) if !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            Reach::Refused(error.kind())
        }
        _ => Reach::Sent,
    }
}

/// The first packet holds bytes already.
fn fast_open(to: SocketAddr) -> Reach {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).unwrap();
    match socket.send_to_with_flags(MARKER, &SockAddr::from(to), FAST_OPEN) {
        Ok(_) => answered(socket),
        Err(error) => Reach::Refused(error.kind()),
    }
}

fn answered(socket: Socket) -> Reach {
    let said = crate::support::read(&mut socket.into());
    said.strip_prefix("GATE ")
        .and_then(|to| to.trim().parse().ok())
        .map_or(Reach::Sent, Reach::Gate)
}

fn from_port(to: SocketAddr, port: u16) -> Reach {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    let any: IpAddr = if to.is_ipv4() {
        "0.0.0.0".parse().unwrap()
    } else {
        "::".parse().unwrap()
    };
    socket.bind(&SocketAddr::new(any, port).into()).unwrap();
    connected(socket, to)
}

/// Bound to the interface, which stays when the destination is rewritten.
fn bound(kind: Type, protocol: i32, to: SocketAddr) -> Reach {
    let socket = Socket::new(
        Domain::for_address(to),
        kind,
        Some(Protocol::from(protocol)),
    )
    .unwrap();
    socket.bind_device(Some(b"eth0")).unwrap();
    if kind == Type::STREAM {
        connected(socket, to)
    } else {
        datagram(&socket, to)
    }
}

fn joined(result: std::io::Result<()>, socket: UdpSocket) -> Reach {
    // The report may be sent a moment later; leaving sends another one.
    std::thread::sleep(std::time::Duration::from_millis(30));
    drop(socket);
    match result {
        Ok(()) => Reach::Silence,
        Err(error) => Reach::Refused(error.kind()),
    }
}

fn scoped(address: Ipv6Addr, port: u16) -> SocketAddr {
    SocketAddr::V6(SocketAddrV6::new(address, port, 0, interface()))
}

fn interface() -> u32 {
    if_nametoindex("eth0").unwrap()
}
