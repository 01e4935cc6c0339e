//! What a record is made of: who called whom, what was decided and why, and how it ended.
//!
//! The types here hold the words of the agent and of upstreams as they came. They are capped,
//! escaped and redacted when a line is made of them (`line`), never before and nowhere else, so no
//! caller can forget to. In doubt a value is cut or hidden, and its hash kept.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use exeat_policy::Plan;

/// Whom this gate serves: written into every record.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Principal {
    /// Kubernetes namespace.
    pub namespace: Option<String>,
    /// Pod name; on one machine a name for the run.
    pub pod: Option<String>,
    /// Pod UID; on one machine the user's numeric id.
    pub uid: Option<String>,
    /// Service account.
    pub service_account: Option<String>,
    /// The labels that policies were selected by.
    pub labels: BTreeMap<String, String>,
}

/// The name of one decision: told to the agent, found again in the journal.
///
/// A UUID of version 7: sorts by time, and never repeats across gates or restarts.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DecisionId(u128);

/// One judgement of one call, to be written before anything comes of it.
#[derive(Debug, Clone)]
pub struct Decision {
    /// Its name.
    pub id: DecisionId,
    /// The generation that judged: of the operator's bundle, or counted by the gate where policies
    /// come from files.
    pub generation: u64,
    /// The digest of that bundle, or of the policies that apply.
    pub bundle: Arc<str>,
    /// The digest of those policies of the bundle that apply to this pod.
    pub plan: Option<Arc<str>>,
    /// The user id that owns the agent's socket, where the kernel tells.
    pub caller_uid: Option<u32>,
    /// Where the call wants to go.
    pub destination: Destination,
    /// What it speaks: `http/1.1`, `h2`, `websocket`, `tcp`, `tls`, `dns`, …
    pub protocol: &'static str,
    /// The HTTP request, if it is one.
    pub http: Option<Http>,
    /// The MCP calls in its body, if it has some.
    pub mcp: Option<Mcp>,
    /// The inference call in its body, if it is one.
    pub inference: Option<Inference>,
    /// The DNS question, if it is one.
    pub dns: Option<Dns>,
    /// What is known of bytes that are not read.
    pub tcp: Option<Tcp>,
    /// The verdict.
    pub allow: bool,
    /// Whether the policy was enforced or only watched.
    pub mode: Mode,
    /// Why, from the closed set (`exeat_policy::Reason::code`); `allowed_by_rule` for an allow.
    pub reason: Cow<'static, str>,
    /// Why, for a person.
    pub message: Option<String>,
    /// The policy that spoke.
    pub policy: Option<Arc<str>>,
    /// The rule that spoke.
    pub rule: Option<Arc<str>>,
    /// What enforcing would have denied (mode `shadow` only).
    pub shadowed: Option<Shadowed>,
    /// The name of the credential that will be added. Never its value.
    pub credential: Option<Arc<str>>,
    /// W3C trace id of the agent's request.
    pub trace_id: Option<[u8; 16]>,
    /// W3C span id of the agent's request.
    pub span_id: Option<[u8; 8]>,
}

/// Whether a policy is enforced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Mode {
    /// A denial stops the call.
    #[default]
    Enforce,
    /// Judged and recorded, and let pass.
    Shadow,
}

/// A denial that shadow mode did not carry out.
#[derive(Debug, Clone)]
pub struct Shadowed {
    /// Why it would have been denied.
    pub reason: Cow<'static, str>,
    /// The policy that would have denied.
    pub policy: Option<Arc<str>>,
    /// The rule that would have denied.
    pub rule: Option<Arc<str>>,
}

/// Where a call wants to go.
#[derive(Debug, Clone, Default)]
pub struct Destination {
    /// The name, as the gate established it.
    pub host: Option<String>,
    /// The port.
    pub port: u16,
    /// The address that the agent's own packets went to.
    pub address: Option<IpAddr>,
}

/// What is kept of an HTTP request.
#[derive(Debug, Clone, Default)]
pub struct Http {
    /// As sent.
    pub method: String,
    /// `http` or `https`.
    pub scheme: &'static str,
    /// The canonical path, without the query.
    pub path: String,
    /// The query as sent; only its keys are written.
    pub query: Option<String>,
    /// As the client names itself.
    pub user_agent: Option<String>,
}

/// What is kept of a body of MCP messages.
#[derive(Debug, Clone, Default)]
pub struct Mcp {
    /// One for each message of the body.
    pub calls: Vec<McpCall>,
}

/// One MCP message.
#[derive(Debug, Clone, Default)]
pub struct McpCall {
    /// JSON-RPC method.
    pub method: String,
    /// For `tools/call` the tool, for `prompts/get` the prompt, for `resources/read` the URI.
    pub name: Option<String>,
}

/// What is kept of an inference call.
#[derive(Debug, Clone, Default)]
pub struct Inference {
    /// Which API's shape it has: `openai.chat`, `anthropic.messages`, …
    pub dialect: Cow<'static, str>,
    /// The model asked for.
    pub model: Option<String>,
    /// Whether a stream was asked for.
    pub stream: bool,
    /// The most output tokens it asked for.
    pub max_output_tokens: Option<u64>,
}

