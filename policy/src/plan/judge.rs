//! One rule against one call. An allow says why not; a denial that can't be evaluated denies.

use std::borrow::Cow;

use http::Method;

use super::rule::{HttpMatch, InferenceMatch, Kind, McpMatch, Rule};
use super::table::Table;
use crate::body::{Endpoint, McpBody, McpCall, endpoint};
use crate::call::{Call, Content, Destination, HttpCall, Protocol, Scheme};
use crate::expression::{Expression, Facts, Failure};
use crate::path::Path;
use crate::reason::Reason;
use crate::verdict::Denial;

/// Methods of an MCP session that every rule for the server allows.
const LIFECYCLE: &[&str] = &[
    "initialize",
    "ping",
    "tools/list",
    "logging/setLevel",
    "server/discover",
];
/// Headers by which some servers replace the method.
const OVERRIDES: [&str; 3] = [
    "x-http-method-override",
    "x-method-override",
    "x-http-method",
];

/// Why a rule does not allow a call, from far to near.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Miss {
    Governed,
    Port,
    Protocol,
    Opaque,
    Scheme,
    Path,
    Endpoint,
    Websocket,
    Method(Method),
    Body(String),
    Tool(String),
    McpMethod(String),
    HostedTool(String),
    Model(String),
    False,
    Failure(String),
}

// === impl Miss ===

impl Miss {
    pub(super) fn rank(&self) -> u8 {
        match self {
            Self::Governed => 0,
            Self::Port => 1,
            Self::Protocol | Self::Opaque => 2,
            Self::Scheme => 3,
            Self::Path | Self::Endpoint => 4,
            Self::Websocket => 5,
            Self::Method(_) => 6,
            Self::Body(_) => 7,
            Self::Tool(_) | Self::McpMethod(_) | Self::HostedTool(_) | Self::Model(_) => 8,
            Self::False => 9,
            Self::Failure(_) => 10,
        }
    }

    pub(super) fn reason(&self) -> Reason {
        match self {
            Self::Governed
            | Self::Port
            | Self::Protocol
            | Self::Scheme
            | Self::Path
            | Self::Endpoint => Reason::NoRule,
            Self::Opaque | Self::Websocket => Reason::OpaqueNotAllowed,
            Self::Method(_) => Reason::MethodNotAllowed,
            Self::Body(_) => Reason::BodyInvalid,
            Self::Tool(_) | Self::McpMethod(_) => Reason::ToolNotAllowed,
            Self::HostedTool(_) => Reason::HostedToolNotAllowed,
            Self::Model(_) => Reason::ModelNotAllowed,
            Self::False => Reason::ExpressionFalse,
            Self::Failure(_) => Reason::ExpressionError,
        }
    }
}

/// Whether a rule is for this port and scheme.
pub(super) fn on_socket(rule: &Rule, destination: &Destination, scheme: Scheme) -> bool {
    rule.scope.port_matches(destination.port)
        && rule.scope.scheme.is_none_or(|own| own == scheme)
        && rule.scope.host_matches(&destination.host)
}

/// Whether two paths are one to a lenient server.
pub(super) fn same_loosely(a: &Path, b: &Path) -> bool {
    a == b || a.loose_segments() == b.loose_segments()
}

/// The methods that a server might take the request for. A rule must allow each of them.
pub(super) fn methods(http: &HttpCall) -> Result<Vec<Method>, String> {
    let mut methods = vec![http.method.clone()];
    for name in OVERRIDES {
        for value in http.headers.get_all(name) {
            let method = value
                .to_str()
                .ok()
                .map(|text| text.trim().to_ascii_uppercase())
                .and_then(|text| Method::from_bytes(text.as_bytes()).ok())
                .ok_or_else(|| format!("the header {name} names no method"))?;
            if !methods.contains(&method) {
                methods.push(method);
            }
        }
    }
    Ok(methods)
}

