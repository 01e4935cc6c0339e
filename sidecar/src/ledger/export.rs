//! The journal told to an OpenTelemetry collector.
//!
//! A thread of its own reads the journal's file behind the writers and sends what it finds, so a
//! slow or absent collector costs the calls nothing and the file is the queue: an outage loses
//! nothing that the gate lives to send. What a collector refuses, and what is left when the gate
//! stops, is counted, warned of, and written into the journal as `exeat.export.gap`. In doubt a
//! record is sent twice.

mod config;
mod otlp;
mod send;
mod tail;

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use self::otlp::Envelope;
use self::send::{Answer, Sender};
use self::tail::{Batch, Tail};
use super::line::Field;
use super::record::Principal;
use super::shared::{self, Shared};

pub use self::config::{ConfigError, ExportConfig, Protocol};

/// How long a record waits for others to be sent with.
const POLL: Duration = Duration::from_millis(200);

/// A collector that takes longer than this is not answering.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// The first wait after a failure; it doubles with each.
const FIRST_BACKOFF: Duration = Duration::from_millis(500);

/// The longest wait, also when the collector asks for more.
const LONGEST_BACKOFF: Duration = Duration::from_secs(30);

/// How long a stopping gate waits for the collector to take the rest.
pub(super) const DRAIN: Duration = Duration::from_secs(5);

/// Refusals are written to the journal at most so often, for their records are exported too.
const GAP_INTERVAL: Duration = Duration::from_mins(1);

/// How the export fares. Counted in records, since the journal was opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExportStatus {
    /// Taken by the collector.
    pub exported: u64,
    /// Refused by the collector for good.
    pub rejected: u64,
    /// Not sent when the export ended.
    pub dropped: u64,
    /// Requests that failed, and were or will be tried again.
    pub failures: u64,
    /// The number of the last record that was exported or refused.
    pub last_seq: u64,
    /// What the last failure was; none since the last success.
    pub error: Option<String>,
}

/// The export could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// There is one already.
    #[error("this journal is being exported already")]
    Running,
    /// The endpoint can't be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// No thread.
    #[error("can't start the export's thread: {0}")]
    Thread(std::io::Error),
}

/// The running export; when dropped it stops, and tells what it had not sent.
#[derive(Debug)]
pub(super) struct Exporter {
    orders: watch::Sender<Order>,
    thread: Option<JoinHandle<()>>,
    status: Arc<Mutex<ExportStatus>>,
}

/// An export that has been told to end.
#[must_use]
pub(super) struct Stopping(Option<JoinHandle<()>>);

#[derive(Debug, Clone, Copy)]
enum Order {
    Run,
    /// Send what there is, but not beyond this time.
    Drain(Instant),
}

/// What the thread works with.
struct Worker {
    shared: Arc<Shared>,
    status: Arc<Mutex<ExportStatus>>,
    sender: Sender,
    tail: Tail,
    envelope: Envelope,
    orders: watch::Receiver<Order>,
    backoff: Duration,
    gap: Gap,
}

/// Refusals that the journal has not been told of.
#[derive(Default)]
struct Gap {
    count: u64,
    first: u64,
    last: u64,
    error: String,
    told: Option<Instant>,
}

// === impl Exporter ===

impl Exporter {
    pub(super) fn start(
        shared: &Arc<Shared>,
        from: u64,
        principal: &Principal,
        config: ExportConfig,
    ) -> Result<Self, ExportError> {
        let sender = Sender::new(config)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(ExportError::Thread)?;
        let (orders, received) = watch::channel(Order::Run);
        let status = Arc::<Mutex<ExportStatus>>::default();
        let worker = Worker {
            tail: Tail::new(shared, from),
            shared: Arc::clone(shared),
            status: Arc::clone(&status),
            sender,
            envelope: Envelope::new(principal),
            orders: received,
            backoff: FIRST_BACKOFF,
            gap: Gap::default(),
        };
        let thread = std::thread::Builder::new()
            .name("exeat-export".into())
            .spawn(move || runtime.block_on(worker.run()))
            .map_err(ExportError::Thread)?;
        Ok(Self {
            orders,
            thread: Some(thread),
            status,
        })
    }

    pub(super) fn status(&self) -> ExportStatus {
        self.status.lock().clone()
    }

    /// Orders the thread to send what there is within `bound`, to tell of the rest, and to end.
    pub(super) fn stop(&mut self, bound: Duration) -> Stopping {
        self.orders
            .send_replace(Order::Drain(Instant::now() + bound));
        Stopping(self.thread.take())
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        self.stop(Duration::ZERO).wait();
    }
}

impl Stopping {
    /// Blocks until the thread has ended.
    pub(super) fn wait(self) {
        if let Some(thread) = self.0
            && thread.join().is_err()
        {
            tracing::error!("the export's thread had panicked");
        }
    }
}

// === impl Worker ===

impl Worker {
    async fn run(mut self) {
        while !self.expired() {
            let batch = match self.tail.next() {
                Ok(batch) => batch,
                Err(error) => {
                    self.failed(&format!("can't read the journal: {error}"));
                    self.pause(self.backoff).await;
                    continue;
                }
            };
            if batch.records.is_empty() {
                if matches!(*self.orders.borrow(), Order::Drain(_)) {
                    break;
                }
                self.tell_gap(GAP_INTERVAL);
                self.pause(POLL).await;
                continue;
            }
            self.deliver(&batch).await;
        }
        self.tell_gap(Duration::ZERO);
        self.tell_rest();
    }

