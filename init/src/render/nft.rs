//! nftables: both families in one table and one transaction, and the frames in a second table.
//!
//! The chains are flushed and refilled in place rather than replaced: a chain that is registered
//! anew drops packets until the transaction ends, one that is refilled never does.

use std::fmt::Write as _;
use std::net::IpAddr;

use crate::ruleset::{
    Flag, Frames, Interface, Mark, Match, Net, Place, Rule, Ruleset, Transport, Verdict,
};

/// The name of both tables.
pub const TABLE: &str = "exeat";

/// What is left of a rule set that is there already.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Existing {
    /// Nothing, or the same chains: they are refilled.
    Refill,
    /// Chains that this version doesn't know: the tables are replaced.
    Replace,
}

/// The transaction that installs the rules.
#[must_use]
pub fn script(ruleset: &Ruleset, existing: Existing) -> String {
    let mut text = String::new();
    let stamp = ruleset.frames.as_ref().map(|frames| frames.stamp);
    table(&mut text, "inet", existing);
    for chain in &ruleset.chains {
        let name = name(chain.place);
        line(
            &mut text,
            format_args!("add chain inet {TABLE} {name}{}", braced(head(chain.place))),
        );
        line(&mut text, format_args!("flush chain inet {TABLE} {name}"));
    }
    for chain in &ruleset.chains {
        for rule in &chain.rules {
            let Some(rule) = body(rule, stamp) else {
                continue;
            };
            line(
                &mut text,
                format_args!("add rule inet {TABLE} {} {rule}", name(chain.place)),
            );
        }
    }
    if let Some(frames) = &ruleset.frames {
        table(&mut text, "netdev", existing);
        for interface in &frames.interfaces {
            let name = frame_chain(interface);
            line(
                &mut text,
                format_args!(
                    "add chain netdev {TABLE} {name} {{ {} }}",
                    frame_head(interface)
                ),
            );
            line(&mut text, format_args!("flush chain netdev {TABLE} {name}"));
            for rule in frame_rules(frames) {
                line(
                    &mut text,
                    format_args!("add rule netdev {TABLE} {name} {rule}"),
                );
            }
        }
    }
    text
}

/// What `nft --stateless --numeric-priority list table inet exeat` must answer, white space aside.
#[must_use]
pub fn listing(ruleset: &Ruleset) -> String {
    let stamp = ruleset.frames.as_ref().map(|frames| frames.stamp);
    let mut text = format!("table inet {TABLE} {{\n");
    for chain in &ruleset.chains {
        line(&mut text, format_args!("chain {} {{", name(chain.place)));
        if let Some(head) = head(chain.place) {
            line(&mut text, format_args!("{head}"));
        }
        for rule in &chain.rules {
            if let Some(rule) = body(rule, stamp) {
                line(&mut text, format_args!("{rule}"));
            }
        }
        text.push_str("}\n");
    }
    text.push_str("}\n");
    text
}

/// The same for `table netdev exeat`.
#[must_use]
pub fn frame_listing(frames: &Frames) -> String {
    let mut text = format!("table netdev {TABLE} {{\n");
    for interface in &frames.interfaces {
        line(
            &mut text,
            format_args!("chain {} {{", frame_chain(interface)),
        );
        line(&mut text, format_args!("{}", frame_head(interface)));
        for rule in frame_rules(frames) {
            line(&mut text, format_args!("{rule}"));
        }
        text.push_str("}\n");
    }
    text.push_str("}\n");
    text
}

/// The transaction that takes everything away. It only ever runs because somebody asked for it.
#[must_use]
pub fn removal() -> String {
    format!(
        "add table inet {TABLE}\ndelete table inet {TABLE}\nadd table netdev {TABLE}\ndelete table netdev {TABLE}\n"
    )
}

/// The name of an interface's chain. By number, because a name may hold signs that nft reads.
#[must_use]
pub fn frame_chain(interface: &Interface) -> String {
    format!("if{}", interface.index)
}

fn table(text: &mut String, family: &str, existing: Existing) {
    line(text, format_args!("add table {family} {TABLE}"));
    if existing == Existing::Replace {
        line(text, format_args!("delete table {family} {TABLE}"));
        line(text, format_args!("add table {family} {TABLE}"));
    }
}

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a String can't fail.
    let _always_written = writeln!(text, "{line}");
}

fn name(place: Place) -> &'static str {
    match place {
        Place::Refuse => "refuse",
        Place::Output => "output",
        Place::Forward => "forward",
        Place::Input => "input",
        Place::Leave => "leave",
        Place::Capture => "capture",
    }
}

