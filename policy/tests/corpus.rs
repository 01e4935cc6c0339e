//! The corpora of the fuzz targets, as ordinary tests: what was once found stays fixed.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::path::Path as FilePath;

use exeat_policy::{
    BodyNeed, Content, Dialect, Host, HttpCall, Path, Scheme, Source, Target, compile,
};
use http::{HeaderMap, HeaderValue, Method};

/// The inputs of one target. None is an error.
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = FilePath::new(env!("CARGO_MANIFEST_DIR"))
        .join("../fuzz/corpus")
        .join(target);
    let entries =
        std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let inputs: Vec<(String, Vec<u8>)> = entries
        .map(|entry| {
            let path = entry.unwrap().path();
            (path.display().to_string(), std::fs::read(&path).unwrap())
        })
        .collect();
    assert!(
        inputs.len() >= 10,
        "{} holds {} inputs",
        folder.display(),
        inputs.len()
    );
    inputs
}

#[test]
fn policies() {
    let mut compiled = 0;
    for (name, bytes) in corpus("policy_yaml") {
        let Ok(text) = String::from_utf8(bytes) else {
            continue;
        };
        match compile(&[Source::new(name, text)], None, 1) {
            Ok(_) => compiled += 1,
            Err(found) => assert!(!found.to_string().is_empty() && !found.is_empty()),
        }
    }
    assert!(compiled >= 5, "only {compiled} policies compiled");
}

#[test]
fn paths() {
    for (name, bytes) in corpus("path") {
        let Ok(text) = std::str::from_utf8(&bytes) else {
            continue;
        };
        let Ok(path) = Path::parse(text) else {
            continue;
        };
        assert_eq!(Path::parse(path.as_str()).as_ref(), Ok(&path), "{name}");
        assert!(
            !path.as_str().split('/').any(|s| s == "." || s == ".."),
            "{name}"
        );
    }
}

#[test]
fn hosts() {
    for (name, bytes) in corpus("host") {
        let Ok(text) = std::str::from_utf8(&bytes) else {
            continue;
        };
        if let Ok(host) = Host::parse(text) {
            assert_eq!(Host::parse(host.as_str()).as_ref(), Ok(&host), "{name}");
        }
        if let Ok(target) = Target::parse(text) {
            let url = format!("{}://{}{}", target.scheme, target.destination, target.path);
            assert_eq!(
                Target::parse(&url).unwrap().destination,
                target.destination,
                "{name}"
            );
        }
    }
}

#[test]
fn bodies() {
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_static("application/json"));
    let call = HttpCall {
        scheme: Scheme::Https,
        method: Method::POST,
        path: Path::parse("/mcp").unwrap(),
        query: None,
        headers,
        websocket: false,
        content: Content::Unread,
    };
    let limit = 64 * 1024;
    let mut read = 0;
    for (name, bytes) in corpus("body") {
        match (BodyNeed::Mcp { limit }).parse(&call, &bytes) {
            Content::Mcp(mcp) => {
                read += 1;
                assert!(!mcp.messages.is_empty(), "{name}");
                assert!(
                    serde_json::from_slice::<serde_json::Value>(&bytes).is_ok(),
                    "{name}"
                );
            }
            other => assert!(matches!(other, Content::Invalid(_)), "{name}"),
        }
        for dialect in [Dialect::OpenAiResponses, Dialect::AnthropicMessages] {
            if let Content::Inference(call) =
                (BodyNeed::Inference { dialect, limit }).parse(&call, &bytes)
            {
                read += 1;
                assert_eq!(call.models.first(), Some(&call.model), "{name}");
            }
        }
    }
    assert!(read >= 20, "only {read} bodies could be read");
}
