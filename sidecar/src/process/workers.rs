//! The threads that serve connections: each has a runtime of its own, and its connections stay on it.
//!
//! A call then wakes nobody on another thread, takes no lock that another thread holds for long, and
//! its upstream connection is polled where it is itself. The price: a thread's work is not taken over
//! by another, so a new connection goes to whoever has the fewest. In doubt (the thread is gone) a
//! connection is dropped, which the agent sees as a reset.

use std::cell::Cell;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::watch;

/// A timer that is always there. tokio wakes its thread by a system call whenever one is set that is
/// due before all others; with this one, those that connections set never are.
const BEAT: Duration = Duration::from_secs(5);

/// The runtimes of one gate.
#[derive(Clone, Debug)]
pub struct Workers(Arc<[Worker]>);

/// Keeps the threads, all but the caller's own; when dropped, ends them and what they serve.
#[derive(Debug)]
pub struct Threads {
    stop: watch::Sender<bool>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Worker {
    runtime: Handle,
    /// Connections that it serves.
    serving: AtomicUsize,
}

/// A place with a worker; dropped when its connection has ended.
#[derive(Debug)]
pub struct Seat {
    workers: Workers,
    worker: usize,
}

thread_local! {
    static NUMBER: Cell<usize> = const { Cell::new(0) };
}

/// Which worker this thread is: what one of them opened is best used by itself. 0 for threads that
/// are none.
#[must_use]
pub fn number() -> usize {
    NUMBER.get()
}

/// A runtime for one thread.
pub fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

// === impl Workers ===

impl Workers {
    /// The caller's runtime alone, of whatever kind it is.
    ///
    /// # Panics
    ///
    /// Outside of a runtime.
    #[must_use]
    pub fn here() -> Self {
        Self(Arc::new([Worker::new(Handle::current())]))
    }

    /// The runtime of the caller's thread, and further threads until there are `count`.
    pub fn start(own: &Runtime, count: usize) -> io::Result<(Self, Threads)> {
        let (stop, stopped) = watch::channel(false);
        let mut workers = vec![Worker::new(own.handle().clone())];
        let mut threads = Vec::new();
        for number in 1..count {
            let runtime = runtime()?;
            workers.push(Worker::new(runtime.handle().clone()));
            let mut stopped = stopped.clone();
            let serve = move || {
                NUMBER.set(number);
                runtime.block_on(async {
                    // An error means that the other end is gone, which is a stop too.
                    while let Err(_elapsed) =
                        tokio::time::timeout(BEAT, stopped.wait_for(|stopped| *stopped)).await
                    {
                    }
                });
            };
            let name = format!("exeat-worker-{number}");
            threads.push(std::thread::Builder::new().name(name).spawn(serve)?);
        }
        Ok((Self(workers.into()), Threads { stop, threads }))
    }

    /// A place with the worker that has the fewest connections.
    #[must_use]
    pub fn seat(&self) -> Seat {
        let serving = |&worker: &usize| self.0[worker].serving.load(Ordering::Relaxed);
        let worker = (0..self.0.len()).min_by_key(serving).unwrap_or(0);
        self.0[worker].serving.fetch_add(1, Ordering::Relaxed);
        Seat {
            workers: self.clone(),
            worker,
        }
    }
}

// === impl Worker ===

impl Worker {
    fn new(runtime: Handle) -> Self {
        Self {
            runtime,
            serving: AtomicUsize::new(0),
        }
    }
}

// === impl Seat ===

impl Seat {
    /// Where to spawn the connection.
    #[must_use]
    pub fn runtime(&self) -> &Handle {
        &self.workers.0[self.worker].runtime
    }

    /// Whether the caller is in that runtime already.
    #[must_use]
    pub fn is_here(&self) -> bool {
        Handle::try_current().is_ok_and(|here| here.id() == self.runtime().id())
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let worker = &self.workers.0[self.worker];
        worker.serving.fetch_sub(1, Ordering::Relaxed);
    }
}

// === impl Threads ===

impl Drop for Threads {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a worker had panicked");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn connections_are_spread_and_what_is_served_ends_with_the_threads() {
        let own = runtime().unwrap();
        let (workers, threads) = Workers::start(&own, 3).unwrap();
        let seats: Vec<_> = (0..6).map(|_| workers.seat()).collect();
        let mut taken: Vec<_> = seats.iter().map(|seat| seat.worker).collect();
        taken.sort_unstable();
        assert_eq!(taken, [0, 0, 1, 1, 2, 2]);
        drop(seats);
        let seat = workers.seat();
        assert_eq!(seat.worker, 0, "places are given back");

        let mut seen = Vec::new();
        for worker in 0..3 {
            let seat = Seat {
                workers: workers.clone(),
                worker,
            };
            workers.0[worker].serving.fetch_add(1, Ordering::Relaxed);
            let spawned = seat.runtime().spawn(async { number() });
            seen.push(own.block_on(spawned).unwrap());
        }
        assert_eq!(seen, [0, 1, 2]);

        let served = Arc::new(());
        let held = Arc::clone(&served);
        drop(workers.0[1].runtime.spawn(async move {
            std::future::pending::<()>().await;
            drop(held);
        }));
        drop(threads);
        assert_eq!(Arc::strong_count(&served), 1, "a task outlived its thread");
    }
}