/// Whether this rule allows the call. Its host is known to match.
pub(super) fn allowed(rule: &Rule, call: &Call<'_>, governed: bool) -> Result<(), Miss> {
    if !rule.scope.port_matches(call.destination.port) {
        return Err(Miss::Port);
    }
    let http = match (call.protocol, &rule.kind) {
        (Protocol::Tcp, Kind::Tcp) => return Ok(()),
        (Protocol::Tls, Kind::Http(_)) if rule.scope.passthrough => return Ok(()),
        (Protocol::Tls, kind) if !matches!(kind, Kind::Tcp) => return Err(Miss::Opaque),
        (Protocol::Tcp | Protocol::Tls, _) | (Protocol::Http(_), Kind::Tcp) => {
            return Err(Miss::Protocol);
        }
        (Protocol::Http(_), _) if rule.scope.passthrough => return Err(Miss::Protocol),
        (Protocol::Http(http), _) => http,
    };
    if rule
        .scope
        .scheme
        .is_some_and(|scheme| scheme != http.scheme)
    {
        return Err(Miss::Scheme);
    }
    match &rule.kind {
        Kind::Http(_) if governed => Err(Miss::Governed),
        Kind::Http(matched) => allowed_http(rule, matched, call.destination, http),
        Kind::Mcp(matched) => allowed_mcp(rule, matched, call.destination, http),
        Kind::Inference(matched) => allowed_inference(rule, matched, call.destination, http),
        Kind::Tcp => Err(Miss::Protocol),
    }
}

fn allowed_http(
    rule: &Rule,
    matched: &HttpMatch,
    destination: &Destination,
    http: &HttpCall,
) -> Result<(), Miss> {
    let fitting = captures(matched, &http.path);
    if fitting.is_empty() {
        return Err(Miss::Path);
    }
    // Unreadable overrides were refused before.
    let methods = methods(http).map_err(Miss::Body)?;
    if let Some(method) = methods
        .iter()
        .find(|method| !matched.method_matches(method))
    {
        return Err(Miss::Method(method.clone()));
    }
    // Several patterns may fit, with different captures: all of them must satisfy `when`.
    for captures in &fitting {
        let facts = Facts {
            destination,
            http,
            captures,
            tool: None,
            inference: None,
        };
        judge_when(rule.when.as_ref(), &facts)?;
    }
    Ok(())
}

type Captures<'a> = Vec<(&'a str, Cow<'a, str>)>;

fn captures<'a>(matched: &'a HttpMatch, path: &'a Path) -> Vec<Captures<'a>> {
    if matched.paths.is_empty() {
        return vec![Vec::new()];
    }
    matched
        .paths
        .iter()
        .filter_map(|pattern| pattern.matches(path))
        .collect()
}

fn allowed_mcp(
    rule: &Rule,
    matched: &McpMatch,
    destination: &Destination,
    http: &HttpCall,
) -> Result<(), Miss> {
    if matched.path.as_ref() != Some(&http.path) {
        return Err(Miss::Path);
    }
    if http.websocket {
        return Err(Miss::Websocket);
    }
    // A GET that a server takes for a POST would have its body read there and not here.
    if methods(http).map_err(Miss::Body)?.len() > 1 {
        return Err(Miss::Body(
            "a method-override header on a call to an MCP server".to_owned(),
        ));
    }
    if !matches!(http.method, Method::GET | Method::POST | Method::DELETE) {
        return Err(Miss::Method(http.method.clone()));
    }
    let facts = Facts {
        destination,
        http,
        captures: &[],
        tool: None,
        inference: None,
    };
    // What reads `tool` judges tool calls; the rest judges every request.
    let (general, of_tools) = match &rule.when {
        Some(when) if when.reads_tool() => (None, Some(when)),
        when => (when.as_ref(), None),
    };
    let messages = match (&http.method, &http.content) {
        (&Method::POST, Content::Mcp(call)) => call.messages.as_slice(),
        // The stream that the server talks on, and the end of a session.
        (&Method::GET | &Method::DELETE, Content::Unread) => &[],
        _ => return Err(Miss::Body("the body was not read as MCP".to_owned())),
    };
    for message in messages {
        match &message.body {
            McpBody::Response => {}
            McpBody::Method { name } => {
                let notification = message.id.is_none() && name.starts_with("notifications/");
                if !notification
                    && !LIFECYCLE.contains(&name.as_str())
                    && !matched.methods.contains(name)
                {
                    return Err(Miss::McpMethod(name.clone()));
                }
            }
            McpBody::Tool { name, arguments } => {
                if !matched
                    .tools
                    .as_ref()
                    .is_some_and(|tools| tools.contains(name))
                {
                    return Err(Miss::Tool(name.clone()));
                }
                let tool = Some((name.as_str(), arguments));
                judge_when(of_tools, &Facts { tool, ..facts })?;
            }
        }
    }
    judge_when(general, &facts)
}

