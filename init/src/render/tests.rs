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
    let interfaces = vec![Interface {
        index: 2,
        name: "eth0".to_owned(),
    }];
    Ruleset::new(
        plan,
        &Surroundings {
            interfaces,
            stamp: 0x1234_5678,
            highest_uid: u32::MAX - 1,
        },
    )
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
