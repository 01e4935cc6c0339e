//! Each record names the one before by its hash, so none can be changed, taken or moved unseen.
//!
//! `Chain` seals records as they are written, `Verifier` proves them when they are read: by the
//! journal when it opens, by `exeat audit`, by anyone with `docs/AUDIT.md` and a SHA-256. In doubt a
//! record is broken.

use std::borrow::Cow;
use std::time::SystemTime;

use aws_lc_rs::digest::{SHA256, digest};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::line;
use super::record::DecisionId;
use super::sign::{SignatureFlaw, Signatures};

/// The longest line: every value at its cap, every byte of it escaped, is below.
pub const MAX_LINE: usize = 256 * 1024;

/// What the first record names as the one before.
pub const GENESIS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// What the hash leaves out: `,"hash":"` + 64 digits + `"}`, of which the brace is put back.
const SEAL: usize = 9 + 64 + 2;

/// Where a chain stands, when writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Chain {
    /// The number of the last record; 0 before the first.
    pub(super) seq: u64,
    /// Its hash in hexadecimal.
    pub(super) hash: [u8; 64],
}

/// One line, proven to be what its own hash says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed<'a> {
    /// Its number in the chain.
    pub seq: u64,
    /// What happened.
    pub event: Cow<'a, str>,
    /// The hash of the record before.
    pub prev: &'a str,
    /// Its own.
    pub hash: &'a str,
}

/// What is wrong with a line by itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Flaw {
    /// Longer than any record is.
    #[error("longer than any record ({MAX_LINE} bytes)")]
    TooLong,
    /// Something else than printable ASCII.
    #[error("byte {0} is not printable ASCII; records have nothing else")]
    NotAscii(usize),
    /// It does not end as a record ends.
    #[error("does not end in a hash: cut short, or not a record")]
    NoHash,
    /// The content does not have the hash.
    #[error("its content was changed: it has hash {actual}, and says {written}")]
    Changed {
        /// What the content has.
        actual: String,
        /// What the record says.
        written: String,
    },
    /// The hash is right, and yet it is no record.
    #[error("not a record: {0}")]
    NotARecord(String),
}

/// What is wrong with a line in its place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Break {
    /// The line itself.
    #[error(transparent)]
    Flaw(#[from] Flaw),
    /// The first record of a file neither begins a chain nor continues the one before.
    #[error(
        "begins with record {seq} of a chain whose start is missing: records before it were \
         removed, or the file that holds them was not given first"
    )]
    NoStart {
        /// The number of the record.
        seq: u64,
    },
    /// Numbers were skipped.
    #[error("{} missing", span(*from, *to))]
    Missing {
        /// First number that is not there.
        from: u64,
        /// Last number that is not there.
        to: u64,
    },
    /// A number that was there already.
    #[error("record {seq} comes after record {after}: repeated, or moved")]
    Repeated {
        /// The number of the record.
        seq: u64,
        /// The number of the one before.
        after: u64,
    },
    /// A key or a signature.
    #[error(transparent)]
    Signature(#[from] SignatureFlaw),
    /// The record before is not the one that was there when this was written.
    #[error(
        "names {named} as the hash of the record before, which has {actual}: the record before, or \
         all up to it, was replaced"
    )]
    OtherBefore {
        /// What it names.
        named: String,
        /// What the record before has.
        actual: String,
    },
}

/// Proves lines in their order, in constant memory.
#[derive(Debug, Clone, Default)]
pub struct Verifier {
    last: Option<Chain>,
    chains: u64,
    records: u64,
    signatures: Signatures,
}

// === impl Chain ===

impl Chain {
    /// Before the first record.
    pub(super) fn genesis() -> Self {
        Self {
            seq: 0,
            hash: [b'0'; 64],
        }
    }

    /// After a record that was proven.
    pub(super) fn after(sealed: &Sealed<'_>) -> Self {
        let mut hash = [b'0'; 64];
        hash.copy_from_slice(sealed.hash.as_bytes());
        Self {
            seq: sealed.seq,
            hash,
        }
    }

