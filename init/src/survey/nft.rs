//! Reads what `nft list ruleset` prints. Pure.

use crate::render::iptables::PREFIX;
use crate::render::nft::TABLE;

/// How nft is asked: no counters, and priorities as numbers, so that the answer says the same
/// each time.
pub(crate) const LIST: [&str; 4] = ["--stateless", "--numeric-priority", "list", "ruleset"];

/// A chain as it is in the kernel.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Listed {
    /// `inet`, `ip`, `netdev` and so on.
    pub(crate) family: String,
    /// Its table.
    pub(crate) table: String,
    /// Its name.
    pub(crate) name: String,
    /// `type … hook … priority …; policy …;` of a chain that the kernel asks by itself.
    pub(crate) head: Option<String>,
    /// Its rules, in order.
    pub(crate) rules: Vec<String>,
}

/// Takes the listing apart.
pub(crate) fn parse(listing: &str) -> Vec<Listed> {
    let mut chains: Vec<Listed> = Vec::new();
    let (mut family, mut table) = (String::new(), String::new());
    // Depth of braces: 1 in a table, 2 in a chain, or in a set, whose contents are passed over.
    let (mut depth, mut in_chain) = (0_usize, false);
    for line in listing
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
    {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["table", of, called, "{"] if depth == 0 => {
                (family, table) = (of.to_owned(), called.to_owned());
                depth = 1;
            }
            ["chain", name, "{"] if depth == 1 => {
                chains.push(Listed {
                    family: family.clone(),
                    table: table.clone(),
                    name: name.to_owned(),
                    head: None,
                    rules: Vec::new(),
                });
                (depth, in_chain) = (2, true);
            }
            [.., "{"] if depth == 1 => (depth, in_chain) = (2, false),
            ["}"] => depth = depth.saturating_sub(1),
            _ if depth == 2 && in_chain => {
                let Some(chain) = chains.last_mut() else {
                    continue;
                };
                if chain.rules.is_empty()
                    && chain.head.is_none()
                    && words[0] == "type"
                    && words.contains(&"hook")
                {
                    chain.head = Some(words.join(" "));
                } else {
                    chain.rules.push(words.join(" "));
                }
            }
            _ => {}
        }
    }
    chains
}

// === impl Listed ===

impl Listed {
    /// In one of our own tables.
    pub(crate) fn is_ours(&self) -> bool {
        self.table == TABLE && (self.family == "inet" || self.family == "netdev")
    }

    /// Rules of others that the kernel asks where packets leave, before ours.
    fn foreign(&self) -> Option<&str> {
        let head = self.head.as_deref()?;
        let leaves = ["hook output", "hook postrouting", "hook egress"]
            .iter()
            .any(|hook| head.contains(hook));
        if self.is_ours() || !leaves {
            return None;
        }
        // An iptables chain with our jump in the first place is ours; what follows it comes later.
        let first = self.rules.first()?;
        let ours = first
            .rsplit_once("jump ")
            .is_some_and(|(_, target)| target.starts_with(PREFIX));
        (!ours).then_some(first)
    }
}

/// The first foreign rule, where it is and what it says.
pub(crate) fn foreign(chains: &[Listed]) -> Option<String> {
    chains.iter().find_map(|chain| {
        let rule = chain.foreign()?;
        let shown: String = rule.chars().take(120).collect();
        Some(format!(
            "table {} {}, chain {}: `{shown}`",
            chain.family, chain.table, chain.name
        ))
    })
}

/// The stamp that our rules use already.
pub(crate) fn stamp(chains: &[Listed]) -> Option<u32> {
    let rule = chains
        .iter()
        .filter(|chain| chain.is_ours() && chain.family == "inet")
        .flat_map(|chain| &chain.rules)
        .find_map(|rule| rule.split_once("meta mark set 0x"))?
        .1;
    let digits = rule.split_whitespace().next()?;
    u32::from_str_radix(digits, 16)
        .ok()
        .filter(|stamp| *stamp != 0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    const LISTING: &str = r#"
table inet exeat {
	chain output {
		type filter hook output priority 0; policy drop;
		meta skuid 64100 accept
	}
	chain leave {
		type filter hook postrouting priority 300; policy accept;
		oif != "lo" meta mark set 0x0000abcd comment "stamp"
	}
}
table ip mangle {
	set x {
		type ipv4_addr
		elements = { 1.1.1.1 }
	}
	chain OUTPUT {
		type route hook output priority -150; policy accept;
	}
}
"#;

    #[test]
    fn chains_are_taken_apart() {
        let chains = parse(LISTING);
        assert_eq!(chains.len(), 3);
        assert_eq!(chains[0].rules, ["meta skuid 64100 accept"]);
        assert_eq!(stamp(&chains), Some(0xabcd));
        assert_eq!(foreign(&chains), None, "an empty chain does nothing");
    }

    #[test]
    fn foreign_rules_are_named() {
        for (rules, refused) in [
            ("counter accept", true),
            ("jump ISTIO_OUTPUT", true),
            ("counter jump EXEAT_OUTPUT\ncounter accept", false),
            ("counter accept\ncounter jump EXEAT_OUTPUT", true),
        ] {
            for hook in ["output", "postrouting", "egress device \"eth0\""] {
                let listing = format!(
                    "table ip x {{\nchain y {{\ntype filter hook {hook} priority 5; policy accept;\n{rules}\n}}\n}}"
                );
                assert_eq!(foreign(&parse(&listing)).is_some(), refused, "{listing}");
            }
            let inbound = format!(
                "table ip x {{\nchain y {{\ntype filter hook input priority 5; policy accept;\n{rules}\n}}\n}}"
            );
            assert_eq!(foreign(&parse(&inbound)), None);
        }
    }

    #[test]
    fn a_table_of_our_name_in_another_family_is_not_ours() {
        let listing = "table ip exeat {\nchain y {\ntype filter hook output priority 5; policy accept;\naccept\n}\n}";
        assert!(foreign(&parse(listing)).is_some());
    }

    #[test]
    fn nonsense_is_survived() {
        for text in [
            "}",
            "}}}}",
            "chain x {",
            "table inet",
            "table inet exeat {\nchain x {\n",
            "{\n{\n{",
        ] {
            let _ = parse(text);
        }
    }
}
