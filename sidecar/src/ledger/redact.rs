//! What of the agent's words may stand in a record.
//!
//! Query values are always hidden: they are where secrets travel. In paths, names and messages a
//! piece that looks like a token is hidden too. In doubt it is hidden: whoever holds the original
//! can still prove it by the SHA-256 that the record keeps.

use std::borrow::Cow;

/// Stands for what was hidden.
const HIDDEN: &str = "[redacted]";

/// Words shorter than this are not tokens: nobody issues a secret of fewer characters.
const SHORTEST_TOKEN: usize = 16;

/// Shortest word hidden for its looks alone: base62 of 120 bits.
const SHORTEST_RANDOM: usize = 20;

/// A query key longer than this is itself data.
const LONGEST_KEY: usize = 64;

/// How well-known issuers begin their tokens.
const PREFIXES: [&str; 28] = [
    "AIza",
    "AKIA",
    "ASIA",
    "SG.",
    "dop_v1_",
    "eyJ",
    "gho_",
    "ghp_",
    "ghr_",
    "ghs_",
    "ghu_",
    "github_pat_",
    "glpat-",
    "gsk_",
    "hf_",
    "npm_",
    "pk_live_",
    "pypi-",
    "rk_live_",
    "shpat_",
    "sk-",
    "sk_live_",
    "sk_test_",
    "xapp-",
    "xoxa-",
    "xoxb-",
    "xoxp-",
    "ya29.",
];

/// Hides the words of `text` that look like tokens.
pub(super) fn words(text: &str) -> Cow<'_, str> {
    let part = |c: char| {
        c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':' | '~' | '+' | '=' | '%')
    };
    let mut shown = String::new();
    let mut kept = 0;
    let mut at = 0;
    while at < text.len() {
        let rest = &text[at..];
        let length = rest.find(|c| !part(c)).unwrap_or(rest.len());
        if length >= SHORTEST_TOKEN && is_token(&rest[..length]) {
            shown.push_str(&text[kept..at]);
            shown.push_str(HIDDEN);
            kept = at + length;
        }
        at += length + rest[length..].chars().next().map_or(0, char::len_utf8);
    }
    if kept == 0 {
        return Cow::Borrowed(text);
    }
    shown.push_str(&text[kept..]);
    Cow::Owned(shown)
}

/// Keeps the keys of a query, hides every value.
pub(super) fn query(text: &str) -> Cow<'_, str> {
    if text.is_empty() {
        return Cow::Borrowed("");
    }
    let mut shown = String::with_capacity(text.len().min(1024));
    for (index, pair) in text.split('&').enumerate() {
        if index > 0 {
            shown.push('&');
        }
        // A word with no `=` may be a bare token as well as a flag: it counts as a value.
        match pair.split_once('=') {
            Some((key, _)) if key.len() <= LONGEST_KEY && !is_token(key) => {
                shown.push_str(key);
                shown.push_str("=*");
            }
            _ if pair.is_empty() => {}
            _ => shown.push('*'),
        }
    }
    Cow::Owned(shown)
}

/// A path, or a URI that may hold a user, a query and a fragment.
pub(super) fn uri(text: &str) -> Cow<'_, str> {
    let (before, after) = match text.find(['?', '#']) {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    };
    let user = before.find("://").and_then(|scheme| {
        let start = scheme + 3;
        let authority = before[start..]
            .find('/')
            .map_or(before.len(), |end| start + end);
        before[start..authority]
            .rfind('@')
            .map(|at| (start, start + at))
    });
    let before = match user {
        None => words(before),
        Some((from, to)) => {
            Cow::Owned(words(&format!("{}*{}", &before[..from], &before[to..])).into_owned())
        }
    };
    match after {
        None => before,
        Some(after) => Cow::Owned(format!("{before}?{}", query(after))),
    }
}

/// Whether a word looks like something that opens a door.
fn is_token(word: &str) -> bool {
    if word.len() < SHORTEST_TOKEN {
        return false;
    }
    if PREFIXES.iter().any(|prefix| word.starts_with(prefix)) {
        return true;
    }
    // Telegram's way: the token is a part of the path.
    if let Some((name, secret)) = word.split_once(':')
        && secret.len() >= SHORTEST_TOKEN
        && name
            .trim_start_matches("bot")
            .bytes()
            .all(|b| b.is_ascii_digit())
    {
        return true;
    }
    word.len() >= SHORTEST_RANDOM && is_random(word)
}

/// Upper case, lower case and digits mixed as chance mixes them, and people do not.
fn is_random(word: &str) -> bool {
    let kind = |b: u8| match b {
        b'a'..=b'z' => 1,
        b'A'..=b'Z' => 2,
        b'0'..=b'9' => 4,
        _ => 0,
    };
    let mut seen = 0;
    let mut changes = 0;
    let mut before = None;
    for byte in word.bytes() {
        let kind = kind(byte);
        seen |= kind;
        if before.is_some_and(|before| before != kind) {
            changes += 1;
        }
        before = Some(kind);
    }
    // Chance changes kind at two of three places, CamelCase with a year at one of six.
    seen == 7 && changes * 3 >= word.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_open_doors_are_hidden() {
        for (given, shown) in [
            ("/v1/users/42", "/v1/users/42"),
            (
                "/bot123456:AAF-abcdefghijklmnopqrstuvwxyz012/send",
                "/[redacted]/send",
            ),
            (
                "/services/T0/B0/aB3dE5gH7jK9mN1pQ3sT5v",
                "/services/T0/B0/[redacted]",
            ),
            ("/x/ghp_0123456789abcdef0123/y", "/x/[redacted]/y"),
            (
                "/NewsletterSubscription2024/list",
                "/NewsletterSubscription2024/list",
            ),
            // A commit or a UUID is no secret, and the trail needs it.
            (
                "/commit/0123456789abcdef0123456789abcdef01234567",
                "/commit/0123456789abcdef0123456789abcdef01234567",
            ),
            ("é/ü", "é/ü"),
            ("", ""),
        ] {
            assert_eq!(words(given), shown, "{given}");
        }
    }

    #[test]
    fn query_values_never_show() {
        for (given, shown) in [
            ("q=a&page=2", "q=*&page=*"),
            ("token", "*"),
            ("a=b=c&&=x", "a=*&&=*"),
            ("sk-0123456789abcdef=1", "*"),
            ("", ""),
        ] {
            assert_eq!(query(given), shown, "{given}");
        }
    }

    #[test]
    fn uris_lose_user_query_and_fragment() {
        for (given, shown) in [
            (
                "https://u:p@example.com/a?k=v",
                "https://*@example.com/a?k=*",
            ),
            ("file:///a/b#secret", "file:///a/b?*"),
            ("tool.name", "tool.name"),
            (
                "https://example.com/@scope/x",
                "https://example.com/@scope/x",
            ),
        ] {
            assert_eq!(uri(given), shown, "{given}");
        }
    }
}
