//! Calls to models, OpenAI- and Anthropic-shaped: which paths are such calls, and which models and
//! provider-run tools a body may set to work.
//!
//! The shape follows from the path, never from the body. A path that is not listed is no model
//! call, and an inference rule does not allow it.

use std::collections::HashSet;
use std::fmt;

use http::Method;
use serde::de::{Deserializer as _, Error, MapAccess, Visitor};
use serde_json::Value;

use super::InferenceCall;
use super::json::{Scan, Strict, describe, lookalike, refuse_lookalikes};
use crate::path::Path;

/// More models in one request than any client asks for.
const MAX_MODELS: usize = 16;

/// Who runs the models.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Provider {
    /// `OpenAI`, or a server that speaks like it.
    OpenAi,
    /// Anthropic, or a server that speaks like it.
    Anthropic,
}

/// The shape of a model call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// `POST /v1/chat/completions`.
    OpenAiChat,
    /// `POST /v1/responses`, `/compact` and `/input_tokens`.
    OpenAiResponses,
    /// `POST /v1/completions`.
    OpenAiCompletions,
    /// `POST /v1/embeddings`.
    OpenAiEmbeddings,
    /// `POST /v1/messages`.
    AnthropicMessages,
    /// `POST /v1/messages/count_tokens`.
    AnthropicCountTokens,
}

/// What a path of a provider is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Endpoint {
    /// A call to a model.
    Model(Dialect),
    /// The list of models, or one of it.
    Catalogue,
}

/// What a request for this provider is; `None` where no inference rule allows it.
pub(crate) fn endpoint(provider: Provider, method: &Method, path: &Path) -> Option<Endpoint> {
    if *method == Method::GET {
        let rest = path.as_str().strip_prefix("/v1/models")?;
        let one = rest
            .strip_prefix('/')
            .is_some_and(|id| !id.is_empty() && !id.contains('/'));
        return (rest.is_empty() || one).then_some(Endpoint::Catalogue);
    }
    if *method != Method::POST {
        return None;
    }
    let dialect = match (provider, path.as_str()) {
        (Provider::OpenAi, "/v1/chat/completions") => Dialect::OpenAiChat,
        (
            Provider::OpenAi,
            "/v1/responses" | "/v1/responses/compact" | "/v1/responses/input_tokens",
        ) => Dialect::OpenAiResponses,
        (Provider::OpenAi, "/v1/completions") => Dialect::OpenAiCompletions,
        (Provider::OpenAi, "/v1/embeddings") => Dialect::OpenAiEmbeddings,
        (Provider::Anthropic, "/v1/messages") => Dialect::AnthropicMessages,
        (Provider::Anthropic, "/v1/messages/count_tokens") => Dialect::AnthropicCountTokens,
        _ => return None,
    };
    Some(Endpoint::Model(dialect))
}

pub(super) fn read(dialect: Dialect, body: &[u8]) -> Result<InferenceCall, String> {
    let mut json = serde_json::Deserializer::from_slice(body);
    let fields = json.deserialize_map(FieldsVisitor).map_err(describe)?;
    json.end().map_err(describe)?;
    fields.judge(dialect)
}

/// The fields of a request that can set a model or a tool to work.
#[derive(Default)]
struct Fields {
    model: Option<Value>,
    fallbacks: Option<Value>,
    moderation: Option<Value>,
    stream: Option<Value>,
    tools: Option<Value>,
    prompt: Option<Value>,
    mcp_servers: Option<Value>,
    web_search_options: Option<Value>,
    /// A type, found anywhere in the conversation, that adds tools in the middle of it.
    adds_tools: Option<&'static str>,
}

const GOVERNED: &[&str] = &[
    "model",
    "fallbacks",
    "moderation",
    "stream",
    "tools",
    "prompt",
    "mcp_servers",
    "web_search_options",
    "input",
    "messages",
];

/// Parts of a conversation that declare tools.
const ADDITIONS: &[&str] = &["additional_tools", "tool_addition"];

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
        let mut fields = Fields::default();
        let mut seen = HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            if let Some(name) = lookalike(&key, GOVERNED) {
                return Err(A::Error::custom(format!(
                    "a key is {name:?} but for its case"
                )));
            }
            let slot = match key.as_str() {
                "model" => &mut fields.model,
                "fallbacks" => &mut fields.fallbacks,
                "moderation" => &mut fields.moderation,
                "stream" => &mut fields.stream,
                "tools" => &mut fields.tools,
                "prompt" => &mut fields.prompt,
                "mcp_servers" => &mut fields.mcp_servers,
                "web_search_options" => &mut fields.web_search_options,
                _ => {
                    let found = map.next_value_seed(Scan { types: ADDITIONS })?;
                    fields.adds_tools = fields.adds_tools.or(found);
                    if !seen.insert(key) {
                        return Err(A::Error::custom("a key occurs twice"));
                    }
                    continue;
                }
            };
            *slot = Some(map.next_value_seed(Strict::default())?);
            if !seen.insert(key) {
                return Err(A::Error::custom("a key occurs twice"));
            }
        }
        Ok(fields)
    }
}

// === impl Fields ===

