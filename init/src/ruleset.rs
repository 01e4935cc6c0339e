//! The plan as rules: typed, in order, the same for every packet filter.
//!
//! The reasons are kept beside the rules, because most of them answer a trap of the kernel. The
//! shape is always the same: accept what is known to be harmless, refuse the rest. No rule says
//! «not the gate's user», because such a rule also speaks of packets that have no socket.

mod gvisor;

use std::net::IpAddr;

use serde::Serialize;

use crate::plan::{Plan, Uid};

/// Rules of one namespace, in the order in which the kernel must ask them.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Ruleset {
    /// Chains in the order in which they are installed: those that deny come first.
    pub chains: Vec<Chain>,
    /// Frames that may leave an interface, where the kernel can look at frames.
    pub frames: Option<Frames>,
}

/// What the plan can't know: the machine it meets.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Surroundings {
    /// Every interface but loopback.
    pub interfaces: Vec<Interface>,
    /// A number that this namespace's packets carry to its interfaces; random, so that a process
    /// which may set marks can't know it.
    pub stamp: u32,
    /// The highest UID that exists in this user namespace.
    pub highest_uid: u32,
    /// The namespace's own addresses, for filters that can't tell them by themselves; sorted.
    pub addresses: Vec<IpAddr>,
}

/// A network interface.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Interface {
    /// The kernel's number for it.
    pub index: u32,
    /// Its name.
    pub name: String,
}

/// One chain.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Chain {
    /// Which.
    pub place: Place,
    /// Its rules.
    pub rules: Vec<Rule>,
}

/// Where in the kernel a chain is asked.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Place {
    /// Not asked by itself: what is sent here is refused.
    Refuse,
    /// What a local process, or the kernel, wants to send.
    Output,
    /// What would be passed on between interfaces: the pod is no router.
    Forward,
    /// What arrives.
    Input,
    /// What is about to leave, with its final interface.
    Leave,
    /// The first packet of a flow: where it is really sent.
    Capture,
}

/// One rule: all of `when`, then `then`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rule {
    /// What it is for, in two or three words; unique.
    pub name: &'static str,
    /// Conditions.
    pub when: Vec<Match>,
    /// What happens.
    pub then: Verdict,
}

/// A condition on a packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Match {
    /// Sent by a socket that this user opened.
    Owner(Uid),
    /// Sent by a socket that some process opened: not by the kernel of its own accord.
    AnyOwner {
        /// The highest UID there is.
        highest: u32,
    },
    /// Transport protocol.
    Is(Transport),
    /// TCP destination port.
    TcpTo(u16),
    /// TCP source port.
    TcpFrom(u16),
    /// UDP destination port.
    UdpTo(u16),
    /// To an address of this namespace itself.
    ToLocal,
    /// From an address that is not of this namespace.
    FromElsewhere,
    /// To one of these addresses.
    ToNet(Net),
    /// To this address.
    ToAddress(IpAddr),
    /// From one of these addresses.
    FromNet(Net),
    /// Arrived on loopback.
    FromInside,
    /// Is meant to go by loopback, before any redirect.
    ByLoopback,
    /// Arrived on an interface other than loopback.
    Arriving,
    /// Is about to leave on an interface other than loopback.
    Leaving,
    /// First of its flow.
    New,
    /// Of a flow that has been answered.
    Established,
    /// Against the direction in which its flow was opened.
    Reply,
    /// An ICMP error about a known flow.
    Related,
    /// Of a flow that bears this mark.
    Marked(Mark),
    /// TCP without SYN: it can't open a connection. Says TCP by itself.
    NotOpening,
    /// TCP with this flag. Says TCP by itself.
    Bearing(Flag),
    /// ICMPv6 of this type, never routed.
    Neighbour(u8),
}

/// A transport protocol that gets a treatment of its own.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Transport {
    /// 6.
    Tcp,
    /// 17. UDP-Lite is another protocol, and refused as such.
    Udp,
}

/// A flag of TCP that what opens a connection doesn't bear.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Flag {
    /// Acknowledges: there has been a packet before.
    Ack,
    /// Ends, and carries nothing.
    Rst,
}

/// A range of addresses.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Net {
    /// IPv4.
    V4(&'static str),
    /// IPv6.
    V6(&'static str),
}

/// What is remembered of a flow. Only a process with `CAP_NET_ADMIN` can set it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mark {
    /// The gate opened it.
    Gate,
    /// Somebody outside opened it, and it came in by an interface.
    Inbound,
}

