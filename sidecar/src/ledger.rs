//! Nothing leaves before its record is written: the journal, its chain, and its export.
//!
//! `decide` writes a decision and only then hands out the `Receipt` that the rest of the gate asks
//! for; `outcome` writes how it ended. In doubt (journal full, not writable, closed) there is no
//! receipt, and so no call.

pub mod chain;
mod denials;
pub mod export;
mod journal;
mod keeper;
mod line;
mod queue;
pub mod receipt;
pub mod record;
mod redact;
mod shared;
pub mod sign;
mod state;

use std::cell::RefCell;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Instant, SystemTime};

use parking_lot::Mutex;
use tokio::sync::broadcast;

use denials::Fate;
use export::Exporter;
use journal::Journal;
use keeper::Keeper;
use line::Field;
use shared::Shared;
use sign::Signer;
use state::{Entry, Room};

pub use export::{ExportConfig, ExportError, ExportStatus};
pub use journal::JournalError;
pub use receipt::{OutcomeGuard, Receipt};
pub use record::{
    Decision, DecisionId, Destination, Dns, Http, Inference, Mcp, McpCall, Mode, Outcome,
    Principal, Shadowed, Tcp, Usage,
};

/// Lines that a watcher may be behind before it sees a gap: some seconds of a busy gate.
const WATCHED_LINES: usize = 4096;

/// How much a record must survive before its call may go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// Written to the file: survives kill -9 of the gate, not power loss.
    #[default]
    Written,
    /// Synced to the disk: survives power loss; one sync serves all that wait.
    Synced,
}

/// Where the journal is and how it is kept.
#[derive(Debug, Clone)]
pub struct JournalConfig {
    /// The file: made if absent, continued if it is a whole journal.
    pub path: PathBuf,
    /// What a receipt promises.
    pub durability: Durability,
    /// The file never grows beyond this; calls are refused instead.
    pub max_bytes: u64,
}

/// A decision is not on record, so its call must not go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unrecorded {
    /// The journal reached its greatest size.
    #[error("the journal is full: give it more room with its size limit, or start a new file")]
    Full,
    /// The operating system refused the write.
    #[error("the journal can't be written ({0}): is its disk full or read-only?")]
    Write(std::io::ErrorKind),
    /// The operating system could not promise that the record is on the disk.
    #[error("the journal can't be synced ({0}): the disk may be failing; restart the gate")]
    Sync(std::io::ErrorKind),
    /// Someone else changed the file.
    #[error(
        "the journal was deleted, linked or written to by someone else: keep what is left of it as \
         evidence, and restart the gate with a file that only it can reach"
    )]
    Foreign,
    /// The gate is shutting down.
    #[error("the journal is closed: the gate is shutting down")]
    Closed,
    /// The decision is a denial: it is on record, and there is no receipt for it.
    #[error("a denial has no receipt")]
    Denied,
}

/// What could not be recorded since the journal was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lost {
    /// Decisions: their calls were refused.
    pub refused: u64,
    /// Denials: they were denied all the same.
    pub denials: u64,
    /// Outcomes of calls that had been allowed.
    pub outcomes: u64,
}

/// The last record of the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Its number.
    pub seq: u64,
    /// Its hash, in hexadecimal.
    pub hash: String,
}

/// The journal, shared by all who write to it. Cheap to clone; the last one closes the file.
#[derive(Debug, Clone)]
pub struct Ledger {
    shared: Arc<Shared>,
    threads: Arc<Threads>,
}

/// What runs beside the writers. Ended in this order when the last `Ledger` goes.
#[derive(Debug)]
struct Threads {
    exporter: Mutex<Option<Exporter>>,
    _keeper: Keeper,
    principal: Principal,
    /// Where this opening's records begin in the file.
    opened_at: u64,
}

