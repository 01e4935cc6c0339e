//! `exeat audit show`: the trail as a table, each decision with how it ended.
//!
//! Every line is proven while it is read. What can't be proven is still shown, after a warning, for
//! whoever looks into a broken trail wants to see it; the exit status then is 1.

use std::collections::{HashMap, VecDeque};
use std::io::{self, BufWriter, IsTerminal as _, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use exeat_sidecar::ledger::chain::Verifier;
use exeat_sidecar::ledger::sign;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::lines::{Lines, Next};
use super::row::{self, Row};

/// Decisions held until their outcome is read. Bounds memory; one who ends later gets a line more.
const HELD: usize = 4096;

/// When following, a decision is shown after so long even if its call still runs.
const PATIENCE: Duration = Duration::from_secs(2);

/// When following, the file is looked at so often.
const POLL: Duration = Duration::from_millis(200);

/// What is to be shown.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The journal
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Go on showing what is added
    #[arg(long, short)]
    follow: bool,
    /// Only what was allowed, or denied
    #[arg(long, value_enum)]
    decision: Option<Decision>,
    /// Only what this rule decided
    #[arg(long)]
    rule: Option<String>,
    /// Only this host; `*.example.com` for those below it
    #[arg(long)]
    host: Option<String>,
    /// Only since then: a time as in the journal, or how long ago (`90s`, `10m`, `2h`, `7d`)
    #[arg(long, value_parser = since)]
    since: Option<OffsetDateTime>,
    /// Only the decision of this id, or whose id begins so
    #[arg(long)]
    id: Option<String>,
    /// A table, or the journal's own lines
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Decision {
    Allow,
    Deny,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Json,
}

/// Decisions on their way to the screen, in their order.
struct Table<'a> {
    arguments: &'a Arguments,
    out: BufWriter<io::StdoutLock<'static>>,
    colour: bool,
    waiting: VecDeque<Waiting>,
    /// How many have left `waiting`, so that an index outlives them.
    gone: u64,
    by_id: HashMap<String, u64>,
    /// Shown before they ended.
    open: VecDeque<String>,
}

struct Waiting {
    record: Value,
    outcome: Option<Value>,
    done: bool,
    since: Instant,
}

