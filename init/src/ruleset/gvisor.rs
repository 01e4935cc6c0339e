//! The rules for a network stack that keeps no states of flows and no marks, and knows neither
//! address types nor `goto`: gVisor's. What is left is owner, destination, port and TCP's flags.
//!
//! The shape is the same: accept what is known to be harmless, refuse the rest. In doubt (what only
//! a flow's state could tell apart) it is refused: a UDP server of the agent's can't answer callers
//! from outside, and neighbours that ask for an IPv6 address are not answered, because the one word
//! for that would let the agent's pings out as well.

use super::{
    Chain, LOOPBACK, LOOPBACK_CAPTURE, Match, Place, Rule, Ruleset, Surroundings, Transport,
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

fn output(plan: &Plan, gate: Uid, surroundings: &Surroundings) -> Vec<Rule> {
    let ports = plan.ports;
    let (tcp, udp) = (Match::Is(Transport::Tcp), Match::Is(Transport::Udp));
    let mut rules = Vec::new();
    // A redirect there leads to 127.0.0.1 and ::1 and nowhere else.
    let own = [
        "the gate is not its own caller, v4",
        "the gate is not its own caller, v6",
    ];
    let asks = ["the gate asks others, v4", "the gate asks others, v6"];
    let asks_tcp = [
        "the gate asks others over tcp, v4",
        "the gate asks others over tcp, v6",
    ];
    for (index, (_, net)) in LOOPBACK.into_iter().enumerate() {
        let to = |port| [Match::Owner(gate), Match::ToNet(net), port];
        rules.extend([
            rule(own[index], &to(Match::TcpTo(ports.transparent)), Verdict::Reset),
            rule(asks[index], &to(Match::UdpTo(ports.dns)), Verdict::PortUnreachable),
            rule(asks_tcp[index], &to(Match::TcpTo(ports.dns)), Verdict::Reset),
        ]);
    }
    rules.extend([
        rule("gate tcp", &[Match::Owner(gate), tcp], Verdict::Accept),
        rule("gate udp", &[Match::Owner(gate), udp], Verdict::Accept),
        // Elsewhere this port is redirected before these rules are asked, so it is the pod's own.
        rule(
            "health is not for the agent",
            &[Match::TcpTo(ports.health)],
            Verdict::Reset,
        ),
        rule(
            "nobody else answers for health",
            &[Match::TcpFrom(ports.health)],
            Verdict::Reset,
        ),
    ]);
    // Refusals travel to the pod's own addresses too: without these there would be silence.
    for (name, net) in LOOPBACK {
        rules.push(rule(name, &[Match::ToNet(net)], Verdict::Accept));
    }
    rules.extend(itself("itself", surroundings));
    // Only the other end of an inbound connection can be at the end of such a packet: what opens a
    // connection has no ACK, and is redirected or refused. Last words without a socket have it too.
    rules.push(rule("replies", &[Match::Acknowledging], Verdict::Accept));
    rules.extend([
        rule("refuse tcp", &[tcp], Verdict::Reset),
        // The one ICMP error that this stack's REJECT knows.
        rule("refuse the rest", &[], Verdict::PortUnreachable),
    ]);
    rules
}

/// The gate serves its own pod only. What a redirect led here arrives on loopback.
fn input(plan: &Plan) -> Vec<Rule> {
    let ports = plan.ports;
    let closed = |name, port| rule(name, &[port], Verdict::Reset);
    vec![
        rule("from inside", &[Match::FromInside], Verdict::Accept),
        closed("transparent is for the pod", Match::TcpTo(ports.transparent)),
        closed("explicit is for the pod", Match::TcpTo(ports.explicit)),
        closed("dns/tcp is for the pod", Match::TcpTo(ports.dns)),
        rule(
            "dns/udp is for the pod",
            &[Match::UdpTo(ports.dns)],
            Verdict::PortUnreachable,
        ),
    ]
}

fn capture(plan: &Plan, gate: Uid, surroundings: &Surroundings) -> Vec<Rule> {
    let mut rules = vec![rule(
        "gate is not captured",
        &[Match::Owner(gate)],
        Verdict::Accept,
    )];
    rules.extend(unroutable());
    rules.extend(dns(plan));
    for (name, net) in LOOPBACK_CAPTURE {
        rules.push(rule(name, &[Match::ToNet(net)], Verdict::Accept));
    }
    rules.extend(itself("itself is not captured", surroundings));
    rules.push(rule(
        "capture tcp",
        &[Match::Is(Transport::Tcp)],
        Verdict::Redirect(plan.ports.transparent),
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
