//! What a run tells the person in front of it: one line on standard error for what was denied.
//!
//! Standard output and input belong to the command alone. Hosts, paths and names come from the
//! command or from a server it called: everything that a terminal could take for an order is
//! escaped. In doubt (a record that is not understood) nothing is printed; the journal has it all.

use std::ffi::OsStr;
use std::fmt::{self, Display, Write as _};
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use serde_json::Value;

/// A client that tries both address families, or once more, is told of once.
const REPEAT: Duration = Duration::from_secs(2);

/// Names and messages longer than this are cut: a line is to be read.
const LONGEST: usize = 300;

/// Prints the lines of a run.
#[derive(Debug)]
pub(super) struct Lines {
    quiet: bool,
    colour: bool,
    last: Option<(String, Instant)>,
}

/// What is shown of a denied call.
#[derive(Debug, PartialEq, Eq)]
struct Denied {
    verb: &'static str,
    what: String,
    why: String,
    detail: String,
}

// === impl Lines ===

impl Lines {
    pub(super) fn new(quiet: bool) -> Self {
        Self {
            quiet,
            colour: colour(),
            last: None,
        }
    }

    /// Shows a record of the journal, if it is one to be told of.
    pub(super) fn record(&mut self, line: &str) {
        if self.quiet {
            return;
        }
        let Some(denied) = serde_json::from_str(line)
            .ok()
            .as_ref()
            .and_then(Denied::of)
        else {
            return;
        };
        let key = format!("{} {}", denied.what, denied.why);
        if let Some((last, at)) = &self.last
            && *last == key
            && at.elapsed() < REPEAT
        {
            return;
        }
        self.last = Some((key, Instant::now()));
        let (bold, dim, plain) = if self.colour {
            ("\x1b[1;31m", "\x1b[2m", "\x1b[0m")
        } else {
            ("", "", "")
        };
        print(format_args!(
            "exeat: {bold}{}{plain} {} \u{2014} {}{dim}{}{plain}",
            denied.verb, denied.what, denied.why, denied.detail
        ));
    }

    /// Something about the run itself.
    pub(super) fn say(&self, what: impl Display) {
        if !self.quiet {
            print(format_args!("exeat: {}", Escaped(&what.to_string())));
        }
    }
}

// === impl Denied ===

impl Denied {
    fn of(record: &Value) -> Option<Self> {
        if record["event"] != "exeat.egress.decision" {
            return None;
        }
        let shadow = !record["shadowed"].is_null();
        let told = if shadow { &record["shadowed"] } else { record };
        if !shadow && record["decision"] != "deny" {
            return None;
        }
        let reason = text(&told["reason"]).unwrap_or_default();
        let why = text(&told["message"])
            .or_else(|| text(&record["message"]))
            .unwrap_or_else(|| reason.replace('_', " "));
        let mut detail = vec![reason];
        for key in ["policy", "rule"] {
            detail.extend(text(&told[key]).map(|name| format!("{key} {name}")));
        }
        detail.extend(text(&record["id"]).map(|id| format!("id {id}")));
        Some(Self {
            verb: if shadow { "would deny" } else { "denied" },
            what: what(record),
            why,
            detail: format!(" ({})", detail.join(", ")),
        })
    }
}

/// The call, as a person would name it.
fn what(record: &Value) -> String {
    let destination = &record["destination"];
    let host = text(&destination["host"])
        .or_else(|| text(&destination["address"]))
        .unwrap_or_else(|| "?".to_owned());
    let port = destination["port"].as_u64().unwrap_or_default();
    if let Some(name) = text(&record["dns"]["name"]) {
        let kind = text(&record["dns"]["type"]).unwrap_or_default();
        return format!("DNS {kind} {name}");
    }
    let host = if host.contains(':') && !host.starts_with('[') {
        format!("[{host}]")
    } else {
        host
    };
    if let Some(method) = text(&record["http"]["method"]) {
        let scheme = text(&record["http"]["scheme"]).unwrap_or_else(|| "https".to_owned());
        let path = text(&record["http"]["path"]).unwrap_or_default();
        let port = match (scheme.as_str(), port) {
            ("https", 443) | ("http", 80) | (_, 0) => String::new(),
            (_, port) => format!(":{port}"),
        };
        let mut what = format!("{method} {scheme}://{host}{port}{path}");
        for call in record["mcp"]["calls"].as_array().into_iter().flatten() {
            let name = text(&call["name"]).unwrap_or_default();
            let method = text(&call["method"]).unwrap_or_default();
            what = format!("{what} {method} {name}");
        }
        if let Some(model) = text(&record["inference"]["model"]) {
            what = format!("{what} model {model}");
        }
        return what;
    }
    let protocol = text(&record["protocol"]).unwrap_or_else(|| "tcp".to_owned());
    format!("{protocol} {host}:{port}")
}