fn allowed_inference(
    rule: &Rule,
    matched: &InferenceMatch,
    destination: &Destination,
    http: &HttpCall,
) -> Result<(), Miss> {
    if http.websocket {
        return Err(Miss::Websocket);
    }
    if methods(http).map_err(Miss::Body)?.len() > 1 {
        return Err(Miss::Body(
            "a method-override header on a call to a model".to_owned(),
        ));
    }
    let facts = Facts {
        destination,
        http,
        captures: &[],
        tool: None,
        inference: None,
    };
    match endpoint(matched.provider, &http.method, &http.path) {
        None => Err(Miss::Endpoint),
        Some(Endpoint::Catalogue) => match &rule.when {
            // The list of models has none to judge.
            Some(when) if when.reads_inference() => Ok(()),
            when => judge_when(when.as_ref(), &facts),
        },
        Some(Endpoint::Model(dialect)) => {
            let call = match &http.content {
                Content::Inference(call) if call.dialect == dialect => call,
                _ => {
                    return Err(Miss::Body(
                        "the body was not read as a call to a model".to_owned(),
                    ));
                }
            };
            let unlisted = call
                .models
                .iter()
                .find(|model| !matched.models.iter().any(|glob| glob.matches(model)));
            if let Some(model) = unlisted {
                return Err(Miss::Model(model.clone()));
            }
            if let Some(tool) = call.hosted_tools.first() {
                return Err(Miss::HostedTool(tool.clone()));
            }
            let inference = Some(call);
            judge_when(rule.when.as_ref(), &Facts { inference, ..facts })
        }
    }
}

fn judge_when(when: Option<&Expression>, facts: &Facts<'_>) -> Result<(), Miss> {
    match when.map(|when| when.evaluate(facts)) {
        None | Some(Ok(true)) => Ok(()),
        Some(Ok(false)) => Err(Miss::False),
        Some(Err(Failure(why))) => Err(Miss::Failure(why)),
    }
}

/// An error if some denial of this table matches, or can't be evaluated.
pub(super) fn denied(table: &Table, call: &Call<'_>) -> Result<(), Denial> {
    denied_by("the policy", table, call)
}

/// The same for the denials of guardrails.
pub(super) fn guarded(table: &Table, call: &Call<'_>) -> Result<(), Denial> {
    denied_by("a guardrail of the cluster", table, call)
}

fn denied_by(whose: &str, table: &Table, call: &Call<'_>) -> Result<(), Denial> {
    let path = match call.protocol {
        Protocol::Http(http) => Some(&http.path),
        Protocol::Tcp | Protocol::Tls => None,
    };
    for rule in table.candidates(&call.destination.host, path) {
        let (reason, why) = match denies(rule, call) {
            Ok(false) => continue,
            Ok(true) => (
                Reason::DeniedByRule,
                format!("rule {} of {whose} denies it", rule.name),
            ),
            Err(Failure(why)) => (
                Reason::ExpressionError,
                format!(
                    "rule {} of {whose} denies it, because its `when` failed: {why}",
                    rule.name
                ),
            ),
        };
        return Err(Denial {
            reason,
            message: format!("{} was refused: {why}", super::message::subject(call)),
            policy: Some(rule.policy.clone()),
            rule: Some(rule.name.clone()),
        });
    }
    Ok(())
}

