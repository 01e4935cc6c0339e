//! iptables, over `nf_tables` or legacy: one text a family and table for `iptables-restore --noflush`.
//!
//! A table is replaced in one piece, two tables are not: so the one that denies is written first,
//! and the one that redirects last. Our rules live in chains of our own, jumped to from the first
//! place of the built-in ones, whose policy drops as well: a flush leaves the pod shut.

use std::net::IpAddr;

use crate::ruleset::{Chain, Family, Flag, Match, Net, Place, Rule, Ruleset, Transport, Verdict};

/// What our chains' names begin with.
pub const PREFIX: &str = "EXEAT_";

/// A table of the kernel.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Table {
    /// Denies.
    Filter,
    /// Keeps local packets from leaving.
    Mangle,
    /// Redirects.
    Nat,
}

/// What the built-in chains hold of ours already.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Jumps {
    /// The jumps have to be written, and these `-A` lines taken away.
    Absent {
        /// Jumps of ours that are not where they should be.
        stale: Vec<String>,
    },
    /// Each jump is in the first place, once.
    Present,
}

/// Tables in the order in which they are written.
pub const TABLES: [Table; 3] = [Table::Filter, Table::Mangle, Table::Nat];

/// The tables that a rule set has chains in, in the order in which they are written.
pub fn tables(ruleset: &Ruleset) -> impl Iterator<Item = Table> {
    TABLES
        .into_iter()
        .filter(|table| chains(ruleset, *table).next().is_some())
}

/// The text that installs one table.
#[must_use]
pub fn script(ruleset: &Ruleset, family: Family, table: Table, jumps: &Jumps) -> String {
    let mut lines = vec![format!("*{}", table.name())];
    for chain in chains(ruleset, table) {
        if let Some(hook) = hook(chain.place)
            && table == Table::Filter
        {
            lines.push(format!(":{hook} {} [0:0]", policy(chain.place)));
        }
    }
    for chain in chains(ruleset, table) {
        lines.push(format!(":{} - [0:0]", name(chain.place)));
    }
    if let Jumps::Absent { stale } = jumps {
        lines.extend(stale.iter().map(|jump| jump.replacen("-A", "-D", 1)));
        for chain in chains(ruleset, table) {
            if let Some(hook) = hook(chain.place) {
                lines.push(format!("-I {hook} 1 -j {}", name(chain.place)));
            }
        }
    }
    for chain in chains(ruleset, table) {
        lines.extend(rules(chain, family));
    }
    lines.push("COMMIT\n".to_owned());
    lines.join("\n")
}

/// The lines `-A …` of our chains that `iptables-save` must answer for one table, by chain.
#[must_use]
pub fn listing(ruleset: &Ruleset, family: Family, table: Table) -> Vec<(String, Vec<String>)> {
    chains(ruleset, table)
        .map(|chain| (name(chain.place), rules(chain, family)))
        .collect()
}

/// How a rule about an owner is listed by a kernel that gives it back in a form that the programs
/// don't know; nothing for rules about anything else.
#[must_use]
pub fn owner_unread(rule: &str) -> Option<String> {
    let (before, rest) = rule.split_once("--uid-owner ")?;
    let (_, after) = rest.split_once(' ')?;
    Some(format!("{before}[unsupported revision] {after}"))
}

/// The built-in chains that must jump to ours first: `(hook, chain, policy)`.
#[must_use]
pub fn jumps(ruleset: &Ruleset, table: Table) -> Vec<(&'static str, String, Option<&'static str>)> {
    chains(ruleset, table)
        .filter_map(|chain| {
            let hook = hook(chain.place)?;
            let policy = (table == Table::Filter).then(|| policy(chain.place));
            Some((hook, name(chain.place), policy))
        })
        .collect()
}

/// The text that takes one table's rules away, given how often each jump is there.
#[must_use]
pub fn removal(table: Table, chains: &[String], jumps: &[String]) -> String {
    let mut lines = vec![format!("*{}", table.name())];
    if table == Table::Filter {
        lines.extend(["INPUT", "FORWARD", "OUTPUT"].map(|hook| format!(":{hook} ACCEPT [0:0]")));
    }
    lines.extend(jumps.iter().map(|jump| jump.replacen("-A", "-D", 1)));
    lines.extend(chains.iter().map(|chain| format!("-F {chain}")));
    lines.extend(chains.iter().map(|chain| format!("-X {chain}")));
    lines.push("COMMIT\n".to_owned());
    lines.join("\n")
}

// === impl Table ===

impl Table {
    /// As the kernel calls it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Filter => "filter",
            Self::Mangle => "mangle",
            Self::Nat => "nat",
        }
    }
}

fn chains(ruleset: &Ruleset, table: Table) -> impl Iterator<Item = &Chain> {
    ruleset
        .chains
        .iter()
        .filter(move |chain| home(chain.place) == table)
}

fn home(place: Place) -> Table {
    match place {
        Place::Refuse | Place::Output | Place::Forward | Place::Input => Table::Filter,
        Place::Leave => Table::Mangle,
        Place::Capture => Table::Nat,
    }
}

fn hook(place: Place) -> Option<&'static str> {
    match place {
        Place::Refuse => None,
        Place::Output | Place::Capture => Some("OUTPUT"),
        Place::Forward => Some("FORWARD"),
        Place::Input => Some("INPUT"),
        Place::Leave => Some("POSTROUTING"),
    }
}

fn name(place: Place) -> String {
    let name = match place {
        Place::Refuse => "REFUSE",
        Place::Output => "OUTPUT",
        Place::Forward => "FORWARD",
        Place::Input => "INPUT",
        Place::Leave => "LEAVE",
        Place::Capture => "CAPTURE",
    };
    format!("{PREFIX}{name}")
}

