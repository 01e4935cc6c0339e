//! The journal as a stranger reads it: each line's hash by its own bytes, each line's place by the
//! one before. It uses none of the gate's code.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// Reads a journal as it grows.
#[derive(Debug)]
pub struct Reader {
    path: PathBuf,
    offset: u64,
    seq: u64,
    hash: String,
}

/// `,"hash":"`, 64 digits, `"}`.
const SEAL: usize = 9 + 64 + 2;

// === impl Reader ===

impl Reader {
    /// From its beginning.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self {
            path,
            offset: 0,
            seq: 0,
            hash: "0".repeat(64),
        }
    }

    /// The whole records since the last time, each proven.
    pub fn more(&mut self) -> Result<Vec<Value>> {
        let bytes = match read_from(&self.path, self.offset) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.offset == 0 => {
                return Ok(Vec::new());
            }
            read => read?,
        };
        let whole = bytes
            .iter()
            .rposition(|&b| b == b'\n')
            .map_or(0, |at| at + 1);
        let text = std::str::from_utf8(&bytes[..whole])?;
        let mut records = Vec::new();
        for line in text.lines() {
            let record = self
                .prove(line)
                .with_context(|| format!("the record after {} is broken: {line}", self.seq))?;
            records.push(record);
        }
        self.offset += whole as u64;
        Ok(records)
    }

    fn prove(&mut self, line: &str) -> Result<Value> {
        let body = line.len().checked_sub(SEAL).context("too short")?;
        let body = line.get(..body).context("not ASCII")?;
        let record: Value = serde_json::from_str(line)?;
        let actual = hex(&Sha256::new()
            .chain_update(body)
            .chain_update("}")
            .finalize());
        ensure!(record["hash"] == actual.as_str(), "it has hash {actual}");
        ensure!(
            record["prev"] == self.hash.as_str(),
            "it does not name the one before"
        );
        ensure!(record["seq"] == self.seq + 1, "its number does not follow");
        self.seq += 1;
        self.hash = actual;
        Ok(record)
    }
}

/// All records of a journal, each proven.
pub fn read(path: &Path) -> Result<Vec<Value>> {
    Reader::new(path.to_owned()).more()
}

/// Whether a record is a decision that lets a call go.
#[must_use]
pub fn is_allow(record: &Value) -> bool {
    record["event"] == "exeat.egress.decision" && record["decision"] == "allow"
}

/// The outcome of a decision, if it is there yet.
#[must_use]
pub fn outcome<'a>(records: &'a [Value], decision: &Value) -> Option<&'a Value> {
    records.iter().find(|record| {
        record["event"] == "exeat.egress.outcome" && record["decision_id"] == decision["id"]
    })
}

fn read_from(path: &Path, offset: u64) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let length = file.metadata()?.len().saturating_sub(offset);
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
    file.read_exact_at(&mut bytes, offset)?;
    Ok(bytes)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        text.push(char::from(b"0123456789abcdef"[usize::from(byte >> 4)]));
        text.push(char::from(b"0123456789abcdef"[usize::from(byte & 15)]));
        text
    })
}
