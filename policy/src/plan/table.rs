//! Rules by host, then by the first segment of the path, so that a decision looks at the few that
//! could apply, however many there are.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::rule::{Kind, Rule};
use crate::host::Host;
use crate::path::Path;
use crate::pattern::{HostPattern, below};

/// Rules, in order of preference, and where to find them.
#[derive(Debug)]
pub(super) struct Table {
    rules: Vec<Rule>,
    exact: HashMap<Host, Bucket>,
    below: HashMap<Arc<str>, Bucket>,
    any: Bucket,
    /// Denials are found under the loose form of a path as well.
    loose: bool,
}

/// The rules of one host pattern.
#[derive(Debug, Default)]
struct Bucket {
    /// All of them.
    all: Vec<u32>,
    /// Those that read bodies.
    governing: Vec<u32>,
    /// Those with no fixed first segment.
    general: Vec<u32>,
    /// The others, by that segment.
    first: HashMap<String, Vec<u32>>,
}

// === impl Table ===

impl Table {
    pub(super) fn new(mut rules: Vec<Rule>, loose: bool) -> Self {
        // A rule that brings a credential is preferred; names decide otherwise, never the order
        // of files.
        rules.sort_by(|a, b| {
            let key = |rule: &Rule| {
                (
                    rule.credential.is_none(),
                    Arc::clone(&rule.policy),
                    Arc::clone(&rule.name),
                )
            };
            key(a).cmp(&key(b))
        });
        let mut table = Self {
            rules: Vec::new(),
            exact: HashMap::new(),
            below: HashMap::new(),
            any: Bucket::default(),
            loose,
        };
        for (at, rule) in rules.iter().enumerate() {
            let Ok(id) = u32::try_from(at) else {
                break;
            };
            let first = firsts(rule, loose);
            if rule.scope.hosts.is_empty() {
                table.any.add(id, rule, first.as_ref());
            }
            for pattern in &rule.scope.hosts {
                let bucket = match pattern {
                    HostPattern::Exact(host) => table.exact.entry(host.clone()).or_default(),
                    HostPattern::Below(base) => table.below.entry(Arc::clone(base)).or_default(),
                };
                bucket.add(id, rule, first.as_ref());
            }
        }
        table.rules = rules;
        table
    }

    pub(super) fn rules(&self) -> std::slice::Iter<'_, Rule> {
        self.rules.iter()
    }

    /// The rules that could apply to this host and path, in order of preference.
    pub(super) fn candidates(&self, host: &Host, path: Option<&Path>) -> Vec<&Rule> {
        if self.rules.is_empty() {
            return Vec::new();
        }
        let mut ids: Vec<u32> = Vec::new();
        let mut keys: Vec<String> = Vec::new();
        if let Some(path) = path {
            let strict = path.segments().next().unwrap_or_default();
            if self.loose {
                keys.push(strict.to_ascii_lowercase());
                let first = path
                    .loose_segments()
                    .first()
                    .map(ToString::to_string)
                    .unwrap_or_default();
                if first != keys[0] {
                    keys.push(first);
                }
            } else {
                keys.push(strict.to_owned());
            }
        }
        for bucket in self.buckets(host) {
            if path.is_none() {
                ids.extend(&bucket.all);
                continue;
            }
            ids.extend(&bucket.general);
            for key in &keys {
                ids.extend(bucket.first.get(key).into_iter().flatten());
            }
        }
        self.ordered(ids)
    }

    /// All rules that name this host, in order of preference.
    pub(super) fn on_host<'t>(&'t self, host: &'t Host) -> impl Iterator<Item = &'t Rule> {
        let ids = self
            .buckets(host)
            .flat_map(|bucket| bucket.all.iter().copied())
            .collect();
        self.ordered(ids).into_iter()
    }

    /// The rules for this host that read bodies.
    pub(super) fn governing<'t>(&'t self, host: &'t Host) -> impl Iterator<Item = &'t Rule> {
        self.buckets(host)
            .flat_map(|bucket| bucket.governing.iter())
            .filter_map(|id| self.rules.get(usize::try_from(*id).ok()?))
    }

    fn buckets<'t>(&'t self, host: &'t Host) -> impl Iterator<Item = &'t Bucket> {
        let below = below(host).filter_map(|base| self.below.get(base));
        self.exact
            .get(host)
            .into_iter()
            .chain(below)
            .chain(std::iter::once(&self.any))
    }

    fn ordered(&self, mut ids: Vec<u32>) -> Vec<&Rule> {
        ids.sort_unstable();
        ids.dedup();
        ids.into_iter()
            .filter_map(|id| self.rules.get(usize::try_from(id).ok()?))
            .collect()
    }
}

// === impl Bucket ===

impl Bucket {
    fn add(&mut self, id: u32, rule: &Rule, firsts: Option<&HashSet<String>>) {
        if self.all.last() == Some(&id) {
            return;
        }
        self.all.push(id);
        if matches!(rule.kind, Kind::Mcp(_) | Kind::Inference(_)) {
            self.governing.push(id);
        }
        match firsts {
            None => self.general.push(id),
            Some(firsts) => {
                for first in firsts {
                    self.first.entry(first.clone()).or_default().push(id);
                }
            }
        }
    }
}

/// The first segments that a rule fixes; `None` if it is for other paths too.
fn firsts(rule: &Rule, loose: bool) -> Option<HashSet<String>> {
    let fold = |text: &str| {
        if loose {
            text.to_ascii_lowercase()
        } else {
            text.to_owned()
        }
    };
    match &rule.kind {
        Kind::Http(http) if !http.paths.is_empty() => http
            .paths
            .iter()
            .map(|path| path.first().map(fold))
            .collect(),
        // Denials of a server are compared loosely: keep those where every path finds them.
        Kind::Mcp(mcp) if !loose => {
            let path = mcp.path.as_ref()?;
            Some(path.segments().next().map(fold).into_iter().collect())
        }
        _ => None,
    }
}
