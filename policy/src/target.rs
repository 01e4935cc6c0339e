//! An absolute URL taken apart, without repairing it.
//!
//! A URL library would fold backslashes, drop tabs and resolve dot segments; here those are
//! errors, so that what is judged is what was written.

use crate::call::{Destination, Scheme};
use crate::host::{Host, HostError};
use crate::path::{Path, PathError};

/// Longest query taken.
const MAX_QUERY: usize = 64 * 1024;

/// What an `http` or `https` URL names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// With TLS or without.
    pub scheme: Scheme,
    /// Host and port.
    pub destination: Destination,
    /// The path; `/` if there is none.
    pub path: Path,
    /// The query, without `?`.
    pub query: Option<String>,
}

/// Why a text is no such URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Not `http://` or `https://`.
    #[error("the URL does not start with http:// or https://")]
    Scheme,
    /// `user@`.
    #[error("the URL has a user in it")]
    User,
    /// No number from 1 to 65535.
    #[error("the port of the URL is none")]
    Port,
    /// See [`HostError`].
    #[error(transparent)]
    Host(#[from] HostError),
    /// See [`PathError`].
    #[error(transparent)]
    Path(#[from] PathError),
    /// Raw controls, spaces, `#` or non-ASCII, or too long.
    #[error("the query of the URL holds what no query may")]
    Query,
}

// === impl Target ===

impl Target {
    /// Takes a URL apart.
    pub fn parse(url: &str) -> Result<Self, TargetError> {
        let (scheme, rest) = if let Some(rest) = url.strip_prefix("https://") {
            (Scheme::Https, rest)
        } else if let Some(rest) = url.strip_prefix("http://") {
            (Scheme::Http, rest)
        } else {
            return Err(TargetError::Scheme);
        };
        let end = rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len());
        let (authority, rest) = rest.split_at(end);
        let (path, query) = match rest.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (rest, None),
        };
        let path = if path.is_empty() { "/" } else { path };
        Ok(Self {
            scheme,
            destination: destination(authority, scheme)?,
            path: Path::parse(path)?,
            query: query.map(self::query).transpose()?,
        })
    }
}

fn destination(authority: &str, scheme: Scheme) -> Result<Destination, TargetError> {
    if authority.contains('@') {
        return Err(TargetError::User);
    }
    let colon = authority
        .rfind(':')
        .filter(|at| !authority[*at..].contains(']'));
    let (host, port) = match colon {
        Some(at) => {
            let digits = &authority[at + 1..];
            let port = digits
                .bytes()
                .all(|b| b.is_ascii_digit())
                .then(|| digits.parse::<u16>());
            match port {
                Some(Ok(port)) if port != 0 => (&authority[..at], port),
                _ => return Err(TargetError::Port),
            }
        }
        None => (authority, scheme.default_port()),
    };
    // Without brackets, the colons of an IPv6 address and that of a port can't be told apart.
    if host.contains(':') && !host.starts_with('[') {
        return Err(HostError::Malformed.into());
    }
    Ok(Destination {
        host: Host::parse(host)?,
        port,
    })
}

fn query(query: &str) -> Result<String, TargetError> {
    let plain = query.bytes().all(|b| b.is_ascii_graphic() && b != b'#');
    if plain && query.len() <= MAX_QUERY {
        Ok(query.to_owned())
    } else {
        Err(TargetError::Query)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    #[test]
    fn takes_apart() {
        let target = Target::parse("https://API.example.com:8443/a/%62?x=1&y=/?").unwrap();
        assert_eq!(target.destination.to_string(), "api.example.com:8443");
        assert_eq!(target.path.as_str(), "/a/b");
        assert_eq!(target.query.as_deref(), Some("x=1&y=/?"));
        let target = Target::parse("http://[::1]?x").unwrap();
        assert_eq!(target.destination.to_string(), "[::1]:80");
        assert_eq!(target.path.as_str(), "/");
    }

    #[test]
    fn refuses() {
        for url in [
            "ftp://x/",
            "HTTPS:/x",
            "https:///x",
            "https://a@b/",
            "https://a:0/",
            "https://a:+1/",
            "https://a:/",
            "https://a:99999/",
            "https://::1/",
            "https://a\\b/",
            "https://a/../b",
            "https://a/x#y",
            "https://a#y",
            "https://a/?x#y",
            "https://a/? ",
        ] {
            assert!(Target::parse(url).is_err(), "{url}");
        }
    }
}
