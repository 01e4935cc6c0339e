//! Rules of kind `tcp`: bytes to a host and port, unread.

use super::destination;
use crate::plan::rule::{Kind, Scope};
use crate::tree::{Fields, File, Node};
use crate::verdict::UpstreamTls;

pub(super) fn read(file: &File, node: &Node, wide: bool) -> Option<(Scope, Kind)> {
    let known = ["host", "hosts", "port", "ports", "addresses"];
    // A denial dials nothing: it has no use for the last.
    let known = if wide { &known[..4] } else { &known[..] };
    let fields = Fields::open(file, node, "`tcp`", known, &[])?;
    let missing = |one: &str, many: &str| !fields.has(one) && !fields.has(many);
    // A denial may leave one of them open.
    let open = usize::from(missing("host", "hosts")) + usize::from(missing("port", "ports"));
    for (one, many) in [("host", "hosts"), ("port", "ports")] {
        let both = fields.has(one) && fields.has(many);
        if both || missing(one, many) && open > usize::from(wide) {
            file.refuse(
                &node.span,
                format!("`tcp` has either `{one}` or `{many}`"),
                format!("write `{one}: …`, or a list in `{many}`"),
            );
            return None;
        }
    }
    let shared = destination::read(file, &fields, true);
    let mut scope = Scope {
        hosts: shared.hosts,
        ports: shared.ports,
        scheme: None,
        addresses: shared.addresses,
        passthrough: false,
        tls: UpstreamTls::default(),
    };
    if let Some(node) = fields.get("host") {
        let text = node.text(file, "`host`")?;
        scope.hosts = vec![destination::pattern(file, text, node, wide)?];
    }
    if let Some(node) = fields.get("port") {
        scope.ports = vec![destination::port(file, node)?];
    }
    Some((scope, Kind::Tcp))
}
