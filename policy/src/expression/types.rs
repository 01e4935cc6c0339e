//! What an expression may talk about, by the kind of its rule, and of which type each is.
//!
//! The types are as coarse as today's checks need: a full checker will replace `Type` and keep
//! the vocabulary.

/// The kinds of rules, as far as expressions see them.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Vocabulary<'a> {
    /// `request`, and `path` with these captures.
    Http {
        /// Names that every path pattern of the rule captures.
        captures: &'a [String],
    },
    /// `request` and `tool`.
    Mcp,
    /// `request` and `inference`.
    Inference,
}

/// What an expression evaluates to, as far as known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Type {
    Bool,
    Number,
    Text,
    Bytes,
    Null,
    List,
    /// Of texts.
    Texts,
    Map,
    /// A map of texts.
    TextMap,
    /// Known when it runs.
    Any,
}

const REQUEST: &[(&str, Type)] = &[
    ("method", Type::Text),
    ("host", Type::Text),
    ("port", Type::Number),
    ("path", Type::Text),
    ("query", Type::TextMap),
    ("headers", Type::TextMap),
    ("scheme", Type::Text),
    ("websocket", Type::Bool),
];
const TOOL: &[(&str, Type)] = &[("name", Type::Text), ("arguments", Type::Map)];
const INFERENCE: &[(&str, Type)] = &[
    ("model", Type::Text),
    ("models", Type::Texts),
    ("stream", Type::Bool),
    ("provider", Type::Text),
    ("dialect", Type::Text),
];

/// Headers that hold secrets. Expressions never see them.
pub(super) const SECRET_HEADERS: &[&str] = &[
    "authorization",
    "cookie",
    "proxy-authorization",
    "x-api-key",
    "api-key",
    "x-goog-api-key",
    "x-auth-token",
    "private-token",
    "x-amz-security-token",
];

// === impl Vocabulary ===

impl Vocabulary<'_> {
    /// The variables.
    pub(super) fn roots(&self) -> Vec<&'static str> {
        match self {
            Self::Http { captures: [] } => vec!["request"],
            Self::Http { .. } => vec!["request", "path"],
            Self::Mcp => vec!["request", "tool"],
            Self::Inference => vec!["request", "inference"],
        }
    }

    /// The fields of a variable; `None` if it is not of this kind's vocabulary.
    pub(super) fn fields(&self, root: &str) -> Option<Vec<(&str, Type)>> {
        match (self, root) {
            (_, "request") => Some(REQUEST.to_vec()),
            (Self::Http { captures }, "path") => Some(
                captures
                    .iter()
                    .map(|name| (name.as_str(), Type::Text))
                    .collect(),
            ),
            (Self::Mcp, "tool") => Some(TOOL.to_vec()),
            (Self::Inference, "inference") => Some(INFERENCE.to_vec()),
            _ => None,
        }
    }
}

// === impl Type ===

impl Type {
    pub(super) fn noun(self) -> &'static str {
        match self {
            Self::Bool => "true or false",
            Self::Number => "a number",
            Self::Text => "a text",
            Self::Bytes => "bytes",
            Self::Null => "null",
            Self::List | Self::Texts => "a list",
            Self::Map | Self::TextMap => "a map",
            Self::Any => "any value",
        }
    }

    /// Whether a value of this type could ever equal one of the other.
    pub(super) fn comparable(self, other: Self) -> bool {
        let class = |t: Self| match t {
            Self::Texts => Self::List,
            Self::TextMap => Self::Map,
            t => t,
        };
        let (a, b) = (class(self), class(other));
        a == b || a == Self::Any || b == Self::Any
    }

    pub(super) fn may_be(self, wanted: &[Self]) -> bool {
        self == Self::Any || wanted.iter().any(|w| self.comparable(*w))
    }

    /// The type of what is selected or indexed from it.
    pub(super) fn element(self) -> Self {
        match self {
            Self::Texts | Self::TextMap => Self::Text,
            _ => Self::Any,
        }
    }
}
