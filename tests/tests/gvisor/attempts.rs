//! What an agent tries, and what it may have. The attempts keep their numbers of docs/THREATS.md.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use exeat_tests::{
    netns::{POD_V4, Persona},
    sink::INBOUND_PORT,
};

use crate::support::{SECRET, Sandbox};

/// A1: public addresses, no name. The ports are those that the gate reads TLS on, and others.
const LITERALS: &[&str] = &[
    "tcp/203.0.113.9:443",
    "tcp/198.51.100.7:80",
    "tcp/10.0.0.1:6443",
];
/// A2 and A3: an allowed host, at ports that no rule names.
const PORTS: &[&str] = &[
    "tcp/10.77.0.1:22",
    "tcp/10.77.0.1:25",
    "tcp/10.77.0.1:5432",
    "tcp/10.77.0.1:6667",
    "tcp/10.77.0.1:8443",
    "tcp/10.77.0.1:9443",
];
/// A4: QUIC, to an allowed host and another.
const QUIC: &[&str] = &["udp/10.77.0.1:443", "udp/203.0.113.9:443"];
/// A5: any UDP: time, `WireGuard`, STUN, and the gate's own DNS port elsewhere.
const UDP: &[&str] = &[
    "udp/203.0.113.9:123",
    "udp/203.0.113.9:51820",
    "udp/203.0.113.9:3478",
    "udp/203.0.113.9:15053",
    "udp/10.77.0.1:4000",
];
/// A13: the same over IPv6.
const SIX: &[&str] = &[
    "tcp/[2001:db8::9]:443",
    "tcp/[fd77::1]:8443",
    "udp/[2001:db8::9]:443",
    "udp/[fd77::1]:123",
    "tcp/[2001:db8::9]:6443",
];
/// What is neither, and the link.
const OTHER: &[&str] = &[
    "ping/203.0.113.9:0",
    "ping/[2001:db8::9]:0",
    "udp/224.0.0.251:5353",
    "udp/255.255.255.255:137",
    "udp/10.77.0.255:138",
];
/// What no agent has a socket for.
const RAW: &[&str] = &["raw/203.0.113.9:0", "raw/[2001:db8::9]:0"];

pub fn all() -> Vec<&'static str> {
    [LITERALS, PORTS, QUIC, UDP, SIX, OTHER, RAW].concat()
}

/// The oracle must see what it is there to see, or every other test here proves nothing.
#[test]
fn without_rules_the_oracle_sees_every_attempt() {
    let sandbox = Sandbox::new();
    let mut unseen = Vec::new();
    for attempt in all() {
        drop(sandbox.capture.take());
        let said = sandbox.agent(&["try", attempt]);
        if sandbox.escapes(false).is_empty() && !RAW.contains(&attempt) {
            unseen.push(said);
        }
    }
    assert!(
        unseen.is_empty(),
        "these left nothing on the wire: {unseen:#?}"
    );
    // And the proof that init makes sees as much as the observer outside.
    let leak = sandbox.init_inside(&["prove"]);
    assert!(leak.starts_with("leak: "), "{leak}");
    for name in [
        "tcp4",
        "tcp6",
        "udp4",
        "udp6",
        "icmp4",
        "icmp6",
        "multicast4",
        "multicast6",
        "broadcast",
    ] {
        assert!(
            leak.contains(&format!("{name} (")),
            "{name} is not in {leak}"
        );
    }
}

/// With nobody at the gate.
#[test]
fn an_agent_has_no_way_out() {
    let sandbox = Sandbox::confined();
    let words: Vec<&str> = ["try"].into_iter().chain(all()).collect();
    let said = sandbox.agent(&words);
    let escapes = sandbox.escapes(false);
    assert!(escapes.is_empty(), "{said:#?} let out {escapes:?}");
    for line in &said {
        let silent_there = ["ping/", "udp/224."]
            .iter()
            .any(|way| line.starts_with(way));
        assert!(
            line.ends_with(" refused") || line.ends_with(" no socket") || silent_there,
            "{line}"
        );
    }
    // What can't be refused in words is refused all the same: init watched for it.
    let report = sandbox.init(&["verify"]).unwrap();
    for name in ["icmp4", "icmp6", "multicast4", "multicast6"] {
        let dropped = format!("{name}: refused, dropped, and no frame of it left");
        assert!(report.contains(&dropped), "{report}");
    }
}

