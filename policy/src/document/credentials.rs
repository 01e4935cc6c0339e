//! `credentials`: where secrets lie and how they are injected. Never the secrets.

use std::sync::Arc;

use http::HeaderName;

use super::is_dns_name;
use crate::credential::{Credential, Inject, SecretRef};
use crate::limits::{MAX_CREDENTIALS, MAX_NAME, MAX_OBJECT_NAME, MAX_PREFIX, MAX_WORD};
use crate::tree::{Fields, File, Node, Span};

/// A credential and where it stands.
#[derive(Debug)]
pub(super) struct WrittenCredential {
    pub(super) credential: Arc<Credential>,
    pub(super) span: Span,
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

/// The key under which the pod's own Secret holds what signs its status: never a credential.
const RESERVED: &str = crate::status::KEY_FILE;

pub(super) fn read(file: &File, node: &Node, policy: &str) -> Vec<WrittenCredential> {
    let mut known: Vec<WrittenCredential> = Vec::new();
    for node in node.list_of(file, "`credentials`", MAX_CREDENTIALS) {
        let Some(written) = credential(file, node, policy) else {
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

fn credential(file: &File, node: &Node, policy: &str) -> Option<WrittenCredential> {
    let fields = Fields::open(
        file,
        node,
        "a credential",
        &["name", "secret", "inject"],
        &[],
    )?;
    let span = fields.need("name")?.span.clone();
    let name = name(file, fields.need_text("name")?, &span, policy)?;
    let secret = secret(file, fields.need("secret")?);
    let inject = inject(file, fields.need("inject")?);
    Some(WrittenCredential {
        credential: Arc::new(Credential {
            name,
            secret: secret?,
            inject: inject?,
        }),
        span,
    })
}

/// A credential is a file of the gate's, `<policy>.<credential>`: the last dot ends the policy's
/// name, so the credential's has none, and no two policies share a file.
fn name(file: &File, name: &str, span: &Span, policy: &str) -> Option<Arc<str>> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if name.len() > MAX_NAME || !name.chars().all(plain) {
        file.refuse(
            span,
            "this is no name of a credential",
            format!(
                "use up to {MAX_NAME} letters, digits, `-`, `_`: it becomes the name of a file"
            ),
        );
        return None;
    }
    if name == RESERVED {
        file.refuse(
            span,
            format!("`{RESERVED}` is the gate's own"),
            "use another name",
        );
        return None;
    }
    if policy.len() + 1 + name.len() > MAX_OBJECT_NAME {
        file.refuse(
            span,
            "the names of the policy and of the credential are too long together",
            format!("they make the name of a file, of at most {MAX_OBJECT_NAME} characters"),
        );
        return None;
    }
    Some(name.into())
}

fn secret(file: &File, node: &Node) -> Option<SecretRef> {
    let fields = Fields::open(file, node, "`secret`", &["name", "key"], &[])?;
    let name = fields.need_text("name")?;
    let key = fields.need_text("key")?;
    if !is_dns_name(name) {
        file.refuse(
            &fields.need("name")?.span,
            "this is no name of a Secret",
            "use lower-case letters, digits, `-` and `.`",
        );
        return None;
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if key.len() > MAX_OBJECT_NAME || !key.chars().all(plain) {
        file.refuse(
            &fields.need("key")?.span,
            "this is no key of a Secret",
            "use letters, digits, `-`, `_` and `.`",
        );
        return None;
    }
    Some(SecretRef {
        name: name.into(),
        key: key.into(),
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
            if username.contains(':')
                || username.chars().any(char::is_control)
                || username.chars().count() > MAX_WORD
            {
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
            if name.len() > MAX_WORD
                || !name
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
    if text.len() > MAX_WORD || FRAMING.contains(&name.as_str()) {
        file.refuse(
            &node.span,
            format!("`{name}` is not the place of a secret"),
            "use another header",
        );
        return None;
    }
    let prefix = fields.text("prefix");
    if prefix.is_some_and(|p| {
        p.len() > MAX_PREFIX || !p.chars().all(|c| c == ' ' || c.is_ascii_graphic())
    }) {
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
