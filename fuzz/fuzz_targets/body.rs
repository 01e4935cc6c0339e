//! Any bytes as an MCP message and as a call to a model: read or invalid, and what was read is
//! what a second parser reads too.
#![no_main]

use exeat_policy::{BodyNeed, Content, Dialect, HttpCall, Path, Scheme};
use http::{HeaderMap, HeaderValue, Method};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_static("application/json"));
    let call = HttpCall {
        scheme: Scheme::Https,
        method: Method::POST,
        path: Path::parse("/mcp").expect("a path"),
        query: None,
        headers,
        websocket: false,
        content: Content::Unread,
    };
    let limit = 64 * 1024;
    if let Content::Mcp(read) = (BodyNeed::Mcp { limit }).parse(&call, body) {
        assert!(!read.messages.is_empty());
    }
    for dialect in [Dialect::OpenAiResponses, Dialect::AnthropicMessages] {
        let need = BodyNeed::Inference { dialect, limit };
        if let Content::Inference(read) = need.parse(&call, body) {
            assert_eq!(read.models.first(), Some(&read.model));
        }
    }
});