fn policy(place: Place) -> &'static str {
    if place.lets_pass() { "ACCEPT" } else { "DROP" }
}

fn rules(chain: &Chain, family: Family) -> Vec<String> {
    let name = name(chain.place);
    let mut lines: Vec<String> = chain
        .rules
        .iter()
        .filter(|rule| rule.family().is_none_or(|only| only == family))
        .filter_map(|rule| body(rule, family))
        .map(|body| format!("-A {name} {body}"))
        .collect();
    // A chain of our own has no policy: its last rule is.
    if !chain.place.lets_pass() {
        lines.push(format!("-A {name} -j DROP"));
    }
    lines
}

fn body(rule: &Rule, family: Family) -> Option<String> {
    // iptables prints addresses, interfaces and the protocol before the modules, whatever the order
    // they were given in.
    let (before, after): (Vec<&Match>, Vec<&Match>) =
        rule.when.iter().partition(|condition| is_basic(condition));
    let mut words: Vec<String> = before.into_iter().map(condition).collect();
    if let Some(protocol) = rule.when.iter().find_map(|condition| protocol(condition)) {
        words.push(format!("-p {protocol}"));
    }
    words.extend(
        after
            .into_iter()
            .map(condition)
            .filter(|text| !text.is_empty()),
    );
    words.push(verdict(rule.then, family)?);
    Some(words.join(" "))
}

fn is_basic(condition: &Match) -> bool {
    matches!(
        condition,
        Match::ToNet(_)
            | Match::ToAddress(_)
            | Match::FromNet(_)
            | Match::ByLoopback
            | Match::FromInside
            | Match::Arriving
            | Match::Leaving
    )
}

fn protocol(condition: &Match) -> Option<&'static str> {
    match condition {
        Match::Is(Transport::Tcp)
        | Match::TcpTo(_)
        | Match::TcpFrom(_)
        | Match::NotOpening
        | Match::Bearing(_) => Some("tcp"),
        Match::Is(Transport::Udp) | Match::UdpTo(_) => Some("udp"),
        Match::Neighbour(_) => Some("ipv6-icmp"),
        _ => None,
    }
}

fn condition(condition: &Match) -> String {
    match condition {
        Match::Owner(uid) => format!("-m owner --uid-owner {uid}"),
        Match::AnyOwner { highest } => format!("-m owner --uid-owner 0-{highest}"),
        Match::Is(_) => String::new(),
        Match::TcpTo(port) => format!("-m tcp --dport {port}"),
        Match::TcpFrom(port) => format!("-m tcp --sport {port}"),
        Match::UdpTo(port) => format!("-m udp --dport {port}"),
        Match::ToLocal => "-m addrtype --dst-type LOCAL".to_owned(),
        Match::FromElsewhere => "-m addrtype ! --src-type LOCAL".to_owned(),
        Match::ToNet(net) => format!("-d {}", prefixed(*net)),
        Match::ToAddress(IpAddr::V4(address)) => format!("-d {address}/32"),
        Match::ToAddress(IpAddr::V6(address)) => format!("-d {address}/128"),
        Match::FromNet(net) => format!("-s {}", prefixed(*net)),
        Match::ByLoopback => "-o lo".to_owned(),
        Match::FromInside => "-i lo".to_owned(),
        Match::Bearing(Flag::Ack) => "-m tcp --tcp-flags ACK ACK".to_owned(),
        Match::Bearing(Flag::Rst) => "-m tcp --tcp-flags RST RST".to_owned(),
        Match::Arriving => "! -i lo".to_owned(),
        Match::Leaving => "! -o lo".to_owned(),
        Match::New => "-m conntrack --ctstate NEW".to_owned(),
        Match::Established => "-m conntrack --ctstate ESTABLISHED".to_owned(),
        Match::Reply => "-m conntrack --ctdir REPLY".to_owned(),
        Match::Related => "-m conntrack --ctstate RELATED".to_owned(),
        Match::Marked(mark) => format!("-m connmark --mark 0x{:x}", mark.value()),
        Match::NotOpening => "-m tcp ! --tcp-flags SYN SYN".to_owned(),
        Match::Neighbour(kind) => format!("-m icmp6 --icmpv6-type {kind} -m hl --hl-eq 255"),
    }
}

/// iptables prints a lone address with its full length.
fn prefixed(net: Net) -> String {
    match net {
        Net::V4(net) | Net::V6(net) if net.contains('/') => net.to_owned(),
        Net::V4(address) => format!("{address}/32"),
        Net::V6(address) => format!("{address}/128"),
    }
}

fn verdict(verdict: Verdict, family: Family) -> Option<String> {
    let v6 = family == Family::V6;
    Some(match verdict {
        Verdict::Accept => "-j ACCEPT".to_owned(),
        Verdict::Drop => "-j DROP".to_owned(),
        Verdict::Mark(mark) => format!("-j CONNMARK --set-xmark 0x{:x}/0xffffffff", mark.value()),
        // No chain looks at frames here, so nothing needs a stamp.
        Verdict::Stamp => return None,
        Verdict::Redirect(port) => format!("-j REDIRECT --to-ports {port}"),
        Verdict::Refuse => format!("-g {PREFIX}REFUSE"),
        Verdict::Reset => "-j REJECT --reject-with tcp-reset".to_owned(),
        Verdict::PortUnreachable if v6 => {
            "-j REJECT --reject-with icmp6-port-unreachable".to_owned()
        }
        Verdict::PortUnreachable => "-j REJECT --reject-with icmp-port-unreachable".to_owned(),
        Verdict::Prohibited if v6 => "-j REJECT --reject-with icmp6-adm-prohibited".to_owned(),
        Verdict::Prohibited => "-j REJECT --reject-with icmp-admin-prohibited".to_owned(),
    })
}