impl Fields {
    fn judge(self, dialect: Dialect) -> Result<InferenceCall, String> {
        // `prompt` is the text itself in the old completions.
        if dialect != Dialect::OpenAiCompletions
            && self.prompt.as_ref().is_some_and(|p| !p.is_null())
        {
            return Err(
                "stored prompts carry a model and tools that can't be seen here; send them in full"
                    .to_owned(),
            );
        }
        let Some(Value::String(model)) = self.model else {
            return Err("the body names no model".to_owned());
        };
        let mut models = vec![model.clone()];
        match self.fallbacks {
            None | Some(Value::Null) => {}
            Some(Value::Array(fallbacks)) => {
                for fallback in &fallbacks {
                    models.push(model_of(fallback, "fallbacks")?);
                }
            }
            Some(_) => return Err("fallbacks must be a list that names its models".to_owned()),
        }
        match self.moderation {
            None | Some(Value::Null) => {}
            Some(moderation) => models.push(model_of(&moderation, "moderation")?),
        }
        let mut hosted_tools: Vec<String> =
            self.adds_tools.map(str::to_owned).into_iter().collect();
        match self.tools {
            None | Some(Value::Null) => {}
            Some(Value::Array(tools)) => {
                for tool in &tools {
                    self::tools(dialect, tool, &mut hosted_tools)?;
                }
            }
            Some(_) => return Err("tools must be a list".to_owned()),
        }
        match self.mcp_servers {
            None | Some(Value::Null) => {}
            Some(Value::Array(servers)) if servers.is_empty() => {}
            Some(_) => hosted_tools.push("mcp_servers".to_owned()),
        }
        if self.web_search_options.is_some_and(|o| !o.is_null()) {
            hosted_tools.push("web_search_options".to_owned());
        }
        let stream = match self.stream {
            None | Some(Value::Null) => false,
            Some(Value::Bool(stream)) => stream,
            Some(_) => return Err("stream must be true or false".to_owned()),
        };
        if models.len() > MAX_MODELS {
            return Err(format!("the body names more than {MAX_MODELS} models"));
        }
        Ok(InferenceCall {
            dialect,
            model,
            models,
            stream,
            hosted_tools,
        })
    }
}

fn model_of(value: &Value, field: &str) -> Result<String, String> {
    if let Value::Object(object) = value {
        refuse_lookalikes(object, &["model"])?;
    }
    value
        .get("model")
        .and_then(Value::as_str)
        .map(str::to_owned)
        .ok_or_else(|| format!("{field} must name a model"))
}

/// Notes a tool that the provider runs; those that the client runs are its own affair.
fn tools(dialect: Dialect, tool: &Value, hosted: &mut Vec<String>) -> Result<(), String> {
    let Value::Object(object) = tool else {
        return Err("a tool is an object".to_owned());
    };
    refuse_lookalikes(object, &["type", "tools"])?;
    let kind = match object.get("type") {
        None => "",
        Some(Value::String(kind)) => kind.as_str(),
        Some(_) => return Err("the type of a tool is a text".to_owned()),
    };
    let own = match dialect {
        Dialect::AnthropicMessages | Dialect::AnthropicCountTokens => {
            matches!(kind, "" | "custom")
                || ["bash_", "text_editor_", "computer_", "memory_"]
                    .iter()
                    .any(|prefix| kind.starts_with(prefix))
        }
        _ if kind == "namespace" => {
            let Some(Value::Array(inner)) = object.get("tools") else {
                return Err("a namespace of tools has a list of tools".to_owned());
            };
            for tool in inner {
                // Namespaces do not nest; the strict reader bounds the depth all the same.
                tools(dialect, tool, hosted)?;
            }
            true
        }
        _ => matches!(
            kind,
            "function"
                | "custom"
                | "local_shell"
                | "apply_patch"
                | "computer"
                | "computer_use_preview"
        ),
    };
    if !own {
        let kind: String = if kind.is_empty() { "(no type)" } else { kind }
            .chars()
            .take(64)
            .collect();
        hosted.push(kind);
    }
    Ok(())
}

// === impl Provider ===

impl Provider {
    /// As it is written in a policy.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OpenAi => "openai",
            Self::Anthropic => "anthropic",
        }
    }

    /// The host of its public API.
    #[must_use]
    pub fn default_host(self) -> &'static str {
        match self {
            Self::OpenAi => "api.openai.com",
            Self::Anthropic => "api.anthropic.com",
        }
    }
}

// === impl Dialect ===

impl Dialect {
    /// A stable name, for records.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OpenAiChat => "openai.chat",
            Self::OpenAiResponses => "openai.responses",
            Self::OpenAiCompletions => "openai.completions",
            Self::OpenAiEmbeddings => "openai.embeddings",
            Self::AnthropicMessages => "anthropic.messages",
            Self::AnthropicCountTokens => "anthropic.count_tokens",
        }
    }

    /// Whose it is.
    #[must_use]
    pub fn provider(self) -> Provider {
        match self {
            Self::OpenAiChat
            | Self::OpenAiResponses
            | Self::OpenAiCompletions
            | Self::OpenAiEmbeddings => Provider::OpenAi,
            Self::AnthropicMessages | Self::AnthropicCountTokens => Provider::Anthropic,
        }
    }
}