/// A DNS question.
#[derive(Debug, Clone, Default)]
pub struct Dns {
    /// The name asked for.
    pub name: String,
    /// The record type asked for: `A`, `AAAA`, `TXT`, …
    pub kind: Cow<'static, str>,
}

/// What is known of a connection whose bytes are not read.
#[derive(Debug, Clone, Default)]
pub struct Tcp {
    /// True when what passes is not read by the gate.
    pub opaque: bool,
    /// The server name of a TLS ClientHello, if there was one.
    pub server_name: Option<String>,
}

/// How an allowed call ended.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The decision it belongs to.
    pub decision_id: DecisionId,
    /// HTTP status of the upstream's answer.
    pub status: Option<u16>,
    /// Bytes sent upstream (bodies, or all bytes of opaque connections).
    pub bytes_sent: u64,
    /// Bytes received from upstream.
    pub bytes_received: u64,
    /// From decision to end.
    pub duration: Duration,
    /// The address that was dialled.
    pub address: Option<SocketAddr>,
    /// Tokens, as the provider counted them.
    pub usage: Option<Usage>,
    /// What went wrong; absent when nothing did.
    pub error: Option<Cow<'static, str>>,
}

/// Tokens of an inference call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens read, cached ones included.
    pub input_tokens: u64,
    /// Tokens written, reasoning included.
    pub output_tokens: u64,
}

// === impl DecisionId ===

impl DecisionId {
    /// A new name.
    #[must_use]
    pub fn new() -> Self {
        // 62 bits of a UUID 7 are free: the first value is random for each process (so gates and
        // restarts never meet), then it counts (so no call needs the random generator).
        static NEXT: std::sync::LazyLock<AtomicU64> = std::sync::LazyLock::new(|| {
            let mut seed = [0u8; 8];
            let random = aws_lc_rs::rand::fill(&mut seed);
            debug_assert!(random.is_ok(), "the system's random generator failed");
            AtomicU64::new(u64::from_be_bytes(seed))
        });
        let low = NEXT.fetch_add(1, Ordering::Relaxed);
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let millis = since.as_millis() & 0xffff_ffff_ffff;
        let sub_milli = u128::from(since.subsec_nanos() % 1_000_000) * 0x1000 / 1_000_000;
        Self(
            (millis << 80)
                | (0x7 << 76)
                | (sub_milli << 64)
                | (0b10 << 62)
                | u128::from(low & (u64::MAX >> 2)),
        )
    }
}

impl DecisionId {
    /// As `Display`, without the formatting machinery: it is in every record.
    pub(super) fn write(self, out: &mut Vec<u8>) {
        let bytes = self.0.to_be_bytes();
        for (index, part) in [0..4, 4..6, 6..8, 8..10, 10..16].into_iter().enumerate() {
            if index > 0 {
                out.push(b'-');
            }
            super::line::hex(out, &bytes[part]);
        }
    }
}

impl Default for DecisionId {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for DecisionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n = self.0;
        write!(
            f,
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            n >> 96,
            (n >> 80) & 0xffff,
            (n >> 64) & 0xffff,
            (n >> 48) & 0xffff,
            n & 0xffff_ffff_ffff
        )
    }
}

impl fmt::Debug for DecisionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

// === impl Outcome ===

impl Outcome {
    /// The end of a call that nobody reported.
    #[must_use]
    pub fn abandoned(decision_id: DecisionId) -> Self {
        Self {
            decision_id,
            status: None,
            bytes_sent: 0,
            bytes_received: 0,
            duration: Duration::ZERO,
            address: None,
            usage: None,
            error: Some(Cow::Borrowed(super::receipt::ABANDONED)),
        }
    }
}

// === impl Mode ===

impl Mode {
    /// As it is written in records.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Shadow => "shadow",
        }
    }
}

// === impl Decision ===

impl Decision {
    /// A denial of `protocol` toward `destination` with nothing else known yet: the zero value.
    #[must_use]
    pub fn denied(protocol: &'static str, destination: Destination, reason: &'static str) -> Self {
        Self {
            id: DecisionId::new(),
            generation: 0,
            bundle: Arc::from(""),
            plan: None,
            caller_uid: None,
            destination,
            protocol,
            http: None,
            mcp: None,
            inference: None,
            dns: None,
            tcp: None,
            allow: false,
            mode: Mode::Enforce,
            reason: Cow::Borrowed(reason),
            message: None,
            policy: None,
            rule: None,
            shadowed: None,
            credential: None,
            trace_id: None,
            span_id: None,
        }
    }

    /// Names what judged it.
    pub fn judged_by(&mut self, plan: &Plan) {
        let digest = Arc::from(plan.digest());
        match plan.bundle() {
            None => (self.generation, self.bundle) = (plan.generation(), digest),
            Some(bundle) => {
                self.generation = bundle.generation;
                self.bundle = Arc::clone(&bundle.digest);
                self.plan = Some(digest);
            }
        }
    }
}
