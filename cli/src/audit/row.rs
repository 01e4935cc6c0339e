//! A record as a line that a person reads.
//!
//! In doubt a character is escaped: the agent chose many of them.

use serde_json::Value;

/// Longest target shown; whoever needs all of it asks for JSON.
const TARGET: usize = 64;

/// One line of the table.
pub(super) struct Row {
    time: String,
    verdict: Verdict,
    status: String,
    method: String,
    target: String,
    why: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Allow,
    Deny,
    Shadow,
    /// The journal's own, or an outcome by itself.
    None,
}

/// The names of the columns.
pub(super) fn head() -> String {
    layout(
        "TIME (UTC)",
        "VERDICT",
        "STATUS",
        "METHOD",
        "TARGET",
        "RULE OR REASON",
    )
}

// === impl Row ===

impl Row {
    pub(super) fn of(record: &Value, outcome: Option<&Value>) -> Self {
        let text = |pointer: &str| record.pointer(pointer).and_then(Value::as_str);
        let time = moment(record);
        match text("/event").unwrap_or_default() {
            "exeat.egress.decision" => {}
            "exeat.egress.outcome" => {
                return Self {
                    time,
                    verdict: Verdict::None,
                    status: status(record),
                    method: "ended".into(),
                    target: safe(text("/decision_id").unwrap_or_default()),
                    why: error(record),
                };
            }
            event => {
                return Self {
                    time,
                    verdict: Verdict::None,
                    status: "-".into(),
                    method: "-".into(),
                    target: safe(event),
                    why: own(record),
                };
            }
        }
        let verdict = match (text("/decision"), text("/shadowed/reason")) {
            (Some("allow"), Some(_)) => Verdict::Shadow,
            (Some("allow"), None) => Verdict::Allow,
            _ => Verdict::Deny,
        };
        let status = match (verdict, outcome) {
            (Verdict::Deny, _) => "-".into(),
            (_, Some(outcome)) => status(outcome),
            // Not ended when the file was read, or never told.
            (_, None) => "open".into(),
        };
        let mut why = why(record, verdict);
        if let Some(error) = outcome.map(error).filter(|error| !error.is_empty()) {
            why = format!("{why}  {error}");
        }
        if let Some(count) = record["count"].as_u64() {
            why = format!("{why}  \u{d7}{count}");
        }
        let (method, target) = target(record);
        Self {
            time,
            verdict,
            status,
            method,
            target: shorten(&target),
            why,
        }
    }

    pub(super) fn show(&self, colour: bool) -> String {
        let Self {
            time,
            status,
            method,
            target,
            why,
            ..
        } = self;
        let (word, code) = match self.verdict {
            Verdict::Allow => ("allow", "32"),
            Verdict::Deny => ("deny", "31"),
            Verdict::Shadow => ("shadow", "33"),
            Verdict::None => ("-", "2"),
        };
        let line = layout(time, word, status, method, target, why);
        if !colour {
            return line;
        }
        line.replacen(word, &format!("\u{1b}[{code}m{word}\u{1b}[0m"), 1)
    }
}

fn layout(
    time: &str,
    verdict: &str,
    status: &str,
    method: &str,
    target: &str,
    why: &str,
) -> String {
    let line = format!("{time:<23}  {verdict:<7}  {status:<6}  {method:<10}  {target:<40}  {why}");
    line.trim_end().to_owned()
}

/// `2026-01-02 03:04:05.678`
fn moment(record: &Value) -> String {
    let time = record["time"].as_str().unwrap_or_default();
    safe(&time.chars().take(23).collect::<String>().replace('T', " "))
}

fn status(outcome: &Value) -> String {
    match (outcome["status"].as_u64(), outcome.get("error")) {
        (Some(status), _) => status.to_string(),
        (None, Some(_)) => "error".into(),
        (None, None) => "ok".into(),
    }
}

fn error(outcome: &Value) -> String {
    outcome["error"]
        .as_str()
        .map(|error| format!("error: {}", safe(error)))
        .unwrap_or_default()
}

fn why(record: &Value, verdict: Verdict) -> String {
    let at = |pointer: &str| record.pointer(pointer).and_then(Value::as_str).map(safe);
    let rule = |policy: Option<String>, rule: Option<String>| match (policy, rule) {
        (Some(policy), Some(rule)) => format!("{policy}/{rule}"),
        (Some(one), None) | (None, Some(one)) => one,
        (None, None) => String::new(),
    };
    let spoke = rule(at("/policy"), at("/rule"));
    match verdict {
        Verdict::Allow | Verdict::None => spoke,
        Verdict::Deny => {
            let reason = at("/reason").unwrap_or_default();
            if spoke.is_empty() {
                reason
            } else {
                format!("{reason} ({spoke})")
            }
        }
        Verdict::Shadow => {
            let reason = at("/shadowed/reason").unwrap_or_default();
            let spoke = rule(at("/shadowed/policy"), at("/shadowed/rule"));
            if spoke.is_empty() {
                format!("would deny: {reason}")
            } else {
                format!("would deny: {reason} ({spoke})")
            }
        }
    }
}

