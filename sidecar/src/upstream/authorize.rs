//! The only place where a secret is read, and it asks for the receipt of the record first.
//!
//! [`authorize`] consumes the permit that `decide` made and the receipt that `ledger` made; without
//! an [`Authorized`] nothing can be dialled. The secret goes into one request and nowhere else.

use std::sync::Arc;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use exeat_policy::{Credential, Denial, Destination, Grant, Inject, Reason};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use super::credential::{Credentials, Secret};
use crate::{decide::Permit, ledger::Receipt};

/// What may stand unescaped in a query value: the unreserved characters of RFC 3986 section 2.3.
const QUERY_VALUE: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// A call that was decided, recorded, and has what it needs to leave.
#[derive(Debug)]
pub struct Authorized {
    permit: Permit,
    injection: Option<Injection>,
}

struct Injection {
    credential: Arc<Credential>,
    secret: Arc<Secret>,
}

/// Turns a recorded permit into the right to dial.
pub fn authorize(
    permit: Permit,
    receipt: Receipt,
    credentials: &Credentials,
) -> Result<Authorized, Denial> {
    if receipt.id() != permit.id() {
        // Two calls were mixed up in this process: neither may go.
        return Err(unavailable("the record is not this call's".to_owned()));
    }
    let injection = match &permit.grant().credential {
        None => None,
        Some(credential) => Some(Injection {
            secret: credentials
                .of(
                    &permit.grant().policy,
                    credential,
                    &permit.destination().host,
                )
                .map_err(|error| unavailable(error.to_string()))?,
            credential: Arc::clone(credential),
        }),
    };
    Ok(Authorized { permit, injection })
}

// === impl Authorized ===

impl Authorized {
    /// Where the call may go.
    #[must_use]
    pub fn destination(&self) -> &Destination {
        self.permit.destination()
    }

    /// What was granted.
    #[must_use]
    pub fn grant(&self) -> &Grant {
        self.permit.grant()
    }

    /// Which credential, in which version: connections are not shared between two.
    #[must_use]
    pub fn credential_identity(&self) -> Option<(Arc<str>, u64)> {
        self.injection.as_ref().map(|injection| {
            (
                Arc::clone(&injection.credential.name),
                injection.secret.version(),
            )
        })
    }

    /// Adds the credential to a request's fields, or gives the query that carries it.
    pub fn inject(
        &self,
        headers: &mut HeaderMap,
        query: Option<&str>,
    ) -> Result<Option<String>, Denial> {
        let Some(Injection { credential, secret }) = &self.injection else {
            return Ok(query.map(str::to_owned));
        };
        let value = secret.expose();
        match &credential.inject {
            Inject::Bearer => set(headers, header::AUTHORIZATION, &format!("Bearer {value}"))?,
            Inject::Basic { username } => {
                let pair = BASE64_STANDARD.encode(format!("{username}:{value}"));
                set(headers, header::AUTHORIZATION, &format!("Basic {pair}"))?;
            }
            Inject::Header { name, prefix } => {
                let value = format!("{}{value}", prefix.as_deref().unwrap_or(""));
                set(headers, name.clone(), &value)?;
            }
            Inject::Query { name } => return Ok(Some(query_with(query, name, value))),
        }
        Ok(query.map(str::to_owned))
    }
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) -> Result<(), Denial> {
    let mut value = HeaderValue::from_str(value).map_err(|_| {
        unavailable("the credential has characters that no header field can carry".to_owned())
    })?;
    value.set_sensitive(true);
    headers.insert(name, value);
    Ok(())
}

/// The query with the agent's own parameters of that name taken out and ours put in.
fn query_with(query: Option<&str>, name: &str, value: &str) -> String {
    let mut parts: Vec<&str> = query
        .unwrap_or_default()
        .split('&')
        .filter(|part| !part.is_empty() && !is_parameter(part, name))
        .collect();
    let ours = format!(
        "{}={}",
        utf8_percent_encode(name, QUERY_VALUE),
        utf8_percent_encode(value, QUERY_VALUE)
    );
    parts.push(&ours);
    parts.join("&")
}

fn is_parameter(part: &str, name: &str) -> bool {
    let key = part.split('=').next().unwrap_or_default().replace('+', " ");
    percent_decode_str(&key)
        .decode_utf8()
        .is_ok_and(|key| key.eq_ignore_ascii_case(name))
}

fn unavailable(message: String) -> Denial {
    Denial {
        reason: Reason::CredentialUnavailable,
        message,
        policy: None,
        rule: None,
    }
}

impl std::fmt::Debug for Injection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Injection")
            .field("credential", &self.credential.name)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agents_own_parameter_never_stays() {
        for (query, expected) in [
            (None, "key=s%2F1"),
            (Some(""), "key=s%2F1"),
            (Some("a=1&key=mine&b=2"), "a=1&b=2&key=s%2F1"),
            (Some("%6bey=mine"), "key=s%2F1"),
            (Some("KEY=mine&key"), "key=s%2F1"),
        ] {
            assert_eq!(query_with(query, "key", "s/1"), expected);
        }
    }
}
