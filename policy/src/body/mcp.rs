//! MCP over Streamable HTTP: JSON-RPC messages, alone or in a batch, and the headers that mirror
//! them. Every element of a batch is kept, so that every one is judged.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use serde_json::{Map, Value};

use super::json::{refuse_lookalikes, strict};
use super::{McpBody, McpCall, McpMessage, RpcId};
use crate::call::HttpCall;

/// Batches were never large; the protocol has since dropped them.
const MAX_BATCH: usize = 64;

pub(super) fn read(call: &HttpCall, body: &[u8]) -> Result<McpCall, String> {
    let (batch, values) = match strict(body)? {
        Value::Array(values) => (true, values),
        value => (false, vec![value]),
    };
    if values.is_empty() || values.len() > MAX_BATCH {
        return Err(format!("a JSON-RPC batch holds 1 to {MAX_BATCH} messages"));
    }
    let mirrored = Mirrored::read(&call.headers)?;
    if batch && (mirrored.method.is_some() || mirrored.name.is_some()) {
        return Err("a batch can't have mcp-method or mcp-name headers".to_owned());
    }
    let mut messages = Vec::with_capacity(values.len());
    for value in values {
        let Value::Object(object) = value else {
            return Err("a JSON-RPC message is an object".to_owned());
        };
        mirrored.agrees(&object)?;
        messages.push(message(object)?);
    }
    Ok(McpCall { batch, messages })
}

fn message(mut object: Map<String, Value>) -> Result<McpMessage, String> {
    refuse_lookalikes(
        &object,
        &["jsonrpc", "id", "method", "params", "result", "error"],
    )?;
    if object.get("jsonrpc").and_then(Value::as_str) != Some("2.0") {
        return Err("a JSON-RPC message has \"jsonrpc\": \"2.0\"".to_owned());
    }
    let id = match object.remove("id") {
        None => None,
        Some(Value::String(text)) => Some(RpcId::Text(text)),
        Some(Value::Number(n)) => Some(RpcId::Number(
            n.as_i64()
                .ok_or("a JSON-RPC id is a text or a whole number")?,
        )),
        Some(_) => return Err("a JSON-RPC id is a text or a whole number".to_owned()),
    };
    let answers = object.contains_key("result") || object.contains_key("error");
    let body = match (object.remove("method"), answers) {
        (None, true) => McpBody::Response,
        (Some(Value::String(method)), false) => request(method, object.remove("params"))?,
        _ => return Err("a JSON-RPC message has either a method or a result".to_owned()),
    };
    Ok(McpMessage { id, body })
}

fn request(method: String, params: Option<Value>) -> Result<McpBody, String> {
    let mut params = match params {
        None => Map::new(),
        Some(Value::Object(params)) => params,
        Some(_) => return Err("the params of an MCP message are an object".to_owned()),
    };
    if method != "tools/call" {
        return Ok(McpBody::Method { name: method });
    }
    refuse_lookalikes(&params, &["name", "arguments"])?;
    let Some(Value::String(name)) = params.remove("name") else {
        return Err("tools/call needs the name of a tool".to_owned());
    };
    let arguments = match params.remove("arguments") {
        None | Some(Value::Null) => Value::Object(Map::new()),
        Some(arguments @ Value::Object(_)) => arguments,
        Some(_) => return Err("the arguments of a tool are an object".to_owned()),
    };
    Ok(McpBody::Tool { name, arguments })
}

/// What the headers say that the body says. A server may route by them.
struct Mirrored {
    method: Option<String>,
    name: Option<String>,
}

// === impl Mirrored ===

impl Mirrored {
    fn read(headers: &HeaderMap) -> Result<Self, String> {
        Ok(Self {
            method: single(headers, "mcp-method")?,
            name: single(headers, "mcp-name")?,
        })
    }

    fn agrees(&self, object: &Map<String, Value>) -> Result<(), String> {
        let method = object.get("method").and_then(Value::as_str);
        if self.method.is_some() && self.method.as_deref() != method {
            return Err("the mcp-method header differs from the body".to_owned());
        }
        if self.name.is_some() {
            let params = object.get("params");
            let field = if method == Some("resources/read") {
                "uri"
            } else {
                "name"
            };
            let name = params.and_then(|p| p.get(field)).and_then(Value::as_str);
            if self.name.as_deref() != name {
                return Err("the mcp-name header differs from the body".to_owned());
            }
        }
        Ok(())
    }
}

fn single(headers: &HeaderMap, name: &'static str) -> Result<Option<String>, String> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(format!("the {name} header occurs twice"));
    }
    let unreadable = || format!("the {name} header can't be read");
    let text = value.to_str().map_err(|_| unreadable())?;
    let Some(encoded) = text
        .strip_prefix("=?base64?")
        .and_then(|t| t.strip_suffix("?="))
    else {
        return Ok(Some(text.to_owned()));
    };
    let bytes = STANDARD.decode(encoded).map_err(|_| unreadable())?;
    String::from_utf8(bytes).map(Some).map_err(|_| unreadable())
}