/// The method and the target of a decision, in its protocol's words.
fn target(record: &Value) -> (String, String) {
    let text = |pointer: &str| {
        record
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    let port = record
        .pointer("/destination/port")
        .and_then(Value::as_u64)
        .unwrap_or_default();
    let host = match text("/destination/host") {
        "" => text("/destination/address"),
        host => host,
    };
    if record.get("dns").is_some() {
        return (
            safe(&format!("DNS {}", text("/dns/type"))),
            safe(text("/dns/name")),
        );
    }
    let usual = match text("/http/scheme") {
        "http" => 80,
        "https" => 443,
        _ => 0,
    };
    let place = if port == usual {
        host.to_owned()
    } else {
        format!("{host}:{port}")
    };
    if record.get("http").is_none() {
        return (safe(&text("/protocol").to_uppercase()), safe(&place));
    }
    let mut url = format!("{place}{}", text("/http/path"));
    if let Some(query) = record.pointer("/http/query").and_then(Value::as_str) {
        url = format!("{url}?{query}");
    }
    let calls = record.pointer("/mcp/calls").and_then(Value::as_array);
    if let Some(call) = calls.and_then(|calls| calls.first()) {
        let method = call["method"].as_str().unwrap_or_default();
        let more = record
            .pointer("/mcp/count")
            .and_then(Value::as_u64)
            .unwrap_or(1);
        let mut target = match call["name"].as_str() {
            Some(name) => format!("{name} @ {url}"),
            None => url,
        };
        if more > 1 {
            target = format!("{target} (+{})", more - 1);
        }
        return (safe(method), safe(&target));
    }
    if let Some(model) = record.pointer("/inference/model").and_then(Value::as_str) {
        url = format!("{model} @ {url}");
    }
    (safe(text("/http/method")), safe(&url))
}

/// What is of interest in a record of the journal's own.
fn own(record: &Value) -> String {
    const COMMON: [&str; 7] = ["event", "id", "seq", "time", "principal", "prev", "hash"];
    let Some(fields) = record.as_object() else {
        return String::new();
    };
    let shown: Vec<_> = fields
        .iter()
        .filter(|(key, _)| !COMMON.contains(&key.as_str()))
        .map(|(key, value)| match value.as_str() {
            Some(text) => format!("{}={}", safe(key), safe(text)),
            None => format!("{}={}", safe(key), safe(&value.to_string())),
        })
        .collect();
    shown.join(" ")
}

/// Escapes all that a terminal obeys or a reader can't see.
pub(super) fn safe(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_ascii_graphic() || c == ' ' || (!c.is_ascii() && c.is_alphanumeric()) {
            shown.push(c);
        } else {
            shown.extend(c.escape_unicode());
        }
    }
    shown
}

/// Takes the middle out: hosts begin a target and files end it.
fn shorten(text: &str) -> String {
    let count = text.chars().count();
    if count <= TARGET {
        return text.to_owned();
    }
    let begin: String = text.chars().take(TARGET * 2 / 3).collect();
    let end: String = text.chars().skip(count - TARGET / 3).collect();
    format!("{begin}\u{2026}{end}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn nothing_reaches_the_terminal_as_a_command() {
        let record = json!({
            "event": "exeat.egress.decision", "time": "2026-01-02T03:04:05.678901234Z",
            "destination": {"host": "a\u{1b}[2Jb\u{202e}", "port": 443}, "protocol": "h2",
            "http": {"method": "GET\r\n", "scheme": "https", "path": "/\u{9b}31m\u{2028}é"},
            "decision": "deny", "reason": "no_rule\u{7}",
        });
        let shown = Row::of(&record, None).show(false);
        assert!(shown.chars().all(|c| !c.is_control()), "{shown:?}");
        assert!(shown.contains("\\u{1b}[2J") && shown.contains("\\u{202e}") && shown.contains('é'));
    }

    #[test]
    fn rows_say_what_happened() {
        let mut record = json!({
            "event": "exeat.egress.decision", "time": "2026-01-02T03:04:05.678901234Z",
            "destination": {"host": "api.example", "port": 443}, "protocol": "h2",
            "http": {"method": "GET", "scheme": "https", "path": "/v1", "query": "q=*"},
            "decision": "allow", "reason": "allowed_by_rule", "policy": "p", "rule": "r",
        });
        let outcome = json!({"status": 200});
        assert_eq!(
            Row::of(&record, Some(&outcome)).show(false),
            "2026-01-02 03:04:05.678  allow    200     GET         \
             api.example/v1?q=*                        p/r"
        );
        assert!(Row::of(&record, None).show(false).contains("  open  "));
        record["decision"] = "deny".into();
        record["reason"] = "no_rule".into();
        record["count"] = 7.into();
        let shown = Row::of(&record, None).show(true);
        assert!(shown.contains("\u{1b}[31mdeny\u{1b}[0m"));
        assert!(shown.ends_with("no_rule (p/r)  \u{d7}7"), "{shown}");
    }
}