thread_local! {
    /// Records are rendered here, outside of the lock, and without asking for memory.
    static BODY: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

// === impl Ledger ===

impl Ledger {
    /// Opens the journal: makes it, or proves and continues the one that is there.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "a journal has one configuration"
    )]
    pub fn open(config: JournalConfig, principal: Principal) -> Result<Self, JournalError> {
        let (journal, torn) = Journal::open(&config.path)?;
        let opened_at = journal.len();
        let rendered = line::principal(&principal);
        let JournalConfig {
            durability,
            max_bytes,
            ..
        } = config;
        let signer = Signer::generate().map_err(|_| JournalError::Key)?;
        let shared = Shared::new(journal, durability, rendered, max_bytes, signer);
        let shared = Arc::new(shared);
        if let Some(torn) = torn {
            tracing::warn!(
                bytes = torn.bytes,
                sha256 = torn.sha256,
                "the journal's last write was torn; what was left of it is cut"
            );
            let fields = [
                ("cut_bytes", Field::Number(torn.bytes)),
                ("cut_sha256", Field::Text(&torn.sha256)),
            ];
            shared
                .own(shared::RECOVERED, &fields)
                .map_err(JournalError::FirstRecord)?;
        }
        let fields = [
            ("version", Field::Text(env!("CARGO_PKG_VERSION"))),
            ("durability", Field::Text(config.durability.as_str())),
            ("max_bytes", Field::Number(config.max_bytes)),
        ];
        shared
            .own(shared::OPENED, &fields)
            .map_err(JournalError::FirstRecord)?;
        shared.name_key().map_err(JournalError::FirstRecord)?;
        let keeper = Keeper::start(&shared).map_err(JournalError::Thread)?;
        let threads = Threads {
            exporter: Mutex::default(),
            _keeper: keeper,
            principal,
            opened_at,
        };
        Ok(Self {
            shared,
            threads: Arc::new(threads),
        })
    }

    /// Writes a decision; the receipt is the proof.
    ///
    /// A denial is written by this too, and has no receipt: `Unrecorded::Denied`.
    pub async fn decide(&self, decision: &Decision) -> Result<Receipt, Unrecorded> {
        if !decision.allow {
            self.deny(decision)?;
            return Err(Unrecorded::Denied);
        }
        let asked = self.shared.ask(shared::DECISION, decision.id, |body| {
            line::decision(body, &self.shared.principal, decision);
        });
        asked.receipt().await
    }

    /// Writes a denial. In a flood, equal denials are counted and written as one record.
    ///
    /// Returns the id under which it is on record: that of the decision, or that of the record it is
    /// counted in. An error changes nothing for the caller, who denies anyway: it is counted here
    /// and reported in the journal as soon as it can be written.
    pub fn deny(&self, decision: &Decision) -> Result<DecisionId, Unrecorded> {
        let shared = &*self.shared;
        if decision.allow {
            // What is allowed is never counted together with others.
            debug_assert!(!decision.allow, "an allow given to deny");
            return Err(Unrecorded::Denied);
        }
        let mut state = shared.state.lock();
        let fate = state.denials.admit(decision, Instant::now(), |wide| {
            let mut body = Vec::new();
            if wide {
                let mut any = decision.clone();
                any.destination = Destination {
                    host: Some("*".into()),
                    port: 0,
                    address: None,
                };
                any.http = None;
                any.dns = None;
                any.tcp = None;
                any.caller_uid = None;
                line::decision(&mut body, &shared.principal, &any);
            } else {
                line::decision(&mut body, &shared.principal, decision);
            }
            body
        });
        match fate {
            Fate::Counted(id) => {
                drop(state);
                if id == decision.id {
                    shared.wake.notify_one();
                }
                Ok(id)
            }
            Fate::Recorded => BODY.with_borrow_mut(|body| {
                // What this thread had to write before comes before.
                shared.write_lane(queue::lane(), &mut state);
                body.clear();
                line::decision(body, &shared.principal, decision);
                let at = SystemTime::now();
                let entry = Entry {
                    event: shared::DECISION,
                    id: decision.id,
                    at,
                    body,
                };
                state
                    .commit(shared, &[entry], Room::Ordinary)
                    .inspect_err(|_| {
                        state.lost.denials += 1;
                    })?;
                Ok(decision.id)
            }),
        }
    }

    /// Writes how a call ended, within 100 ms or with the next decision. Never waits for the disk.
    pub fn outcome(&self, outcome: &Outcome) {
        self.shared.pend(shared::OUTCOME, outcome);
    }

    /// A call that is on record is under way.
    fn begun(&self) {
        self.shared.calls.fetch_add(1, Ordering::Relaxed);
    }

    /// It is over.
    fn ended(&self) {
        self.shared.calls.fetch_sub(1, Ordering::Relaxed);
    }

    /// A guard that writes the outcome of this receipt's call when dropped.
    #[must_use]
    pub fn guard(&self, receipt: &Receipt) -> OutcomeGuard {
        OutcomeGuard::new(self.clone(), receipt.id())
    }

    /// Whether the last attempt to write succeeded.
    #[must_use]
    pub fn writable(&self) -> bool {
        self.shared.writable.load(Ordering::Acquire)
    }

    /// The last record of the chain.
    #[must_use]
    pub fn head(&self) -> Head {
        let chain = self.shared.state.lock().journal.chain();
        Head {
            seq: chain.seq,
            hash: chain.hash(),
        }
    }

    /// The public key that heads are signed with, in hexadecimal. Kept somewhere else, it shows
    /// later that a journal is this gate's and no rewritten one.
    #[must_use]
    pub fn public_key(&self) -> String {
        let mut text = Vec::with_capacity(64);
        line::hex(&mut text, self.shared.signer.public());
        text.into_iter().map(char::from).collect()
    }

    /// What could not be recorded since the journal was opened.
    #[must_use]
    pub fn lost(&self) -> Lost {
        self.shared.state.lock().lost
    }

    /// Every line from now on, without its newline. One who lags sees a gap; the journal has none.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<str>> {
        self.shared
            .lines
            .get_or_init(|| broadcast::channel(WATCHED_LINES).0)
            .subscribe()
    }

    /// Starts the export to a collector, of every record since the journal was opened.
    pub fn export(&self, config: ExportConfig) -> Result<(), ExportError> {
        let mut exporter = self.threads.exporter.lock();
        if exporter.is_some() {
            return Err(ExportError::Running);
        }
        let Threads {
            principal,
            opened_at,
            ..
        } = &*self.threads;
        *exporter = Some(Exporter::start(
            &self.shared,
            *opened_at,
            principal,
            config,
        )?);
        Ok(())
    }

    /// How the export fares; `None` when there is none.
    #[must_use]
    pub fn export_status(&self) -> Option<ExportStatus> {
        self.threads.exporter.lock().as_ref().map(Exporter::status)
    }

    /// Writes what waits, closes the chain, syncs it, and gives the export a few seconds to send the
    /// rest. No decision is recorded after; the outcome of a call that outlives this still is.
    pub async fn shutdown(&self) {
        let ledger = self.clone();
        let closing = tokio::task::spawn_blocking(move || {
            close(&ledger.shared);
            let ending = ledger
                .threads
                .exporter
                .lock()
                .as_mut()
                .map(|exporter| exporter.stop(export::DRAIN));
            if let Some(ending) = ending {
                ending.wait();
            }
        });
        if closing.await.is_err() {
            tracing::error!("closing the journal failed");
        }
    }
}