/// Capture is asked before output, so that output sees where a flow really goes; leave is asked
/// last of all.
fn head(place: Place) -> Option<&'static str> {
    match place {
        Place::Refuse => None,
        Place::Output => Some("type filter hook output priority 0; policy drop;"),
        Place::Forward => Some("type filter hook forward priority 0; policy drop;"),
        Place::Input => Some("type filter hook input priority 0; policy accept;"),
        Place::Leave => Some("type filter hook postrouting priority 300; policy accept;"),
        Place::Capture => Some("type nat hook output priority -100; policy accept;"),
    }
}

fn frame_head(interface: &Interface) -> String {
    format!(
        "type filter hook egress device \"{}\" priority 0; policy drop;",
        interface.name
    )
}

/// ARP is the kernel's: a packet socket's frame has an owner, and is none of its business.
fn frame_rules(frames: &Frames) -> [String; 3] {
    [
        format!("meta mark 0x{:08x} accept", frames.stamp),
        format!("meta skuid 0-{} drop", u32::MAX),
        "ether type arp accept".to_owned(),
    ]
}

fn braced(head: Option<&str>) -> String {
    head.map(|head| format!(" {{ {head} }}"))
        .unwrap_or_default()
}

fn body(rule: &Rule, stamp: Option<u32>) -> Option<String> {
    let mut words: Vec<String> = rule.when.iter().map(condition).collect();
    words.push(verdict(rule.then, stamp)?);
    words.push(format!("comment \"{}\"", rule.name));
    Some(words.join(" "))
}

fn condition(condition: &Match) -> String {
    match condition {
        Match::Owner(uid) => format!("meta skuid {uid}"),
        // nft compares what the socket says, mapped or not: the whole range is every socket.
        Match::AnyOwner { .. } => format!("meta skuid 0-{}", u32::MAX),
        Match::Is(Transport::Tcp) => "meta l4proto tcp".to_owned(),
        Match::Is(Transport::Udp) => "meta l4proto udp".to_owned(),
        Match::TcpTo(port) => format!("tcp dport {port}"),
        Match::TcpFrom(port) => format!("tcp sport {port}"),
        Match::UdpTo(port) => format!("udp dport {port}"),
        Match::ToLocal => "fib daddr type local".to_owned(),
        Match::FromElsewhere => "fib saddr type != local".to_owned(),
        Match::ToNet(Net::V4(net)) => format!("ip daddr {net}"),
        Match::ToNet(Net::V6(net)) => format!("ip6 daddr {net}"),
        Match::ToAddress(IpAddr::V4(address)) => format!("ip daddr {address}"),
        Match::ToAddress(IpAddr::V6(address)) => format!("ip6 daddr {address}"),
        Match::FromNet(Net::V4(net)) => format!("ip saddr {net}"),
        Match::FromNet(Net::V6(net)) => format!("ip6 saddr {net}"),
        Match::ByLoopback => "oif \"lo\"".to_owned(),
        Match::FromInside => "iif \"lo\"".to_owned(),
        Match::Arriving => "iif != \"lo\"".to_owned(),
        Match::Leaving => "oif != \"lo\"".to_owned(),
        Match::New => "ct state new".to_owned(),
        Match::Established => "ct state established".to_owned(),
        Match::Reply => "ct direction reply".to_owned(),
        Match::Related => "ct state related".to_owned(),
        Match::Marked(mark) => format!("ct mark {}", value(*mark)),
        Match::Bearing(Flag::Ack) => "tcp flags ack".to_owned(),
        Match::Bearing(Flag::Rst) => "tcp flags rst".to_owned(),
        Match::NotOpening => "tcp flags ! syn".to_owned(),
        Match::Neighbour(kind) => format!("icmpv6 type {} ip6 hoplimit 255", icmpv6(*kind)),
    }
}

fn verdict(verdict: Verdict, stamp: Option<u32>) -> Option<String> {
    Some(match verdict {
        Verdict::Accept => "accept".to_owned(),
        Verdict::Drop => "drop".to_owned(),
        Verdict::Mark(mark) => format!("ct mark set {}", value(mark)),
        Verdict::Stamp => format!("meta mark set 0x{:08x}", stamp?),
        Verdict::Redirect(port) => format!("redirect to :{port}"),
        Verdict::Refuse => "goto refuse".to_owned(),
        Verdict::Reset => "reject with tcp reset".to_owned(),
        Verdict::PortUnreachable => "reject".to_owned(),
        Verdict::Prohibited => "reject with icmpx admin-prohibited".to_owned(),
    })
}

fn value(mark: Mark) -> String {
    format!("0x{:08x}", mark.value())
}

/// By the name under which nft prints it.
fn icmpv6(kind: u8) -> String {
    match kind {
        133 => "nd-router-solicit".to_owned(),
        135 => "nd-neighbor-solicit".to_owned(),
        136 => "nd-neighbor-advert".to_owned(),
        other => other.to_string(),
    }
}
