//! iptables of either kind: look, shut both families, then redirect, read back.
//!
//! The two families' programs run side by side; IPv6 is never left out because IPv4 was enough.

use std::fs;
use std::thread;
use std::time::Instant;

use super::{Step, Written};
use crate::error::InitError;
use crate::plan::{Backend, Plan, Uid};
use crate::render::iptables::{self as render, TABLES, Table};
use crate::report::digest;
use crate::ruleset::{Family, Match, Ruleset};
use crate::survey::iptables::{Saved, parse};
use crate::survey::{gvisor, surroundings};
use crate::tool::Tool;

/// Seconds to wait for the lock that legacy iptables takes: `-restore` alone fails at once.
const LOCK_WAIT: &str = "5";

/// One family's programs.
struct Programs {
    save: Tool,
    restore: Tool,
    /// The tables to be named when saving; none: the kernel lists those it has.
    named: &'static [Table],
}

/// Both families' programs of one kind.
pub(crate) struct Xtables {
    v4: Programs,
    v6: Programs,
    backend: Backend,
}

pub(super) fn apply(
    plan: &Plan,
    backend: Backend,
    observe: &mut dyn FnMut(Step),
) -> Result<Written, InitError> {
    let xtables = Xtables::find(backend)?;
    let before = xtables.saved()?;
    if let Some(rule) = foreign(backend, &before)? {
        return Err(InitError::Foreign(rule));
    }
    let ruleset = ruleset(plan, backend)?;
    let tables: Vec<Table> = render::tables(&ruleset).collect();
    let (deny, rest) = tables.split_at(1);
    observe(Step::Surveyed);

    let started = Instant::now();
    xtables.restore(|family| script(&ruleset, family, deny, &before))?;
    observe(Step::Denied);
    xtables.restore(|family| script(&ruleset, family, rest, &before))?;
    let took = started.elapsed();
    observe(Step::Written);

    xtables.check(&ruleset, &xtables.saved()?)?;
    if backend == Backend::Gvisor
        && before
            .iter()
            .all(|saved| saved.our_chains(Table::Filter).is_empty())
    {
        nothing_was_open(plan)?;
    }
    Ok(Written {
        digest: digest_of(&ruleset),
        frames: Vec::new(),
        took,
    })
}

/// The rules that this backend holds for a plan.
pub(crate) fn ruleset(plan: &Plan, backend: Backend) -> Result<Ruleset, InitError> {
    let mut surroundings = surroundings(Some(1))?;
    if backend != Backend::Gvisor {
        return Ok(Ruleset::new(plan, &surroundings));
    }
    surroundings.addresses = gvisor::addresses()?;
    Ruleset::untracked(plan, &surroundings).ok_or_else(|| {
        InitError::Unsuited("with `--outside`, answers need the states of flows".to_owned())
    })
}

/// What goes on over a connection from before the rules looks like an answer to a caller.
fn nothing_was_open(plan: &Plan) -> Result<(), InitError> {
    let gate = plan.exempt.map_or(0, Uid::get);
    let open = gvisor::open_flows(gate, &gvisor::addresses()?);
    if open.is_empty() {
        Ok(())
    } else {
        Err(InitError::Leak(format!(
            "opened before the rules, and not to be told from an answer: {}",
            open.join(", ")
        )))
    }
}

/// Rules of others before ours, in this backend, in native nft and in the other kind of iptables.
pub(crate) fn foreign(backend: Backend, saved: &[Saved; 2]) -> Result<Option<String>, InitError> {
    if let Some(rule) = saved.iter().find_map(Saved::foreign) {
        return Ok(Some(rule));
    }
    if let Ok(nft) = super::nft::tool()
        && let Ok(chains) = super::nft::list(&nft)
        && let Some(rule) = crate::survey::nft::foreign(&chains)
    {
        return Ok(Some(rule));
    }
    if matches!(backend, Backend::IptablesLegacy | Backend::Gvisor) {
        Ok(None)
    } else {
        foreign_legacy()
    }
}