    /// Sends one batch until it is taken or refused, or time is up.
    async fn deliver(&mut self, batch: &Batch) {
        let request = self.envelope.request(&batch.records);
        while !self.expired() {
            let Some(answer) = self.attempt(&request).await else {
                self.failed("the collector did not answer in time");
                self.pause(self.backoff).await;
                continue;
            };
            let wait = match answer {
                Answer::Taken => {
                    self.settle(batch, 0, "");
                    return;
                }
                Answer::Partly { rejected, message } => {
                    self.settle(batch, rejected.min(batch.records.len() as u64), &message);
                    return;
                }
                Answer::Refused(message) => {
                    self.settle(batch, batch.records.len() as u64, &message);
                    return;
                }
                Answer::Later { message, wait } => {
                    self.failed(&message);
                    wait.unwrap_or(self.backoff).min(LONGEST_BACKOFF)
                }
            };
            self.pause(wait).await;
        }
    }

    /// One request. None when it took too long.
    async fn attempt(&mut self, request: &ExportLogsServiceRequest) -> Option<Answer> {
        let mut orders = self.orders.clone();
        let timeout = Instant::now() + REQUEST_TIMEOUT;
        let sent = self.sender.send(request);
        tokio::pin!(sent);
        loop {
            let until = match *orders.borrow_and_update() {
                Order::Run => timeout,
                Order::Drain(deadline) => deadline.min(timeout),
            };
            tokio::select! {
                answer = &mut sent => return Some(answer),
                () = sleep_until(until) => return None,
                Ok(()) = orders.changed() => {}
            }
        }
    }

    /// Waits, but no longer than until an order comes.
    async fn pause(&mut self, wait: Duration) {
        let until = match *self.orders.borrow_and_update() {
            Order::Run => Instant::now() + wait,
            // A stopping gate does not wait out a back-off: this is its last chance.
            Order::Drain(deadline) => deadline.min(Instant::now() + wait.min(POLL)),
        };
        tokio::select! {
            () = sleep_until(until) => {}
            Ok(()) = self.orders.changed() => {}
        }
    }

    fn expired(&self) -> bool {
        matches!(*self.orders.borrow(), Order::Drain(deadline) if Instant::now() >= deadline)
    }

    fn failed(&mut self, message: &str) {
        let mut status = self.status.lock();
        status.failures += 1;
        if status.error.is_none() {
            tracing::warn!(
                error = message,
                "can't export records; they wait in the journal"
            );
        }
        status.error = Some(message.to_owned());
        drop(status);
        self.backoff = (self.backoff * 2).min(LONGEST_BACKOFF);
    }

    fn settle(&mut self, batch: &Batch, rejected: u64, message: &str) {
        self.backoff = FIRST_BACKOFF;
        self.tail.advance(batch);
        let mut status = self.status.lock();
        status.exported += batch.records.len() as u64 - rejected;
        status.rejected += rejected;
        status.last_seq = batch.last_seq;
        if status.error.take().is_some() {
            tracing::info!("records are exported again");
        }
        drop(status);
        // A refused batch of nothing but gaps must not make a gap of its own, for ever.
        if rejected > 0 && !batch.only_gaps {
            if self.gap.count == 0 {
                self.gap.first = batch.first_seq;
            }
            self.gap.count += rejected;
            self.gap.last = batch.last_seq;
            message.clone_into(&mut self.gap.error);
        }
    }

    /// Writes down what was refused, if the last time is long enough ago.
    fn tell_gap(&mut self, interval: Duration) {
        let recently = self.gap.told.is_some_and(|told| told.elapsed() < interval);
        if self.gap.count == 0 || recently {
            return;
        }
        let gap = std::mem::take(&mut self.gap);
        self.gap.told = Some(Instant::now());
        self.record("the collector refused records", &gap);
    }

    /// Writes down what the export leaves unsent.
    fn tell_rest(&mut self) {
        let (mut rest, mut gap) = (0, Gap::default());
        while let Ok(batch) = self.tail.next()
            && !batch.records.is_empty()
        {
            if rest == 0 {
                gap.first = batch.first_seq;
            }
            rest += batch.records.len() as u64;
            gap.last = batch.last_seq;
            self.tail.advance(&batch);
        }
        let mut status = self.status.lock();
        status.dropped += rest;
        gap.error = status
            .error
            .clone()
            .unwrap_or_else(|| "the gate stopped".into());
        drop(status);
        // The record of a refusal just made is all that may be left: it speaks for itself.
        if rest > 1 || (rest == 1 && self.gap.told.is_none()) {
            gap.count = rest;
            self.record("records were not exported", &gap);
        }
    }

    fn record(&self, what: &str, gap: &Gap) {
        tracing::warn!(
            count = gap.count,
            first = gap.first,
            last = gap.last,
            error = gap.error,
            "{what}"
        );
        let fields = [
            ("count", Field::Number(gap.count)),
            ("first_seq", Field::Number(gap.first)),
            ("last_seq", Field::Number(gap.last)),
            ("error", Field::Text(&gap.error)),
        ];
        if let Err(error) = self.shared.own(shared::EXPORT_GAP, &fields) {
            tracing::error!(%error, "the gap could not be written to the journal");
        }
    }
}
