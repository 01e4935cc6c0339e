//! The facts of a call as CEL values. Only what an expression reads is built, and only up to
//! bounds that keep every evaluation short.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use cel::objects::{Key, Map};
use cel::{Context, Value};
use http::HeaderMap;
use serde_json::Value as Json;

use super::Failure;
use super::types::SECRET_HEADERS;
use crate::body::InferenceCall;
use crate::call::{Destination, HttpCall};

/// Texts in a tool's arguments, in all, that an expression may look at.
const MAX_TEXT: usize = 64 * 1024;
/// Items in one list or object, where an expression runs over its items.
const MAX_ITEMS: usize = 256;
/// Values in a tool's arguments, in all.
const MAX_VALUES: usize = 8 * 1024;

/// What an expression is about.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts<'a> {
    pub(crate) destination: &'a Destination,
    pub(crate) http: &'a HttpCall,
    pub(crate) captures: &'a [(&'a str, std::borrow::Cow<'a, str>)],
    pub(crate) tool: Option<(&'a str, &'a Json)>,
    pub(crate) inference: Option<&'a InferenceCall>,
}

/// The fields that an expression reads.
#[derive(Debug, Clone, Default)]
pub(super) struct Uses {
    pub(super) fields: BTreeSet<(String, String)>,
    pub(super) comprehends: bool,
}

// === impl Uses ===

impl Uses {
    pub(super) fn reads_tool(&self) -> bool {
        self.fields.iter().any(|(root, _)| root == "tool")
    }

    pub(super) fn reads_inference(&self) -> bool {
        self.fields.iter().any(|(root, _)| root == "inference")
    }
}

// === impl Facts ===

impl Facts<'_> {
    pub(super) fn bind(&self, uses: &Uses, context: &mut Context<'_, '_>) -> Result<(), Failure> {
        let mut roots: HashMap<&str, HashMap<Key, Value>> = HashMap::new();
        for (root, field) in &uses.fields {
            let value = self.value(root, field, uses)?;
            let fields = roots.entry(root).or_default();
            // A capture of another path pattern is absent; the checker allows none of those.
            if let Some(value) = value {
                fields.insert(key(field), value);
            }
        }
        for (root, fields) in roots {
            context.add_variable_from_value(root, map(fields));
        }
        Ok(())
    }

    fn value(&self, root: &str, field: &str, uses: &Uses) -> Result<Option<Value>, Failure> {
        let http = self.http;
        Ok(Some(match (root, field) {
            ("request", "method") => http.method.as_str().into(),
            ("request", "host") => self.destination.host.as_str().into(),
            ("request", "port") => Value::Int(self.destination.port.into()),
            ("request", "path") => http.path.as_str().into(),
            ("request", "scheme") => http.scheme.as_str().into(),
            ("request", "websocket") => Value::Bool(http.websocket),
            ("request", "query") => query(http.query.as_deref())?,
            ("request", "headers") => headers(&http.headers)?,
            ("path", name) => {
                return Ok(self
                    .captures
                    .iter()
                    .find(|(known, _)| *known == name)
                    .map(|(_, value)| value.as_ref().into()));
            }
            ("tool", "name") => return Ok(self.tool.map(|(name, _)| name.into())),
            ("tool", "arguments") => {
                let Some((_, arguments)) = self.tool else {
                    return Ok(None);
                };
                let items = if uses.comprehends {
                    MAX_ITEMS
                } else {
                    MAX_VALUES
                };
                let mut budget = Budget {
                    text: MAX_TEXT,
                    values: MAX_VALUES,
                    items,
                };
                budget.value(arguments)?
            }
            ("inference", field) => {
                let Some(call) = self.inference else {
                    return Ok(None);
                };
                match field {
                    "model" => call.model.as_str().into(),
                    "models" => Value::List(Arc::new(
                        call.models.iter().map(|m| m.as_str().into()).collect(),
                    )),
                    "stream" => Value::Bool(call.stream),
                    "provider" => call.dialect.provider().as_str().into(),
                    "dialect" => call.dialect.as_str().into(),
                    _ => return Ok(None),
                }
            }
            _ => return Ok(None),
        }))
    }
}

