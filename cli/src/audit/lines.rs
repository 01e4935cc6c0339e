//! A journal's lines, one at a time and never longer than a record can be.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use exeat_sidecar::ledger::chain::{Break, Flaw, MAX_LINE, Sealed, Verifier};

/// Read at once: journals are read from end to end.
const BUFFER: usize = 256 * 1024;

/// A journal being read.
pub(super) struct Lines {
    path: PathBuf,
    reader: BufReader<File>,
    line: Vec<u8>,
    /// The number of the line last read, from 1.
    number: u64,
}

/// What comes next.
pub(super) enum Next {
    /// A line with its newline, which is not in `Lines::text`.
    Whole,
    /// Nothing more for now; the file ends with a newline.
    End,
    /// Nothing more for now; the file ends with the beginning of a line.
    Torn,
    /// A line that is longer than a record.
    TooLong,
}

/// Where and why a journal is not whole.
pub(super) struct Broken {
    pub(super) path: PathBuf,
    pub(super) line: u64,
    pub(super) seq: Option<u64>,
    pub(super) problem: String,
}

// === impl Lines ===

impl Lines {
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        let opened = || -> io::Result<File> {
            let file = File::open(path)?;
            if file.metadata()?.is_dir() {
                return Err(io::Error::other("it is a directory"));
            }
            Ok(file)
        };
        let file = opened().with_context(|| format!("can't read {}", path.display()))?;
        Ok(Self {
            path: path.to_owned(),
            reader: BufReader::with_capacity(BUFFER, file),
            line: Vec::new(),
            number: 0,
        })
    }

    /// Reads on. After `Torn` the line is completed once there is more.
    pub(super) fn next(&mut self) -> anyhow::Result<Next> {
        if self.line.last() == Some(&b'\n') {
            self.line.clear();
        }
        loop {
            let part = self
                .reader
                .fill_buf()
                .with_context(|| format!("can't read {}", self.path.display()))?;
            if part.is_empty() {
                return Ok(if self.line.is_empty() {
                    Next::End
                } else {
                    Next::Torn
                });
            }
            let end = part.iter().position(|b| *b == b'\n');
            let taken = end.map_or(part.len(), |at| at + 1);
            if self.line.len() + taken > MAX_LINE + 1 {
                self.number += 1;
                return Ok(Next::TooLong);
            }
            self.line.extend_from_slice(&part[..taken]);
            self.reader.consume(taken);
            if end.is_some() {
                self.number += 1;
                return Ok(Next::Whole);
            }
        }
    }

    /// The line last read, without its newline.
    pub(super) fn text(&self) -> &[u8] {
        self.line.strip_suffix(b"\n").unwrap_or(&self.line)
    }

    /// Proves the line last read.
    pub(super) fn prove(&self, verifier: &mut Verifier) -> Result<Sealed<'_>, Broken> {
        verifier
            .line(self.text(), self.number == 1)
            .map_err(|problem| self.broken(&problem.to_string()))
    }

    /// The file ends in the middle of a line.
    pub(super) fn torn(&self) -> Broken {
        let mut broken = self.broken(
            "has no end: it is being written, or the write was torn, or the file was cut; a gate \
             that opens the journal cuts it and says so",
        );
        broken.line = self.number + 1;
        broken
    }

    /// The line is longer than a record.
    pub(super) fn too_long(&self) -> Broken {
        self.broken(&Break::from(Flaw::TooLong).to_string())
    }

    /// The file has no line.
    pub(super) fn empty(&self) -> Broken {
        let mut broken =
            self.broken("there is no record: all were removed, or this never was a journal");
        broken.line = 0;
        broken
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    fn broken(&self, problem: &str) -> Broken {
        let seq = serde_json::from_slice::<serde_json::Value>(self.text())
            .ok()
            .and_then(|value| value["seq"].as_u64());
        Broken {
            path: self.path.clone(),
            line: self.number,
            seq,
            problem: problem.to_owned(),
        }
    }
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.path.display())?;
        if self.line > 0 {
            write!(f, ": line {}", self.line)?;
        }
        if let Some(seq) = self.seq {
            write!(f, " (record {seq})")?;
        }
        write!(f, ": {}", self.problem)
    }
}
