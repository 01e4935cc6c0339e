//! Strict JSON: what two parsers might read differently is an error.

use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// Deeper than any tool's arguments; far from what exhausts a stack.
const MAX_DEPTH: usize = 64;

/// Reads one JSON value that fills the text. Duplicate keys, depth, trailing data, a byte order
/// mark, numbers out of range and invalid UTF-8 are errors.
pub(super) fn strict(body: &[u8]) -> Result<Value, String> {
    let mut json = serde_json::Deserializer::from_slice(body);
    let value = Strict { depth: MAX_DEPTH }
        .deserialize(&mut json)
        .map_err(describe)?;
    json.end().map_err(describe)?;
    Ok(value)
}

/// Says what is wrong, not what was there.
#[allow(clippy::needless_pass_by_value)] // as `map_err` hands it over
pub(super) fn describe(error: serde_json::Error) -> String {
    match error.classify() {
        serde_json::error::Category::Data => {
            // Ours, or serde's about types; neither quotes more than a key.
            let text: String = error.to_string().chars().take(160).collect();
            format!("the body is not acceptable JSON: {text}")
        }
        _ => format!(
            "the body is not JSON (line {}, column {})",
            error.line(),
            error.column()
        ),
    }
}

/// Refuses keys that are one of these but for case: some parsers fold it.
pub(super) fn refuse_lookalikes(object: &Map<String, Value>, names: &[&str]) -> Result<(), String> {
    for key in object.keys() {
        if let Some(name) = lookalike(key, names) {
            return Err(format!(
                "the body holds a key that is {name:?} but for its case"
            ));
        }
    }
    Ok(())
}

/// The name that this key is taken for by a parser that folds case.
pub(super) fn lookalike<'n>(key: &str, names: &[&'n str]) -> Option<&'n str> {
    names
        .iter()
        .copied()
        .find(|name| key != *name && fold(key) == fold(name))
}

/// As Go's `encoding/json` folds: ASCII, the long s and the Kelvin sign.
fn fold(key: &str) -> String {
    key.chars()
        .take(64)
        .map(|c| match c {
            '\u{17f}' => 's',
            '\u{212a}' => 'k',
            c => c.to_ascii_lowercase(),
        })
        .collect()
}

/// A value without duplicate keys, to a depth.
#[derive(Clone, Copy)]
pub(super) struct Strict {
    depth: usize,
}

impl Default for Strict {
    fn default() -> Self {
        Self { depth: MAX_DEPTH }
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        if value.is_finite() {
            Ok(value.into())
        } else {
            Err(E::custom("a number is out of range"))
        }
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let depth = deeper(self.depth)?;
        let mut values = Vec::new();
        while let Some(value) = seq.next_element_seed(Self { depth })? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let depth = deeper(self.depth)?;
        let mut values = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            let value = map.next_value_seed(Self { depth })?;
            if values.insert(key, value).is_some() {
                return Err(A::Error::custom("a key occurs twice"));
            }
        }
        Ok(Value::Object(values))
    }
}

fn deeper<E: Error>(depth: usize) -> Result<usize, E> {
    depth
        .checked_sub(1)
        .ok_or_else(|| E::custom(format!("nested deeper than {MAX_DEPTH}")))
}

/// Reads past a value without keeping it, noting whether an object in it has a `type` of these.
#[derive(Clone, Copy)]
pub(super) struct Scan<'a> {
    /// The types to look for.
    pub(super) types: &'a [&'static str],
}

impl<'de> DeserializeSeed<'de> for Scan<'_> {
    type Value = Option<&'static str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Scan<'_> {
    type Value = Option<&'static str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(inner) = seq.next_element_seed(self)? {
            found = found.or(inner);
        }
        Ok(found)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        let mut seen: HashSet<String> = HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            if lookalike(&key, &["type"]).is_some() {
                return Err(A::Error::custom("a key is \"type\" but for its case"));
            }
            let inner = if key == "type" {
                let value = map.next_value_seed(Strict::default())?;
                let text = value.as_str().unwrap_or_default();
                self.types.iter().copied().find(|t| *t == text)
            } else {
                map.next_value_seed(self)?
            };
            if !seen.insert(key) {
                return Err(A::Error::custom("a key occurs twice"));
            }
            found = found.or(inner);
        }
        Ok(found)
    }
}
