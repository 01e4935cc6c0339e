//! Namespaces that need work: each at most once, and never two workers on one.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

/// The first pause after a failure, doubled with each that follows.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// The longest pause.
const LAST_PAUSE: Duration = Duration::from_secs(30);

/// The queue.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    state: Mutex<State>,
    filled: Notify,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<String>,
    listed: BTreeSet<String>,
    worked_on: BTreeSet<String>,
    again: BTreeSet<String>,
    failures: BTreeMap<String, u32>,
}

// === impl Queue ===

impl Queue {
    /// Asks for work on a namespace.
    pub(crate) fn add(&self, namespace: &str) {
        let mut state = self.state.lock();
        if state.worked_on.contains(namespace) {
            state.again.insert(namespace.to_owned());
        } else if state.listed.insert(namespace.to_owned()) {
            state.waiting.push_back(namespace.to_owned());
            drop(state);
            self.filled.notify_one();
        }
    }

    /// For several.
    pub(crate) fn add_all(&self, namespaces: impl IntoIterator<Item = String>) {
        for namespace in namespaces {
            self.add(&namespace);
        }
    }

    /// The next namespace. It has to be given back with [`Queue::done`].
    pub(crate) async fn next(&self) -> String {
        loop {
            let filled = self.filled.notified();
            {
                let mut state = self.state.lock();
                if let Some(namespace) = state.waiting.pop_front() {
                    state.listed.remove(&namespace);
                    state.worked_on.insert(namespace.clone());
                    if !state.waiting.is_empty() {
                        self.filled.notify_one();
                    }
                    return namespace;
                }
            }
            filled.await;
        }
    }

    /// Gives it back; after a failure, tells how long to wait before the next attempt.
    pub(crate) fn done(&self, namespace: &str, failed: bool) -> Option<Duration> {
        let mut state = self.state.lock();
        state.worked_on.remove(namespace);
        let again = state.again.remove(namespace);
        let pause = if failed {
            let failures = state.failures.entry(namespace.to_owned()).or_insert(0);
            *failures = failures.saturating_add(1);
            Some(pause(*failures))
        } else {
            state.failures.remove(namespace);
            None
        };
        drop(state);
        if again {
            self.add(namespace);
            return None;
        }
        pause
    }
}

fn pause(failures: u32) -> Duration {
    FIRST_PAUSE
        .saturating_mul(1 << failures.saturating_sub(1).min(10))
        .min(LAST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_namespace_is_worked_on_once_at_a_time() {
        let queue = Queue::default();
        queue.add("a");
        queue.add("a");
        queue.add("b");
        assert_eq!(queue.next().await, "a");
        queue.add("a");
        assert_eq!(queue.next().await, "b");
        assert!(
            tokio::time::timeout(Duration::from_millis(20), queue.next())
                .await
                .is_err()
        );
        assert_eq!(queue.done("a", false), None);
        assert_eq!(queue.next().await, "a");
    }

    #[test]
    fn pauses_grow_and_end() {
        assert_eq!(pause(1), Duration::from_millis(250));
        assert_eq!(pause(2), Duration::from_millis(500));
        assert_eq!(pause(50), LAST_PAUSE);
    }

    #[tokio::test]
    async fn failures_are_counted_until_one_succeeds() {
        let queue = Queue::default();
        for expected in [250, 500] {
            queue.add("a");
            let namespace = queue.next().await;
            assert_eq!(
                queue.done(&namespace, true),
                Some(Duration::from_millis(expected))
            );
        }
        queue.add("a");
        let namespace = queue.next().await;
        assert_eq!(queue.done(&namespace, false), None);
    }
}
