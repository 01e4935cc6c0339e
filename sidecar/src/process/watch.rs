//! Looking again when something changed.
//!
//! A watched folder tells that something happened, never what: the kernel's queue can overflow, a
//! network mount says nothing, and kubelet's swap is several events. So any event means "look", a
//! moment later, and a look happens every half minute anyway. In doubt it looks once more.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// Kubelet's swap, or an editor's save, is over within this long of its first event.
const SETTLE: Duration = Duration::from_millis(100);

/// However quiet it is, look this often.
const POLL: Duration = Duration::from_secs(30);

/// A running watch; it ends when this is dropped.
#[derive(Debug)]
pub struct Watch {
    task: JoinHandle<()>,
}

/// Calls `look` at once (something may have changed while the watch was set up), then whenever
/// something happened in one of `folders`, and now and then anyway.
///
/// `look` reads files, so it runs where blocking is allowed; it is never run twice at once.
#[must_use]
pub fn watch<F>(name: &'static str, folders: &[PathBuf], look: F) -> Watch
where
    F: FnMut() + Send + 'static,
{
    let poke = Arc::new(Notify::new());
    let watcher = watcher(name, folders, Arc::clone(&poke));
    let task = tokio::spawn(run(watcher, poke, look));
    Watch { task }
}

async fn run<F>(watcher: Option<RecommendedWatcher>, poke: Arc<Notify>, mut look: F)
where
    F: FnMut() + Send + 'static,
{
    loop {
        let looking = tokio::task::spawn_blocking(move || {
            look();
            look
        });
        match looking.await {
            Ok(again) => look = again,
            Err(error) => {
                tracing::error!(%error, "a look at watched files failed; it is not watched any more");
                break;
            }
        }
        // Asked only whether, not what: the time-out is as good as an event.
        if tokio::time::timeout(POLL, poke.notified()).await.is_ok() {
            tokio::time::sleep(SETTLE).await;
        }
    }
    drop(watcher);
}

fn watcher(
    name: &'static str,
    folders: &[PathBuf],
    poke: Arc<Notify>,
) -> Option<RecommendedWatcher> {
    let made = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        if event.map_or(true, |event| is_change(event.kind)) {
            poke.notify_one();
        }
    });
    let mut watcher = match made {
        Ok(watcher) => watcher,
        Err(error) => {
            tracing::warn!(watching = name, %error, "changes are only noticed by looking every {POLL:?}");
            return None;
        }
    };
    for folder in folders {
        if let Err(error) = watcher.watch(folder, RecursiveMode::NonRecursive) {
            tracing::warn!(watching = name, %error, "changes are only noticed by looking every {POLL:?}");
        }
    }
    Some(watcher)
}

/// Our own looks open and read files; taking that for a change would be a look without end.
fn is_change(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => false,
        _ => true,
    }
}

// === impl Watch ===

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn counting(folders: Vec<PathBuf>) -> (Watch, Arc<AtomicUsize>) {
        let looks = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&looks);
        let watch = watch("test", &folders, move || {
            count.fetch_add(1, Ordering::SeqCst);
        });
        (watch, looks)
    }

    async fn until(looks: &AtomicUsize, at_least: usize) {
        for _ in 0..500 {
            if looks.load(Ordering::SeqCst) >= at_least {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("only {} looks", looks.load(Ordering::SeqCst));
    }

    #[tokio::test]
    async fn an_event_is_followed_by_a_look() {
        let dir = tempfile::tempdir().unwrap();
        let (_watch, looks) = counting(vec![dir.path().to_owned()]);
        until(&looks, 1).await;
        for round in 2..=4 {
            std::fs::write(dir.path().join(format!("file{round}")), "x").unwrap();
            until(&looks, round).await;
        }
    }

    #[tokio::test]
    async fn a_look_does_not_cause_another() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "x").unwrap();
        let looks = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&looks);
        let _watch = watch("test", &[dir.path().to_owned()], move || {
            count.fetch_add(1, Ordering::SeqCst);
            std::fs::read(&file).unwrap();
        });
        tokio::time::sleep(SETTLE * 6).await;
        assert_eq!(looks.load(Ordering::SeqCst), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_not_trusted() {
        let (_watch, looks) = counting(Vec::new());
        tokio::time::sleep(POLL * 3 + SETTLE).await;
        until(&looks, 3).await;
    }
}