/// Whether this denial matches.
pub(super) fn denies(rule: &Rule, call: &Call<'_>) -> Result<bool, Failure> {
    if !rule.scope.port_matches(call.destination.port) {
        return Ok(false);
    }
    // A denial of tcp is of whatever is spoken there.
    if matches!(rule.kind, Kind::Tcp) {
        return Ok(true);
    }
    let http = match call.protocol {
        Protocol::Http(http) => http,
        // Unread, it may be what is denied. Denials that name no host are not about it.
        Protocol::Tcp => {
            let total = rule.is_total() && rule.scope.scheme.is_none();
            return Ok(total || !rule.scope.hosts.is_empty());
        }
        Protocol::Tls => {
            let of_https = rule.scope.scheme != Some(Scheme::Http);
            return Ok(of_https && (rule.is_total() || !rule.scope.hosts.is_empty()));
        }
    };
    if rule
        .scope
        .scheme
        .is_some_and(|scheme| scheme != http.scheme)
    {
        return Ok(false);
    }
    let facts = Facts {
        destination: call.destination,
        http,
        captures: &[],
        tool: None,
        inference: None,
    };
    match &rule.kind {
        Kind::Tcp => Ok(true),
        Kind::Http(matched) => denies_http(rule, matched, &facts),
        Kind::Mcp(matched) => denies_mcp(rule, matched, &facts),
        Kind::Inference(_) => Ok(false),
    }
}

fn denies_http(rule: &Rule, matched: &HttpMatch, facts: &Facts<'_>) -> Result<bool, Failure> {
    let http = facts.http;
    let methods = methods(http).unwrap_or_default();
    if !matched.methods.is_empty()
        && !methods
            .iter()
            .any(|method| matched.methods.contains(method))
    {
        return Ok(false);
    }
    if !matched.paths.is_empty() {
        let loose = http.path.loose_segments();
        if !matched
            .paths
            .iter()
            .any(|path| path.matches_loosely(&http.path, &loose))
        {
            return Ok(false);
        }
    }
    let Some(when) = &rule.when else {
        return Ok(true);
    };
    // Where only the loose form fits, there are no captures, and a `when` that reads one fails:
    // that denies.
    let mut fitting = captures(matched, &http.path);
    if fitting.is_empty() {
        fitting.push(Vec::new());
    }
    for captures in &fitting {
        if when.evaluate(&Facts { captures, ..*facts })? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn denies_mcp(rule: &Rule, matched: &McpMatch, facts: &Facts<'_>) -> Result<bool, Failure> {
    let here = matched
        .path
        .as_ref()
        .map(|path| same_loosely(path, &facts.http.path));
    if here == Some(false) {
        return Ok(false);
    }
    let messages = match &facts.http.content {
        Content::Mcp(McpCall { messages, .. }) => messages.as_slice(),
        // All of a server is denied, or its body should have been read and was not.
        _ if here == Some(true)
            && (matched.tools.is_none() || facts.http.method == Method::POST) =>
        {
            return match &rule.when {
                Some(when) if !when.reads_tool() => when.evaluate(facts),
                _ => Ok(true),
            };
        }
        _ => &[],
    };
    let all = matched.tools.is_none() && here == Some(true);
    for message in messages {
        let tool = match &message.body {
            McpBody::Tool { name, arguments } => Some((name.as_str(), arguments)),
            _ => None,
        };
        let named = match (tool, &matched.tools) {
            (Some((name, _)), Some(tools)) => tools.contains(name),
            (Some(_), None) => true,
            (None, _) => all,
        };
        let facts = Facts { tool, ..*facts };
        let hit = match &rule.when {
            _ if !named => false,
            None => true,
            Some(when) if tool.is_none() && when.reads_tool() => false,
            Some(when) => when.evaluate(&facts)?,
        };
        if hit {
            return Ok(true);
        }
    }
    Ok(false)
}