/// Rules of legacy iptables, which nft doesn't know of. Asked only if there are any: to ask would
/// load the modules.
pub(crate) fn foreign_legacy() -> Result<Option<String>, InitError> {
    // Of this thread, because the caller may have entered the namespace by itself.
    let in_use = ["ip_tables_names", "ip6_tables_names"]
        .into_iter()
        .any(|names| {
            fs::read_to_string(format!("/proc/thread-self/net/{names}"))
                .is_ok_and(|names| !names.trim().is_empty())
        });
    if !in_use {
        return Ok(None);
    }
    let Ok(xtables) = Xtables::find(Backend::IptablesLegacy) else {
        return Ok(Some(
            "legacy iptables tables are in use, and no `iptables-legacy-save` is here to read them"
                .to_owned(),
        ));
    };
    Ok(xtables.saved()?.iter().find_map(Saved::foreign))
}

// === impl Xtables ===

impl Xtables {
    pub(crate) fn find(backend: Backend) -> Result<Self, InitError> {
        if backend == Backend::Gvisor {
            gvisor::suits()?;
        }
        let names = match backend {
            Backend::IptablesLegacy | Backend::Gvisor => [
                "iptables-legacy-save",
                "iptables-legacy-restore",
                "ip6tables-legacy-save",
                "ip6tables-legacy-restore",
            ],
            _ => [
                "iptables-nft-save",
                "iptables-nft-restore",
                "ip6tables-nft-save",
                "ip6tables-nft-restore",
            ],
        };
        let find = |name| Tool::find(name).ok_or_else(|| InitError::Backend(name.to_owned()));
        let [save4, restore4, save6, restore6] = names;
        let programs = |save, restore| -> Result<Programs, InitError> {
            Ok(Programs {
                save: find(save)?,
                restore: find(restore)?,
                // gVisor's /proc has no list of tables, and `-save` would print none.
                named: match backend {
                    Backend::Gvisor => &[Table::Filter, Table::Nat],
                    _ => &[],
                },
            })
        };
        let xtables = Self {
            v4: programs(save4, restore4)?,
            v6: programs(save6, restore6)?,
            backend,
        };
        if backend == Backend::Gvisor {
            gvisor::raw_sockets()?;
        }
        Ok(xtables)
    }

    /// Compares what was saved with the plan.
    pub(crate) fn check(&self, ruleset: &Ruleset, saved: &[Saved; 2]) -> Result<(), InitError> {
        compare(ruleset, saved)?;
        if self.backend == Backend::Gvisor {
            self.both(|programs, family| owners(programs, ruleset, family))?;
        }
        Ok(())
    }

    /// What is in the kernel, IPv4 first.
    pub(crate) fn saved(&self) -> Result<[Saved; 2], InitError> {
        self.both(|programs, _| {
            if programs.named.is_empty() {
                return Ok(parse(&programs.save.run(&[], None)?));
            }
            let mut text = String::new();
            for table in programs.named {
                text += &programs.save.run(&["-t", table.name()], None)?;
            }
            Ok(parse(&text))
        })
    }

    /// Writes one text a family.
    pub(crate) fn restore(&self, text: impl Fn(Family) -> String + Sync) -> Result<(), InitError> {
        self.both(|programs, family| {
            let text = text(family);
            if !text.is_empty() {
                programs
                    .restore
                    .run(&["--noflush", "--wait", LOCK_WAIT], Some(&text))?;
            }
            Ok(())
        })?;
        Ok(())
    }

    /// A new thread is in the namespaces of the one that made it.
    fn both<T: Send>(
        &self,
        ask: impl Fn(&Programs, Family) -> Result<T, InitError> + Sync,
    ) -> Result<[T; 2], InitError> {
        let (v4, v6) = thread::scope(|scope| {
            let v6 = scope.spawn(|| ask(&self.v6, Family::V6));
            let v4 = ask(&self.v4, Family::V4);
            (v4, v6.join())
        });
        let v6 = v6.unwrap_or_else(|_| Err(InitError::Ipv6("its thread ended early".to_owned())));
        match (v4, v6) {
            (Ok(v4), Ok(v6)) => Ok([v4, v6]),
            (Ok(_), Err(error)) => Err(match error {
                InitError::Module(message) | InitError::Program { message, .. } => {
                    InitError::Ipv6(message)
                }
                other => other,
            }),
            (Err(error), _) => Err(error),
        }
    }
}

