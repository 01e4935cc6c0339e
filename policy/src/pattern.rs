//! What a rule's hosts, paths and models are compared with.
//!
//! Wildcards are explicit: `*.example.com` is what lies below `example.com`, never itself; `*` in
//! a path is one segment. Denials are compared loosely as well, because an upstream may be.

mod path;

use std::fmt;
use std::sync::Arc;

pub(crate) use path::PathPattern;

use crate::host::{Host, HostError};

/// The hosts a rule names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum HostPattern {
    /// This one.
    Exact(Host),
    /// Any that lies one or more labels below this name.
    Below(Arc<str>),
}

/// Why a text is no host pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HostPatternError {
    #[error("{0}")]
    Host(#[from] HostError),
    #[error("a wildcard stands for every host")]
    Everything,
    #[error("a wildcard is only possible as the whole first label")]
    Wildcard,
    #[error("anyone can register names below `{0}`")]
    PublicSuffix(String),
    #[error("an address has no names below it")]
    Address,
}

/// Text with `*` for any run of characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Glob(String);

// === impl HostPattern ===

impl HostPattern {
    /// Reads a pattern. `wide` ones, of denials, may stand below a public suffix.
    pub(crate) fn parse(text: &str, wide: bool) -> Result<Self, HostPatternError> {
        if matches!(text, "*" | "**" | "*.*") {
            return Err(HostPatternError::Everything);
        }
        let Some(base) = text.strip_prefix("*.") else {
            if text.contains('*') {
                return Err(HostPatternError::Wildcard);
            }
            return Ok(Self::Exact(Host::parse(text)?));
        };
        if base.contains('*') {
            return Err(HostPatternError::Wildcard);
        }
        let base = Host::parse(base)?;
        if base.ip().is_some() {
            return Err(HostPatternError::Address);
        }
        // A single label is a top-level domain, known or yet to come.
        let public = psl::suffix_str(base.as_str()) == Some(base.as_str());
        if !wide && (public || !base.as_str().contains('.')) {
            return Err(HostPatternError::PublicSuffix(base.to_string()));
        }
        Ok(Self::Below(base.as_str().into()))
    }

    pub(crate) fn matches(&self, host: &Host) -> bool {
        match self {
            Self::Exact(exact) => exact == host,
            Self::Below(base) => below(host).any(|suffix| suffix == &**base),
        }
    }

    /// Whether every host that matches the other matches this.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (own, Self::Exact(host)) => own.matches(host),
            (Self::Exact(_), Self::Below(_)) => false,
            (Self::Below(own), Self::Below(theirs)) => {
                own == theirs
                    || theirs
                        .strip_suffix(&**own)
                        .is_some_and(|prefix| prefix.ends_with('.'))
            }
        }
    }

    /// Whether some host matches both.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Exact(a), b) => b.matches(a),
            (a, Self::Exact(b)) => a.matches(b),
            (Self::Below(a), Self::Below(b)) => {
                let (long, short) = if a.len() > b.len() { (a, b) } else { (b, a) };
                long == short
                    || long
                        .strip_suffix(&**short)
                        .is_some_and(|p| p.ends_with('.'))
            }
        }
    }
}

/// The names that a host lies below: of `a.b.c`, `b.c` and `c`. An address lies below nothing.
pub(crate) fn below(host: &Host) -> impl Iterator<Item = &str> {
    let text = if host.ip().is_some() {
        ""
    } else {
        host.as_str()
    };
    text.match_indices('.').map(move |(at, _)| &text[at + 1..])
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(host) => host.fmt(f),
            Self::Below(base) => write!(f, "*.{base}"),
        }
    }
}

// === impl Glob ===

impl Glob {
    pub(crate) fn new(text: &str) -> Self {
        Self(text.to_owned())
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Exact but for `*`. Never more than the product of the two lengths.
    pub(crate) fn matches(&self, text: &str) -> bool {
        let (pattern, text) = (self.0.as_bytes(), text.as_bytes());
        let (mut p, mut t) = (0, 0);
        let mut retry: Option<(usize, usize)> = None;
        while t < text.len() {
            if pattern.get(p) == Some(&b'*') {
                retry = Some((p + 1, t));
                p += 1;
            } else if pattern.get(p) == text.get(t) {
                p += 1;
                t += 1;
            } else if let Some((after, from)) = retry {
                retry = Some((after, from + 1));
                p = after;
                t = from + 1;
            } else {
                return false;
            }
        }
        pattern[p..].iter().all(|b| *b == b'*')
    }
}

#[cfg(test)]
mod tests;
