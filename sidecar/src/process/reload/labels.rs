//! A downward-API file of labels: lines of `key="value"`, the value quoted as Go quotes strings.
//!
//! A line that is not understood spoils the file: with a label missing, another policy would apply.

use std::collections::BTreeMap;

/// The labels of the file, or the number of the first line that is none.
pub(super) fn parse(text: &str) -> Result<BTreeMap<String, String>, usize> {
    let mut labels = BTreeMap::new();
    for (index, line) in text.lines().enumerate() {
        if line.trim().is_empty() {
            continue;
        }
        let (key, value) = label(line).ok_or(index + 1)?;
        if labels.insert(key, value).is_some() {
            return Err(index + 1);
        }
    }
    Ok(labels)
}

fn label(line: &str) -> Option<(String, String)> {
    let (key, quoted) = line.split_once('=')?;
    let key = key.trim();
    let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
    if key.is_empty() || !key.chars().all(known) {
        return None;
    }
    let inner = quoted.trim().strip_prefix('"')?.strip_suffix('"')?;
    Some((key.to_owned(), unquote(inner)?))
}

/// A label's value is plain, so of Go's escapes only those that may stand before a plain character
/// are known; any other makes the line none.
fn unquote(inner: &str) -> Option<String> {
    let mut value = String::with_capacity(inner.len());
    let mut characters = inner.chars();
    while let Some(c) = characters.next() {
        match c {
            '\\' => match characters.next()? {
                escaped @ ('"' | '\\') => value.push(escaped),
                _ => return None,
            },
            '"' => return None,
            c => value.push(c),
        }
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    #[test]
    fn lines_as_kubelet_writes_them() {
        let labels =
            parse("app=\"research\"\nexeat.dev/tier=\"a=b\"\nempty=\"\"\n\nlast=\"x\"").unwrap();
        let expected = [
            ("app", "research"),
            ("empty", ""),
            ("exeat.dev/tier", "a=b"),
            ("last", "x"),
        ];
        let shown: Vec<_> = labels
            .iter()
            .map(|(k, v)| (k.as_str(), v.as_str()))
            .collect();
        assert_eq!(shown, expected);
        assert_eq!(parse("").unwrap().len(), 0);
        assert_eq!(parse(r#"a="x\"y\\z""#).unwrap()["a"], r#"x"y\z"#);
    }

    #[test]
    fn a_line_that_is_none_spoils_the_file() {
        for bad in [
            "x",
            "a=b",
            "a=\"b",
            "=\"b\"",
            "a b=\"c\"",
            "a=\"b\"c\"",
            "a=\"\\",
            "a=\"\\n\"",
        ] {
            assert_eq!(parse(&format!("ok=\"1\"\n{bad}\n")), Err(2), "{bad}");
        }
        assert_eq!(parse("a=\"1\"\na=\"2\"\n"), Err(2));
    }
}