fn script(ruleset: &Ruleset, family: Family, tables: &[Table], before: &[Saved; 2]) -> String {
    let saved = &before[usize::from(family == Family::V6)];
    tables
        .iter()
        .map(|table| {
            let jumps = saved.jumps(*table, &render::jumps(ruleset, *table));
            render::script(ruleset, family, *table, &jumps)
        })
        .collect()
}

/// Every chain of ours with every rule in its place, every jump first and once, every policy.
pub(crate) fn compare(ruleset: &Ruleset, saved: &[Saved; 2]) -> Result<(), InitError> {
    for (family, saved) in [Family::V4, Family::V6].into_iter().zip(saved) {
        for table in TABLES {
            let wrong = |what: String| {
                Err(InitError::Readback(format!(
                    "{family:?}, table {}: {what}",
                    table.name()
                )))
            };
            let wanted = render::listing(ruleset, family, table);
            for (chain, rules) in &wanted {
                let there = saved.rules(table, chain);
                if let Some(index) = (0..rules.len().max(there.len())).find(|index| {
                    let (planned, found) = (rules.get(*index), there.get(*index));
                    planned.zip(found).is_none_or(|(planned, found)| {
                        planned != found && render::owner_unread(planned).as_deref() != Some(found)
                    })
                }) {
                    let planned = rules.get(index).map_or("nothing", String::as_str);
                    let found = there.get(index).copied().unwrap_or("nothing");
                    return wrong(format!("`{planned}` planned, `{found}` found"));
                }
            }
            if let Some(stranger) = saved
                .our_chains(table)
                .iter()
                .find(|chain| !wanted.iter().any(|(name, _)| name == *chain))
            {
                return wrong(format!("chain {stranger} is not planned"));
            }
            let jumps = render::jumps(ruleset, table);
            for (hook, chain, policy) in &jumps {
                if saved.rules(table, hook).first()
                    != Some(&format!("-A {hook} -j {chain}").as_str())
                {
                    return wrong(format!("{hook} does not begin with a jump to {chain}"));
                }
                if let Some(policy) = policy
                    && saved.policy(table, hook) != Some(policy)
                {
                    return wrong(format!("the policy of {hook} is not {policy}"));
                }
            }
            if saved.our_jumps(table).len() != jumps.len() {
                return wrong("a jump is there more than once".to_owned());
            }
        }
    }
    Ok(())
}

/// gVisor gives an owner back under a revision that the programs can't print. They can still look a
/// rule up: that each planned one is there, and that as many are listed, leaves room for no other. So
/// for IPv4; for IPv6 the program of 1.8.9 compares everything of a rule but what its matches say.
fn owners(programs: &Programs, ruleset: &Ruleset, family: Family) -> Result<(), InitError> {
    for table in render::tables(ruleset) {
        let rules = render::listing(ruleset, family, table);
        let wanted: Vec<String> = rules
            .into_iter()
            .flat_map(|(_, rules)| rules)
            .filter(|rule| render::owner_unread(rule).is_some())
            .map(|rule| rule.replacen("-A", "-C", 1))
            .collect();
        let text = format!("*{}\n{}\nCOMMIT\n", table.name(), wanted.join("\n"));
        programs
            .restore
            .run(&["--noflush", "--test"], Some(&text))
            .map_err(|error| {
                InitError::Readback(format!(
                    "{family:?}, table {}: a rule about the gate's user is not as planned: {error}",
                    table.name()
                ))
            })?;
    }
    Ok(())
}

/// The same for every pod of a plan, so without the pod's own addresses.
pub(crate) fn digest_of(ruleset: &Ruleset) -> String {
    let mut ruleset = ruleset.clone();
    for chain in &mut ruleset.chains {
        let of_this_pod = |condition: &Match| matches!(condition, Match::ToAddress(_));
        chain
            .rules
            .retain(|rule| !rule.when.iter().any(of_this_pod));
    }
    let mut text = String::new();
    for family in [Family::V4, Family::V6] {
        for table in TABLES {
            for (_, rules) in render::listing(&ruleset, family, table) {
                text.push_str(&rules.join("\n"));
            }
        }
    }
    digest(&text)
}
