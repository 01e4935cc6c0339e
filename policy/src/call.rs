//! The facts of one call, as the gate established them. Nothing here is a wish of the agent that
//! was not checked: the host is the one identity, the path is canonical, the body is parsed.

use std::fmt;

use http::{HeaderMap, Method};

use crate::body::{InferenceCall, McpCall};
use crate::host::Host;
use crate::path::Path;

/// Where a call goes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Destination {
    /// The host, as the gate identified it.
    pub host: Host,
    /// The port.
    pub port: u16,
}

/// One call to judge.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// Where it goes.
    pub destination: &'a Destination,
    /// What it speaks.
    pub protocol: Protocol<'a>,
}

/// What a call speaks, as far as the gate reads it.
#[derive(Debug, Clone, Copy)]
pub enum Protocol<'a> {
    /// Bytes on a declared tcp destination.
    Tcp,
    /// TLS that is passed through unread.
    Tls,
    /// An HTTP request.
    Http(&'a HttpCall),
}

/// One HTTP request.
#[derive(Debug, Clone)]
pub struct HttpCall {
    /// Whether it came, and will go, in TLS.
    pub scheme: Scheme,
    /// The method as sent.
    pub method: Method,
    /// The canonical path.
    pub path: Path,
    /// The query as sent, without `?`.
    pub query: Option<String>,
    /// The headers as sent.
    pub headers: HeaderMap,
    /// Whether it asks to become a WebSocket.
    pub websocket: bool,
    /// What was read of the body.
    pub content: Content,
}

/// What was read of a body.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    /// Nothing: no rule needs it.
    Unread,
    /// An MCP message, or a batch.
    Mcp(McpCall),
    /// A call to a model.
    Inference(InferenceCall),
    /// A rule needs it and it can't be understood: why. Denied.
    Invalid(String),
}

/// With TLS or without.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scheme {
    /// Without.
    Http,
    /// With.
    Https,
}

/// How the gate handles a connection, before it knows more than host and port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Treatment {
    /// Sniff, terminate TLS, judge each request.
    Intercept,
    /// Declared tcp: bytes both ways, no sniffing.
    Tcp,
    /// Declared passthrough: TLS by its server name, unread.
    Passthrough,
}

// === impl Scheme ===

impl Scheme {
    /// As it stands in a URL.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// 80 or 443.
    #[must_use]
    pub fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host.authority(), self.port)
    }
}