    /// The hash as text.
    pub(super) fn hash(&self) -> String {
        self.hash.iter().map(|b| char::from(*b)).collect()
    }

    /// Writes the next record, newline and all, at the end of `out`.
    pub(super) fn seal(
        &mut self,
        out: &mut Vec<u8>,
        event: &'static str,
        id: DecisionId,
        at: SystemTime,
        body: &[u8],
    ) {
        let start = out.len();
        self.seq += 1;
        out.extend_from_slice(b"{\"event\":\"");
        out.extend_from_slice(event.as_bytes());
        out.extend_from_slice(b"\",\"id\":\"");
        id.write(out);
        out.extend_from_slice(b"\",\"seq\":");
        line::number(out, self.seq);
        out.extend_from_slice(b",\"time\":");
        line::time(out, at);
        out.push(b',');
        out.extend_from_slice(body);
        out.extend_from_slice(b",\"prev\":\"");
        out.extend_from_slice(&self.hash);
        out.extend_from_slice(b"\"}");
        self.hash = hash(&out[start..]);
        out.pop();
        out.extend_from_slice(b",\"hash\":\"");
        out.extend_from_slice(&self.hash);
        out.extend_from_slice(b"\"}\n");
    }
}

// === impl Sealed ===

impl<'a> Sealed<'a> {
    /// Proves one line, given without its newline, by itself.
    pub fn parse(text: &'a [u8]) -> Result<Self, Flaw> {
        #[derive(Deserialize)]
        struct Raw<'a> {
            #[serde(borrow)]
            event: Cow<'a, str>,
            #[serde(rename = "id")]
            _id: IgnoredAny,
            seq: u64,
            #[serde(rename = "time")]
            _time: Cow<'a, str>,
            #[serde(borrow)]
            prev: &'a str,
            #[serde(borrow)]
            hash: &'a str,
        }
        if text.len() > MAX_LINE {
            return Err(Flaw::TooLong);
        }
        if let Some(at) = text.iter().position(|b| !(0x20..0x7f).contains(b)) {
            return Err(Flaw::NotAscii(at + 1));
        }
        let Ok(text) = std::str::from_utf8(text) else {
            return Err(Flaw::NotAscii(0));
        };
        let body = text.len().checked_sub(SEAL).ok_or(Flaw::NoHash)?;
        let (body, seal) = text.split_at(body);
        let written = seal
            .strip_prefix(",\"hash\":\"")
            .and_then(|rest| rest.strip_suffix("\"}"))
            .filter(|hash| is_hash(hash))
            .ok_or(Flaw::NoHash)?;
        let mut hashed = Vec::with_capacity(body.len() + 1);
        hashed.extend_from_slice(body.as_bytes());
        hashed.push(b'}');
        let actual = hash(&hashed);
        if actual != written.as_bytes() {
            let actual = actual.iter().map(|b| char::from(*b)).collect();
            return Err(Flaw::Changed {
                actual,
                written: written.to_owned(),
            });
        }
        // The derived parser refuses a field that is there twice.
        let raw: Raw<'_> =
            serde_json::from_str(text).map_err(|error| Flaw::NotARecord(error.to_string()))?;
        if raw.hash != written || !is_hash(raw.prev) {
            return Err(Flaw::NotARecord(
                "`prev` or `hash` is not 64 hexadecimal digits".into(),
            ));
        }
        if raw.seq == 0 {
            return Err(Flaw::NotARecord("`seq` begins with 1".into()));
        }
        Ok(Self {
            seq: raw.seq,
            event: raw.event,
            prev: raw.prev,
            hash: raw.hash,
        })
    }
}

// === impl Verifier ===

