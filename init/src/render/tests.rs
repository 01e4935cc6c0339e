//! The texts, whole: a change to a rule is a change that a person reads here.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test"
)]

use super::{iptables, nft};
use crate::plan::Plan;
use crate::ruleset::{Family, Interface, Ruleset, Surroundings};

fn ruleset(plan: &Plan) -> Ruleset {
    Ruleset::new(plan, &surroundings())
}

fn surroundings() -> Surroundings {
    let interfaces = vec![Interface {
        index: 2,
        name: "eth0".to_owned(),
    }];
    Surroundings {
        interfaces,
        stamp: 0x1234_5678,
        highest_uid: u32::MAX - 1,
        addresses: ["10.77.0.2", "fd77::2", "fe80::2"]
            .map(|address| address.parse().unwrap())
            .to_vec(),
    }
}

fn gvisor_script(plan: &Plan, family: Family) -> String {
    let rules = Ruleset::untracked(plan, &surroundings()).unwrap();
    let jumps = iptables::Jumps::Absent { stale: Vec::new() };
    iptables::tables(&rules)
        .map(|table| iptables::script(&rules, family, table, &jumps))
        .collect()
}

fn iptables_script(plan: &Plan, family: Family) -> String {
    let jumps = iptables::Jumps::Absent { stale: Vec::new() };
    iptables::TABLES
        .into_iter()
        .map(|table| iptables::script(&ruleset(plan), family, table, &jumps))
        .collect()
}

/// Compares with a file beside this one; `EXEAT_BLESS=1` writes it anew.
fn check(name: &str, text: &str) {
    let path = format!("{}/src/render/snapshots/{name}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("EXEAT_BLESS").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let wanted = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(
        text, wanted,
        "{name} is not as it was: look at it, then run again with EXEAT_BLESS=1"
    );
}

#[test]
fn the_texts_are_as_they_were() {
    for (kind, plan) in [("sidecar", Plan::default()), ("outside", Plan::outside())] {
        check(
            &format!("{kind}.nft"),
            &nft::script(&ruleset(&plan), nft::Existing::Refill),
        );
        check(
            &format!("{kind}.iptables"),
            &iptables_script(&plan, Family::V4),
        );
        check(
            &format!("{kind}.ip6tables"),
            &iptables_script(&plan, Family::V6),
        );
    }
}

#[test]
fn what_gvisor_is_told_is_as_it_was() {
    let plan = Plan::default();
    check("gvisor.iptables", &gvisor_script(&plan, Family::V4));
    check("gvisor.ip6tables", &gvisor_script(&plan, Family::V6));
    assert_eq!(Ruleset::untracked(&Plan::outside(), &surroundings()), None);
}

/// Each of these is refused by gVisor, or taken and not kept (ranges of owners, and whether there
/// is a socket at all), or can't be read back (`! -i`).
#[test]
fn gvisor_is_told_nothing_that_it_does_not_know() {
    let plan = Plan::default();
    for text in [
        gvisor_script(&plan, Family::V4),
        gvisor_script(&plan, Family::V6),
    ] {
        for word in [
            "conntrack",
            "connmark",
            "addrtype",
            "mark",
            "icmp6 ",
            "-g ",
            "!",
            "socket-exists",
            "mangle",
            "adm-prohibited",
            "admin-prohibited",
            "0-",
        ] {
            assert!(!text.contains(word), "`{word}` is in {text}");
        }
        assert!(text.starts_with("*filter\n:OUTPUT DROP [0:0]\n:FORWARD DROP [0:0]\n"));
        assert!(text.contains("-A EXEAT_OUTPUT -j DROP\n"));
    }
}

#[test]
fn an_owner_that_is_not_printed_is_still_a_rule_about_an_owner() {
    assert_eq!(
        iptables::owner_unread("-A X -m owner --uid-owner 64100 -j ACCEPT").unwrap(),
        "-A X -m owner [unsupported revision] -j ACCEPT"
    );
    assert_eq!(iptables::owner_unread("-A X -j ACCEPT"), None);
}

#[test]
fn rules_have_names_of_their_own() {
    for plan in [Plan::default(), Plan::outside()] {
        let mut names = ruleset(&plan).names();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}

#[test]
fn nothing_is_accepted_for_being_established_alone() {
    for plan in [Plan::default(), Plan::outside()] {
        let text = nft::script(&ruleset(&plan), nft::Existing::Refill)
            + &iptables_script(&plan, Family::V4);
        for line in text
            .lines()
            .map(str::to_lowercase)
            .filter(|line| line.contains("established"))
        {
            assert!(line.contains("mark") || line.contains("reply"), "{line}");
        }
    }
}

#[test]
fn both_families_have_the_same_chains_and_both_deny() {
    for plan in [Plan::default(), Plan::outside()] {
        for table in iptables::TABLES {
            let chains = |family| {
                iptables::listing(&ruleset(&plan), family, table)
                    .into_iter()
                    .map(|(name, _)| name)
                    .collect::<Vec<_>>()
            };
            assert_eq!(chains(Family::V4), chains(Family::V6));
        }
        for family in [Family::V4, Family::V6] {
            let text = iptables_script(&plan, family);
            assert!(
                text.starts_with("*filter\n:OUTPUT DROP [0:0]\n:FORWARD DROP [0:0]\n"),
                "{text}"
            );
            assert!(
                text.find("*filter") < text.find("*nat"),
                "what denies comes first"
            );
        }
    }
}

#[test]
fn uid_and_ports_are_where_they_belong() {
    let ports = crate::plan::Ports::new(1001, 1002, 1003, 1004).unwrap();
    let plan = Plan::sidecar(crate::plan::Uid::new(77).unwrap()).with_ports(ports);
    for text in [
        nft::script(&ruleset(&plan), nft::Existing::Refill),
        iptables_script(&plan, Family::V4),
        iptables_script(&plan, Family::V6),
    ] {
        for word in ["15001", "15002", "15053", "15021", "64100"] {
            assert!(!text.contains(word), "{word} is still in {text}");
        }
        for word in ["1001", "1002", "1003", "1004", "77"] {
            assert!(text.contains(word), "{word} is missing in {text}");
        }
    }
}
