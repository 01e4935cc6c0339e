//! The one spelling of a host: lower case, A-labels, no trailing dot, IPv4 in any of its odd
//! spellings as a canonical address.
//!
//! Everything that names a host (policy, SNI, Host header, DNS question) becomes a [`Host`] before
//! it is compared, so two spellings of one host can't get two verdicts. What can't be brought into
//! that form is refused.

use std::borrow::Borrow;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;
use std::sync::Arc;

use serde::{Serialize, Serializer};

/// RFC 1035: a name is at most 253 characters as text.
const MAX_NAME: usize = 253;
/// RFC 1035: a label is at most 63 octets.
const MAX_LABEL: usize = 63;
/// Longest input looked at: U-labels are longer than their A-labels, but never this much.
const MAX_INPUT: usize = 1024;

/// A DNS name or an IP address, in its one spelling.
#[derive(Debug, Clone)]
pub struct Host {
    text: Arc<str>,
    ip: Option<IpAddr>,
}

/// Why a text is no host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// Nothing there.
    #[error("the host is empty")]
    Empty,
    /// Longer than DNS allows.
    #[error("the host is longer than {MAX_NAME} characters")]
    TooLong,
    /// A label is empty or longer than DNS allows.
    #[error("a label of the host is empty or longer than {MAX_LABEL} characters")]
    Label,
    /// A character that no host has.
    #[error("the host holds {0:?}, which no host name has")]
    Character(char),
    /// Neither a name nor an address.
    #[error("the host is neither a name nor an IP address")]
    Malformed,
}

// === impl Host ===

impl Host {
    /// Reads a host, without port: a name, an IPv4 address in any spelling, an IPv6 address with
    /// or without brackets.
    pub fn parse(raw: &str) -> Result<Self, HostError> {
        if raw.is_empty() {
            return Err(HostError::Empty);
        }
        if raw.len() > MAX_INPUT {
            return Err(HostError::TooLong);
        }
        if let Some(ip) = ipv6(raw)? {
            return Ok(Self::from_ip(ip));
        }
        // The WHATWG parser decodes percent signs; a host on the wire has none.
        if let Some(bad) = raw.chars().find(|c| {
            matches!(c, '%' | '@' | '/' | '\\' | '?' | '#' | ':')
                || c.is_control()
                || c.is_whitespace()
        }) {
            return Err(HostError::Character(bad));
        }
        let name = raw.strip_suffix('.').unwrap_or(raw);
        match url::Host::parse(name) {
            Ok(url::Host::Ipv4(ip)) => Ok(Self::from_ip(IpAddr::V4(ip))),
            Ok(url::Host::Ipv6(ip)) => Ok(Self::from_ip(IpAddr::V6(ip))),
            Ok(url::Host::Domain(name)) => Self::from_name(&name),
            Err(_) => Err(HostError::Malformed),
        }
    }

    /// The host that is this address. An IPv4 address inside IPv6 (`::ffff:…`) is that IPv4 one.
    #[must_use]
    pub fn from_ip(ip: IpAddr) -> Self {
        let ip = ip.to_canonical();
        Self {
            text: ip.to_string().into(),
            ip: Some(ip),
        }
    }

    /// The canonical spelling. IPv6 has no brackets here.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The address, if the host is one.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        self.ip
    }

    /// As it stands in a URL or a Host header: IPv6 in brackets.
    #[must_use]
    pub fn authority(&self) -> String {
        match self.ip {
            Some(IpAddr::V6(ip)) => format!("[{ip}]"),
            _ => self.text.to_string(),
        }
    }

    fn from_name(name: &str) -> Result<Self, HostError> {
        if name.is_empty() {
            return Err(HostError::Empty);
        }
        if name.len() > MAX_NAME {
            return Err(HostError::TooLong);
        }
        for label in name.split('.') {
            if label.is_empty() || label.len() > MAX_LABEL {
                return Err(HostError::Label);
            }
        }
        // Underscores are no host names by the letter, but services are named with them.
        if let Some(bad) = name
            .chars()
            .find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '-' | '_' | '.'))
        {
            return Err(HostError::Character(bad));
        }
        Ok(Self {
            text: name.into(),
            ip: None,
        })
    }
}

/// IPv6 with or without brackets; a zone (`%eth0`) is refused: it names an interface, not a host.
fn ipv6(raw: &str) -> Result<Option<IpAddr>, HostError> {
    let inner = match raw.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').ok_or(HostError::Malformed)?,
        None if raw.contains(':') => raw,
        None => return Ok(None),
    };
    inner
        .parse::<Ipv6Addr>()
        .map(|ip| Some(IpAddr::V6(ip)))
        .map_err(|_| HostError::Malformed)
}

impl PartialEq for Host {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Host {}

impl std::hash::Hash for Host {
    // As `str` hashes, so that maps can be asked with a `&str`.
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

impl PartialOrd for Host {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Host {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.text.cmp(&other.text)
    }
}

impl Borrow<str> for Host {
    fn borrow(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Host {
    type Err = HostError;

    fn from_str(raw: &str) -> Result<Self, Self::Err> {
        Self::parse(raw)
    }
}

impl Serialize for Host {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

#[cfg(test)]
mod tests;
