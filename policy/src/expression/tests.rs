//! What expressions are taken, where faults are shown, what evaluation makes of facts.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::Instant;

use http::{HeaderMap, HeaderValue, Method};
use serde_json::json;

use super::*;
use crate::call::{Content, Destination, HttpCall, Scheme};
use crate::host::Host;
use crate::path::Path;

fn http(query: Option<&str>) -> HttpCall {
    let mut headers = HeaderMap::new();
    headers.insert("x-team", HeaderValue::from_static("red"));
    headers.insert("authorization", HeaderValue::from_static("Bearer secret"));
    HttpCall {
        scheme: Scheme::Https,
        method: Method::GET,
        path: Path::parse("/a/b").unwrap(),
        query: query.map(str::to_owned),
        headers,
        websocket: false,
        content: Content::Unread,
    }
}

fn evaluate(source: &str, arguments: &serde_json::Value) -> Result<bool, String> {
    let expression =
        Expression::compile(source, &Vocabulary::Mcp).map_err(|f| format!("compile: {f:?}"))?;
    let destination = Destination {
        host: Host::parse("example.com").unwrap(),
        port: 443,
    };
    let facts = Facts {
        destination: &destination,
        http: &http(Some("a=1&b=x%20y")),
        captures: &[],
        tool: Some(("search", arguments)),
        inference: None,
    };
    expression.evaluate(&facts).map_err(|failure| failure.0)
}

#[test]
fn evaluates() {
    let arguments = json!({"limit": 10, "big": 1e3, "tags": ["a", "b"], "deep": {"x": [1, {"y": "z"}]}, "none": null});
    for (source, expected) in [
        ("true", true),
        ("request.method == 'GET' && request.port == 443", true),
        ("request.host.endsWith('.com')", true),
        ("request.path.startsWith('/a/')", true),
        (
            "request.query.a == '1' && request.query['b'] == 'x y'",
            true,
        ),
        ("has(request.query.c)", false),
        ("request.headers['x-team'] == 'red'", true),
        ("'authorization' in request.headers", false),
        ("tool.name in ['search', 'fetch']", true),
        ("tool.arguments.limit <= 50", true),
        ("tool.arguments.big == 1000.0", true),
        ("tool.arguments.big <= 1000", true),
        ("tool.arguments.tags.all(t, t.matches('^[a-z]$'))", true),
        ("tool.arguments.tags.exists(t, t == 'c')", false),
        ("tool.arguments.tags.exists_one(t, t == 'a')", true),
        ("size(tool.arguments.tags) == 2", true),
        ("tool.arguments.deep.x[1].y == 'z'", true),
        ("tool.arguments.none == null", true),
        (
            "!has(tool.arguments.other) || tool.arguments.other == 1",
            true,
        ),
        ("matches(request.host, r'^ex\\w+\\.com$')", true),
        ("request.method == 'GET' ? true : false", true),
        ("!(tool.arguments.limit in [1, 2, 3])", true),
    ] {
        assert_eq!(evaluate(source, &arguments), Ok(expected), "{source}");
    }
}

#[test]
fn failures_have_no_value_and_quote_nothing() {
    let arguments =
        json!({"limit": "secret-value", "tags": "x", "n": 9_223_372_036_854_775_807_i64});
    for (source, message) in [
        ("tool.arguments.limit <= 50", "met a value of a type"),
        ("tool.arguments.missing == 1", "there is no `missing`"),
        ("tool.arguments.limit", "neither true nor false"),
        ("tool.arguments.n + 1 > 0", "overflows"),
        (
            "1 / (tool.arguments.n - tool.arguments.n) == 1",
            "divides by zero",
        ),
        ("tool.arguments.limit.y == 1", ""),
    ] {
        let failure = evaluate(source, &arguments).expect_err(source);
        assert!(!failure.starts_with("compile"), "{source}: {failure}");
        assert!(failure.contains(message), "{source}: {failure}");
        assert!(!failure.contains("secret-value"), "{source}: {failure}");
    }
}

#[test]
fn faults_have_places() {
    for (source, place, message) in [
        ("request.hots == 'x'", "", "no field `hots`"),
        ("reqest.host == 'x'", "reqest", "no variable `reqest`"),
        ("request.host.startWith('x')", "", "no function `startWith`"),
        ("request.host == 3", "", "never equals"),
        ("request.port == '443'", "", "never equals"),
        ("request.port < 'x'", "", "can't be compared"),
        ("true && request.host", "", "where true or false is wanted"),
        ("request.host", "", "not true or false"),
        ("1 + 2", "", "not true or false"),
        ("request", "request", "alone is no value"),
        ("path.owner == 'x'", "path", "no variable `path`"),
        (
            "inference.model == 'x'",
            "inference",
            "no variable `inference`",
        ),
        ("request.host.matches(request.path)", "", "literal"),
        ("request.host.matches('(')", "'('", "no regular expression"),
        (
            "tool.arguments.a.all(x, tool.arguments.b.all(y, x == y))",
            "",
            "within a comprehension",
        ),
        (
            "size(tool.arguments.a.map(x, x)) > 0",
            "",
            "`map` and `filter`",
        ),
        (
            "size(tool.arguments.a.filter(x, x)) > 0",
            "",
            "`map` and `filter`",
        ),
        (
            "tool.arguments.a.all(x, x + x != '')",
            "",
            "only for numbers",
        ),
        (
            "tool.arguments.a.all(request, true)",
            "",
            "already is a variable",
        ),
        ("request.headers.authorization == 'x'", "", "holds a secret"),
        (
            "request.headers['X-Api-Key'] == 'x'",
            "'X-Api-Key'",
            "holds a secret",
        ),
        ("request.headers['X-Team'] == 'x'", "'X-Team'", "lower case"),
        ("request.host in 'abc'", "'abc'", "wanted"),
        ("request.port in ['a']", "", "never in a list"),
        (
            "duration('1s') == duration('1s')",
            "",
            "no function `duration`",
        ),
        ("request.host ==", "", "can't be read"),
        ("", "", "can't be read"),
        ("a b", "", "can't be read"),
        ("true // c", "", "comments"),
        ("'''x''' == 'x'", "", "triple"),
        ("Foo{a: 1} == Foo{a: 1}", "", "not supported"),
    ] {
        let faults = Expression::compile(source, &Vocabulary::Mcp).expect_err(source);
        assert!(
            faults.iter().any(|f| f.message.contains(message)),
            "{source}: {faults:?}"
        );
        if !place.is_empty() {
            let found: Vec<&str> = faults.iter().map(|f| &source[f.span.clone()]).collect();
            assert!(
                found.iter().any(|f| f.contains(place)),
                "{source}: {found:?}"
            );
        }
    }
}

