//! Records made into JSON: in a fixed order, in printable ASCII, every value capped.
//!
//! All that is not printable ASCII is written as `\uXXXX`, so a journal can be shown on any terminal
//! as it is, and a name that only looks like another is seen to. A value that was cut or hidden
//! keeps the SHA-256 of what it was.

use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use super::record::{
    Decision, Destination, Dns, Http, Inference, Mcp, Mode, Outcome, Principal, Tcp,
};
use super::redact;

/// Longest host name that DNS allows.
const HOST_CAP: usize = 255;
/// Enough for the paths people write; longer ones are data.
const PATH_CAP: usize = 2048;
/// Keys only, so half of a path's.
const QUERY_CAP: usize = 1024;
/// Names of tools, models, rules, policies, credentials.
const NAME_CAP: usize = 256;
/// Methods, dialects, codes: closed sets, or the agent's invention.
const WORD_CAP: usize = 64;
/// A sentence or two.
const MESSAGE_CAP: usize = 512;
/// MCP messages named in one record; those beyond are counted.
const CALLS_CAP: usize = 16;
/// Pod labels written; Kubernetes sets no limit of its own to their number.
const LABELS_CAP: usize = 32;
/// Longest label key that Kubernetes allows: a DNS name, a slash, and 63 characters.
const LABEL_KEY_CAP: usize = 317;
/// Longest label value that Kubernetes allows.
const LABEL_VALUE_CAP: usize = 63;

/// Writes one JSON object at the end of a buffer.
struct Object<'a> {
    out: &'a mut Vec<u8>,
    comma: bool,
}

/// What may be shown of a value.
#[derive(Clone, Copy)]
enum Show {
    /// All of it.
    Whole,
    /// Words that look like tokens are hidden.
    Words,
    /// As a path or URI: words, and every query value.
    Uri,
    /// Keys only.
    Query,
}

/// The fields of a decision, from `principal` to `span_id`, without the braces.
pub(super) fn decision(out: &mut Vec<u8>, principal: &[u8], decision: &Decision) {
    out.extend_from_slice(principal);
    let mut object = Object { out, comma: true };
    if let Some(uid) = decision.caller_uid {
        object.object("caller", |caller| caller.number("uid", uid.into()));
    }
    object.object("destination", |o| destination(o, &decision.destination));
    object.text("protocol", decision.protocol, WORD_CAP, Show::Whole);
    if let Some(it) = &decision.http {
        object.object("http", |o| http(o, it));
    }
    if let Some(it) = &decision.mcp {
        object.object("mcp", |o| mcp(o, it));
    }
    if let Some(it) = &decision.inference {
        object.object("inference", |o| inference(o, it));
    }
    if let Some(it) = &decision.dns {
        object.object("dns", |o| dns(o, it));
    }
    if let Some(it) = &decision.tcp {
        object.object("tcp", |o| tcp(o, it));
    }
    object.literal("decision", if decision.allow { "allow" } else { "deny" });
    object.literal("mode", decision.mode.as_str());
    object.text("reason", &decision.reason, WORD_CAP, Show::Whole);
    object.maybe(
        "message",
        decision.message.as_deref(),
        MESSAGE_CAP,
        Show::Words,
    );
    object.maybe("policy", decision.policy.as_deref(), NAME_CAP, Show::Whole);
    object.maybe("rule", decision.rule.as_deref(), NAME_CAP, Show::Whole);
    if let (Mode::Shadow, Some(shadowed)) = (decision.mode, &decision.shadowed) {
        object.object("shadowed", |o| {
            o.text("reason", &shadowed.reason, WORD_CAP, Show::Whole);
            o.maybe("policy", shadowed.policy.as_deref(), NAME_CAP, Show::Whole);
            o.maybe("rule", shadowed.rule.as_deref(), NAME_CAP, Show::Whole);
        });
    }
    object.number("generation", decision.generation);
    object.text("bundle", &decision.bundle, NAME_CAP, Show::Whole);
    object.maybe("plan", decision.plan.as_deref(), NAME_CAP, Show::Whole);
    object.maybe(
        "credential",
        decision.credential.as_deref(),
        NAME_CAP,
        Show::Whole,
    );
    if let Some(id) = decision.trace_id {
        object.hex("trace_id", &id);
    }
    if let Some(id) = decision.span_id {
        object.hex("span_id", &id);
    }
}

