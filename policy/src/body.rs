//! What a rule must see of a body, and the strict reading of it.
//!
//! A body that two parsers might read differently (duplicate keys, keys that differ in case only,
//! a byte order mark, an encoding) is [`Content::Invalid`], and that is a denial.

mod inference;
mod json;
mod mcp;

use serde_json::Value;

use crate::call::{Content, HttpCall};

pub use inference::{Dialect, Provider};
pub(crate) use inference::{Endpoint, endpoint};

/// An MCP message larger than this is denied: arguments are data for a tool, not files.
pub const MCP_LIMIT: usize = 1024 * 1024;
/// A model call larger than this is denied: long conversations with images fit.
pub const INFERENCE_LIMIT: usize = 8 * 1024 * 1024;

/// What the gate must read of a body before [`crate::Plan::decide`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyNeed {
    /// Nothing: stream it.
    Unread,
    /// All of it, up to the limit, as JSON-RPC; with a limit of 0, only that there is none.
    Mcp {
        /// In bytes.
        limit: usize,
    },
    /// All of it, up to the limit, as a model call.
    Inference {
        /// Whose shape it has.
        dialect: Dialect,
        /// In bytes.
        limit: usize,
    },
}

/// One HTTP body's worth of MCP.
#[derive(Debug, Clone, PartialEq)]
pub struct McpCall {
    /// Whether the body was an array: replies to it are arrays too.
    pub batch: bool,
    /// The messages, in order. Never empty.
    pub messages: Vec<McpMessage>,
}

/// One JSON-RPC message.
#[derive(Debug, Clone, PartialEq)]
pub struct McpMessage {
    /// The id, if it has one (a notification has none).
    pub id: Option<RpcId>,
    /// What it asks.
    pub body: McpBody,
}

/// What an MCP message asks.
#[derive(Debug, Clone, PartialEq)]
pub enum McpBody {
    /// `tools/call`.
    Tool {
        /// The tool, as sent.
        name: String,
        /// Its arguments; an empty object where none were sent.
        arguments: Value,
    },
    /// Any other method.
    Method {
        /// The method, as sent.
        name: String,
    },
    /// An answer to a question of the server's.
    Response,
}

/// A JSON-RPC id, to answer under.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RpcId {
    /// A number; fractions are refused.
    Number(i64),
    /// A text.
    Text(String),
}

/// What matters of a model call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InferenceCall {
    /// Whose shape it has.
    pub dialect: Dialect,
    /// The model asked for.
    pub model: String,
    /// Every model that the request may make the provider run, the one above first.
    pub models: Vec<String>,
    /// Whether the answer is to be streamed.
    pub stream: bool,
    /// Tools that the provider would run itself, by their type.
    pub hosted_tools: Vec<String>,
}

// === impl BodyNeed ===

impl BodyNeed {
    /// Reads a body. Never fails: what can't be read is [`Content::Invalid`].
    #[must_use]
    pub fn parse(&self, call: &HttpCall, body: &[u8]) -> Content {
        if *self == Self::Unread {
            return Content::Unread;
        }
        if body.len() > self.limit() {
            return Content::Invalid(format!("the body is over {} bytes", self.limit()));
        }
        let read = match self {
            Self::Unread | Self::Mcp { limit: 0 } => return Content::Unread,
            Self::Mcp { .. } => headers(call)
                .and_then(|()| mcp::read(call, body))
                .map(Content::Mcp),
            Self::Inference { dialect, .. } => headers(call)
                .and_then(|()| inference::read(*dialect, body))
                .map(Content::Inference),
        };
        read.unwrap_or_else(Content::Invalid)
    }

    /// How many bytes to read at most; 0 for none.
    #[must_use]
    pub fn limit(&self) -> usize {
        match self {
            Self::Unread => 0,
            Self::Mcp { limit } | Self::Inference { limit, .. } => *limit,
        }
    }
}

// === impl RpcId ===

impl RpcId {
    /// As JSON.
    #[must_use]
    pub fn to_json(&self) -> Value {
        match self {
            Self::Number(n) => Value::from(*n),
            Self::Text(t) => Value::from(t.clone()),
        }
    }
}

/// A body that is not plainly JSON might be read otherwise upstream.
fn headers(call: &HttpCall) -> Result<(), String> {
    for encoding in call.headers.get_all(http::header::CONTENT_ENCODING) {
        if !encoding.as_bytes().eq_ignore_ascii_case(b"identity") {
            return Err("the body has a content-encoding; send it plain".to_owned());
        }
    }
    let mut types = call.headers.get_all(http::header::CONTENT_TYPE).iter();
    let (Some(kind), None) = (types.next(), types.next()) else {
        return Err("the body needs exactly one content-type: application/json".to_owned());
    };
    let kind = kind.to_str().unwrap_or_default();
    let (essence, parameters) = kind.split_once(';').unwrap_or((kind, ""));
    let charset = parameters.trim().to_ascii_lowercase();
    let plain = matches!(charset.as_str(), "" | "charset=utf-8" | "charset=\"utf-8\"");
    if !essence.trim().eq_ignore_ascii_case("application/json") || !plain {
        return Err("the content-type must be application/json in UTF-8".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests;
