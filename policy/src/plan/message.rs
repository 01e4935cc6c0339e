//! What a refused caller is told: what was asked, and which rule came nearest and what it allows.

use super::judge::Miss;
use super::rule::{Kind, Rule};
use crate::call::{Call, Protocol};
use crate::expression::Expression;
use crate::pattern::HostPattern;
use crate::reason::Reason;
use crate::verdict::Denial;

/// Rules of one host that are looked at for a hint.
pub(super) const MAX_LOOKED_AT: usize = 64;
/// Characters of what the caller sent that a message repeats.
const MAX_ECHO: usize = 160;
/// Items of a list that a message repeats.
const MAX_LISTED: usize = 8;

/// `POST api.github.com/x`.
pub(super) fn subject(call: &Call<'_>) -> String {
    let destination = call.destination;
    match call.protocol {
        Protocol::Tcp => format!("tcp {destination}"),
        Protocol::Tls => format!("unread TLS to {destination}"),
        Protocol::Http(http) => {
            let mut text = format!("{} ", http.method);
            if http.scheme == crate::call::Scheme::Http {
                text.push_str("http://");
            }
            text.push_str(&destination.host.authority());
            if destination.port != http.scheme.default_port() {
                text = format!("{text}:{}", destination.port);
            }
            text.push_str(http.path.as_str());
            if http.websocket {
                text.push_str(" (WebSocket)");
            }
            echo(&text)
        }
    }
}

pub(super) fn denial(call: &Call<'_>, nearest: Option<(Miss, &Rule)>) -> Denial {
    let subject = subject(call);
    let Some((miss, rule)) = nearest else {
        let reason = match call.protocol {
            Protocol::Tls => Reason::OpaqueNotAllowed,
            Protocol::Tcp | Protocol::Http(_) => Reason::NoRule,
        };
        let host = &call.destination.host;
        return Denial::new(
            reason,
            format!("no rule allows {subject}; no rule names the host {host}"),
        );
    };
    Denial {
        reason: miss.reason(),
        message: format!("no rule allows {subject}; {}", hint(&miss, rule)),
        policy: Some(rule.policy.clone()),
        rule: Some(rule.name.clone()),
    }
}

/// What the rule would have allowed instead.
pub(super) fn hint(miss: &Miss, rule: &Rule) -> String {
    let name = format!("rule {}", rule.name);
    let scope = &rule.scope;
    match miss {
        Miss::Governed => {
            format!("{name} does not apply to a server whose bodies another rule judges")
        }
        Miss::Port => {
            let hosts = list(scope.hosts.iter().map(HostPattern::to_string));
            let ports = list(scope.ports.iter().map(u16::to_string));
            format!("{name} allows {hosts} on port {ports}")
        }
        Miss::Protocol => match &rule.kind {
            Kind::Tcp => format!("{name} allows unread tcp there"),
            _ if scope.passthrough => format!("{name} lets TLS pass there unread"),
            _ => format!("{name} allows requests there, not unread tcp"),
        },
        Miss::Opaque => format!("{name} allows requests there, which must be readable"),
        Miss::Scheme => {
            let scheme = scope.scheme.map_or("https", crate::call::Scheme::as_str);
            format!("{name} allows it over {scheme} only")
        }
        Miss::Path => match &rule.kind {
            Kind::Mcp(mcp) => {
                let path = mcp
                    .path
                    .as_ref()
                    .map(ToString::to_string)
                    .unwrap_or_default();
                format!("{name} allows MCP at {path}")
            }
            Kind::Http(http) => {
                let paths = list(http.paths.iter().map(ToString::to_string));
                format!("{name} allows {paths}")
            }
            Kind::Tcp | Kind::Inference(_) => format!("{name} is for other paths"),
        },
        Miss::Endpoint => format!("{name} allows calls to models, and this path is none"),
        Miss::Websocket => format!("{name} can't judge what goes through a WebSocket"),
        Miss::Method(method) => match &rule.kind {
            Kind::Http(http) if http.methods.is_empty() => {
                format!("{name} allows all methods but CONNECT and TRACE")
            }
            Kind::Http(http) => {
                let methods = list(http.methods.iter().map(ToString::to_string));
                format!("{name} allows {methods}")
            }
            _ => format!("{name} does not allow {}", echo(method.as_str())),
        },
        Miss::Body(why) => format!("{name} could not judge it: {why}"),
        Miss::Tool(tool) => {
            let tools = match &rule.kind {
                Kind::Mcp(mcp) => list(mcp.tools.iter().flatten().cloned()),
                _ => String::new(),
            };
            format!(
                "{name} does not allow the tool {:?}; it allows {tools}",
                echo(tool)
            )
        }
        Miss::McpMethod(method) => format!(
            "{name} does not allow the MCP method {:?}; `methods` in it can allow more than tools",
            echo(method)
        ),
        Miss::HostedTool(tool) => format!(
            "the request has the provider run {:?} itself, outside of this gate, which no rule can allow yet",
            echo(tool)
        ),
        Miss::Model(model) => {
            let models = match &rule.kind {
                Kind::Inference(inference) => {
                    list(inference.models.iter().map(|glob| glob.as_str().to_owned()))
                }
                _ => String::new(),
            };
            format!(
                "{name} does not allow the model {:?}; it allows {models}",
                echo(model)
            )
        }
        Miss::False => format!("`when` of {name} is false: {}", when(rule)),
        Miss::Failure(why) => format!("`when` of {name} failed: {why}"),
    }
}

fn when(rule: &Rule) -> String {
    let source = rule
        .when
        .as_ref()
        .map(Expression::source)
        .unwrap_or_default();
    echo(&source.split_whitespace().collect::<Vec<_>>().join(" "))
}

fn list(items: impl Iterator<Item = String>) -> String {
    let items: Vec<String> = items.collect();
    let more = items.len().saturating_sub(MAX_LISTED);
    let mut text = items
        .into_iter()
        .take(MAX_LISTED)
        .collect::<Vec<_>>()
        .join(", ");
    if more > 0 {
        text = format!("{text} and {more} more");
    }
    text
}

/// Text of the caller's, cut, with no control character in it.
fn echo(text: &str) -> String {
    let mut short: String = text
        .chars()
        .take(MAX_ECHO)
        .map(|c| if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}') { '\u{fffd}' } else { c })
        .collect();
    if text.chars().nth(MAX_ECHO).is_some() {
        short.push('…');
    }
    short
}
