//! Heads of the chain, signed at intervals by a key that only this gate's memory has.
//!
//! A chain shows that nothing in it was changed, unless all of it was written anew. Who knows the
//! public key from elsewhere (the gate's log, an exported record) sees that too: the key dies with
//! the gate, and nobody can sign another history with it. Signing happens on the journal's own
//! thread, without the lock that the writers of decisions want. In doubt a signature is none.

use std::collections::VecDeque;

use aws_lc_rs::error::Unspecified;
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use serde::Deserialize;

use super::chain::Chain;

/// The event of the record that names the public key; the first after `exeat.journal.opened`.
pub const KEY: &str = "exeat.audit.key";

/// The event of a record that signs a head.
pub const CHECKPOINT: &str = "exeat.audit.checkpoint";

/// The only algorithm.
pub const ALGORITHM: &str = "ed25519";

/// So many records at most stand between a signed head and its checkpoint: those written while the
/// signature was made. What reads a journal has to remember no more hashes than that.
pub const WINDOW: usize = 1024;

/// The gate's key of one opening of the journal.
#[derive(Debug)]
pub(super) struct Signer {
    key: Ed25519KeyPair,
}

/// The signatures of a journal that is read, in constant memory.
#[derive(Debug, Clone, Default)]
pub(super) struct Signatures {
    key: Option<[u8; 32]>,
    /// The hashes of the last records, the newest last.
    recent: VecDeque<[u8; 64]>,
    keys: u64,
    checkpoints: u64,
    last: u64,
}

/// What is wrong with a key or a signature.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignatureFlaw {
    /// The record does not have what its event asks for.
    #[error("a record of the journal's signatures that can't be read: {0}")]
    Malformed(String),
    /// Nobody has named a key.
    #[error("signs a head, and no record before it names the key")]
    NoKey,
    /// The head is none of the last records, or has another hash.
    #[error("signs record {seq} with hash {hash}, which is not among the records just before it")]
    OtherHead {
        /// The number of the head.
        seq: u64,
        /// The hash of the head.
        hash: String,
    },
    /// The signature is not the key's.
    #[error("its signature of record {seq} is not by the key that the journal names")]
    Forged {
        /// The number of the head.
        seq: u64,
    },
}

#[derive(Deserialize)]
struct KeyRecord<'a> {
    algorithm: &'a str,
    public_key: &'a str,
}

#[derive(Deserialize)]
struct CheckpointRecord<'a> {
    head_seq: u64,
    head_hash: &'a str,
    signature: &'a str,
}

/// What is signed: the words that say what for, the head's number, its hash.
fn message(seq: u64, hash: &str) -> Vec<u8> {
    format!("exeat.audit.head {seq} {hash}").into_bytes()
}

// === impl Signer ===

impl Signer {
    pub(super) fn generate() -> Result<Self, Unspecified> {
        Ok(Self {
            key: Ed25519KeyPair::generate()?,
        })
    }

    pub(super) fn public(&self) -> &[u8] {
        self.key.public_key().as_ref()
    }

    /// The signature of a head. Takes some tens of microseconds.
    pub(super) fn sign(&self, head: &Chain) -> impl AsRef<[u8]> + use<> {
        self.key.sign(&message(head.seq, &head.hash()))
    }
}

// === impl Signatures ===

impl Signatures {
    /// Takes in a record whose place in the chain is proven: `at` is where the chain stands after.
    pub(super) fn record(
        &mut self,
        event: &str,
        text: &[u8],
        at: &Chain,
    ) -> Result<(), SignatureFlaw> {
        match event {
            KEY => self.key(text)?,
            CHECKPOINT => self.checkpoint(text, at)?,
            _ => {}
        }
        if self.recent.len() > WINDOW {
            self.recent.pop_front();
        }
        self.recent.push_back(at.hash);
        Ok(())
    }

    /// A chain of its own: no head of another is a head of it, and no key.
    pub(super) fn begin(&mut self) {
        self.recent.clear();
        self.key = None;
    }

    pub(super) fn keys(&self) -> u64 {
        self.keys
    }

    pub(super) fn checkpoints(&self) -> u64 {
        self.checkpoints
    }

    pub(super) fn last(&self) -> u64 {
        self.last
    }

    pub(super) fn current(&self) -> Option<&[u8; 32]> {
        self.key.as_ref()
    }

    fn key(&mut self, text: &[u8]) -> Result<(), SignatureFlaw> {
        let record: KeyRecord<'_> = read(text)?;
        if record.algorithm != ALGORITHM {
            return Err(SignatureFlaw::Malformed(format!(
                "`algorithm` is `{}`, not `{ALGORITHM}`",
                record.algorithm
            )));
        }
        self.key = Some(bytes(record.public_key, "public_key")?);
        self.keys += 1;
        Ok(())
    }

    fn checkpoint(&mut self, text: &[u8], at: &Chain) -> Result<(), SignatureFlaw> {
        let record: CheckpointRecord<'_> = read(text)?;
        let (seq, hash) = (record.head_seq, record.head_hash);
        let signature: [u8; 64] = bytes(record.signature, "signature")?;
        let key = self.key.as_ref().ok_or(SignatureFlaw::NoKey)?;
        // The newest is the record before this one.
        let back = at
            .seq
            .checked_sub(seq)
            .and_then(|back| usize::try_from(back).ok());
        let there = back
            .and_then(|back| self.recent.len().checked_sub(back))
            .and_then(|index| self.recent.get(index));
        if there.is_none_or(|there| there != hash.as_bytes()) {
            let hash = hash.to_owned();
            return Err(SignatureFlaw::OtherHead { seq, hash });
        }
        UnparsedPublicKey::new(&ED25519, key)
            .verify(&message(seq, hash), &signature)
            .map_err(|Unspecified| SignatureFlaw::Forged { seq })?;
        self.checkpoints += 1;
        self.last = seq;
        Ok(())
    }
}

fn read<'a, T: Deserialize<'a>>(text: &'a [u8]) -> Result<T, SignatureFlaw> {
    serde_json::from_slice(text).map_err(|error| SignatureFlaw::Malformed(error.to_string()))
}

/// Bytes written in hexadecimal.
fn bytes<const N: usize>(text: &str, name: &str) -> Result<[u8; N], SignatureFlaw> {
    let wrong = || SignatureFlaw::Malformed(format!("`{name}` is not {N} bytes in hexadecimal"));
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Ok(byte - b'0'),
        b'a'..=b'f' => Ok(byte - b'a' + 10),
        _ => Err(wrong()),
    };
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.len() != N || !rest.is_empty() {
        return Err(wrong());
    }
    let mut all = [0; N];
    for (byte, [high, low]) in all.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Ok(all)
}
