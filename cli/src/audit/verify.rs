//! `exeat audit verify`: proves journals record by record.
//!
//! Several files are read in the order given. A file goes on with the chain of the one before, or
//! begins its own; nothing else is whole.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use exeat_sidecar::ledger::chain::Verifier;
use exeat_sidecar::ledger::sign::CHECKPOINT;
use serde_json::json;

use super::Format;
use super::lines::{Broken, Lines, Next};

/// What is to be proven.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The journals; a file may continue the chain of the one before
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// A record known from elsewhere, which must be in the journal: shows whether its end was cut
    #[arg(long, value_name = "SEQ:HASH", value_parser = anchor)]
    head: Option<(u64, String)>,
    /// A public key known from elsewhere (the gate's log, an exported record), which must have signed
    /// the journal: shows whether all of it was written anew
    #[arg(long, value_name = "HEX", value_parser = key)]
    key: Option<[u8; 32]>,
    /// How the verdict is written
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

pub(super) fn main(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let mut verifier = Verifier::default();
    let broken = prove(arguments, &mut verifier)?.err();
    let (records, chains) = (verifier.records(), verifier.chains());
    let head = verifier.head();
    let (signatures, keys) = (verifier.checkpoints(), verifier.keys());
    let signed = verifier.signed();
    let mut out = io::stdout().lock();
    match (arguments.format, &broken) {
        (Format::Text, None) => {
            let (seq, hash) = head.unwrap_or_default();
            writeln!(
                out,
                "whole: {records} record{} in {chains} chain{}, {signatures} signature{} by {keys} \
                 key{} up to record {signed}, head {seq}:{hash}",
                plural(records),
                plural(chains),
                plural(signatures),
                plural(keys),
            )?;
        }
        (Format::Text, Some(broken)) => {
            writeln!(out, "broken: {broken}")?;
            writeln!(
                out,
                "the {records} record{} before it {} whole",
                plural(records),
                are(records)
            )?;
        }
        (Format::Json, None) => {
            let head = head.map(|(seq, hash)| json!({"seq": seq, "hash": hash}));
            let verdict = json!({
                "whole": true, "records": records, "chains": chains, "head": head,
                "signatures": signatures, "keys": keys, "signed": signed,
            });
            writeln!(out, "{verdict}")?;
        }
        (Format::Json, Some(it)) => {
            let verdict = json!({
                "whole": false,
                "records": records,
                "broken": {
                    "file": it.path.to_string_lossy(),
                    "line": it.line,
                    "seq": it.seq,
                    "problem": it.problem,
                },
            });
            writeln!(out, "{verdict}")?;
        }
    }
    Ok(if broken.is_some() {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// The outer result is about reading, the inner one about what was read.
fn prove(arguments: &Arguments, verifier: &mut Verifier) -> anyhow::Result<Result<(), Broken>> {
    let mut missing = arguments.head.as_ref();
    let mut unsigned = arguments.key.as_ref();
    for path in &arguments.files {
        let mut lines = Lines::open(path)?;
        loop {
            match lines.next()? {
                Next::Whole => match lines.prove(verifier) {
                    Ok(sealed) => {
                        if missing
                            .is_some_and(|(seq, hash)| sealed.seq == *seq && sealed.hash == hash)
                        {
                            missing = None;
                        }
                        let signs = sealed.event == CHECKPOINT;
                        if signs && unsigned.is_some() && unsigned == verifier.key() {
                            unsigned = None;
                        }
                    }
                    Err(broken) => return Ok(Err(broken)),
                },
                Next::TooLong => return Ok(Err(lines.too_long())),
                Next::Torn => return Ok(Err(lines.torn())),
                Next::End if lines.number() == 0 => return Ok(Err(lines.empty())),
                Next::End => break,
            }
        }
    }
    if let (Some(_), Some(path)) = (unsigned, arguments.files.last()) {
        return Ok(Err(Broken {
            path: path.clone(),
            line: 0,
            seq: None,
            problem: "no record is signed by that key: the journal was written anew, or is \
                      another one"
                .to_owned(),
        }));
    }
    let (Some((seq, hash)), Some(path)) = (missing, arguments.files.last()) else {
        return Ok(Ok(()));
    };
    Ok(Err(Broken {
        path: path.clone(),
        line: 0,
        seq: Some(*seq),
        problem: format!(
            "there is no record {seq} with hash {hash}: the journal was cut at its end, or is \
             another one"
        ),
    }))
}

fn anchor(text: &str) -> Result<(u64, String), String> {
    let wrong = || "write the number of a record, a colon, and its hash of 64 digits".to_owned();
    let (seq, hash) = text.split_once(':').ok_or_else(wrong)?;
    let seq = seq.parse().map_err(|_| wrong())?;
    if hash.len() != 64 || !hash.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(wrong());
    }
    Ok((seq, hash.to_ascii_lowercase()))
}

fn key(text: &str) -> Result<[u8; 32], String> {
    let wrong = || "write the public key as 64 hexadecimal digits".to_owned();
    if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(wrong());
    }
    let mut key = [0; 32];
    for (at, byte) in key.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).map_err(|_| wrong())?;
    }
    Ok(key)
}

fn plural(count: u64) -> &'static str {
    if count == 1 { "" } else { "s" }
}

fn are(count: u64) -> &'static str {
    if count == 1 { "is" } else { "are" }
}
