//! A rule in its meant form: nothing of YAML is left, and it can't be wrong.

use std::collections::BTreeSet;
use std::sync::Arc;

use http::Method;
use ipnet::IpNet;

use crate::body::Provider;
use crate::call::Scheme;
use crate::credential::Credential;
use crate::expression::Expression;
use crate::path::Path;
use crate::pattern::{Glob, HostPattern, PathPattern};
use crate::verdict::UpstreamTls;

/// One rule of one policy.
#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) policy: Arc<str>,
    pub(crate) name: Arc<str>,
    pub(crate) scope: Scope,
    pub(crate) kind: Kind,
    pub(crate) when: Option<Expression>,
    pub(crate) credential: Option<Arc<Credential>>,
}

/// Where a rule applies.
#[derive(Debug, Clone)]
pub(crate) struct Scope {
    /// Empty: everywhere. Only denials can be.
    pub(crate) hosts: Vec<HostPattern>,
    /// Empty: all. Only denials can be.
    pub(crate) ports: Vec<u16>,
    /// None: both. Only denials can be.
    pub(crate) scheme: Option<Scheme>,
    pub(crate) addresses: Arc<[IpNet]>,
    pub(crate) passthrough: bool,
    pub(crate) tls: UpstreamTls,
}

/// What a rule applies to.
#[derive(Debug)]
pub(crate) enum Kind {
    Http(HttpMatch),
    Mcp(McpMatch),
    Tcp,
    Inference(InferenceMatch),
}

/// Requests.
#[derive(Debug, Clone, Default)]
pub(crate) struct HttpMatch {
    /// Empty: all but CONNECT and TRACE.
    pub(crate) methods: Vec<Method>,
    /// Empty: all.
    pub(crate) paths: Vec<PathPattern>,
}

/// Messages to an MCP server.
#[derive(Debug, Clone)]
pub(crate) struct McpMatch {
    /// None: wherever MCP is spoken. Only denials can be.
    pub(crate) path: Option<Path>,
    /// None: all. Only denials can be.
    pub(crate) tools: Option<BTreeSet<String>>,
    /// Methods beside the lifecycle and `tools/call`.
    pub(crate) methods: BTreeSet<String>,
}

/// Calls to models.
#[derive(Debug, Clone)]
pub(crate) struct InferenceMatch {
    pub(crate) provider: Provider,
    pub(crate) models: Vec<Glob>,
}

// === impl Rule ===

impl Rule {
    /// Whether this denial, as far as methods, paths and bodies go, is of everything.
    pub(crate) fn is_total(&self) -> bool {
        let all = match &self.kind {
            Kind::Http(http) => http.methods.is_empty() && http.paths.is_empty(),
            Kind::Tcp => true,
            Kind::Mcp(_) | Kind::Inference(_) => false,
        };
        all && self.when.is_none()
    }
}

// === impl Scope ===

impl Scope {
    pub(crate) fn port_matches(&self, port: u16) -> bool {
        self.ports.is_empty() || self.ports.contains(&port)
    }

    pub(crate) fn host_matches(&self, host: &crate::host::Host) -> bool {
        self.hosts.is_empty() || self.hosts.iter().any(|pattern| pattern.matches(host))
    }
}

// === impl HttpMatch ===

impl HttpMatch {
    /// CONNECT opens a tunnel and TRACE echoes secrets: only where they are named.
    pub(crate) fn method_matches(&self, method: &Method) -> bool {
        if self.methods.is_empty() {
            return !matches!(*method, Method::CONNECT | Method::TRACE);
        }
        self.methods.contains(method)
    }
}