#[test]
fn bounded_before_parsing() {
    for source in [
        format!("{}true{}", "(".repeat(2000), ")".repeat(2000)),
        format!("{}true", "!".repeat(4000)),
        format!("{}1{} == 1", "[".repeat(1000), "]".repeat(1000)),
        vec!["true"; 600].join(" || "),
        vec!["1"; 1500].join("+") + " == 1",
        "x".repeat(5000),
        format!("request.host{} == 1", ".a".repeat(1900)),
        format!("r'\\' == {}1{}", "(".repeat(100), ")".repeat(100)),
    ] {
        assert!(
            Expression::compile(&source, &Vocabulary::Mcp).is_err(),
            "{}",
            &source[..40]
        );
    }
}

/// The deepest that is taken, on a stack as small as the runtime's threads have.
#[test]
fn deepest_accepted_fits_a_small_stack() {
    let run = || {
        for joint in [" || ", " && "] {
            let source = vec!["request.port == 443"; 30].join(joint);
            assert_eq!(evaluate(&source, &json!({})), Ok(true));
        }
        let nested = format!("{}true{}", "(true && ".repeat(20), ")".repeat(20));
        assert_eq!(evaluate(&nested, &json!({})), Ok(true));
        let sum = vec!["1"; 30].join(" + ") + " == 30";
        assert_eq!(evaluate(&sum, &json!({})), Ok(true));
        let sum = vec!["x"; 26].join(" * ") + " == 1";
        let all = format!("[1, 1].all(x, {sum})");
        assert_eq!(evaluate(&all, &json!({})), Ok(true));
        let deeper = vec!["1"; 60].join(" + ") + " == 60";
        assert!(Expression::compile(&deeper, &Vocabulary::Mcp).is_err());
        let chain = "request.port == 1 ? true : ".repeat(12) + "true";
        assert_eq!(evaluate(&chain, &json!({})), Ok(true));
    };
    std::thread::Builder::new()
        .stack_size(2 * 1024 * 1024)
        .spawn(run)
        .unwrap()
        .join()
        .unwrap();
}

#[test]
fn hostile_arguments_end_soon() {
    let items: Vec<String> = (0..256).map(|_| "a".repeat(200)).collect();
    let arguments = json!({"items": items});
    let source = "tool.arguments.items.all(x, x.matches('(a*)*b|a')) && tool.arguments.items.all(x, x.contains('a'))";
    let start = Instant::now();
    assert_eq!(evaluate(source, &arguments), Ok(true));
    assert!(start.elapsed().as_secs() < 2, "{:?}", start.elapsed());

    let long = json!({"items": vec![0; 257]});
    assert!(evaluate("tool.arguments.items.all(x, true)", &long).is_err());
    assert_eq!(
        evaluate("size(tool.arguments.items) == 257", &long),
        Ok(true)
    );
    let fat = json!({"text": "a".repeat(70_000)});
    assert!(evaluate("tool.arguments.text != ''", &fat).is_err());
    let wide = json!({"items": vec![0; 9000]});
    assert!(evaluate("size(tool.arguments.items) > 0", &wide).is_err());
}

#[test]
fn ambiguous_queries_have_no_value() {
    let expression = Expression::compile("request.query.a == '1'", &Vocabulary::Mcp).unwrap();
    let destination = Destination {
        host: Host::parse("example.com").unwrap(),
        port: 443,
    };
    for query in ["a=1&a=2", "a=1;b=2", "a=%ff", "a=1&%61=1"] {
        let facts = Facts {
            destination: &destination,
            http: &http(Some(query)),
            captures: &[],
            tool: None,
            inference: None,
        };
        assert!(expression.evaluate(&facts).is_err(), "{query}");
    }
}

#[test]
fn patterns_go_with_their_expressions() {
    let expression =
        Expression::compile("request.host.matches('only-here-[0-9]')", &Vocabulary::Mcp).unwrap();
    assert!(regexes::is_known("only-here-[0-9]"));
    drop(expression);
    assert!(!regexes::is_known("only-here-[0-9]"));
}
