//! Reads what `iptables-save` prints. Pure.

use crate::render::iptables::{Jumps, PREFIX, Table};

/// One family's tables as they are in the kernel.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Saved {
    tables: Vec<SavedTable>,
}

#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct SavedTable {
    name: String,
    /// Chains with their policies, `-` for a user's chain.
    chains: Vec<(String, String)>,
    /// `-A` lines in order.
    rules: Vec<String>,
}

/// Takes a saved text apart.
pub(crate) fn parse(text: &str) -> Saved {
    let mut tables: Vec<SavedTable> = Vec::new();
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('*') {
            tables.push(SavedTable {
                name: name.to_owned(),
                ..SavedTable::default()
            });
        } else if let Some(table) = tables.last_mut() {
            if let Some(chain) = line.strip_prefix(':') {
                let mut words = chain.split_whitespace();
                if let (Some(name), Some(policy)) = (words.next(), words.next()) {
                    table.chains.push((name.to_owned(), policy.to_owned()));
                }
            } else if line.starts_with("-A ") {
                table.rules.push(line.to_owned());
            }
        }
    }
    Saved { tables }
}

// === impl Saved ===

impl Saved {
    fn table(&self, name: &str) -> Option<&SavedTable> {
        self.tables.iter().find(|table| table.name == name)
    }

    /// The rules of one chain, in order.
    pub(crate) fn rules(&self, table: Table, chain: &str) -> Vec<&str> {
        let prefix = format!("-A {chain} ");
        self.table(table.name())
            .map(|table| {
                table
                    .rules
                    .iter()
                    .map(String::as_str)
                    .filter(|rule| rule.starts_with(&prefix))
                    .collect()
            })
            .unwrap_or_default()
    }

    /// A built-in chain's policy.
    pub(crate) fn policy(&self, table: Table, chain: &str) -> Option<&str> {
        let chains = &self.table(table.name())?.chains;
        chains
            .iter()
            .find(|(name, _)| name == chain)
            .map(|(_, policy)| policy.as_str())
    }

    /// Our own chains in a table.
    pub(crate) fn our_chains(&self, table: Table) -> Vec<String> {
        self.table(table.name())
            .map(|table| {
                table
                    .chains
                    .iter()
                    .map(|(name, _)| name.clone())
                    .filter(|name| name.starts_with(PREFIX))
                    .collect()
            })
            .unwrap_or_default()
    }

    /// Every jump from a built-in chain to one of ours.
    pub(crate) fn our_jumps(&self, table: Table) -> Vec<String> {
        self.table(table.name())
            .map(|table| {
                table
                    .rules
                    .iter()
                    .filter(|rule| is_our_jump(rule))
                    .cloned()
                    .collect()
            })
            .unwrap_or_default()
    }

    /// Whether the jumps of a table are all in their first places.
    pub(crate) fn jumps(
        &self,
        table: Table,
        wanted: &[(&'static str, String, Option<&'static str>)],
    ) -> Jumps {
        let present = wanted.iter().all(|(hook, chain, _)| {
            self.rules(table, hook)
                .first()
                .is_some_and(|rule| *rule == format!("-A {hook} -j {chain}"))
        });
        let stale = self.our_jumps(table);
        if present && stale.len() == wanted.len() {
            Jumps::Present
        } else {
            Jumps::Absent { stale }
        }
    }

    /// The first rule that isn't ours and is asked where packets leave, before ours.
    pub(crate) fn foreign(&self) -> Option<String> {
        for table in &self.tables {
            for hook in ["OUTPUT", "POSTROUTING"] {
                let prefix = format!("-A {hook} ");
                let first = table.rules.iter().find(|rule| rule.starts_with(&prefix));
                if let Some(rule) = first
                    && !is_our_jump(rule)
                {
                    return Some(format!("table {}: `{rule}`", table.name));
                }
            }
        }
        None
    }
}

fn is_our_jump(rule: &str) -> bool {
    let words: Vec<&str> = rule.split_whitespace().collect();
    matches!(words[..], ["-A", _, "-j", target] if target.starts_with(PREFIX))
        && !words[1].starts_with(PREFIX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn what_stands_before_us_is_foreign() {
        let saved = |rules: &str| {
            parse(&format!(
                "*nat\n:OUTPUT ACCEPT [0:0]\n:EXEAT_CAPTURE - [0:0]\n{rules}\nCOMMIT\n"
            ))
        };
        assert_eq!(saved("").foreign(), None);
        assert_eq!(saved("-A OUTPUT -j EXEAT_CAPTURE").foreign(), None);
        assert_eq!(
            saved("-A OUTPUT -j EXEAT_CAPTURE\n-A OUTPUT -j ISTIO").foreign(),
            None
        );
        assert!(
            saved("-A OUTPUT -j ISTIO\n-A OUTPUT -j EXEAT_CAPTURE")
                .foreign()
                .is_some()
        );
        assert!(
            saved("-A OUTPUT -p tcp -j EXEAT_CAPTURE")
                .foreign()
                .is_some(),
            "a jump with a condition is no jump of ours"
        );
        assert_eq!(saved("-A PREROUTING -j KUBE").foreign(), None);
    }

    #[test]
    fn nonsense_is_survived() {
        for text in [":x", "-A", "*", "*\n:\n-A \n", "COMMIT"] {
            let saved = parse(text);
            assert_eq!(saved.foreign(), None);
            assert!(saved.our_chains(Table::Nat).is_empty());
        }
    }
}
