//! Each rule has its reason: without it, and with all others, something that is named here comes out
//! otherwise. What can't be tried says why.

use std::collections::BTreeSet;
use std::fs;

use exeat_init::{
    Plan, Ruleset, Surroundings,
    render::iptables::{Jumps, script, tables},
    ruleset::Family,
};

use crate::support::{AGENT, GATE, Sandbox};

/// Who tries what, who listens where meanwhile, and what must come of it.
struct Reason {
    rule: &'static str,
    by: &'static str,
    served: Option<&'static str>,
    attempt: &'static str,
    comes: &'static str,
}

const fn reason(
    rule: &'static str,
    by: &'static str,
    served: Option<&'static str>,
    attempt: &'static str,
    comes: &'static str,
) -> Reason {
    Reason {
        rule,
        by,
        served,
        attempt,
        comes,
    }
}

/// `out`: a frame of it left, whatever came back.
const REASONS: &[Reason] = &[
    reason("gate inside", GATE, None, "tcp/127.0.0.1:15001", "refused"),
    reason("gate tcp", GATE, None, "tcp/203.0.113.9:7", "out"),
    reason("gate udp", GATE, None, "udp/203.0.113.9:7", "out"),
    reason("resets", GATE, None, "tcp/127.0.0.1:15021", "refused"),
    reason(
        "health is not for the agent",
        AGENT,
        None,
        "tcp/127.0.0.1:15021",
        "silence",
    ),
    reason(
        "nobody else answers for health",
        GATE,
        Some("15021"),
        "tcp/127.0.0.1:15021",
        "silence",
    ),
    reason("loopback v4", AGENT, None, "tcp/127.0.0.1:9", "refused"),
    reason("loopback v6", AGENT, None, "tcp/[::1]:9", "refused"),
    reason("itself", AGENT, None, "udp/203.0.113.9:123", "refused"),
    reason(
        "refuse the rest",
        AGENT,
        None,
        "udp/203.0.113.9:123",
        "refused",
    ),
    reason(
        "dialled as itself, v4",
        GATE,
        Some("15001"),
        "tcp/127.0.0.1:15001",
        "refused",
    ),
    reason(
        "dns dialled as itself, v4",
        GATE,
        Some("15053"),
        "tcp/127.0.0.1:15053",
        "refused",
    ),
    reason(
        "from inside",
        AGENT,
        Some("15001"),
        "tcp/203.0.113.9:443",
        "answered",
    ),
    reason(
        "gate is not captured",
        GATE,
        None,
        "udp/203.0.113.9:53",
        "out",
    ),
    reason(
        "capture dns/tcp",
        AGENT,
        Some("15053"),
        "tcp/203.0.113.9:53",
        "answered",
    ),
    reason(
        "capture tcp",
        AGENT,
        Some("15001"),
        "tcp/203.0.113.9:443",
        "answered",
    ),
    reason(
        "loopback v4 is not captured",
        AGENT,
        Some("3000"),
        "tcp/127.0.0.1:3000",
        "answered",
    ),
    reason(
        "itself is not captured",
        AGENT,
        Some("3000"),
        "tcp/10.77.0.2:3000",
        "answered",
    ),
];

const WITHOUT_A_CHECK: &[(&str, &str)] = &[
    (
        "the gate is not its own caller",
        "a memory of a flow from the very port that the gate dials from",
    ),
    (
        "the gate asks others, v4",
        "the sidecar's self-test, which `wait_until_ready` waits for",
    ),
    ("the gate asks others, v6", "the same"),
    ("replies", "`attempts::inbound_is_answered`"),
    (
        "refuse tcp",
        "without it the sandbox's own kernel waits for itself for ever",
    ),
    ("dialled as itself, v6", "as v4; the stand-in listens on v4"),
    ("dns dialled as itself, v6", "the same"),
    (
        "transparent is for the pod",
        "the gate does not listen outside; a second wall",
    ),
    ("explicit is for the pod", "the same"),
    ("dns/tcp is for the pod", "the same"),
    ("dns/udp is for the pod", "the same"),
    ("capture dns/udp", "`attempts::every_resolver_is_the_gate`"),
    (
        "multicast v4",
        "refused either way: nobody is at the gate's port of a group",
    ),
    ("broadcast", "the same"),
    ("link-local v6", "the same"),
    ("multicast v6", "the same"),
    (
        "loopback v6 is not captured",
        "as v4; the stand-in listens on v4",
    ),
];

#[test]
fn no_rule_can_be_left_out() {
    let all = rules();
    let (names, known): (BTreeSet<_>, BTreeSet<_>) = (
        all.names().into_iter().collect(),
        REASONS
            .iter()
            .map(|reason| reason.rule)
            .chain(WITHOUT_A_CHECK.iter().map(|(rule, _)| *rule))
            .collect(),
    );
    assert_eq!(
        names, known,
        "a rule needs a check, or a reason for having none"
    );

    let sandbox = Sandbox::confined();
    let mut wrong = Vec::new();
    for reason in REASONS {
        install(&sandbox, &all);
        let with = observed(&sandbox, reason);
        install(&sandbox, &all.clone().without(reason.rule));
        let without = observed(&sandbox, reason);
        if !with.ends_with(reason.comes) || without.ends_with(reason.comes) {
            wrong.push(format!(
                "`{}`: {} with it, {} without",
                reason.rule, with, without
            ));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

fn rules() -> Ruleset {
    let surroundings = Surroundings {
        interfaces: vec![],
        stamp: 1,
        highest_uid: 1,
        addresses: ["10.77.0.2", "fd77::2", "fe80::65:78ff:fe65:0"]
            .map(|address| address.parse().unwrap())
            .to_vec(),
    };
    Ruleset::untracked(&Plan::default(), &surroundings).unwrap()
}

/// Over the same chains, which `apply` has made.
fn install(sandbox: &Sandbox, rules: &Ruleset) {
    for (family, program) in [(Family::V4, "iptables"), (Family::V6, "ip6tables")] {
        let text: String = tables(rules)
            .map(|table| script(rules, family, table, &Jumps::Present))
            .collect();
        fs::write(sandbox.path("rules"), text).unwrap();
        sandbox.root(&format!("{program}-legacy-restore --noflush < /pod/rules"));
    }
}

fn observed(sandbox: &Sandbox, reason: &Reason) -> String {
    let server = reason
        .served
        .map(|port| sandbox.agent_goes_on(&["serve", port]));
    drop(sandbox.capture.take());
    let said = sandbox.tries(reason.by, reason.attempt);
    let out = if sandbox.escapes(false).is_empty() {
        ""
    } else {
        " out"
    };
    if server.is_some() {
        sandbox.end_agents();
    }
    drop(server);
    let word = said.split_whitespace().nth(1).unwrap();
    format!("{word}{out}")
}