/// The parameters, decoded. One that occurs twice, or can't be decoded, might be read otherwise
/// upstream, so the whole query has no value then.
fn query(query: Option<&str>) -> Result<Value, Failure> {
    let mut parameters = HashMap::new();
    let query = query.unwrap_or_default();
    if query.contains(';') {
        return Err(Failure(
            "the query has a `;`, which servers read in two ways".to_owned(),
        ));
    }
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (name, value) = (form_decoded(name)?, form_decoded(value)?);
        if parameters.insert(key(&name), value.into()).is_some() {
            return Err(Failure("a query parameter occurs twice".to_owned()));
        }
        if parameters.len() > MAX_ITEMS {
            return Err(Failure(format!(
                "the query has more than {MAX_ITEMS} parameters"
            )));
        }
    }
    Ok(map(parameters))
}

fn form_decoded(text: &str) -> Result<String, Failure> {
    percent_encoding::percent_decode_str(&text.replace('+', " "))
        .decode_utf8()
        .map(std::borrow::Cow::into_owned)
        .map_err(|_| Failure("the query is not UTF-8".to_owned()))
}

/// Headers by their lower-case names, values of a repeated one joined as RFC 9110 has it. Those
/// that hold secrets are left out.
fn headers(headers: &HeaderMap) -> Result<Value, Failure> {
    let mut fields: HashMap<Key, Value> = HashMap::new();
    if headers.keys_len() > MAX_ITEMS {
        return Err(Failure(format!("there are more than {MAX_ITEMS} headers")));
    }
    for name in headers.keys() {
        if SECRET_HEADERS.contains(&name.as_str()) {
            continue;
        }
        let mut joined = String::new();
        for (at, value) in headers.get_all(name).iter().enumerate() {
            if at > 0 {
                joined.push_str(", ");
            }
            let text = value
                .to_str()
                .map_err(|_| Failure("a header is not ASCII".to_owned()))?;
            joined.push_str(text);
            if joined.len() > MAX_TEXT {
                return Err(Failure(format!("a header is over {MAX_TEXT} bytes")));
            }
        }
        fields.insert(key(name.as_str()), joined.into());
    }
    Ok(map(fields))
}

/// What may still be built of a tool's arguments.
struct Budget {
    text: usize,
    values: usize,
    items: usize,
}

// === impl Budget ===

impl Budget {
    fn value(&mut self, json: &Json) -> Result<Value, Failure> {
        self.values = self
            .values
            .checked_sub(1)
            .ok_or_else(|| too("many values", MAX_VALUES))?;
        Ok(match json {
            Json::Null => Value::Null,
            Json::Bool(b) => Value::Bool(*b),
            Json::Number(n) => match (n.as_i64(), n.as_u64(), n.as_f64()) {
                (Some(i), ..) => Value::Int(i),
                (_, Some(u), _) => Value::UInt(u),
                (.., Some(f)) => Value::Float(f),
                _ => return Err(Failure("a number is out of range".to_owned())),
            },
            Json::String(text) => {
                self.spend(text)?;
                text.as_str().into()
            }
            Json::Array(items) => {
                self.count(items.len())?;
                let items: Result<Vec<Value>, Failure> =
                    items.iter().map(|item| self.value(item)).collect();
                Value::List(Arc::new(items?))
            }
            Json::Object(fields) => {
                self.count(fields.len())?;
                let mut built = HashMap::with_capacity(fields.len());
                for (name, value) in fields {
                    self.spend(name)?;
                    built.insert(key(name), self.value(value)?);
                }
                map(built)
            }
        })
    }

    fn spend(&mut self, text: &str) -> Result<(), Failure> {
        self.text = self
            .text
            .checked_sub(text.len())
            .ok_or_else(|| too("many bytes", MAX_TEXT))?;
        Ok(())
    }

    fn count(&self, items: usize) -> Result<(), Failure> {
        if items > self.items {
            return Err(too("many items in a list or object", self.items));
        }
        Ok(())
    }
}

fn too(what: &str, limit: usize) -> Failure {
    Failure(format!(
        "the arguments have too {what} for an expression to look at (limit {limit})"
    ))
}

fn key(name: &str) -> Key {
    Key::String(Arc::new(name.to_owned()))
}

fn map(fields: HashMap<Key, Value>) -> Value {
    Value::Map(Map {
        map: Arc::new(fields),
    })
}