/// What happens to a packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// It goes its way.
    Accept,
    /// It vanishes.
    Drop,
    /// Its flow is marked, and the next rule is asked.
    Mark(Mark),
    /// It bears the stamp, and the next rule is asked.
    Stamp,
    /// Its flow goes to this port of the namespace itself.
    Redirect(u16),
    /// The refusing chain answers.
    Refuse,
    /// TCP RST to the sender.
    Reset,
    /// ICMP port unreachable to the sender.
    PortUnreachable,
    /// ICMP administratively prohibited to the sender.
    Prohibited,
}

/// An IP family.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// The frames that may leave: what the rules above let through, and the kernel's own ARP.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Frames {
    /// One chain for each.
    pub interfaces: Vec<Interface>,
    /// What a packet bears that passed the other chains.
    pub stamp: u32,
}

/// Router solicitation, neighbour solicitation, neighbour advertisement. Not the multicast
/// listener reports: the groups in them are chosen by whoever joins, and joining is free.
const NEIGHBOUR_TYPES: [(&str, u8); 3] = [
    ("router solicitation", 133),
    ("neighbour solicitation", 135),
    ("neighbour advertisement", 136),
];

/// What every DNS question is sent to.
const DNS: u16 = 53;

// === impl Ruleset ===

impl Ruleset {
    /// The rules that keep the plan.
    #[must_use]
    pub fn new(plan: &Plan, surroundings: &Surroundings) -> Self {
        let refuse = Chain {
            place: Place::Refuse,
            rules: refuse(),
        };
        match plan.exempt {
            Some(gate) => Self {
                chains: vec![
                    refuse,
                    Chain {
                        place: Place::Output,
                        rules: output(plan, gate, surroundings.highest_uid),
                    },
                    Chain {
                        place: Place::Forward,
                        rules: vec![],
                    },
                    Chain {
                        place: Place::Input,
                        rules: input(plan),
                    },
                    Chain {
                        place: Place::Leave,
                        rules: leave(),
                    },
                    Chain {
                        place: Place::Capture,
                        rules: capture(plan, gate),
                    },
                ],
                frames: Some(Frames {
                    interfaces: surroundings.interfaces.clone(),
                    stamp: surroundings.stamp,
                }),
            },
            None => Self {
                chains: vec![
                    refuse,
                    Chain {
                        place: Place::Output,
                        rules: output_inside(),
                    },
                    Chain {
                        place: Place::Forward,
                        rules: vec![],
                    },
                    Chain {
                        place: Place::Leave,
                        rules: vec![rule("lo only", &[Match::Leaving], Verdict::Drop)],
                    },
                    Chain {
                        place: Place::Capture,
                        rules: capture_inside(plan),
                    },
                ],
                frames: None,
            },
        }
    }

    /// The same rules without the one of that name, for tests that must see a defence missed.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        for chain in &mut self.chains {
            chain.rules.retain(|rule| rule.name != name);
        }
        self
    }

    /// The names of all rules.
    #[must_use]
    pub fn names(&self) -> Vec<&'static str> {
        self.chains
            .iter()
            .flat_map(|chain| &chain.rules)
            .map(|rule| rule.name)
            .collect()
    }
}

// === impl Chain ===

impl Place {
    /// Whether what no rule of this chain names goes its way.
    #[must_use]
    pub fn lets_pass(self) -> bool {
        matches!(self, Self::Input | Self::Leave | Self::Capture)
    }
}

// === impl Rule ===

impl Rule {
    /// The family that this rule can only be about, if so.
    #[must_use]
    pub fn family(&self) -> Option<Family> {
        self.when.iter().find_map(|condition| match condition {
            Match::ToNet(Net::V4(_))
            | Match::FromNet(Net::V4(_))
            | Match::ToAddress(IpAddr::V4(_)) => Some(Family::V4),
            Match::ToNet(Net::V6(_))
            | Match::FromNet(Net::V6(_))
            | Match::ToAddress(IpAddr::V6(_))
            | Match::Neighbour(_) => Some(Family::V6),
            _ => None,
        })
    }
}

// === impl Mark ===

impl Mark {
    /// As the kernel stores it: «exe» and a kind.
    #[must_use]
    pub fn value(self) -> u32 {
        match self {
            Self::Gate => 0x6578_6501,
            Self::Inbound => 0x6578_6502,
        }
    }
}

