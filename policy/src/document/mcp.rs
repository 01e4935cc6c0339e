//! Rules of kind `mcp`: one server, by its URL, and the tools that may be called on it.

use std::collections::BTreeSet;

use super::destination;
use crate::call::Scheme;
use crate::limits::{MAX_TOOL, MAX_URL};
use crate::pattern::HostPattern;
use crate::plan::rule::{Kind, McpMatch, Scope};
use crate::target::Target;
use crate::tree::{Fields, File, Node, suggest};

/// Methods that a rule may allow beside the lifecycle and its tools.
pub(crate) const METHODS: &[&str] = &[
    "completion/complete",
    "prompts/get",
    "prompts/list",
    "resources/list",
    "resources/read",
    "resources/subscribe",
    "resources/templates/list",
    "resources/unsubscribe",
    "subscriptions/listen",
    "tasks/cancel",
    "tasks/get",
    "tasks/list",
    "tasks/result",
    "tasks/update",
];

pub(super) fn read(file: &File, node: &Node, wide: bool) -> Option<(Scope, Kind)> {
    let known: &[&str] = if wide {
        &["server", "tools"]
    } else {
        &["server", "tools", "methods", "addresses", "tls"]
    };
    let fields = Fields::open(file, node, "`mcp`", known, &[])?;
    let server = if wide {
        fields.get("server")
    } else {
        Some(fields.need("server")?)
    };
    let mut scope = destination::read(file, &fields, true);
    let mut path = None;
    if let Some(server) = server {
        let target = url(file, server)?;
        scope.hosts = vec![HostPattern::Exact(target.destination.host)];
        scope.ports = vec![target.destination.port];
        scope.scheme = Some(target.scheme);
        path = Some(target.path);
        if target.scheme == Scheme::Http && fields.has("tls") {
            file.refuse(
                &node.span,
                "`tls` makes no sense with an http server",
                "remove one of the two",
            );
        }
    }
    if scope.passthrough {
        file.refuse(
            &node.span,
            "tools can't be judged in what is passed through unread",
            "have TLS terminated",
        );
    }
    if !wide {
        fields.need("tools")?;
    }
    let tools = fields.texts("tools").map(|tools| tool_names(file, &tools));
    Some((
        scope,
        Kind::Mcp(McpMatch {
            path,
            tools,
            methods: methods(file, &fields),
        }),
    ))
}

fn tool_names(file: &File, tools: &[(&str, &Node)]) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (name, node) in tools {
        if name.contains('*') {
            file.refuse(
                &node.span,
                "tools are named one by one",
                "list the names, as tools/list gives them",
            );
        } else if name.chars().any(|c| c.is_control() || c.is_whitespace()) || name.len() > MAX_TOOL
        {
            file.refuse(
                &node.span,
                "this is no name of a tool",
                "write it as tools/list gives it",
            );
        } else if !names.insert((*name).to_owned()) {
            file.refuse(
                &node.span,
                format!("`{name}` is listed twice"),
                "remove one",
            );
        }
    }
    names
}

fn methods(file: &File, fields: &Fields<'_>) -> BTreeSet<String> {
    let mut methods = BTreeSet::new();
    for (name, node) in fields.texts("methods").unwrap_or_default() {
        if METHODS.contains(&name) {
            methods.insert(name.to_owned());
        } else {
            file.fault(
                &node.span,
                format!("`{name}` is no method that a rule can allow"),
                suggest(name, METHODS),
            );
        }
    }
    methods
}

fn url(file: &File, node: &Node) -> Option<Target> {
    let text = node.text(file, "`server`")?;
    let why = match Target::parse(text) {
        Ok(_) if text.len() > MAX_URL => format!("it has more than {MAX_URL} bytes"),
        Ok(target) if target.query.is_none() => return Some(target),
        Ok(_) => "the URL has a query".to_owned(),
        Err(error) => error.to_string(),
    };
    file.refuse(
        &node.span,
        format!("this is no URL of a server: {why}"),
        "write it as https://mcp.example.com/mcp, without user, query or fragment",
    );
    None
}
