//! Header fields, made safe once at the door: what is matched afterwards is what is forwarded.
//!
//! Removed here: what concerns one hop only, what tells upstreams lies about the way a request
//! came, what makes a server read another method than the one judged, and every credential that the
//! agent brought. The gate's own credential comes later and is not in reach of any of these.

use http::{HeaderMap, HeaderName, HeaderValue, header};
use percent_encoding::percent_decode_str;

/// Fields of one hop, RFC 9110 section 7.6.1 and their forerunners.
const HOP_BY_HOP: &[&str] = &[
    "connection",
    "keep-alive",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
];

/// Fields with which a client could pass for a proxy, or steer a server past the judged method,
/// path or host.
const MISLEADING: &[&str] = &[
    "forwarded",
    "via",
    "x-real-ip",
    "x-client-ip",
    "true-client-ip",
    "cf-connecting-ip",
    "x-host",
    "x-original-host",
    "x-original-url",
    "x-rewrite-url",
    "x-original-method",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
];

/// How the names of fields that carry a credential end, in all the spellings that vendors invent. A
/// governed host gets the gate's credential or none: an agent with a key of its own could carry data
/// out under another account.
const CREDENTIAL_ENDINGS: &[&str] = &[
    "authorization",
    "authentication",
    "credential",
    "credentials",
    "key",
    "password",
    "secret",
    "token",
];

/// Fields that tell under whose name a credential is used, and end otherwise.
const CREDENTIAL_CONTEXT: &[&str] = &[
    "x-goog-user-project",
    "x-goog-authenticated-user-email",
    "x-auth-email",
    "x-auth-user",
    "x-jfrog-art-api",
];

/// Parameters of a query that are somebody's key, or a signature made with it.
const CREDENTIAL_PARAMETERS: &[&str] = &[
    "access-token",
    "api-key",
    "apikey",
    "auth-token",
    "client-secret",
    "oauth-token",
    "private-token",
    "x-api-key",
    "x-goog-api-key",
    "awsaccesskeyid",
    "x-amz-credential",
    "x-amz-security-token",
    "x-amz-signature",
    "googleaccessid",
    "x-goog-credential",
    "x-goog-signature",
];

/// Endings of names that only look as if: what makes a request repeatable, what pages through
/// results, what guards a form or a lock, and what a WebSocket begins with.
const NO_CREDENTIALS: &[&str] = &[
    "idempotency-key",
    "sec-websocket-key",
    "cache-key",
    "surrogate-key",
    "partition-key",
    "partitionkey",
    "routing-key",
    "csrf-token",
    "xsrf-token",
    "continuation-token",
    "page-token",
    "next-token",
    "lock-token",
];

/// Fields that must never be trailers: framing, routing, authentication, and what steers decoding.
const NO_TRAILERS: &[&str] = &[
    "host",
    "content-length",
    "content-encoding",
    "content-type",
    "content-range",
    "trailer",
    "cookie",
    "set-cookie",
    "expect",
    "range",
    "cache-control",
];

/// Makes a request's fields safe, in place.
pub fn clean_request(headers: &mut HeaderMap) {
    let trailers = accepts_trailers(headers);
    remove_nominated(headers);
    remove_all(headers);
    // Host is written anew from the established destination; 100-continue is between each pair.
    headers.remove(header::HOST);
    headers.remove(header::EXPECT);
    if trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
}

/// A query without the credentials that the agent put there; what else it holds is left as it is.
#[must_use]
pub fn clean_query(query: &str) -> String {
    let parts = query.split('&').filter(|part| !is_credential(part));
    parts.collect::<Vec<_>>().join("&")
}

fn is_credential(parameter: &str) -> bool {
    let name = parameter.split('=').next().unwrap_or_default();
    let name = percent_decode_str(name).decode_utf8_lossy();
    let name = name.trim().to_ascii_lowercase().replace('_', "-");
    CREDENTIAL_PARAMETERS.contains(&name.as_str())
}

