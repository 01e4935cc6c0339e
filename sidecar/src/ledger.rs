//! Nothing leaves before its record is written: the journal, its chain, and its export.
//!
//! `decide` writes a decision and only then hands out the `Receipt` that the rest of the gate asks
//! for; `outcome` writes how it ended. In doubt (journal full, not writable, closed) there is no
//! receipt, and so no call.

pub mod receipt;
pub mod record;

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::broadcast;

pub use receipt::{OutcomeGuard, Receipt};
pub use record::{
    Decision, DecisionId, Destination, Dns, Http, Inference, Mcp, McpCall, Mode, Outcome,
    Principal, Shadowed, Tcp, Usage,
};

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

/// The journal could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {}

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
    /// The gate is shutting down.
    #[error("the journal is closed: the gate is shutting down")]
    Closed,
    /// The decision is a denial: it is on record, and there is no receipt for it.
    #[error("a denial has no receipt")]
    Denied,
}

/// The last record of the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Its number.
    pub seq: u64,
    /// Its hash, in hexadecimal.
    pub hash: String,
}

/// The journal, shared by all who write to it.
#[derive(Debug, Clone)]
pub struct Ledger {
    lines: broadcast::Sender<Arc<str>>,
}

// === impl Ledger ===

impl Ledger {
    /// Opens the journal: makes it, or proves and continues the one that is there.
    pub fn open(_config: JournalConfig, _principal: Principal) -> Result<Self, JournalError> {
        Ok(Self {
            lines: broadcast::channel(16).0,
        })
    }

    /// Writes a decision; the receipt is the proof.
    #[expect(clippy::unused_async, reason = "becomes a wait for the disk")]
    pub async fn decide(&self, decision: &Decision) -> Result<Receipt, Unrecorded> {
        if decision.allow {
            Ok(Receipt::new(decision.id))
        } else {
            Err(Unrecorded::Denied)
        }
    }

    /// Writes a denial. In a flood, equal denials are counted and written as one record.
    ///
    /// Returns the id under which it is on record: that of the decision, or that of the record it is
    /// counted in. An error changes nothing for the caller, who denies anyway: it is counted here
    /// and reported in the journal as soon as it can be written.
    pub fn deny(&self, decision: &Decision) -> Result<DecisionId, Unrecorded> {
        Ok(decision.id)
    }

    /// Writes how a call ended, within 100 ms or with the next decision. Never blocks on the disk.
    pub fn outcome(&self, _outcome: Outcome) {}

    /// A guard that writes the outcome of this receipt's call when dropped.
    #[must_use]
    pub fn guard(&self, receipt: &Receipt) -> OutcomeGuard {
        OutcomeGuard::new(self.clone(), receipt.id())
    }

    /// Whether the last attempt to write succeeded.
    #[must_use]
    pub fn writable(&self) -> bool {
        true
    }

    /// The last record of the chain.
    #[must_use]
    pub fn head(&self) -> Head {
        Head {
            seq: 0,
            hash: "0".repeat(64),
        }
    }

    /// Every line from now on, without its newline. One who lags sees a gap; the journal has none.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<str>> {
        self.lines.subscribe()
    }

    /// Writes what is pending, drains the export, closes the chain. Nothing is recorded after.
    pub async fn shutdown(&self) {}
}
