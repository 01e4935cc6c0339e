//! What the agent is told when a call is refused: the same facts in the caller's own protocol.
//!
//! The message is for the developer who meets it: what was refused, why, and under which record the
//! trail has it. It never holds a secret, because nothing that makes it has seen one.

use bytes::Bytes;
use exeat_policy::{Content, Denial, HttpCall, Reason};
use http::{HeaderValue, Response, StatusCode, header};
use serde_json::{Value, json};

use crate::ledger::DecisionId;

/// The JSON-RPC error code of a refusal. Outside the range that JSON-RPC 2.0 reserves (section 5.1).
const RPC_DENIED: i64 = -31_403;

/// gRPC's `PERMISSION_DENIED` and `UNAVAILABLE`.
const GRPC_PERMISSION_DENIED: &str = "7";
const GRPC_UNAVAILABLE: &str = "14";

/// In which protocol a refusal is told.
#[derive(Clone, Debug, PartialEq)]
pub enum Shape {
    /// Status and a JSON body.
    Http,
    /// A JSON-RPC error for each of the ids.
    JsonRpc {
        /// Whether the request was an array.
        batch: bool,
        /// The ids, as JSON.
        ids: Vec<Value>,
    },
    /// The error object of Anthropic's API, which is ours with a type around it.
    Anthropic,
    /// Trailers-only (gRPC over HTTP/2).
    Grpc,
}

// === impl Shape ===

impl Shape {
    /// The shape that the caller of `http` understands.
    #[must_use]
    pub fn of(http: &HttpCall) -> Self {
        if let Content::Mcp(mcp) = &http.content {
            let ids: Vec<Value> = mcp
                .messages
                .iter()
                .filter_map(|message| message.id.as_ref().map(exeat_policy::RpcId::to_json))
                .collect();
            // With no id nobody waits for a JSON-RPC answer.
            return if ids.is_empty() {
                Self::Http
            } else {
                Self::JsonRpc {
                    batch: mcp.batch,
                    ids,
                }
            };
        }
        if matches!(&http.content, Content::Inference(call) if call.dialect.provider() == exeat_policy::body::Provider::Anthropic)
        {
            return Self::Anthropic;
        }
        let grpc = http.headers.get(header::CONTENT_TYPE).is_some_and(|kind| {
            kind.as_bytes().starts_with(b"application/grpc")
                && !kind.as_bytes().starts_with(b"application/grpc-web")
        });
        if grpc { Self::Grpc } else { Self::Http }
    }
}

/// The refusal, as an answer.
#[must_use]
pub fn refusal(shape: &Shape, denial: &Denial, id: DecisionId) -> Response<Bytes> {
    let status = StatusCode::from_u16(denial.reason.http_status()).unwrap_or(StatusCode::FORBIDDEN);
    let kind = kind(denial.reason);
    let error = json!({
        "type": kind,
        "code": denial.reason.code(),
        "message": denial.message,
        "id": id.to_string(),
    });
    let (status, body) = match shape {
        Shape::Grpc => return grpc(denial, id),
        Shape::Http => (status, json!({ "error": error })),
        Shape::Anthropic => (status, json!({ "type": "error", "error": error })),
        // 200: an MCP client takes any other status for a broken connection, and the model could
        // not learn why.
        Shape::JsonRpc { batch, ids } => (StatusCode::OK, rpc(*batch, ids, denial, &error)),
    };
    let mut response = Response::new(Bytes::from(body.to_string()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert("exeat-decision", decision_field(denial.reason, id));
    response
}

fn rpc(batch: bool, ids: &[Value], denial: &Denial, error: &Value) -> Value {
    let errors = ids.iter().map(|id| {
        json!({
            "jsonrpc": "2.0",
            "id": id,
            "error": { "code": RPC_DENIED, "message": denial.message, "data": error },
        })
    });
    let mut errors: Vec<Value> = errors.collect();
    match errors.pop() {
        Some(error) if !batch && errors.is_empty() => error,
        last => Value::Array(errors.into_iter().chain(last).collect()),
    }
}

fn grpc(denial: &Denial, id: DecisionId) -> Response<Bytes> {
    let status = if denial.reason.http_status() < 500 {
        GRPC_PERMISSION_DENIED
    } else {
        GRPC_UNAVAILABLE
    };
    // Percent-encoded as gRPC's protocol over HTTP/2 asks for in `grpc-message`.
    let text = format!("{}: {} ({id})", denial.reason.code(), denial.message);
    let message = percent_encoding::utf8_percent_encode(&text, GRPC_MESSAGE).to_string();
    let mut response = Response::new(Bytes::new());
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/grpc"),
    );
    headers.insert("grpc-status", HeaderValue::from_static(status));
    if let Ok(message) = HeaderValue::from_str(&message) {
        headers.insert("grpc-message", message);
    }
    headers.insert("exeat-decision", decision_field(denial.reason, id));
    response
}

/// Everything but printable ASCII, and the percent sign itself.
const GRPC_MESSAGE: &percent_encoding::AsciiSet = &percent_encoding::CONTROLS.add(b'%');

/// An upstream that failed was allowed; everything else that is told here was not.
fn decision_field(reason: Reason, id: DecisionId) -> HeaderValue {
    let decision = match reason.http_status() {
        502 | 504 => "allow",
        _ => "deny",
    };
    HeaderValue::from_str(&format!("{decision}; id={id}"))
        .unwrap_or_else(|_| HeaderValue::from_static("deny"))
}

/// A denial is the policy's word; the rest is the gate or the world not being able to.
fn kind(reason: Reason) -> &'static str {
    match reason.http_status() {
        502 | 504 => "upstream_error",
        503 => "gate_unavailable",
        400 => "invalid_request",
        _ => "egress_denied",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn denial() -> Denial {
        Denial::new(Reason::NoRule, "no rule allows it: 100 % \u{1F6AB}\n")
    }

    #[test]
    fn the_contract_of_a_denied_call() {
        let id = DecisionId::new();
        let answer = refusal(&Shape::Http, &denial(), id);
        assert_eq!(answer.status(), 403);
        assert_eq!(answer.headers()["content-type"], "application/json");
        assert_eq!(answer.headers()["exeat-decision"], format!("deny; id={id}"));
        let body: Value = serde_json::from_slice(answer.body()).unwrap_or_default();
        assert_eq!(body["error"]["type"], "egress_denied");
        assert_eq!(body["error"]["code"], "no_rule");
        assert_eq!(body["error"]["id"], id.to_string());
    }

    #[test]
    fn a_batch_gets_an_answer_for_each_id() {
        let shape = Shape::JsonRpc {
            batch: true,
            ids: vec![json!(1), json!("b")],
        };
        let answer = refusal(&shape, &denial(), DecisionId::new());
        let body: Value = serde_json::from_slice(answer.body()).unwrap_or_default();
        assert_eq!(body[0]["id"], 1);
        assert_eq!(body[1]["id"], "b");
        assert_eq!(body[1]["error"]["data"]["code"], "no_rule");
        let shape = Shape::JsonRpc {
            batch: false,
            ids: vec![json!(7)],
        };
        let answer = refusal(&shape, &denial(), DecisionId::new());
        let body: Value = serde_json::from_slice(answer.body()).unwrap_or_default();
        assert_eq!(body["id"], 7);
    }

    #[test]
    fn grpc_is_told_in_its_own_fields() {
        let answer = refusal(&Shape::Grpc, &denial(), DecisionId::new());
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["grpc-status"], "7");
        assert!(
            answer.headers()["grpc-message"]
                .to_str()
                .is_ok_and(|text| text.contains("100 %25"))
        );
    }
}