impl Verifier {
    /// Proves the next line, given without its newline.
    ///
    /// `first` says that it is the first of a file: only there may a new chain begin.
    pub fn line<'a>(&mut self, text: &'a [u8], first: bool) -> Result<Sealed<'a>, Break> {
        let sealed = Sealed::parse(text)?;
        let begins = sealed.seq == 1 && sealed.prev == GENESIS;
        match &self.last {
            Some(last) if last.seq.checked_add(1) == Some(sealed.seq) => {
                if last.hash != sealed.prev.as_bytes() {
                    return Err(Break::OtherBefore {
                        named: sealed.prev.to_owned(),
                        actual: last.hash(),
                    });
                }
            }
            _ if first && begins => {
                self.chains += 1;
                self.signatures.begin();
            }
            None => return Err(Break::NoStart { seq: sealed.seq }),
            Some(_) if first => return Err(Break::NoStart { seq: sealed.seq }),
            Some(last) if sealed.seq > last.seq => {
                return Err(Break::Missing {
                    from: last.seq + 1,
                    to: sealed.seq - 1,
                });
            }
            Some(last) => {
                return Err(Break::Repeated {
                    seq: sealed.seq,
                    after: last.seq,
                });
            }
        }
        let after = Chain::after(&sealed);
        self.signatures.record(&sealed.event, text, &after)?;
        self.last = Some(after);
        self.records += 1;
        Ok(sealed)
    }

    /// How many records were proven.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.records
    }

    /// How many chains they form.
    #[must_use]
    pub fn chains(&self) -> u64 {
        self.chains
    }

    /// How many heads are signed, each by the key that its chain names.
    #[must_use]
    pub fn checkpoints(&self) -> u64 {
        self.signatures.checkpoints()
    }

    /// How many keys signed, one for each time that a gate opened the journal.
    #[must_use]
    pub fn keys(&self) -> u64 {
        self.signatures.keys()
    }

    /// The number of the last record whose hash is signed; 0 if there is none.
    #[must_use]
    pub fn signed(&self) -> u64 {
        self.signatures.last()
    }

    /// The public key that signs from here on, if one is named.
    #[must_use]
    pub fn key(&self) -> Option<&[u8; 32]> {
        self.signatures.current()
    }

    /// The number and hash of the last one.
    #[must_use]
    pub fn head(&self) -> Option<(u64, String)> {
        self.last.as_ref().map(|last| (last.seq, last.hash()))
    }
}

/// A line of `body` with the hash that it has, for the fuzzer and its corpus: else neither would come
/// further than the hash.
#[doc(hidden)]
#[must_use]
pub fn sealed(body: &[u8]) -> Vec<u8> {
    let body = body.strip_suffix(b"}").unwrap_or(body);
    let digits = hash(&[body, b"}"].concat());
    [body, b",\"hash\":\"", &digits, b"\"}"].concat()
}

fn span(from: u64, to: u64) -> String {
    if from == to {
        format!("record {from} is")
    } else {
        format!("records {from} to {to} are")
    }
}

fn is_hash(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn hash(bytes: &[u8]) -> [u8; 64] {
    let mut text = Vec::with_capacity(64);
    line::hex(&mut text, digest(&SHA256, bytes).as_ref());
    let mut hash = [b'0'; 64];
    hash.copy_from_slice(&text);
    hash
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    /// The fuzzer's corpus: the name says whether its line is a record once it has its hash.
    #[test]
    fn the_corpus_is_judged_rightly() {
        let corpus =
            std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/journal_line");
        let mut seen = 0;
        for entry in std::fs::read_dir(corpus).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let bytes = std::fs::read(&path).unwrap();
            let raw = Sealed::parse(&bytes);
            assert_eq!(raw.is_ok(), name.starts_with("whole"), "{name}: {raw:?}");
            let body = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
            let line = sealed(body);
            let judged = Sealed::parse(&line);
            assert_eq!(
                judged.is_ok(),
                name.starts_with("good"),
                "{name}: {judged:?}"
            );
            for cut in 0..bytes.len() {
                assert!(Sealed::parse(&bytes[..cut]).is_err(), "{name} cut at {cut}");
            }
            seen += 1;
        }
        assert!(seen >= 10, "the corpus is not there");
    }
}
