//! Reads the journal behind its writers, a batch at a time.
//!
//! The file is the queue, so memory holds one batch however far behind the collector is. In doubt
//! (a line that can't be read) the line is sent as it is, as a body without attributes.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::Value;

use crate::ledger::chain::MAX_LINE;
use crate::ledger::shared::{EXPORT_GAP, Shared};

/// Records in one request: collectors batch by some hundreds themselves.
const BATCH_RECORDS: usize = 512;

/// Bytes of journal in one request: with attributes, half of the 4 MiB that gRPC takes by default.
const BATCH_BYTES: usize = 1024 * 1024;

/// A place in the journal.
pub(super) struct Tail {
    shared: Arc<Shared>,
    file: Arc<File>,
    at: u64,
    last_seq: u64,
}

/// Some records, in order.
pub(super) struct Batch {
    pub(super) records: Vec<Record>,
    pub(super) first_seq: u64,
    pub(super) last_seq: u64,
    pub(super) only_gaps: bool,
    end: u64,
}

/// One line and what it says.
pub(super) struct Record {
    pub(super) line: String,
    pub(super) value: Value,
}

// === impl Tail ===

impl Tail {
    pub(super) fn new(shared: &Arc<Shared>, at: u64) -> Self {
        let file = shared.state.lock().journal.file();
        Self {
            shared: Arc::clone(shared),
            file,
            at,
            last_seq: 0,
        }
    }

    /// The records from here on. Gives the same ones again until `advance`.
    pub(super) fn next(&self) -> io::Result<Batch> {
        let mut batch = Batch {
            records: Vec::new(),
            first_seq: 0,
            last_seq: self.last_seq,
            only_gaps: true,
            end: self.at,
        };
        let length = self.shared.length.load(Ordering::Acquire);
        let behind = usize::try_from(length.saturating_sub(self.at)).unwrap_or(usize::MAX);
        if behind == 0 {
            return Ok(batch);
        }
        const { assert!(MAX_LINE < BATCH_BYTES, "a batch must hold a line") };
        let mut bytes = vec![0; behind.min(BATCH_BYTES)];
        self.file.read_exact_at(&mut bytes, self.at)?;
        for line in bytes.split_inclusive(|b| *b == b'\n').take(BATCH_RECORDS) {
            let Some(text) = line.strip_suffix(b"\n") else {
                break;
            };
            batch.end += line.len() as u64;
            let value = serde_json::from_slice(text).unwrap_or(Value::Null);
            batch.last_seq = value["seq"].as_u64().unwrap_or(batch.last_seq + 1);
            batch.only_gaps &= value["event"] == EXPORT_GAP;
            if batch.records.is_empty() {
                batch.first_seq = batch.last_seq;
            }
            let line = String::from_utf8_lossy(text).into_owned();
            batch.records.push(Record { line, value });
        }
        Ok(batch)
    }

    /// The batch is dealt with.
    pub(super) fn advance(&mut self, batch: &Batch) {
        self.at = batch.end;
        self.last_seq = batch.last_seq;
    }
}
