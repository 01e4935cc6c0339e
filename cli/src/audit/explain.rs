//! `exeat audit explain`: one decision in sentences, as whoever was denied wants to read it.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use exeat_sidecar::ledger::chain::Verifier;
use serde_json::Value;

use super::lines::{Lines, Next};
use super::row::safe;

/// Which decision.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The id that the agent was told, or its beginning
    #[arg(value_name = "ID")]
    id: String,
    /// The journal
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

pub(super) fn main(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let mut lines = Lines::open(&arguments.file)?;
    let mut verifier = Verifier::default();
    let mut found: Option<(Value, u64)> = None;
    let mut outcome = None;
    let mut broken = None;
    loop {
        match lines.next()? {
            Next::Whole => {}
            Next::TooLong => anyhow::bail!("{}", lines.too_long()),
            Next::End | Next::Torn => break,
        }
        if broken.is_none() {
            broken = lines.prove(&mut verifier).err();
        }
        let Ok(record) = serde_json::from_slice::<Value>(lines.text()) else {
            continue;
        };
        let is = |key: &str| {
            record[key]
                .as_str()
                .is_some_and(|id| id.starts_with(&arguments.id))
        };
        if record["event"] == "exeat.egress.decision" && is("id") {
            if found.is_some() {
                anyhow::bail!(
                    "several decisions begin with `{}`; give more of the id",
                    arguments.id
                );
            }
            found = Some((record, lines.number()));
        } else if found.is_some() && is("decision_id") {
            outcome = Some(record);
        }
    }
    let Some((record, line)) = found else {
        anyhow::bail!(
            "there is no decision `{}` in {}",
            arguments.id,
            arguments.file.display()
        );
    };
    let mut out = io::stdout().lock();
    tell(&mut out, &record, outcome.as_ref(), line)?;
    if let Some(broken) = broken {
        eprintln!("warning: the journal is broken, so this proves nothing: {broken}");
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

fn tell(
    out: &mut impl Write,
    record: &Value,
    outcome: Option<&Value>,
    line: u64,
) -> io::Result<()> {
    let at = |pointer: &str| record.pointer(pointer).map(shown).unwrap_or_default();
    let allowed = record["decision"] == "allow";
    let verdict = if allowed { "allowed" } else { "denied" };
    writeln!(out, "{verdict}: {} at {}", at("/id"), at("/time"))?;
    for (name, pointer) in [
        ("reason", "/reason"),
        ("message", "/message"),
        ("policy", "/policy"),
        ("rule", "/rule"),
        ("mode", "/mode"),
        ("would have been denied for", "/shadowed/reason"),
        ("generation", "/generation"),
        ("bundle", "/bundle"),
        ("plan", "/plan"),
        ("credential added", "/credential"),
        ("host", "/destination/host"),
        ("port", "/destination/port"),
        ("the agent's packets went to", "/destination/address"),
        ("protocol", "/protocol"),
        ("method", "/http/method"),
        ("path", "/http/path"),
        ("query", "/http/query"),
        ("user agent", "/http/user_agent"),
        ("MCP", "/mcp/calls"),
        ("inference", "/inference"),
        ("DNS name", "/dns/name"),
        ("DNS type", "/dns/type"),
        ("opaque", "/tcp/opaque"),
        ("caller's user id", "/caller/uid"),
        ("times", "/count"),
        ("first", "/first_time"),
        ("last", "/last_time"),
        ("trace", "/trace_id"),
    ] {
        if let Some(value) = record.pointer(pointer) {
            writeln!(out, "  {name}: {}", shown(value))?;
        }
    }
    match outcome {
        Some(outcome) => {
            writeln!(out, "ended at {}", shown(&outcome["time"]))?;
            for (name, pointer) in [
                ("status", "/status"),
                ("error", "/error"),
                ("address", "/address"),
                ("bytes sent", "/bytes/sent"),
                ("bytes received", "/bytes/received"),
                ("microseconds", "/duration_us"),
                ("input tokens", "/usage/input_tokens"),
                ("output tokens", "/usage/output_tokens"),
            ] {
                if let Some(value) = outcome.pointer(pointer) {
                    writeln!(out, "  {name}: {}", shown(value))?;
                }
            }
        }
        None if allowed => writeln!(
            out,
            "no end is on record: it still runs, or the gate was killed"
        )?,
        None => {}
    }
    writeln!(
        out,
        "line {line} of the journal, record {}, hash {}",
        at("/seq"),
        at("/hash")
    )
}

fn shown(value: &Value) -> String {
    match value.as_str() {
        Some(text) => safe(text),
        None => safe(&value.to_string()),
    }
}