// The rules.

fn rule(name: &'static str, when: &[Match], then: Verdict) -> Rule {
    Rule {
        name,
        when: when.to_vec(),
        then,
    }
}

/// Refused, never dropped: a client learns it in a millisecond and QUIC falls back to TCP.
fn refuse() -> Vec<Rule> {
    vec![
        rule("refuse tcp", &[Match::Is(Transport::Tcp)], Verdict::Reset),
        rule(
            "refuse udp",
            &[Match::Is(Transport::Udp)],
            Verdict::PortUnreachable,
        ),
        rule("refuse the rest", &[], Verdict::Prohibited),
    ]
}

fn output(plan: &Plan, gate: Uid, highest: u32) -> Vec<Rule> {
    let mut rules = vec![
        // The kernel remembers where a closed flow was redirected to. When the gate dials from the
        // very port that the agent used a moment ago, to the same address, its packets would follow
        // that memory back into the gate. It is told at once, and dials from another port.
        rule(
            "the gate is not its own caller",
            &[
                Match::Owner(gate),
                Match::ToLocal,
                Match::TcpTo(plan.ports.transparent),
            ],
            Verdict::Reset,
        ),
        rule(
            "the gate asks others",
            &[
                Match::Owner(gate),
                Match::ToLocal,
                Match::UdpTo(plan.ports.dns),
            ],
            Verdict::PortUnreachable,
        ),
        rule(
            "the gate asks others over tcp",
            &[
                Match::Owner(gate),
                Match::ToLocal,
                Match::TcpTo(plan.ports.dns),
            ],
            Verdict::Reset,
        ),
        // Its flows are marked when they open, because later some of their packets have no socket
        // any more: resets, retransmitted FINs, the ACKs of TIME_WAIT.
        rule(
            "gate opens",
            &[Match::Owner(gate), Match::Is(Transport::Tcp), Match::New],
            Verdict::Mark(Mark::Gate),
        ),
        rule(
            "gate tcp",
            &[Match::Owner(gate), Match::Is(Transport::Tcp)],
            Verdict::Accept,
        ),
        rule(
            "gate udp",
            &[Match::Owner(gate), Match::Is(Transport::Udp)],
            Verdict::Accept,
        ),
        // The kubelet and collectors ask here; the agent has no business to, and who takes the port
        // while the gate is down can't answer them in its name.
        rule(
            "health is not for the agent",
            &[Match::ToLocal, Match::TcpTo(plan.ports.health)],
            Verdict::Reset,
        ),
        rule(
            "nobody else answers for health",
            &[
                Match::AnyOwner { highest },
                Match::TcpFrom(plan.ports.health),
            ],
            Verdict::Reset,
        ),
        // An unprivileged IPv6 socket may bind any source address. What is redirected from one would
        // be answered by the gate: out of the pod, to an address that the agent chose, and over DNS
        // with the agent's own words in it. Nobody could hear a refusal. Refusals themselves are in
        // another's name too, and have no socket.
        rule(
            "in another's name",
            &[
                Match::AnyOwner { highest },
                Match::ToLocal,
                Match::FromElsewhere,
            ],
            Verdict::Drop,
        ),
        // The destination, and not the interface: redirected packets still show the old one here.
        rule("itself", &[Match::ToLocal], Verdict::Accept),
        // The mark, and not the direction alone: an IPv6 socket may take any source address, and
        // so a process could have «opened» a flow from outside that never came from there.
        rule(
            "replies",
            &[Match::Reply, Match::Marked(Mark::Inbound)],
            Verdict::Accept,
        ),
        // From here on nothing that a process sends goes through. What follows has no socket, and
        // so can't be an agent's packet in a flow whose mark the gate left behind.
        rule("the agent", &[Match::AnyOwner { highest }], Verdict::Refuse),
        rule(
            "gate's last words",
            &[
                Match::NotOpening,
                Match::Established,
                Match::Marked(Mark::Gate),
            ],
            Verdict::Accept,
        ),
    ];
    for (name, kind) in NEIGHBOUR_TYPES {
        rules.push(rule(name, &[Match::Neighbour(kind)], Verdict::Accept));
    }
    rules.push(rule("everything else", &[], Verdict::Refuse));
    rules
}

