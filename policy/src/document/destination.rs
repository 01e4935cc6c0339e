//! The fields that every kind with hosts has: hosts, ports, scheme, addresses, tls.

use std::sync::Arc;

use ipnet::IpNet;

use crate::call::Scheme;
use crate::limits::{MAX_HOST, MAX_ITEMS, MAX_PEM};
use crate::pattern::{HostPattern, HostPatternError};
use crate::plan::rule::Scope;
use crate::tree::{Fields, File, Kind, Node};
use crate::verdict::{CaSource, UpstreamTls};

/// Reads the fields that are there; `wide` ones, of denials, may be absent and mean everything.
pub(super) fn read(file: &File, fields: &Fields<'_>, wide: bool) -> Scope {
    let hosts = hosts(file, fields, wide);
    let scheme = fields.word(
        "scheme",
        &[("https", Scheme::Https), ("http", Scheme::Http)],
    );
    let scheme = if wide {
        scheme
    } else {
        scheme.or(Some(Scheme::Https))
    };
    let ports = match fields.get("ports") {
        Some(node) => ports(file, node),
        None if wide => Vec::new(),
        None => vec![scheme.unwrap_or(Scheme::Https).default_port()],
    };
    let tls = fields.get("tls");
    if let (Some(tls), Some(Scheme::Http)) = (tls, scheme) {
        file.refuse(
            &tls.span,
            "`tls` makes no sense with `scheme: http`",
            "remove one of the two",
        );
    }
    let (passthrough, tls) = tls.map_or_else(Default::default, |node| self::tls(file, node));
    Scope {
        hosts,
        ports,
        scheme,
        addresses: addresses(file, fields),
        passthrough,
        tls,
    }
}

fn hosts(file: &File, fields: &Fields<'_>, wide: bool) -> Vec<HostPattern> {
    let mut patterns: Vec<HostPattern> = fields
        .texts("hosts")
        .unwrap_or_default()
        .into_iter()
        .filter_map(|(text, node)| pattern(file, text, node, wide))
        .collect();
    patterns.sort();
    patterns.dedup();
    patterns
}

pub(super) fn pattern(file: &File, text: &str, node: &Node, wide: bool) -> Option<HostPattern> {
    if text.chars().count() > MAX_HOST {
        file.refuse(
            &node.span,
            format!("a host has at most {MAX_HOST} characters"),
            "correct it",
        );
        return None;
    }
    let error = match HostPattern::parse(text, wide) {
        Ok(pattern) => return Some(pattern),
        Err(error) => error,
    };
    let remedy = match &error {
        HostPatternError::Everything if wide => {
            "leave `hosts` out: a denial without it is for every host"
        }
        HostPatternError::Everything => {
            "name the hosts; `*.example.com` is what lies below example.com"
        }
        HostPatternError::Wildcard => "write `*.example.com`",
        HostPatternError::PublicSuffix(_) => "name a domain that somebody owns, as `*.example.com`",
        HostPatternError::Address => "name the address itself",
        HostPatternError::Host(_) => "write a name or an address, without scheme, port or path",
    };
    file.refuse(
        &node.span,
        format!("this is no host that a rule can name: {error}"),
        remedy,
    );
    None
}

fn ports(file: &File, node: &Node) -> Vec<u16> {
    let list = node.list_of(file, "`ports`", MAX_ITEMS);
    if list.is_empty() && matches!(node.kind, Kind::List(_)) {
        file.refuse(
            &node.span,
            "`ports` is empty",
            "name a port, or remove the field",
        );
    }
    let mut ports: Vec<u16> = list.iter().filter_map(|node| port(file, node)).collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

pub(super) fn port(file: &File, node: &Node) -> Option<u16> {
    let port = match node.kind {
        Kind::Int(port) => u16::try_from(port).ok().filter(|port| *port != 0),
        _ => None,
    };
    if port.is_none() {
        file.refuse(
            &node.span,
            "this is no port",
            "write a number from 1 to 65535",
        );
    }
    port
}

pub(super) fn addresses(file: &File, fields: &Fields<'_>) -> Arc<[IpNet]> {
    let mut nets: Vec<IpNet> = Vec::new();
    for (text, node) in fields.texts("addresses").unwrap_or_default() {
        let Ok(net) = text.parse::<IpNet>() else {
            file.refuse(
                &node.span,
                "this is no range of addresses",
                "write it as 10.0.0.0/8 or fd00::/8",
            );
            continue;
        };
        if net.trunc() != net {
            file.refuse(
                &node.span,
                "the address has bits beyond its prefix",
                format!("write {}", net.trunc()),
            );
            continue;
        }
        nets.push(net);
    }
    nets.sort();
    nets.dedup();
    nets.into()
}

fn tls(file: &File, node: &Node) -> (bool, UpstreamTls) {
    let Some(fields) = Fields::open(file, node, "`tls`", &["mode", "ca"], &[]) else {
        return Default::default();
    };
    let passthrough = fields
        .word("mode", &[("Terminate", false), ("Passthrough", true)])
        .unwrap_or(false);
    let ca = fields.get("ca").and_then(|node| ca(file, node));
    if passthrough && ca.is_some() {
        file.refuse(
            &node.span,
            "a passed-through connection is not verified here",
            "remove `ca`, or terminate",
        );
    }
    (passthrough, UpstreamTls { ca })
}

fn ca(file: &File, node: &Node) -> Option<CaSource> {
    if matches!(node.kind, Kind::Map(_)) {
        let fields = Fields::open(file, node, "`ca`", &["file"], &[])?;
        return Some(CaSource::File(fields.need_text("file")?.into()));
    }
    let text = node.text(file, "`ca`")?;
    let whole =
        text.contains("-----BEGIN CERTIFICATE-----") && text.contains("-----END CERTIFICATE-----");
    if !whole || text.len() > MAX_PEM || text.contains("PRIVATE KEY") {
        file.refuse(
            &node.span,
            "`ca` is neither certificates as PEM nor a file",
            "paste the certificate after `ca: |`, or write `ca: {file: …}`",
        );
        return None;
    }
    Some(CaSource::Pem(text.into()))
}
