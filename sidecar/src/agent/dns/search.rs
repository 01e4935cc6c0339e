//! The search domains that clients append before they ask for the bare name.
//!
//! `api.example.com` is asked for as `api.example.com.ns.svc.cluster.local` first where `ndots` is
//! high. That such a name does not exist is no attempt to get out, and not on record. Read once at
//! the start, since the agent may be able to write the file later.

use std::fs;

use exeat_policy::Host;

/// Resolvers take six; more are passed over.
const MAX_DOMAINS: usize = 32;

/// No honest `resolv.conf` is longer.
const MAX_BYTES: usize = 64 * 1024;

/// The domains, each with the dot before it.
#[derive(Debug, Default)]
pub(super) struct SearchDomains(Vec<String>);

impl SearchDomains {
    pub(super) fn from_system() -> Self {
        fs::read_to_string("/etc/resolv.conf")
            .map(|text| Self::parse(&text))
            .unwrap_or_default()
    }

    pub(super) fn parse(text: &str) -> Self {
        let text = text.get(..text.len().min(MAX_BYTES)).unwrap_or_default();
        let domains = text
            .lines()
            .filter_map(|line| {
                let mut words = line.split_ascii_whitespace();
                matches!(words.next(), Some("search" | "domain")).then_some(words)
            })
            .flatten()
            .filter_map(|word| Host::parse(word).ok())
            .filter(|host| host.ip().is_none())
            .map(|host| format!(".{host}"))
            .take(MAX_DOMAINS)
            .collect();
        Self(domains)
    }

    /// The name that was meant, if `host` ends with a search domain.
    pub(super) fn without(&self, host: &Host) -> Option<Host> {
        self.0
            .iter()
            .find_map(|domain| host.as_str().strip_suffix(domain.as_str()))
            .and_then(|bare| Host::parse(bare).ok())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    #[test]
    fn the_appended_domain_is_taken_off() {
        let text = "nameserver 10.0.0.10\nsearch ns.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n";
        let search = SearchDomains::parse(text);
        let without = |name: &str| {
            let bare = search.without(&Host::parse(name).unwrap());
            bare.map(|bare| bare.to_string())
        };
        assert_eq!(
            without("a.example.ns.svc.cluster.local").unwrap(),
            "a.example"
        );
        assert_eq!(without("a.example.cluster.local").unwrap(), "a.example");
        assert_eq!(without("cluster.local"), None);
        assert_eq!(without("a.example"), None);
        assert_eq!(without("xcluster.local"), None);
    }
}