fn close(shared: &Shared) {
    let mut state = shared.state.lock();
    if state.closed {
        return;
    }
    // Who was before still gets a receipt.
    shared.write_lanes(&mut state);
    state.closed = true;
    state.write_denials(shared, Instant::now());
    let lost = state.lost;
    let file = state.journal.file();
    drop(state);
    let fields = [
        ("refused", Field::Number(lost.refused)),
        ("denials_lost", Field::Number(lost.denials)),
        ("outcomes_lost", Field::Number(lost.outcomes)),
    ];
    if let Err(error) = shared.own(shared::CLOSED, &fields) {
        tracing::error!(%error, "the journal could not be closed");
    }
    shared.sign_head(&mut shared.state.lock());
    if let Err(error) = file.sync_data() {
        tracing::error!(%error, "the journal could not be synced");
    }
}

// === impl Durability ===

impl Durability {
    /// As it is written in settings and records.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Written => "written",
            Self::Synced => "synced",
        }
    }
}

impl std::str::FromStr for Durability {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "written" => Ok(Self::Written),
            "synced" => Ok(Self::Synced),
            _ => Err("durability is `written` or `synced`"),
        }
    }
}

// === impl Lost ===

impl Lost {
    fn since(self, before: Self) -> Self {
        Self {
            refused: self.refused - before.refused,
            denials: self.denials - before.denials,
            outcomes: self.outcomes - before.outcomes,
        }
    }
}

#[cfg(test)]
mod tests;