pub(super) fn main(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let mut lines = Lines::open(&arguments.file)?;
    let mut verifier = Verifier::default();
    let mut whole = true;
    let mut table = Table::new(arguments);
    table.begin()?;
    loop {
        match lines.next()? {
            Next::Whole => {
                if whole && let Err(broken) = lines.prove(&mut verifier) {
                    whole = false;
                    table.out.flush()?;
                    eprintln!("warning: {broken}");
                    eprintln!("warning: from there on the trail proves nothing");
                }
                match serde_json::from_slice::<Value>(lines.text()) {
                    Ok(record) => table.take(record, lines.text())?,
                    Err(_) => eprintln!("warning: line {} is no record", lines.number()),
                }
            }
            Next::TooLong => {
                table.end()?;
                anyhow::bail!("{}", lines.too_long());
            }
            Next::End | Next::Torn if arguments.follow => {
                table.settle(Some(PATIENCE))?;
                table.out.flush()?;
                std::thread::sleep(POLL);
            }
            Next::Torn => {
                table.end()?;
                eprintln!("warning: {}", lines.torn());
                break;
            }
            Next::End => {
                table.end()?;
                break;
            }
        }
    }
    Ok(if whole {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

// === impl Table ===

impl<'a> Table<'a> {
    #[expect(
        clippy::disallowed_methods,
        reason = "whether colours are wanted: the user's terminal, no gate"
    )]
    fn new(arguments: &'a Arguments) -> Self {
        let stdout = io::stdout().lock();
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || std::env::var_os("TERM").is_some_and(|value| value == "dumb");
        let colour = stdout.is_terminal() && !plain;
        Self {
            arguments,
            out: BufWriter::new(stdout),
            colour,
            waiting: VecDeque::new(),
            gone: 0,
            by_id: HashMap::new(),
            open: VecDeque::new(),
        }
    }

    fn begin(&mut self) -> io::Result<()> {
        if self.arguments.format == Format::Table {
            writeln!(self.out, "{}", row::head())?;
        }
        Ok(())
    }

    /// One record more.
    fn take(&mut self, record: Value, line: &[u8]) -> io::Result<()> {
        let event = record["event"].as_str().unwrap_or_default();
        let decision = event == "exeat.egress.decision";
        if event == "exeat.egress.outcome" {
            return self.ended(record, line);
        }
        if self.arguments.format == Format::Table && matches!(event, sign::KEY | sign::CHECKPOINT) {
            // Nothing that happened: `verify` tells of them.
            return Ok(());
        }
        if !(if decision {
            self.wants(&record)
        } else {
            self.wants_own(&record)
        }) {
            return Ok(());
        }
        if self.arguments.format == Format::Json {
            self.line(line)?;
        }
        let done = !decision || record["decision"] != "allow";
        if let (false, Some(id)) = (done, record["id"].as_str()) {
            self.by_id
                .insert(id.to_owned(), self.gone + self.waiting.len() as u64);
        }
        self.waiting.push_back(Waiting {
            record,
            outcome: None,
            done,
            since: Instant::now(),
        });
        self.settle(None)
    }

    /// An outcome: it completes its decision, or comes by itself if that was shown already.
    fn ended(&mut self, outcome: Value, line: &[u8]) -> io::Result<()> {
        let id = outcome["decision_id"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        if let Some(index) = self.by_id.remove(&id) {
            if self.arguments.format == Format::Json {
                self.line(line)?;
            }
            let index = index
                .checked_sub(self.gone)
                .and_then(|index| usize::try_from(index).ok());
            if let Some(waiting) = index.and_then(|index| self.waiting.get_mut(index)) {
                waiting.outcome = Some(outcome);
                waiting.done = true;
            }
            return self.settle(None);
        }
        if let Some(at) = self.open.iter().position(|open| *open == id) {
            self.open.remove(at);
            match self.arguments.format {
                Format::Json => self.line(line)?,
                Format::Table => {
                    writeln!(self.out, "{}", Row::of(&outcome, None).show(self.colour))?;
                }
            }
        }
        Ok(())
    }

    /// Shows those at the front that are complete, too many, or have waited longer than `patience`.
    fn settle(&mut self, patience: Option<Duration>) -> io::Result<()> {
        while let Some(first) = self.waiting.front() {
            let late = patience.is_some_and(|patience| first.since.elapsed() >= patience);
            if !first.done && !late && self.waiting.len() <= HELD {
                break;
            }
            self.show_first()?;
        }
        Ok(())
    }

    fn end(&mut self) -> io::Result<()> {
        while !self.waiting.is_empty() {
            self.show_first()?;
        }
        self.out.flush()
    }

    fn show_first(&mut self) -> io::Result<()> {
        let Some(first) = self.waiting.pop_front() else {
            return Ok(());
        };
        self.gone += 1;
        if !first.done
            && let Some(id) = first.record["id"].as_str()
        {
            self.by_id.remove(id);
            self.open.push_back(id.to_owned());
            if self.open.len() > HELD {
                self.open.pop_front();
            }
        }
        if self.arguments.format == Format::Table {
            let row = Row::of(&first.record, first.outcome.as_ref());
            writeln!(self.out, "{}", row.show(self.colour))?;
        }
        Ok(())
    }

    /// The journal's own line: it is printable ASCII, unless it was tampered with.
    fn line(&mut self, line: &[u8]) -> io::Result<()> {
        let text = String::from_utf8_lossy(line);
        if text.bytes().all(|b| (0x20..0x7f).contains(&b)) {
            writeln!(self.out, "{text}")
        } else {
            writeln!(self.out, "{}", row::safe(&text))
        }
    }

    fn wants(&self, record: &Value) -> bool {
        let at = |pointer: &str| record.pointer(pointer).and_then(Value::as_str);
        let it = self.arguments;
        let decision = it.decision.is_none_or(|wanted| match wanted {
            Decision::Allow => at("/decision") == Some("allow"),
            Decision::Deny => at("/decision") != Some("allow"),
        });
        let rule = it.rule.as_deref();
        let rule = rule.is_none() || at("/rule") == rule || at("/shadowed/rule") == rule;
        let host = it.host.as_deref().is_none_or(|wanted| {
            ["/destination/host", "/destination/address", "/dns/name"]
                .iter()
                .filter_map(|pointer| at(pointer))
                .any(|host| is_host(wanted, host))
        });
        let id = it
            .id
            .as_deref()
            .is_none_or(|id| at("/id").is_some_and(|it| it.starts_with(id)));
        decision && rule && host && id && self.is_recent(record)
    }

    /// The journal's own records are part of the whole trail, not of an extract.
    fn wants_own(&self, record: &Value) -> bool {
        let Arguments {
            decision,
            rule,
            host,
            id,
            ..
        } = self.arguments;
        decision.is_none()
            && rule.is_none()
            && host.is_none()
            && id.is_none()
            && self.is_recent(record)
    }

    fn is_recent(&self, record: &Value) -> bool {
        self.arguments.since.is_none_or(|since| {
            record["time"]
                .as_str()
                .and_then(|time| OffsetDateTime::parse(time, &Rfc3339).ok())
                .is_none_or(|time| time >= since)
        })
    }
}

fn is_host(wanted: &str, host: &str) -> bool {
    let host = host.trim_end_matches('.');
    match wanted.strip_prefix('*') {
        Some(suffix) => {
            host.len() > suffix.len()
                && host
                    .to_ascii_lowercase()
                    .ends_with(&suffix.to_ascii_lowercase())
        }
        None => host.eq_ignore_ascii_case(wanted.trim_end_matches('.')),
    }
}

fn since(text: &str) -> Result<OffsetDateTime, String> {
    if let Ok(time) = OffsetDateTime::parse(text, &Rfc3339) {
        return Ok(time);
    }
    let wrong =
        || "write a time (`2026-01-02T03:04:05Z`) or how long ago (`90s`, `10m`, `2h`, `7d`)";
    let (number, unit) =
        text.split_at(text.len() - text.chars().next_back().map_or(0, char::len_utf8));
    let number: i64 = number.parse().map_err(|_| wrong())?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(wrong().into()),
    };
    number
        .checked_mul(seconds)
        .and_then(|seconds| OffsetDateTime::now_utc().checked_sub(time::Duration::seconds(seconds)))
        .ok_or_else(|| wrong().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_match_whole_or_below() {
        assert!(is_host("api.example", "API.example."));
        assert!(!is_host("api.example", "xapi.example"));
        assert!(is_host("*.example", "api.example"));
        assert!(!is_host("*.example", "example"));
    }

    #[test]
    fn since_is_a_time_or_an_age() {
        assert!(since("2026-01-02T03:04:05Z").is_ok());
        assert!(since("10m").is_ok_and(|time| time < OffsetDateTime::now_utc()));
        for wrong in [
            "",
            "m",
            "10",
            "10é",
            "99999999999999999999d",
            "9223372036854775807d",
        ] {
            assert!(since(wrong).is_err(), "{wrong}");
        }
    }
}
