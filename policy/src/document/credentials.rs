//! `credentials`: where secrets lie and how they are injected. Never the secrets.

use std::ops::Range;
use std::sync::Arc;

use http::HeaderName;

use crate::credential::{Credential, Inject, SecretRef};
use crate::tree::{Fields, File, Node};

/// A credential and where it stands.
#[derive(Debug)]
pub(super) struct WrittenCredential {
    pub(super) credential: Arc<Credential>,
    pub(super) span: Range<usize>,
}

/// Headers that frame or route a message. Injecting them would change what was judged.
const FRAMING: &[&str] = &[
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "upgrade",
    "te",
    "trailer",
    "keep-alive",
    "proxy-connection",
    "proxy-authorization",
    "content-type",
    "content-encoding",
    "expect",
    "mcp-method",
    "mcp-name",
];

pub(super) fn read(file: &File, node: &Node) -> Vec<WrittenCredential> {
    let mut known: Vec<WrittenCredential> = Vec::new();
    for node in node.list(file, "`credentials`") {
        let Some(written) = credential(file, node) else {
            continue;
        };
        if known
            .iter()
            .any(|k| k.credential.name == written.credential.name)
        {
            file.refuse(
                &written.span,
                format!(
                    "there already is a credential `{}`",
                    written.credential.name
                ),
                "give each credential its own name",
            );
            continue;
        }
        known.push(written);
    }
    known
}

fn credential(file: &File, node: &Node) -> Option<WrittenCredential> {
    let fields = Fields::open(
        file,
        node,
        "a credential",
        &["name", "secret", "inject"],
        &[],
    )?;
    let span = fields.need("name")?.span.clone();
    let name = fields.need_text("name")?;
    let secret = secret(file, fields.need("secret")?);
    let inject = inject(file, fields.need("inject")?);
    Some(WrittenCredential {
        credential: Arc::new(Credential {
            name: name.into(),
            secret: secret?,
            inject: inject?,
        }),
        span,
    })
}

fn secret(file: &File, node: &Node) -> Option<SecretRef> {
    let fields = Fields::open(file, node, "`secret`", &["name", "key"], &[])?;
    Some(SecretRef {
        name: fields.need_text("name")?.into(),
        key: fields.need_text("key")?.into(),
    })
}

fn inject(file: &File, node: &Node) -> Option<Inject> {
    let ways = ["bearer", "basic", "header", "query"];
    let fields = Fields::open(file, node, "`inject`", &ways, &[])?;
    let [(key, way)] = fields.entries() else {
        file.refuse(
            &node.span,
            "`inject` has exactly one way",
            "one of: bearer, basic, header, query",
        );
        return None;
    };
    match key.text(file, "a key")? {
        "bearer" => Fields::open(file, way, "`bearer`", &[], &[]).map(|_| Inject::Bearer),
        "basic" => {
            let fields = Fields::open(file, way, "`basic`", &["username"], &[])?;
            let username = fields.need_text("username")?;
            if username.contains(':') || username.chars().any(char::is_control) {
                file.refuse(
                    &way.span,
                    "a user name has no colon and no control character",
                    "correct it",
                );
                return None;
            }
            Some(Inject::Basic {
                username: username.into(),
            })
        }
        "header" => header(file, way),
        "query" => {
            let fields = Fields::open(file, way, "`query`", &["name"], &[])?;
            let name = fields.need_text("name")?;
            if !name
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '~'))
            {
                file.refuse(
                    &way.span,
                    "this is no plain name of a parameter",
                    "use letters, digits, `-`, `_`, `.`",
                );
                return None;
            }
            Some(Inject::Query { name: name.into() })
        }
        _ => None,
    }
}

fn header(file: &File, node: &Node) -> Option<Inject> {
    let fields = Fields::open(file, node, "`header`", &["name", "prefix"], &[])?;
    let text = fields.need_text("name")?;
    let Ok(name) = HeaderName::from_bytes(text.to_ascii_lowercase().as_bytes()) else {
        file.refuse(
            &node.span,
            "this is no name of a header",
            "use letters, digits and `-`",
        );
        return None;
    };
    if FRAMING.contains(&name.as_str()) {
        file.refuse(
            &node.span,
            format!("`{name}` is not the place of a secret"),
            "use another header",
        );
        return None;
    }
    let prefix = fields.text("prefix");
    if prefix.is_some_and(|p| p.len() > 64 || !p.chars().all(|c| c == ' ' || c.is_ascii_graphic()))
    {
        file.refuse(
            &node.span,
            "a prefix is at most 64 printable ASCII characters",
            "correct it",
        );
        return None;
    }
    Some(Inject::Header {
        name,
        prefix: prefix.map(Into::into),
    })
}
