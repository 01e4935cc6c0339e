//! The thread that keeps the journal: syncs for all who wait, writes what waited long enough, signs
//! heads, tries again what failed.
//!
//! One sync serves everyone whose record was written before it began. In doubt those who wait are
//! told that their record is not safe.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use parking_lot::MutexGuard;

use super::shared::{OUTCOME_DELAY, RETRY_DELAY, Shared};
use super::state::{Room, State};
use super::{Durability, Unrecorded};

/// Runs the thread; when dropped it writes what is left and ends the thread.
#[derive(Debug)]
pub(super) struct Keeper {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

// === impl Keeper ===

impl Keeper {
    pub(super) fn start(shared: &Arc<Shared>) -> io::Result<Self> {
        let kept = Arc::clone(shared);
        let thread = std::thread::Builder::new()
            .name("exeat-journal".into())
            .spawn(move || keep(&kept))?;
        Ok(Self {
            shared: Arc::clone(shared),
            thread: Some(thread),
        })
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.shared.state.lock().stop = true;
        self.shared.wake.notify_one();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the journal's thread had panicked");
        }
    }
}

fn keep(shared: &Shared) {
    let mut retry = Instant::now();
    let mut failed_before = false;
    let mut state = shared.state.lock();
    loop {
        if !state.waiters.is_empty() {
            sync(shared, &mut state);
            continue;
        }
        let now = Instant::now();
        if state.stop {
            shared.write_lanes(&mut state);
            state.write_denials(shared, now);
            if state.commit(shared, &[], Room::Reserve).is_err() {
                let left = state.pending.len() as u64;
                state.lost.outcomes += left;
                tracing::error!(
                    outcomes = state.lost.outcomes,
                    "outcomes could not be written"
                );
            }
            shared.sign_head(&mut state);
            if shared.durability == Durability::Synced {
                sync(shared, &mut state);
            }
            return;
        }
        if state.denials.due().is_some_and(|due| due <= now) {
            state.write_denials(shared, now);
            continue;
        }
        // After a failure what waits is tried again at the pace of retries, not at its own.
        let failing = state.outage.is_some();
        if failing && !failed_before {
            retry = now + RETRY_DELAY;
        }
        failed_before = failing;
        let kept = state.pending_since.map(|since| since + OUTCOME_DELAY);
        let pending = kept.into_iter().chain(shared.lanes.due()).min();
        let flush = if failing { Some(retry) } else { pending };
        if flush.is_some_and(|due| due <= now) {
            shared.write_lanes(&mut state);
            let failed = state.commit(shared, &[], Room::Reserve).is_err();
            retry = now + RETRY_DELAY;
            if failed && state.outage.is_none() {
                // Full or ruined: what waits will never be written.
                state.forget_pending();
            }
            continue;
        }
        let sign = state.sign_due();
        if sign.is_some_and(|due| due <= now) {
            shared.sign_head(&mut state);
            continue;
        }
        let next = [flush, state.denials.due(), sign];
        let due = next.into_iter().flatten().min();
        shared.keeper_sleeps(due);
        // Who came before that was said has not called.
        let missed = shared.lanes.due();
        if missed.is_some_and(|missed| !failing && due.is_none_or(|due| missed < due)) {
            shared.keeper_woke();
            continue;
        }
        match due {
            Some(due) => {
                shared.wake.wait_until(&mut state, due);
            }
            None => shared.wake.wait(&mut state),
        }
        shared.keeper_woke();
    }
}

/// Syncs once for all who wait, without holding the lock meanwhile.
fn sync(shared: &Shared, state: &mut MutexGuard<'_, State>) {
    let waiters = std::mem::take(&mut state.waiters);
    let file = state.journal.file();
    let result = MutexGuard::unlocked(state, || file.sync_data()).map_err(|error| error.kind());
    if let Err(kind) = result {
        state.sync_failed(shared, kind);
    }
    state.tell(shared, waiters, &result.map_err(Unrecorded::Sync));
}
