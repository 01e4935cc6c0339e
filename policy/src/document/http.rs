//! Rules of kind `http`.

use http::Method;

use super::destination;
use crate::limits::{MAX_NAME, MAX_URL};
use crate::pattern::PathPattern;
use crate::plan::rule::{HttpMatch, Kind, Scope};
use crate::tree::{Fields, File, Node};

pub(super) fn read(file: &File, node: &Node, wide: bool) -> Option<(Scope, Kind)> {
    let known = [
        "hosts",
        "ports",
        "scheme",
        "methods",
        "paths",
        "addresses",
        "tls",
    ];
    // A denial dials nothing: it has no use for the last two.
    let known = if wide { &known[..5] } else { &known[..] };
    let fields = Fields::open(file, node, "`http`", known, &[])?;
    if !wide {
        fields.need("hosts")?;
    }
    let scope = destination::read(file, &fields, wide);
    let matched = HttpMatch {
        methods: methods(file, &fields),
        paths: paths(file, &fields),
    };
    if scope.passthrough && (fields.has("methods") || fields.has("paths")) {
        file.refuse(
            &node.span,
            "methods and paths can't be judged in what is passed through unread",
            "remove them, or have TLS terminated",
        );
    }
    Some((scope, Kind::Http(matched)))
}

fn methods(file: &File, fields: &Fields<'_>) -> Vec<Method> {
    let mut methods: Vec<Method> = Vec::new();
    for (text, node) in fields.texts("methods").unwrap_or_default() {
        let upper = text.to_ascii_uppercase();
        if text != upper {
            file.refuse(
                &node.span,
                "methods are in upper case",
                format!("write `{upper}`"),
            );
            continue;
        }
        match Method::from_bytes(text.as_bytes()) {
            Ok(_) if text.len() > MAX_NAME => {
                file.refuse(&node.span, "this is no method", "write GET, POST, …");
            }
            Ok(Method::CONNECT) => {
                file.refuse(
                    &node.span,
                    "CONNECT opens a tunnel, which no rule can allow",
                    "remove it",
                );
            }
            Ok(method) => methods.push(method),
            Err(_) => file.refuse(&node.span, "this is no method", "write GET, POST, …"),
        }
    }
    methods.sort_by(|a, b| a.as_str().cmp(b.as_str()));
    methods.dedup();
    methods
}

fn paths(file: &File, fields: &Fields<'_>) -> Vec<PathPattern> {
    let mut paths = Vec::new();
    for (text, node) in fields.texts("paths").unwrap_or_default() {
        if text.len() > MAX_URL {
            file.refuse(
                &node.span,
                format!("a pattern for paths has at most {MAX_URL} bytes"),
                "write `**` for the rest",
            );
            continue;
        }
        match PathPattern::parse(text) {
            Ok(pattern) => paths.push(pattern),
            Err(error) => file.refuse(
                &node.span,
                format!("this is no pattern for paths: {error}"),
                "write it as `/repos/{owner}/*/**`",
            ),
        }
    }
    paths.sort_by(|a, b| a.as_str().cmp(b.as_str()));
    paths.dedup();
    paths
}
