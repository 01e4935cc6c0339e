//! Patterns for paths: `/repos/{owner}/*/**`.
//!
//! A segment with an encoded slash is matched only by a pattern segment that has one, so that
//! `{name}` never stands for what an upstream might take for two segments.

use std::borrow::Cow;
use std::fmt;

use crate::path::{Path, PathError};

/// The segments of a path, and how they are to match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PathPattern {
    text: String,
    segments: Vec<Vec<Part>>,
    /// Whether anything may follow.
    rest: bool,
}

/// A segment, or the part of one between encoded slashes.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal { exact: String, lower: String },
    Capture(String),
    One,
}

/// Why a text is no path pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PatternError {
    #[error("{0}")]
    Path(#[from] PathError),
    #[error("`**` is only possible as the last segment")]
    Rest,
    #[error("`*` is only possible as a whole segment")]
    Wildcard,
    #[error("`{{…}}` is a whole segment, and its name has letters, digits and underscores")]
    Capture,
    #[error("`{{{0}}}` occurs twice")]
    Twice(String),
    #[error("a path pattern has no query")]
    Query,
}

// === impl PathPattern ===

impl PathPattern {
    pub(crate) fn parse(text: &str) -> Result<Self, PatternError> {
        if text.contains(['?', '#']) {
            return Err(PatternError::Query);
        }
        let Some(body) = text.strip_prefix('/') else {
            return Err(PathError::NotAbsolute.into());
        };
        // As a path it must be canonical too: the wildcards are given stand-ins.
        let (body, rest) = match body.strip_suffix("**") {
            Some("") => ("", true),
            Some(body) => (body.strip_suffix('/').ok_or(PatternError::Rest)?, true),
            None => (body, false),
        };
        let mut names = Vec::new();
        let mut segments = Vec::new();
        if !(rest && body.is_empty()) {
            for segment in body.split('/') {
                segments.push(parts(segment, &mut names)?);
            }
        }
        let last = segments.len();
        for (at, segment) in segments.iter().enumerate() {
            let empty =
                matches!(segment.as_slice(), [Part::Literal { exact, .. }] if exact.is_empty());
            if empty && (rest || at + 1 != last) {
                return Err(PathError::Empty.into());
            }
        }
        Ok(Self {
            text: text.to_owned(),
            segments,
            rest,
        })
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    pub(crate) fn captures(&self) -> impl Iterator<Item = &str> {
        self.segments
            .iter()
            .flatten()
            .filter_map(|part| match part {
                Part::Capture(name) => Some(name.as_str()),
                _ => None,
            })
    }

    /// The first segment, if the pattern fixes it.
    pub(crate) fn first(&self) -> Option<&str> {
        match self.segments.first().map(Vec::as_slice) {
            Some([Part::Literal { exact, .. }]) => Some(exact),
            _ => None,
        }
    }

    /// Matches to the letter, and says what the captures stand for, decoded.
    pub(crate) fn matches<'a>(&'a self, path: &'a Path) -> Option<Vec<(&'a str, Cow<'a, str>)>> {
        let mut captures = Vec::new();
        let mut given = path.segments();
        for pattern in &self.segments {
            let segment = given.next()?;
            let mut pieces = segment.split("%2F");
            for part in pattern {
                let piece = pieces.next()?;
                match part {
                    Part::Literal { exact, .. } if exact == piece => {}
                    Part::Literal { .. } => return None,
                    Part::One | Part::Capture(_) if piece.is_empty() => return None,
                    Part::One => {}
                    Part::Capture(name) => captures.push((name.as_str(), decoded(piece))),
                }
            }
            if pieces.next().is_some() {
                return None;
            }
        }
        if self.rest {
            // What follows may not hide a slash either.
            given
                .all(|segment| !segment.contains("%2F"))
                .then_some(captures)
        } else {
            given.next().is_none().then_some(captures)
        }
    }

    /// Matches as the most lenient upstream might read the path. For denials.
    pub(crate) fn matches_loosely(&self, path: &Path, loose: &[Cow<'_, str>]) -> bool {
        if self.matches(path).is_some() {
            return true;
        }
        let mut given = loose.iter();
        let parts = self
            .segments
            .iter()
            .flatten()
            .filter(|part| !matches!(part, Part::Literal { exact, .. } if exact.is_empty()));
        for part in parts {
            let Some(segment) = given.next() else {
                return false;
            };
            if matches!(part, Part::Literal { lower, .. } if *lower != **segment) {
                return false;
            }
        }
        self.rest || given.next().is_none()
    }
}

fn parts(segment: &str, names: &mut Vec<String>) -> Result<Vec<Part>, PatternError> {
    let mut parts = Vec::new();
    for piece in segment.replace("%2f", "%2F").split("%2F") {
        parts.push(part(piece, names)?);
    }
    Ok(parts)
}

fn part(piece: &str, names: &mut Vec<String>) -> Result<Part, PatternError> {
    if piece == "*" {
        return Ok(Part::One);
    }
    if piece == "**" {
        return Err(PatternError::Rest);
    }
    if piece.contains('*') {
        return Err(PatternError::Wildcard);
    }
    if piece.contains(['{', '}']) {
        let name = piece
            .strip_prefix('{')
            .and_then(|p| p.strip_suffix('}'))
            .filter(|name| is_name(name))
            .ok_or(PatternError::Capture)?;
        if names.iter().any(|known| known == name) {
            return Err(PatternError::Twice(name.to_owned()));
        }
        names.push(name.to_owned());
        return Ok(Part::Capture(name.to_owned()));
    }
    if piece.is_empty() {
        return Ok(Part::Literal {
            exact: String::new(),
            lower: String::new(),
        });
    }
    let exact = Path::parse(&format!("/{piece}"))?.as_str()[1..].to_owned();
    Ok(Part::Literal {
        lower: exact.to_ascii_lowercase(),
        exact,
    })
}

fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.len() <= 64
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Canonical paths decode to UTF-8 always.
fn decoded(piece: &str) -> Cow<'_, str> {
    percent_encoding::percent_decode_str(piece).decode_utf8_lossy()
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
