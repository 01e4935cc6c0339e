//! From text to [`Node`]s, within a budget.

use std::fmt;
use std::ops::Range;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{DuplicateKeyPolicy, Location, MergeKeyPolicy, Spanned};

use super::{Kind, Node, Span};

/// A `ConfigMap` holds 1 MiB at most; a policy file is a part of one.
const MAX_BYTES: usize = 1024 * 1024;
/// Deeper than any field of a `ToolPolicy`.
const MAX_DEPTH: usize = 32;
/// Enough for thousands of rules.
const MAX_NODES: usize = 200_000;

/// Why a text is no YAML, and where.
pub(super) struct Fault {
    pub(super) span: Span,
    pub(super) message: String,
    pub(super) remedy: Option<String>,
}

pub(super) fn read(text: &str) -> Result<Vec<Node>, Fault> {
    if text.len() > MAX_BYTES {
        return Err(Fault {
            span: Span::default(),
            message: format!("the file is over {MAX_BYTES} bytes"),
            remedy: Some("split it".to_owned()),
        });
    }
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: MAX_DEPTH,
            max_nodes: MAX_NODES,
            max_events: 2 * MAX_NODES,
            max_aliases: 256,
            max_anchors: 64,
            max_documents: 256,
            max_total_scalar_bytes: 4 * MAX_BYTES,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: 20_000,
            max_replay_stack_depth: 8,
            max_alias_expansions_per_anchor: 128,
        },
        duplicate_keys: DuplicateKeyPolicy::Error,
        merge_keys: MergeKeyPolicy::Error,
        strict_booleans: true,
        reject_unsupported_tags: true,
        with_snippet: false,
    };
    serde_saphyr::from_multiple_with_options::<Raw>(text, options)
        .map(|documents| documents.into_iter().map(|raw| raw.0).collect())
        .map_err(|error| fault(text, &error))
}

fn fault(text: &str, error: &serde_saphyr::Error) -> Fault {
    let span = error.location().map_or(0..0, |at| span(&at));
    // The error says its place itself; ours is shown beside the line.
    let full = error.without_snippet().to_string();
    let message = full
        .lines()
        .next()
        .unwrap_or_default()
        .split(" at line ")
        .next()
        .unwrap_or_default();
    let message = message
        .strip_prefix("error: ")
        .unwrap_or(message)
        .trim_end_matches('.');
    let duplicate = matches!(
        error.without_snippet(),
        serde_saphyr::Error::DuplicateMappingKey { .. }
    );
    Fault {
        span: Span::from(span.start.min(text.len())..span.end.min(text.len())),
        message: format!("this is not a YAML that a policy can be written in: {message}"),
        remedy: duplicate.then(|| "keep one of the two".to_owned()),
    }
}

fn span(location: &Location) -> Range<usize> {
    let span = location.span();
    let start = span.byte_offset().unwrap_or_else(|| span.offset());
    let len = span.byte_len().unwrap_or_else(|| span.len());
    let start = usize::try_from(start).unwrap_or(0);
    start..start.saturating_add(usize::try_from(len).unwrap_or(0))
}

struct Raw(Node);

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<RawKind>::deserialize(deserializer)?;
        Ok(Self(Node {
            kind: spanned.value.0,
            span: Span::from(span(&spanned.referenced)),
        }))
    }
}

struct RawKind(Kind);

impl<'de> Deserialize<'de> for RawKind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(KindVisitor).map(Self)
    }
}

struct KindVisitor;

impl<'de> Visitor<'de> for KindVisitor {
    type Value = Kind;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Kind, E> {
        Ok(Kind::Null)
    }

    fn visit_none<E>(self) -> Result<Kind, E> {
        Ok(Kind::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Kind, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Kind, E> {
        Ok(Kind::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Kind, E> {
        Ok(Kind::Int(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Kind, E> {
        i64::try_from(value)
            .map(Kind::Int)
            .map_err(|_| E::custom("a number is too large"))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Kind, E> {
        Ok(Kind::Float)
    }

    fn visit_str<E>(self, value: &str) -> Result<Kind, E> {
        Ok(Kind::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Kind, A::Error> {
        let mut values = Vec::new();
        while let Some(Raw(value)) = seq.next_element()? {
            values.push(value);
        }
        Ok(Kind::List(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Kind, A::Error> {
        let mut entries = Vec::new();
        while let Some((Raw(key), Raw(value))) = map.next_entry()? {
            entries.push((key, value));
        }
        Ok(Kind::Map(entries))
    }
}