/// A string of a record, made harmless.
fn text(value: &Value) -> Option<String> {
    let text = value.as_str().filter(|text| !text.is_empty())?;
    let end = text.floor_char_boundary(LONGEST);
    let more = if end < text.len() { "\u{2026}" } else { "" };
    Some(format!("{}{more}", Escaped(&text[..end])))
}

/// Text without anything that moves a cursor, changes a colour or turns the direction of writing.
struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            let steers = c.is_control()
                || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
            if steers && c != '\n' {
                write!(f, "{}", c.escape_unicode())?;
            } else {
                f.write_char(c)?;
            }
        }
        Ok(())
    }
}

/// Why the gate could not be built, or was lost.
pub(super) fn problem(error: &dyn Display) {
    print(format_args!("exeat: {}", Escaped(&error.to_string())));
}

/// The command could not be started.
pub(super) fn not_started(program: &OsStr, error: &io::Error) {
    let program = program.to_string_lossy();
    let why = match error.kind() {
        io::ErrorKind::NotFound => "command not found".to_owned(),
        _ => error.to_string(),
    };
    print(format_args!("exeat: {}: {why}", Escaped(&program)));
}

fn print(line: fmt::Arguments<'_>) {
    // One write, so that lines of the command and of the gate don't mix; and if nobody reads them,
    // the run goes on.
    drop(
        io::stderr()
            .lock()
            .write_all(format!("{line}\n").as_bytes()),
    );
}

#[expect(
    clippy::disallowed_methods,
    reason = "whether colours are wanted: the user's terminal, no gate"
)]
fn colour() -> bool {
    let set =
        |name| std::env::var_os(name).is_some_and(|value: std::ffi::OsString| !value.is_empty());
    io::stderr().is_terminal()
        && !set("NO_COLOR")
        && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    fn line(record: &Value) -> Option<String> {
        let denied = Denied::of(record)?;
        Some(format!(
            "{} {} - {}{}",
            denied.verb, denied.what, denied.why, denied.detail
        ))
    }

    #[test]
    fn a_denied_request_is_told_with_its_rule() {
        let record = serde_json::json!({
            "event": "exeat.egress.decision", "id": "0197", "decision": "deny",
            "destination": {"host": "api.example.com", "port": 443},
            "protocol": "h2",
            "http": {"method": "POST", "scheme": "https", "path": "/x"},
            "reason": "no_rule", "message": "no rule allows POST", "policy": "default/research",
        });
        assert_eq!(
            line(&record).unwrap(),
            "denied POST https://api.example.com/x - no rule allows POST \
             (no_rule, policy default/research, id 0197)"
        );
    }

    #[test]
    fn other_destinations_are_told_as_they_are() {
        let mut record = serde_json::json!({
            "event": "exeat.egress.decision", "decision": "deny", "reason": "no_rule",
            "destination": {"host": "evil.example", "port": 53},
            "protocol": "dns", "dns": {"name": "evil.example", "type": "A"},
        });
        assert_eq!(
            line(&record).unwrap(),
            "denied DNS A evil.example - no rule (no_rule)"
        );
        record = serde_json::json!({
            "event": "exeat.egress.decision", "decision": "deny", "reason": "no_rule",
            "destination": {"address": "2001:db8::1", "port": 22}, "protocol": "tcp",
        });
        assert_eq!(
            line(&record).unwrap(),
            "denied tcp [2001:db8::1]:22 - no rule (no_rule)"
        );
    }

    #[test]
    fn what_is_allowed_is_not_told_but_what_shadow_lets_pass_is() {
        let mut record = serde_json::json!({
            "event": "exeat.egress.decision", "decision": "allow", "reason": "allowed_by_rule",
            "destination": {"host": "a.example", "port": 443}, "protocol": "tls",
        });
        assert_eq!(line(&record), None);
        record["shadowed"] = serde_json::json!({"reason": "no_rule"});
        assert_eq!(
            line(&record).unwrap(),
            "would deny tls a.example:443 - no rule (no_rule)"
        );
    }

    #[test]
    fn a_name_cannot_steer_the_terminal() {
        let record = serde_json::json!({
            "event": "exeat.egress.decision", "decision": "deny", "reason": "no_rule",
            "destination": {"host": "\u{1b}[2Ja\u{202e}\r\n.example", "port": 1}, "protocol": "tcp",
        });
        let line = line(&record).unwrap();
        assert!(!line.contains(['\u{1b}', '\u{202e}', '\r']), "{line:?}");
    }
}