/// Inbound traffic is left alone, but the gate serves its own pod only.
fn input(plan: &Plan) -> Vec<Rule> {
    let ports = plan.ports;
    vec![
        // First, because the refusals below are replies as well.
        rule(
            "came from outside",
            &[Match::Arriving, Match::New],
            Verdict::Mark(Mark::Inbound),
        ),
        rule(
            "transparent is for the pod",
            &[Match::Arriving, Match::TcpTo(ports.transparent)],
            Verdict::Reset,
        ),
        rule(
            "explicit is for the pod",
            &[Match::Arriving, Match::TcpTo(ports.explicit)],
            Verdict::Reset,
        ),
        rule(
            "dns/tcp is for the pod",
            &[Match::Arriving, Match::TcpTo(ports.dns)],
            Verdict::Reset,
        ),
        rule(
            "dns/udp is for the pod",
            &[Match::Arriving, Match::UdpTo(ports.dns)],
            Verdict::PortUnreachable,
        ),
    ]
}

fn leave() -> Vec<Rule> {
    vec![
        // A socket bound to an interface keeps it when its flow is redirected: the packet would go
        // out addressed to 127.0.0.1, for anyone on the link to read.
        rule(
            "local stays local",
            &[Match::Leaving, Match::ToLocal],
            Verdict::Drop,
        ),
        rule("stamp", &[Match::Leaving], Verdict::Stamp),
    ]
}

fn capture(plan: &Plan, gate: Uid) -> Vec<Rule> {
    let mut rules = vec![rule(
        "gate is not captured",
        &[Match::Owner(gate)],
        Verdict::Accept,
    )];
    // No route leads from a link-local scope to ::1: left as they are, these get a clean refusal.
    rules.extend(unroutable());
    rules.extend(dns(plan));
    rules.push(rule(
        "itself is not captured",
        &[Match::ToLocal],
        Verdict::Accept,
    ));
    rules.push(rule(
        "capture tcp",
        &[Match::Is(Transport::Tcp)],
        Verdict::Redirect(plan.ports.transparent),
    ));
    rules
}

/// Where every address is local, only loopback ones are the command's own.
fn output_inside() -> Vec<Rule> {
    let mut rules = Vec::new();
    for (name, net) in LOOPBACK {
        rules.push(rule(name, &[Match::ToNet(net)], Verdict::Accept));
    }
    rules.push(rule(
        "answers",
        &[Match::Reply, Match::Established],
        Verdict::Accept,
    ));
    rules.push(rule("errors", &[Match::Related], Verdict::Accept));
    rules.push(rule("everything else", &[], Verdict::Refuse));
    rules
}

fn capture_inside(plan: &Plan) -> Vec<Rule> {
    let mut rules = unroutable();
    rules.extend(dns(plan));
    for (name, net) in LOOPBACK_CAPTURE {
        rules.push(rule(name, &[Match::ToNet(net)], Verdict::Accept));
    }
    rules.push(rule(
        "capture tcp",
        &[Match::Is(Transport::Tcp)],
        Verdict::Redirect(plan.ports.transparent),
    ));
    rules
}

const LOOPBACK: [(&str, Net); 2] = [
    ("loopback v4", Net::V4("127.0.0.0/8")),
    ("loopback v6", Net::V6("::1")),
];
const LOOPBACK_CAPTURE: [(&str, Net); 2] = [
    ("loopback v4 is not captured", Net::V4("127.0.0.0/8")),
    ("loopback v6 is not captured", Net::V6("::1")),
];

fn unroutable() -> Vec<Rule> {
    [
        ("multicast v4", Net::V4("224.0.0.0/4")),
        ("broadcast", Net::V4("255.255.255.255")),
        ("link-local v6", Net::V6("fe80::/10")),
        ("multicast v6", Net::V6("ff00::/8")),
    ]
    .into_iter()
    .map(|(name, net)| rule(name, &[Match::ToNet(net)], Verdict::Accept))
    .collect()
}

/// Every server's, also those on loopback: the agent has one resolver, whatever it believes.
fn dns(plan: &Plan) -> Vec<Rule> {
    vec![
        rule(
            "capture dns/udp",
            &[Match::UdpTo(DNS)],
            Verdict::Redirect(plan.ports.dns),
        ),
        rule(
            "capture dns/tcp",
            &[Match::TcpTo(DNS)],
            Verdict::Redirect(plan.ports.dns),
        ),
    ]
}