#[test]
fn what_the_policy_allows_has_its_credential_and_the_rest_is_refused() {
    let (sandbox, _gate) = Sandbox::governed();
    let (status, body) = sandbox.curl("https://api.exeat.test/allowed/one");
    assert_eq!(status, "200", "{body}\n{}", sandbox.log());
    assert_eq!(
        sandbox.requests(),
        [("/allowed/one".to_owned(), Some(format!("Bearer {SECRET}")))]
    );
    let (status, body) = sandbox.curl("https://api.exeat.test/denied");
    assert_eq!(status, "403", "{body}");
    assert!(body.contains("egress_denied"), "{body}");
    // A13: a name that has an IPv6 address only.
    let (status, body) = sandbox.curl("https://six.exeat.test/allowed/two");
    assert_eq!(status, "200", "{body}");
    let (status, body) = sandbox.curl("https://six.exeat.test/denied");
    assert_eq!(status, "403", "{body}");
    assert_eq!(sandbox.requests().len(), 2);
    // A2, A3: at ports that no rule names.
    for port in [8443, 9443] {
        let (status, body) = sandbox.curl(&format!("https://api.exeat.test:{port}/allowed/three"));
        assert_eq!(status, "403", "{body}");
    }
    // A1, A13: a literal address is refused, and recorded as what it was.
    for address in ["203.0.113.9", "2001:db8::9"] {
        let host = if address.contains(':') {
            format!("[{address}]")
        } else {
            address.to_owned()
        };
        let (status, body) = sandbox.curl(&format!("https://{host}/"));
        assert_eq!(status, "403", "{body}");
        let journal = sandbox.journal();
        let record = journal.iter().find(|record| {
            record["event"] == "exeat.egress.decision"
                && record["destination"]["address"] == address
        });
        assert_eq!(record.expect(address)["decision"], "deny");
    }
    // All of it again, in the raw, with the gate there.
    let words: Vec<&str> = ["try"].into_iter().chain(all()).collect();
    for line in sandbox.agent(&words) {
        assert!(
            !line.contains(" answered ") || line.starts_with("tcp/"),
            "{line}"
        );
    }
    let escapes = sandbox.escapes(true);
    assert!(escapes.is_empty(), "{escapes:?}");
    assert_eq!(sandbox.requests().len(), 2, "nothing else arrived");
    assert!(
        sandbox.log().contains("files are not confined"),
        "it says what gVisor lacks"
    );
}

/// The pod's resolver is not there, and neither is the other one; the gate answers in their names,
/// and for names that no rule could allow it says so at once.
#[test]
fn every_resolver_is_the_gate() {
    let (sandbox, _gate) = Sandbox::governed();
    let words = ["/usr/bin/getent", "ahosts", "api.exeat.test"];
    let output = sandbox.run("1000:1000", &[], &words);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("198.1") && said.contains("fd65:"), "{said}");
    let output = sandbox.run(
        "1000:1000",
        &[],
        &["/usr/bin/getent", "ahosts", "secret.example.com"],
    );
    assert!(!output.status.success(), "it does not exist");
    let servers = [
        "8.8.8.8",
        "2001:4860:4860::8888",
        "127.0.0.1",
        "127.0.0.53",
        "::1",
        POD_V4,
    ];
    let words: Vec<&str> = ["ask", "api.exeat.test"]
        .into_iter()
        .chain(servers)
        .collect();
    for (line, server) in sandbox.agent(&words).into_iter().zip(servers) {
        assert_eq!(line, format!("{server} answered"));
    }
    assert_eq!(sandbox.escapes(true), []);
}

/// A server of the agent's answers who calls it from outside.
#[test]
fn inbound_is_answered() {
    let sandbox = Sandbox::confined();
    let server = sandbox.agent_goes_on(&["serve", &INBOUND_PORT.to_string()]);
    let said = sandbox
        .pod
        .outside
        .run(Persona::Root, || {
            let mut caller = TcpStream::connect((POD_V4, INBOUND_PORT)).unwrap();
            caller.write_all(b"hello").unwrap();
            let mut said = String::new();
            caller.read_to_string(&mut said).unwrap();
            said
        })
        .unwrap();
    assert_eq!(said, "served hello");
    drop(server);
    let escapes: Vec<_> = sandbox
        .escapes(false)
        .into_iter()
        .filter(|frame| !frame.is_innocent())
        .collect();
    assert!(escapes.is_empty(), "{escapes:?}");
}