/// The fields of an outcome, from `principal` to `error`, without the braces.
pub(super) fn outcome(out: &mut Vec<u8>, principal: &[u8], outcome: &Outcome) {
    out.extend_from_slice(principal);
    let mut object = Object { out, comma: true };
    object.display("decision_id", outcome.decision_id);
    if let Some(status) = outcome.status {
        object.number("status", status.into());
    }
    object.object("bytes", |bytes| {
        bytes.number("sent", outcome.bytes_sent);
        bytes.number("received", outcome.bytes_received);
    });
    object.number(
        "duration_us",
        u64::try_from(outcome.duration.as_micros()).unwrap_or(u64::MAX),
    );
    if let Some(address) = outcome.address {
        object.display("address", address);
    }
    if let Some(usage) = outcome.usage {
        object.object("usage", |o| {
            o.number("input_tokens", usage.input_tokens);
            o.number("output_tokens", usage.output_tokens);
        });
    }
    object.maybe("error", outcome.error.as_deref(), MESSAGE_CAP, Show::Words);
}

/// `"principal":{…}`: rendered once, for it is in every record.
pub(super) fn principal(principal: &Principal) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    Object {
        out: &mut out,
        comma: false,
    }
    .object("principal", |o| {
        o.maybe(
            "namespace",
            principal.namespace.as_deref(),
            NAME_CAP,
            Show::Whole,
        );
        o.maybe("pod", principal.pod.as_deref(), NAME_CAP, Show::Whole);
        o.maybe("uid", principal.uid.as_deref(), NAME_CAP, Show::Whole);
        o.maybe(
            "service_account",
            principal.service_account.as_deref(),
            NAME_CAP,
            Show::Whole,
        );
        if !principal.labels.is_empty() {
            o.object("labels", |labels| {
                for (key, value) in principal.labels.iter().take(LABELS_CAP) {
                    labels.key(cut(key, LABEL_KEY_CAP));
                    string(labels.out, cut(value, LABEL_VALUE_CAP));
                }
            });
        }
    });
    out
}

/// `,"count":…` and the times between which so many equal denials came.
pub(super) fn count(out: &mut Vec<u8>, count: u64, first: SystemTime, last: SystemTime) {
    let mut object = Object { out, comma: true };
    object.number("count", count);
    object.key("first_time");
    time(object.out, first);
    object.key("last_time");
    time(object.out, last);
}

/// A flat object's fields after `principal`, for the journal's own records.
pub(super) fn fields(out: &mut Vec<u8>, principal: &[u8], fields: &[(&'static str, Field<'_>)]) {
    out.extend_from_slice(principal);
    let mut object = Object { out, comma: true };
    for (key, value) in fields {
        match value {
            Field::Number(number) => object.number(key, *number),
            Field::Text(text) => object.text(key, text, MESSAGE_CAP, Show::Words),
            Field::Own(text) => object.literal(key, text),
            Field::Hex(bytes) => object.hex(key, bytes),
        }
    }
}