/// Makes an answer's fields safe, in place.
pub fn clean_answer(headers: &mut HeaderMap) {
    remove_nominated(headers);
    for name in HOP_BY_HOP {
        headers.remove(*name);
    }
    // Offers a way round the gate, which the kernel would refuse: better never tried.
    headers.remove(header::ALT_SVC);
    // An upstream can't speak for the gate.
    headers.remove("exeat-decision");
}

/// Removes from trailers what may only be in the header section.
#[must_use]
pub fn clean_trailers(mut trailers: HeaderMap) -> HeaderMap {
    remove_nominated(&mut trailers);
    remove_all(&mut trailers);
    for name in NO_TRAILERS {
        trailers.remove(*name);
    }
    trailers
}

fn remove_all(headers: &mut HeaderMap) {
    let unwanted: Vec<HeaderName> = headers
        .keys()
        .filter(|name| is_unwanted(name.as_str()))
        .cloned()
        .collect();
    for name in unwanted {
        headers.remove(name);
    }
}

fn is_unwanted(name: &str) -> bool {
    if name.contains('_') {
        // Servers that hand fields on as environment variables can't tell `_` from `-`.
        return is_unwanted(&name.replace('_', "-"));
    }
    let ends = |endings: &[&str]| endings.iter().any(|ending| name.ends_with(ending));
    HOP_BY_HOP.contains(&name)
        || MISLEADING.contains(&name)
        || CREDENTIAL_CONTEXT.contains(&name)
        || name.starts_with("x-forwarded")
        || ends(CREDENTIAL_ENDINGS) && !ends(NO_CREDENTIALS)
}

/// Removes what the message's own `Connection` field says is for one hop.
fn remove_nominated(headers: &mut HeaderMap) {
    if !headers.contains_key(header::CONNECTION) {
        return;
    }
    let nominated: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in nominated {
        headers.remove(name);
    }
}

fn accepts_trailers(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::TE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|coding| coding.trim().eq_ignore_ascii_case("trailers"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn map(fields: &[(&str, &str)]) -> HeaderMap {
        fields
            .iter()
            .map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap()))
            .collect()
    }

    #[test]
    fn what_an_agent_may_not_say_is_not_forwarded() {
        let mut headers = map(&[
            ("accept", "*/*"),
            ("connection", "x-private, authorization"),
            ("x-private", "1"),
            ("authorization", "Bearer mine"),
            ("x-api-key", "mine"),
            ("x_api_key", "mine"),
            ("x-somebodys-access-token", "mine"),
            ("dd-application-key", "mine"),
            ("x-forwarded-for", "1.2.3.4"),
            ("x-forwarded-anything", "1"),
            ("x-http-method-override", "DELETE"),
            ("forwarded", "for=1"),
            ("via", "1.1 x"),
            ("te", "gzip, trailers"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("http2-settings", "AAMAAABkAAQAAP__"),
            ("expect", "100-continue"),
        ]);
        for harmless in ["idempotency-key", "x-csrf-token", "sec-websocket-key"] {
            headers.insert(harmless, HeaderValue::from_static("1"));
        }
        clean_request(&mut headers);
        for harmless in ["idempotency-key", "x-csrf-token", "sec-websocket-key"] {
            assert!(headers.remove(harmless).is_some(), "{harmless}");
        }
        let left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(left, ["accept", "te"]);
        assert_eq!(headers["te"], "trailers");
    }

    #[test]
    fn a_query_keeps_all_but_the_agents_keys() {
        for (query, left) in [
            ("a=1&b=2", "a=1&b=2"),
            ("access_token=x&a=%20&a", "a=%20&a"),
            ("a=1&%41pi-Key=x", "a=1"),
            ("X-Amz-Signature", ""),
            ("key=k&token=t&monkey=1", "key=k&token=t&monkey=1"),
        ] {
            assert_eq!(clean_query(query), left);
        }
    }

    #[test]
    fn trailers_are_data_only() {
        let trailers = clean_trailers(map(&[
            ("grpc-status", "0"),
            ("authorization", "Bearer x"),
            ("host", "evil"),
            ("content-length", "3"),
        ]));
        assert_eq!(trailers.len(), 1);
        assert_eq!(trailers["grpc-status"], "0");
    }
}
