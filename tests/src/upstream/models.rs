//! A model that says the same thing to everyone, in the shapes of OpenAI's chat completions and
//! Anthropic's messages, whole or streamed.
//!
//! The tests use a server that others wrote where one does; this one is for what that one lacks
//! (Anthropic's event stream) and for examples that should run with nothing installed.

use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use http::{Response, StatusCode, request::Parts};
use hyper::body::Frame;
use serde_json::{Value, json};

use super::{
    body::{Body, BoxError, Watched, answer as respond, json as answer_json},
    stream::body,
};

/// What the model says, in the pieces in which it is streamed.
const WORDS: [&str; 6] = ["The ", "gate ", "let ", "this ", "answer ", "through."];

/// A stream that came all at once would hide a gate that collects it first.
/// The pause is long enough that a busy machine does not hide it.
const PAUSE: Duration = Duration::from_millis(150);

pub(super) fn knows(path: &str) -> bool {
    matches!(path, "models" | "chat/completions" | "messages")
}

pub(super) async fn answer(
    path: &str,
    _head: &Parts,
    request: Watched,
) -> Result<Response<Body>, BoxError> {
    if path == "models" {
        let models = json!({"object": "list", "data": [{"id": "gpt-5-mini", "object": "model"}]});
        return Ok(answer_json(StatusCode::OK, &models));
    }
    let request: Value = serde_json::from_slice(&request.read().await?)?;
    let model = request["model"].as_str().unwrap_or("unknown").to_owned();
    let streamed = request["stream"].as_bool().unwrap_or(false);
    Ok(match (path, streamed) {
        ("chat/completions", false) => answer_json(StatusCode::OK, &completion(&model)),
        ("chat/completions", true) => events(completion_events(&model)),
        (_, false) => answer_json(StatusCode::OK, &message(&model)),
        (_, true) => events(message_events(&model)),
    })
}

fn events(events: Vec<String>) -> Response<Body> {
    let frames = stream::iter(events).then(|event| async move {
        tokio::time::sleep(PAUSE).await;
        Frame::data(event.into())
    });
    respond(StatusCode::OK, "text/event-stream", body(frames))
}

// === OpenAI ===

fn completion(model: &str) -> Value {
    json!({
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": model,
        "choices": [{
            "index": 0, "finish_reason": "stop",
            "message": {"role": "assistant", "content": WORDS.concat()},
        }],
        "usage": {"prompt_tokens": 5, "completion_tokens": 6, "total_tokens": 11},
    })
}

fn completion_events(model: &str) -> Vec<String> {
    let chunk = |delta: Value, finish: Value| {
        let chunk = json!({
            "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": model,
            "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
        });
        format!("data: {chunk}\n\n")
    };
    let mut events = vec![chunk(
        json!({"role": "assistant", "content": ""}),
        Value::Null,
    )];
    events.extend(WORDS.map(|word| chunk(json!({"content": word}), Value::Null)));
    events.push(chunk(json!({}), json!("stop")));
    events.push("data: [DONE]\n\n".to_owned());
    events
}

// === Anthropic ===

fn message(model: &str) -> Value {
    json!({
        "id": "msg_1", "type": "message", "role": "assistant", "model": model,
        "content": [{"type": "text", "text": WORDS.concat()}],
        "stop_reason": "end_turn", "stop_sequence": null,
        "usage": {"input_tokens": 5, "output_tokens": 6},
    })
}

fn message_events(model: &str) -> Vec<String> {
    let event = |kind: &str, mut value: Value| {
        value["type"] = json!(kind);
        format!("event: {kind}\ndata: {value}\n\n")
    };
    let mut start = message(model);
    start["content"] = json!([]);
    start["stop_reason"] = Value::Null;
    start["usage"]["output_tokens"] = json!(1);
    let mut events = vec![
        event("message_start", json!({"message": start})),
        event(
            "content_block_start",
            json!({"index": 0, "content_block": {"type": "text", "text": ""}}),
        ),
        event("ping", json!({})),
    ];
    events.extend(WORDS.map(|word| {
        let delta = json!({"index": 0, "delta": {"type": "text_delta", "text": word}});
        event("content_block_delta", delta)
    }));
    events.push(event("content_block_stop", json!({"index": 0})));
    events.push(event(
        "message_delta",
        json!({
            "delta": {"stop_reason": "end_turn", "stop_sequence": null},
            "usage": {"output_tokens": 6},
        }),
    ));
    events.push(event("message_stop", json!({})));
    events
}
