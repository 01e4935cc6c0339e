//! The rules for a network stack that keeps no states of flows and no marks, and knows neither
//! address types nor `goto`: gVisor's. What is left is owner, destination, port and TCP's flags.
//!
//! The shape is the same: accept what is known to be harmless, refuse the rest. In doubt (what only
//! a flow's state could tell apart) it is refused: a UDP server of the agent's can't answer callers
//! from outside, and neighbours that ask for an IPv6 address are not answered, because the one word
//! for that would let the agent's pings out as well.

use super::{
    Chain, Flag, LOOPBACK, LOOPBACK_CAPTURE, Match, Place, Rule, Ruleset, Surroundings, Transport,
    Verdict, dns, rule, unroutable,
};
use crate::plan::{Plan, Uid};

// === impl Ruleset ===

impl Ruleset {
    /// The rules that keep the plan where nothing is remembered of a flow. There are none for a plan
    /// whose gate is outside: the answers of its listeners could not be told from the command's own.
    ///
    /// They hold only in a kernel that lets nobody send from an address that isn't the namespace's.
    #[must_use]
    pub fn untracked(plan: &Plan, surroundings: &Surroundings) -> Option<Self> {
        let gate = plan.exempt?;
        let chain = |place, rules| Chain { place, rules };
        Some(Self {
            chains: vec![
                chain(Place::Output, output(plan, gate, surroundings)),
                chain(Place::Forward, vec![]),
                chain(Place::Input, input(plan)),
                chain(Place::Capture, capture(plan, gate, surroundings)),
            ],
            frames: None,
        })
    }
}

/// TCP is only ever refused by a reset: an ICMP error for it is handed to the very socket that is
/// sending, in the same call, and that call then waits for itself for ever. A reset in turn is not
/// made for a packet that goes by loopback, whose checksum nobody has filled in, so such a packet is
/// refused where it arrives.
fn output(plan: &Plan, gate: Uid, surroundings: &Surroundings) -> Vec<Rule> {
    let ports = plan.ports;
    let (tcp, udp) = (Match::Is(Transport::Tcp), Match::Is(Transport::Udp));
    let own = Match::Owner(gate);
    let mut rules = vec![
        rule(
            "gate inside",
            &[Match::ByLoopback, own, tcp],
            Verdict::Accept,
        ),
        // What is left of these was redirected by a memory of the agent's flow from the same port.
        rule(
            "the gate is not its own caller",
            &[own, Match::TcpTo(ports.transparent)],
            Verdict::Reset,
        ),
    ];
    let asks = ["the gate asks others, v4", "the gate asks others, v6"];
    for (name, (_, net)) in asks.into_iter().zip(LOOPBACK) {
        let when = [own, Match::ToNet(net), Match::UdpTo(ports.dns)];
        rules.push(rule(name, &when, Verdict::PortUnreachable));
    }
    rules.extend([
        rule("gate tcp", &[own, tcp], Verdict::Accept),
        rule("gate udp", &[own, udp], Verdict::Accept),
        // They carry nothing, and the kernel's own refusals are among them.
        rule("resets", &[Match::Bearing(Flag::Rst)], Verdict::Accept),
        // In silence, because nothing else is possible: it goes by loopback.
        rule(
            "health is not for the agent",
            &[Match::TcpTo(ports.health)],
            Verdict::Drop,
        ),
        rule(
            "nobody else answers for health",
            &[Match::TcpFrom(ports.health)],
            Verdict::Drop,
        ),
    ]);
    // Refusals travel to the pod's own addresses too: without these there would be silence.
    for (name, net) in LOOPBACK {
        rules.push(rule(name, &[Match::ToNet(net)], Verdict::Accept));
    }
    rules.extend(itself("itself", surroundings));
    rules.extend([
        // Whoever sends these was called from outside: what opens a connection has no ACK, and is
        // redirected or refused. Last words without a socket have it too.
        rule("replies", &[Match::Bearing(Flag::Ack)], Verdict::Accept),
        rule("refuse tcp", &[tcp], Verdict::Reset),
        // The one ICMP error that this stack's REJECT knows.
        rule("refuse the rest", &[], Verdict::PortUnreachable),
    ]);
    rules
}

/// The gate serves its own pod only, and only what a redirect led here: that comes from the address
/// that the agent would have sent from, and arrives on loopback.
fn input(plan: &Plan) -> Vec<Rule> {
    let ports = plan.ports;
    let closed = |name, port| rule(name, &[port], Verdict::Reset);
    let mut rules = Vec::new();
    let own = [
        ("dialled as itself, v4", "dns dialled as itself, v4"),
        ("dialled as itself, v6", "dns dialled as itself, v6"),
    ];
    for ((gate, dns), (_, net)) in own.into_iter().zip(LOOPBACK) {
        for (name, port) in [(gate, ports.transparent), (dns, ports.dns)] {
            let when = [Match::FromNet(net), Match::TcpTo(port)];
            rules.push(rule(name, &when, Verdict::Reset));
        }
    }
    rules.extend([
        rule("from inside", &[Match::FromInside], Verdict::Accept),
        closed(
            "transparent is for the pod",
            Match::TcpTo(ports.transparent),
        ),
        closed("explicit is for the pod", Match::TcpTo(ports.explicit)),
        closed("dns/tcp is for the pod", Match::TcpTo(ports.dns)),
        rule(
            "dns/udp is for the pod",
            &[Match::UdpTo(ports.dns)],
            Verdict::PortUnreachable,
        ),
    ]);
    rules
}

fn capture(plan: &Plan, gate: Uid, surroundings: &Surroundings) -> Vec<Rule> {
    let (ports, own) = (plan.ports, Match::Owner(gate));
    let mut rules = vec![rule("gate is not captured", &[own], Verdict::Accept)];
    rules.extend(unroutable());
    rules.extend(dns(plan));
    for (name, net) in LOOPBACK_CAPTURE {
        rules.push(rule(name, &[Match::ToNet(net)], Verdict::Accept));
    }
    rules.extend(itself("itself is not captured", surroundings));
    rules.push(rule(
        "capture tcp",
        &[Match::Is(Transport::Tcp)],
        Verdict::Redirect(ports.transparent),
    ));
    rules
}

/// Nobody in the pod can give it another address, and the stack takes none later by itself.
fn itself(name: &'static str, surroundings: &Surroundings) -> impl Iterator<Item = Rule> {
    surroundings
        .addresses
        .iter()
        .map(move |address| rule(name, &[Match::ToAddress(*address)], Verdict::Accept))
}
