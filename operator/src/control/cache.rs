//! What the watches have seen, reduced to what counts.
//!
//! A list that starts anew replaces what was known, so that deletions that no event told of are
//! noticed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::desired::{Current, Objects, Pod, Policy, SecretFacts};

/// A ConfigMap as it was last seen.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    /// Its `resourceVersion`: what tells one state from another.
    pub(crate) version: String,
    pub(crate) current: Current,
}

/// A namespace as it was last seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Space {
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) governed: bool,
}

/// All that is known.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    pub(crate) spaces: Table<Space>,
    pub(crate) policies: Table<Policy>,
    pub(crate) guardrails: Table<Policy>,
    pub(crate) secrets: Table<SecretFacts>,
    pub(crate) pods: Table<Pod>,
    pub(crate) bundles: Table<Seen>,
    /// The highest generation that was written or seen in each namespace.
    floors: Mutex<BTreeMap<String, u64>>,
}

/// Objects of one kind: namespace → name → object. What has no namespace is under the empty name.
#[derive(Debug)]
pub(crate) struct Table<T> {
    state: Mutex<Rows<T>>,
    changed: Notify,
}

#[derive(Debug)]
struct Rows<T> {
    known: Spaces<T>,
    /// A list that is coming in.
    coming: Option<Spaces<T>>,
    complete: bool,
}

type Spaces<T> = BTreeMap<String, BTreeMap<String, Arc<T>>>;

// === impl Seen ===

impl PartialEq for Seen {
    fn eq(&self, other: &Self) -> bool {
        self.version == other.version
    }
}

// === impl Cache ===

impl Cache {
    /// Comes back when every kind has been listed once.
    pub(crate) async fn ready(&self) {
        self.spaces.ready().await;
        self.policies.ready().await;
        self.guardrails.ready().await;
        self.secrets.ready().await;
        self.pods.ready().await;
        self.bundles.ready().await;
    }

    /// The namespaces that something is known of.
    pub(crate) fn known_namespaces(&self) -> BTreeSet<String> {
        let mut all: BTreeSet<String> = self.spaces.all(|_, name, _| name.to_owned());
        all.extend(self.policies.all(|space, _, _| space.to_owned()));
        all.extend(self.bundles.all(|space, _, _| space.to_owned()));
        all
    }

    /// What a namespace holds.
    pub(crate) fn objects(&self, namespace: &str) -> Objects {
        let space = self.spaces.get("", namespace);
        let seen = self.bundles.get(namespace, super::CONFIG_MAP);
        Objects {
            namespace: namespace.to_owned(),
            labels: space
                .as_ref()
                .map(|space| space.labels.clone())
                .unwrap_or_default(),
            governed: space.is_some_and(|space| space.governed),
            policies: self.policies.of(namespace).into_values().collect(),
            guardrails: self.guardrails.of("").into_values().collect(),
            secrets: self.secrets.of(namespace),
            pods: self.pods.of(namespace).into_values().collect(),
            current: seen.map_or(Current::Absent, |seen| seen.current.clone()),
            floor: self.floors.lock().get(namespace).copied().unwrap_or(0),
        }
    }

    /// Takes note of a generation that gates may have in force.
    pub(crate) fn raise_floor(&self, namespace: &str, generation: u64) {
        let mut floors = self.floors.lock();
        let floor = floors.entry(namespace.to_owned()).or_insert(0);
        *floor = generation.max(*floor);
    }
}

// === impl Table ===

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self {
            state: Mutex::new(Rows {
                known: BTreeMap::new(),
                coming: None,
                complete: false,
            }),
            changed: Notify::new(),
        }
    }
}

impl<T> Table<T> {
    /// A new list begins.
    pub(crate) fn begin(&self) {
        self.state.lock().coming = Some(BTreeMap::new());
    }

    /// An object of the list that is coming in.
    pub(crate) fn listed(&self, namespace: &str, name: &str, object: T) {
        let mut state = self.state.lock();
        if let Some(coming) = &mut state.coming {
            coming
                .entry(namespace.to_owned())
                .or_default()
                .insert(name.to_owned(), Arc::new(object));
        }
    }

    /// The list is complete. Tells in which namespaces something may have changed: all of both.
    pub(crate) fn end(&self) -> BTreeSet<(String, String)> {
        let mut state = self.state.lock();
        let coming = state.coming.take().unwrap_or_default();
        let before = std::mem::replace(&mut state.known, coming);
        state.complete = true;
        let touched = before
            .iter()
            .chain(&state.known)
            .flat_map(|(space, rows)| rows.keys().map(|name| (space.clone(), name.clone())))
            .collect();
        drop(state);
        self.changed.notify_waiters();
        touched
    }

    /// An object as it is now. Tells what was known before.
    pub(crate) fn put(&self, namespace: &str, name: &str, object: T) -> Option<Arc<T>> {
        self.state
            .lock()
            .known
            .entry(namespace.to_owned())
            .or_default()
            .insert(name.to_owned(), Arc::new(object))
    }

    /// An object is no more.
    pub(crate) fn remove(&self, namespace: &str, name: &str) -> Option<Arc<T>> {
        let mut state = self.state.lock();
        let rows = state.known.get_mut(namespace)?;
        let gone = rows.remove(name);
        if rows.is_empty() {
            state.known.remove(namespace);
        }
        gone
    }

    pub(crate) fn get(&self, namespace: &str, name: &str) -> Option<Arc<T>> {
        self.state.lock().known.get(namespace)?.get(name).cloned()
    }

    /// All of a namespace.
    pub(crate) fn of(&self, namespace: &str) -> BTreeMap<String, Arc<T>> {
        self.state
            .lock()
            .known
            .get(namespace)
            .cloned()
            .unwrap_or_default()
    }

    /// Something of each object: of its namespace, its name and itself.
    pub(crate) fn all<R: Ord>(&self, pick: impl Fn(&str, &str, &T) -> R) -> BTreeSet<R> {
        self.state
            .lock()
            .known
            .iter()
            .flat_map(|(space, rows)| rows.iter().map(move |(name, row)| (space, name, row)))
            .map(|(space, name, row)| pick(space, name, row))
            .collect()
    }

    async fn ready(&self) {
        loop {
            let changed = self.changed.notified();
            if self.state.lock().complete {
                return;
            }
            // The timeout closes the gap between the look and the wait.
            tokio::time::timeout(Duration::from_millis(100), changed)
                .await
                .ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_list_replaces_what_was_known() {
        let table: Table<u8> = Table::default();
        table.put("a", "x", 1);
        table.begin();
        table.listed("b", "y", 2);
        assert_eq!(table.of("a").len(), 1, "until it is complete the old holds");
        let touched = table.end();
        assert!(table.of("a").is_empty());
        assert_eq!(table.of("b").len(), 1);
        assert_eq!(touched.len(), 2, "what vanished counts as changed");
    }

    #[test]
    fn floors_only_rise() {
        let cache = Cache::default();
        cache.raise_floor("a", 5);
        cache.raise_floor("a", 3);
        assert_eq!(cache.objects("a").floor, 5);
    }
}