/// A value of one of the journal's own records.
#[derive(Debug, Clone, Copy)]
pub(super) enum Field<'a> {
    Number(u64),
    Text(&'a str),
    /// Of our own making, and plain.
    Own(&'a str),
    /// Keys, signatures.
    Hex(&'a [u8]),
}

fn destination(o: &mut Object<'_>, it: &Destination) {
    o.maybe("host", it.host.as_deref(), HOST_CAP, Show::Whole);
    o.number("port", it.port.into());
    if let Some(address) = it.address {
        o.display("address", address);
    }
}

fn http(o: &mut Object<'_>, it: &Http) {
    o.text("method", &it.method, WORD_CAP, Show::Words);
    o.text("scheme", it.scheme, WORD_CAP, Show::Whole);
    o.text("path", &it.path, PATH_CAP, Show::Uri);
    o.maybe("query", it.query.as_deref(), QUERY_CAP, Show::Query);
    o.maybe(
        "user_agent",
        it.user_agent.as_deref(),
        NAME_CAP,
        Show::Words,
    );
}

fn mcp(o: &mut Object<'_>, it: &Mcp) {
    o.key("calls");
    o.out.push(b'[');
    for (index, call) in it.calls.iter().take(CALLS_CAP).enumerate() {
        if index > 0 {
            o.out.push(b',');
        }
        o.out.push(b'{');
        let mut inner = Object {
            out: o.out,
            comma: false,
        };
        inner.text("method", &call.method, WORD_CAP, Show::Words);
        inner.maybe("name", call.name.as_deref(), NAME_CAP, Show::Uri);
        o.out.push(b'}');
    }
    o.out.push(b']');
    o.number("count", it.calls.len() as u64);
}

fn inference(o: &mut Object<'_>, it: &Inference) {
    o.text("dialect", &it.dialect, WORD_CAP, Show::Whole);
    o.maybe("model", it.model.as_deref(), NAME_CAP, Show::Words);
    o.key("stream");
    o.out
        .extend_from_slice(if it.stream { b"true" } else { b"false" });
    if let Some(limit) = it.max_output_tokens {
        o.number("max_output_tokens", limit);
    }
}

fn dns(o: &mut Object<'_>, it: &Dns) {
    o.text("name", &it.name, HOST_CAP, Show::Whole);
    o.text("type", &it.kind, WORD_CAP, Show::Whole);
}

fn tcp(o: &mut Object<'_>, it: &Tcp) {
    o.key("opaque");
    o.out
        .extend_from_slice(if it.opaque { b"true" } else { b"false" });
    o.maybe(
        "server_name",
        it.server_name.as_deref(),
        HOST_CAP,
        Show::Whole,
    );
}

// === impl Object ===

impl Object<'_> {
    fn key(&mut self, key: &str) {
        if self.comma {
            self.out.push(b',');
        }
        self.comma = true;
        string(self.out, key);
        self.out.push(b':');
    }

    fn object(&mut self, key: &str, fill: impl FnOnce(&mut Object<'_>)) {
        self.key(key);
        self.out.push(b'{');
        fill(&mut Object {
            out: self.out,
            comma: false,
        });
        self.out.push(b'}');
    }

    /// A value that is known to be plain.
    fn literal(&mut self, key: &str, value: &str) {
        self.key(key);
        string(self.out, value);
    }

    fn display(&mut self, key: &str, value: impl std::fmt::Display) {
        self.key(key);
        self.out.push(b'"');
        write(self.out, format_args!("{value}"));
        self.out.push(b'"');
    }

    fn number(&mut self, key: &str, value: u64) {
        self.key(key);
        number(self.out, value);
    }

    fn hex(&mut self, key: &str, value: &[u8]) {
        self.key(key);
        self.out.push(b'"');
        hex(self.out, value);
        self.out.push(b'"');
    }

    fn maybe(&mut self, key: &str, value: Option<&str>, cap: usize, show: Show) {
        if let Some(value) = value {
            self.text(key, value, cap, show);
        }
    }

    /// A value of anyone's: hidden as `show` says, cut at `cap`, with the hash of what it was.
    fn text(&mut self, key: &str, value: &str, cap: usize, show: Show) {
        // Only so much is looked at: the cost must not grow with what the agent sends.
        let seen = cut(value, cap * 2);
        let shown = match show {
            Show::Whole => std::borrow::Cow::Borrowed(seen),
            Show::Words => redact::words(seen),
            Show::Uri => redact::uri(seen),
            Show::Query => redact::query(seen),
        };
        let written = cut(&shown, cap);
        self.literal(key, written);
        if written.len() < shown.len() || seen.len() < value.len() {
            self.key(&format!("{key}_truncated"));
            self.out.extend_from_slice(b"true");
        }
        if written != value {
            let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, value.as_bytes());
            self.hex(&format!("{key}_sha256"), digest.as_ref());
        }
    }
}

/// The longest beginning of `text` of at most `cap` bytes.
fn cut(text: &str, cap: usize) -> &str {
    &text[..text.floor_char_boundary(cap)]
}

/// A JSON string of printable ASCII.
fn string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let plain = |b: u8| (0x20..0x7f).contains(&b) && b != b'"' && b != b'\\';
    if text.bytes().all(plain) {
        out.extend_from_slice(text.as_bytes());
    } else {
        for c in text.chars() {
            match c {
                '"' => out.extend_from_slice(b"\\\""),
                '\\' => out.extend_from_slice(b"\\\\"),
                ' '..='~' => out.push(c as u8),
                _ => {
                    let mut units = [0; 2];
                    for unit in c.encode_utf16(&mut units) {
                        write(out, format_args!("\\u{unit:04x}"));
                    }
                }
            }
        }
    }
    out.push(b'"');
}

