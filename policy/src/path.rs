//! The one spelling of a request path: what is matched is what is forwarded.
//!
//! Percent-encoded unreserved characters are decoded once, hex is upper case, what a path may not
//! hold raw is encoded. Dot segments in any encoding, empty segments, backslashes, controls,
//! invalid UTF-8 and encodings of encodings are refused rather than repaired: an upstream might
//! repair them differently.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde::{Serialize, Serializer};

/// Longest path taken: beyond what servers accept (most stop at 8 KiB).
pub const MAX_PATH: usize = 8 * 1024;
/// Most segments taken, so that matching stays short.
pub const MAX_SEGMENTS: usize = 256;

/// A canonical request path, without query.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Path(Arc<str>);

/// Why a text is no path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// `*`, the authority form, or nothing.
    #[error("the path does not start with '/'")]
    NotAbsolute,
    /// More than the limit.
    #[error("the path is longer than {MAX_PATH} bytes or {MAX_SEGMENTS} segments")]
    TooLong,
    /// A raw byte that may not stand in a path: control, space, non-ASCII, `?`, `#`, backslash.
    #[error("the path holds the raw byte 0x{0:02x}")]
    Byte(u8),
    /// `%` without two hexadecimal digits.
    #[error("the path holds an invalid percent-encoding")]
    Percent,
    /// An encoded control, NUL or backslash.
    #[error("the path holds the encoded byte 0x{0:02x}")]
    Encoded(u8),
    /// Percent-encoded bytes that are no UTF-8 (overlong forms among them).
    #[error("the path holds percent-encoded bytes that are not UTF-8")]
    Utf8,
    /// An encoding of an encoding.
    #[error("the path is percent-encoded twice")]
    Double,
    /// `.` or `..`, in any encoding.
    #[error("the path holds a dot segment")]
    Dots,
    /// `//`.
    #[error("the path holds an empty segment")]
    Empty,
}

// === impl Path ===

impl Path {
    /// Reads the path part of a request target.
    pub fn parse(raw: &str) -> Result<Self, PathError> {
        if !raw.starts_with('/') {
            return Err(PathError::NotAbsolute);
        }
        if raw.len() > MAX_PATH {
            return Err(PathError::TooLong);
        }
        let text = normalise(raw.as_bytes())?;
        if text.len() > MAX_PATH {
            return Err(PathError::TooLong);
        }
        refuse_ambiguity(&text)?;
        Ok(Self(text.into()))
    }

    /// The canonical spelling: match on this, forward this.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The segments after the leading slash; `/` has one empty segment.
    pub(crate) fn segments(&self) -> impl Iterator<Item = &str> {
        self.0[1..].split('/')
    }

    /// The segments as the most lenient upstream might see them: encoded slashes split, path
    /// parameters cut, the trailing slash gone, lower case. Only denials look at this.
    pub(crate) fn loose_segments(&self) -> Vec<Cow<'_, str>> {
        let mut segments: Vec<Cow<'_, str>> = Vec::new();
        for segment in self.segments().flat_map(|s| s.split("%2F")) {
            let segment = without_parameters(segment);
            if segment.is_empty() {
                continue;
            }
            segments.push(if segment.bytes().any(|b| b.is_ascii_uppercase()) {
                Cow::Owned(segment.to_ascii_lowercase())
            } else {
                Cow::Borrowed(segment)
            });
        }
        segments
    }
}

/// One pass: decode what is unreserved, encode what may not stand raw, refuse the rest.
fn normalise(raw: &[u8]) -> Result<String, PathError> {
    let mut out = String::with_capacity(raw.len());
    // The bytes that the encodings stand for, in a row, to see whether they are UTF-8.
    let mut encoded: Vec<u8> = Vec::new();
    let mut at = 0;
    while let Some(&byte) = raw.get(at) {
        if byte != b'%' {
            utf8(&mut encoded)?;
            push_raw(&mut out, byte)?;
            at += 1;
            continue;
        }
        let digits = raw.get(at + 1..at + 3).ok_or(PathError::Percent)?;
        let (Some(high), Some(low)) = (hex(digits[0]), hex(digits[1])) else {
            return Err(PathError::Percent);
        };
        let byte = high << 4 | low;
        at += 3;
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                utf8(&mut encoded)?;
                out.push(char::from(byte));
            }
            0..=0x1f | 0x7f | b'\\' => return Err(PathError::Encoded(byte)),
            _ => {
                encoded.push(byte);
                push_encoded(&mut out, byte);
            }
        }
    }
    utf8(&mut encoded)?;
    Ok(out)
}

fn push_raw(out: &mut String, byte: u8) -> Result<(), PathError> {
    match byte {
        // RFC 3986 pchar and the slash.
        b'A'..=b'Z'
        | b'a'..=b'z'
        | b'0'..=b'9'
        | b'-'
        | b'.'
        | b'_'
        | b'~'
        | b'/'
        | b'!'
        | b'$'
        | b'&'
        | b'\''
        | b'('
        | b')'
        | b'*'
        | b'+'
        | b','
        | b';'
        | b'='
        | b':'
        | b'@' => out.push(char::from(byte)),
        // Clients send these raw; servers read them as their encoding.
        b'"' | b'<' | b'>' | b'^' | b'`' | b'{' | b'|' | b'}' | b'[' | b']' => {
            push_encoded(out, byte);
        }
        _ => return Err(PathError::Byte(byte)),
    }
    Ok(())
}

fn push_encoded(out: &mut String, byte: u8) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    out.push('%');
    out.push(char::from(HEX[usize::from(byte >> 4)]));
    out.push(char::from(HEX[usize::from(byte & 15)]));
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|d| u8::try_from(d).ok())
}

fn utf8(encoded: &mut Vec<u8>) -> Result<(), PathError> {
    if std::str::from_utf8(encoded).is_err() {
        return Err(PathError::Utf8);
    }
    encoded.clear();
    Ok(())
}

/// What remains legal but means different things to different servers.
fn refuse_ambiguity(text: &str) -> Result<(), PathError> {
    let bytes = text.as_bytes();
    // `%25` before two hex digits is a second layer: some upstream will decode it.
    for (at, _) in text.match_indices("%25") {
        if let (Some(&a), Some(&b)) = (bytes.get(at + 3), bytes.get(at + 4))
            && a.is_ascii_hexdigit()
            && b.is_ascii_hexdigit()
        {
            return Err(PathError::Double);
        }
    }
    let mut segments = text[1..].split('/').peekable();
    let mut count = 0;
    while let Some(segment) = segments.next() {
        count += 1;
        if count > MAX_SEGMENTS {
            return Err(PathError::TooLong);
        }
        // `/;x/` is `//` to a server that cuts parameters.
        if without_parameters(segment).is_empty()
            && (segments.peek().is_some() || !segment.is_empty())
        {
            return Err(PathError::Empty);
        }
        if segment
            .split("%2F")
            .any(|part| matches!(without_parameters(part), "." | ".."))
        {
            return Err(PathError::Dots);
        }
    }
    Ok(())
}

/// A segment up to its path parameters (`;x=y`), as Java servers cut it.
fn without_parameters(segment: &str) -> &str {
    let end = segment.find(';').unwrap_or(segment.len());
    let end = end.min(segment.find("%3B").unwrap_or(segment.len()));
    &segment[..end]
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Path {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

#[cfg(test)]
mod tests;
