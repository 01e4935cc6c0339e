//! Strict reading of bodies: what is kept, what is refused, and that nothing panics.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use http::{HeaderMap, HeaderValue, Method};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::call::Scheme;
use crate::path::Path;

fn call() -> HttpCall {
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_static("application/json"));
    HttpCall {
        scheme: Scheme::Https,
        method: Method::POST,
        path: Path::parse("/mcp").unwrap(),
        query: None,
        headers,
        websocket: false,
        content: Content::Unread,
    }
}

const MCP: BodyNeed = BodyNeed::Mcp { limit: 1000 };

#[test]
fn keeps_what_an_answer_needs() {
    let body = br#"[{"jsonrpc":"2.0","id":"a","method":"tools/call","params":{"name":"x","arguments":{"n":1}}},
        {"jsonrpc":"2.0","id":-3,"method":"ping"},{"jsonrpc":"2.0","method":"notifications/x"},{"jsonrpc":"2.0","id":1,"error":{}}]"#;
    let Content::Mcp(read) = MCP.parse(&call(), body) else {
        panic!()
    };
    assert!(read.batch);
    let ids: Vec<_> = read
        .messages
        .iter()
        .map(|m| m.id.as_ref().map(RpcId::to_json))
        .collect();
    assert_eq!(
        ids,
        [Some(json!("a")), Some(json!(-3)), None, Some(json!(1))]
    );
    assert_eq!(
        read.messages[0].body,
        McpBody::Tool {
            name: "x".to_owned(),
            arguments: json!({"n": 1})
        }
    );
}

#[test]
fn over_the_limit_is_invalid_not_skipped() {
    let body = format!(
        "{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"{}\"}}",
        "x".repeat(1000)
    );
    assert!(matches!(
        MCP.parse(&call(), body.as_bytes()),
        Content::Invalid(_)
    ));
}

#[test]
fn deep_nesting_is_invalid() {
    for depth in [70, 400, 490] {
        let body = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(matches!(
            MCP.parse(&call(), body.as_bytes()),
            Content::Invalid(_)
        ));
    }
    let limit = INFERENCE_LIMIT;
    let dialect = Dialect::OpenAiChat;
    let body = format!(
        "{{\"model\":\"m\",\"messages\":{}{}}}",
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    let need = BodyNeed::Inference { dialect, limit };
    assert!(matches!(
        need.parse(&call(), body.as_bytes()),
        Content::Invalid(_)
    ));
}

#[test]
fn invalid_text_is_invalid() {
    for body in [
        &b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"\xff\"}"[..],
        b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"\\ud800\"}",
        b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"a\nb\"}",
        b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":'ping'}",
        b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\",}",
        b"{\"jsonrpc\":\"2.0\",\"id\":null,\"method\":\"ping\"}",
        b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\",\"result\":{}}",
        b"{\"jsonrpc\":\"2.0\",\"id\":1}",
        b"null",
        b"",
    ] {
        let read = MCP.parse(&call(), body);
        assert!(matches!(read, Content::Invalid(_)), "{read:?}");
    }
}

proptest! {
    #[test]
    fn nothing_panics(body in prop::collection::vec(any::<u8>(), 0..200)) {
        drop(MCP.parse(&call(), &body));
        let need = BodyNeed::Inference { dialect: Dialect::OpenAiResponses, limit: 1000 };
        drop(need.parse(&call(), &body));
    }

    #[test]
    fn json_like_bodies_do_not_panic(body in "[\\[\\]{}\":,a-e0-9.\\\\ -]{0,80}") {
        drop(MCP.parse(&call(), body.as_bytes()));
    }
}