/// A decimal number, without the formatting machinery: it is in every record several times.
pub(super) fn number(out: &mut Vec<u8>, value: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    let mut rest = value;
    loop {
        at -= 1;
        let digit = (rest % 10) as u8;
        digits[at] = b'0' + digit;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// Lower-case hexadecimal.
pub(super) fn hex(out: &mut Vec<u8>, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        out.push(DIGITS[usize::from(byte >> 4)]);
        out.push(DIGITS[usize::from(byte & 15)]);
    }
}

/// `"2026-01-02T03:04:05.123456789Z"`: RFC 3339, UTC, always nine digits.
pub(super) fn time(out: &mut Vec<u8>, at: SystemTime) {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (seconds, nanos) = (since.as_secs(), since.subsec_nanos());
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    out.push(b'"');
    padded(out, year, 4);
    out.push(b'-');
    padded(out, month, 2);
    out.push(b'-');
    padded(out, day, 2);
    out.push(b'T');
    padded(out, of_day / 3600, 2);
    out.push(b':');
    padded(out, of_day / 60 % 60, 2);
    out.push(b':');
    padded(out, of_day % 60, 2);
    out.push(b'.');
    padded(out, nanos.into(), 9);
    out.extend_from_slice(b"Z\"");
}

fn padded(out: &mut Vec<u8>, value: u64, width: usize) {
    let start = out.len();
    out.resize(start + width, b'0');
    let mut rest = value;
    for place in out[start..].iter_mut().rev() {
        let digit = (rest % 10) as u8;
        *place = b'0' + digit;
        rest /= 10;
    }
}

/// The Gregorian date of a day since 1970-01-01, in years that begin with March, so that the leap
/// day is the last.
fn civil(days: u64) -> (u64, u64, u64) {
    // 719 468 days lie between 0000-03-01 and 1970-01-01; 146 097 days are 400 years.
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let of_era = shifted % 146_097;
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + u64::from(month <= 2), month, day)
}

/// Formatting into bytes cannot fail.
fn write(out: &mut Vec<u8>, arguments: std::fmt::Arguments<'_>) {
    struct Bytes<'a>(&'a mut Vec<u8>);
    impl std::fmt::Write for Bytes<'_> {
        fn write_str(&mut self, text: &str) -> std::fmt::Result {
            self.0.extend_from_slice(text.as_bytes());
            Ok(())
        }
    }
    let written = Bytes(out).write_fmt(arguments);
    debug_assert!(written.is_ok(), "a Vec takes all");
}

#[cfg(test)]
#[path = "line/tests.rs"]
mod tests;
