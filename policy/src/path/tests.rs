//! Spellings of paths, and what is refused.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use proptest::prelude::*;

use super::*;

#[test]
fn one_spelling() {
    for (raw, expected) in [
        ("/", "/"),
        ("/a/b", "/a/b"),
        ("/a/", "/a/"),
        ("/%61dmin", "/admin"),
        ("/%7euser", "/~user"),
        ("/a%2fb", "/a%2Fb"),
        ("/%e2%82%ac", "/%E2%82%AC"),
        ("/a b".replace(' ', "%20").as_str(), "/a%20b"),
        ("/{x}|[y]", "/%7Bx%7D%7C%5By%5D"),
        ("/a;v=1", "/a;v=1"),
        ("/100%25", "/100%25"),
        ("/100%25_off", "/100%25_off"),
        ("/.well-known/x", "/.well-known/x"),
        ("/a..b/...", "/a..b/..."),
        ("/https:%2F%2Fexample.com", "/https:%2F%2Fexample.com"),
    ] {
        assert_eq!(Path::parse(raw).unwrap().as_str(), expected, "{raw}");
    }
}

#[test]
fn refused() {
    for (raw, error) in [
        ("", PathError::NotAbsolute),
        ("*", PathError::NotAbsolute),
        ("a/b", PathError::NotAbsolute),
        ("http://evil/", PathError::NotAbsolute),
        ("/v1/../admin", PathError::Dots),
        ("/v1/./admin", PathError::Dots),
        ("/..", PathError::Dots),
        ("/v1/%2e%2e/admin", PathError::Dots),
        ("/v1/.%2E/admin", PathError::Dots),
        ("/v1/..;/admin", PathError::Dots),
        ("/v1/..%3Bx/admin", PathError::Dots),
        ("/v1%2F..%2Fadmin", PathError::Dots),
        ("/v1/..%2fadmin", PathError::Dots),
        ("/v1/%252e%252e/admin", PathError::Double),
        ("/v1/%25%32%65/admin", PathError::Double),
        ("/v1/%252Fadmin", PathError::Double),
        ("/v1/%255cadmin", PathError::Double),
        ("/%25252e", PathError::Double),
        ("//evil", PathError::Empty),
        ("/a//b", PathError::Empty),
        ("/a//", PathError::Empty),
        ("/;x/b", PathError::Empty),
        ("/a/;x", PathError::Empty),
        ("/a\\b", PathError::Byte(b'\\')),
        ("/a%5Cb", PathError::Encoded(b'\\')),
        ("/a%00", PathError::Encoded(0)),
        ("/a%0d%0aX:y", PathError::Encoded(13)),
        ("/a%7f", PathError::Encoded(0x7f)),
        ("/a\nb", PathError::Byte(10)),
        ("/a b", PathError::Byte(b' ')),
        ("/a?b", PathError::Byte(b'?')),
        ("/a#b", PathError::Byte(b'#')),
        ("/é", PathError::Byte(0xc3)),
        ("/%", PathError::Percent),
        ("/%2", PathError::Percent),
        ("/%zz", PathError::Percent),
        ("/%+2", PathError::Percent),
        ("/%u002e", PathError::Percent),
        ("/%c0%ae%c0%ae/", PathError::Utf8),
        ("/%c0%af", PathError::Utf8),
        ("/%e0%80%af", PathError::Utf8),
        ("/%e9", PathError::Utf8),
        ("/%ed%a0%80", PathError::Utf8),
        ("/%e2%82/%ac", PathError::Utf8),
    ] {
        assert_eq!(Path::parse(raw), Err(error), "{raw:?}");
    }
    assert_eq!(Path::parse(&"/a".repeat(MAX_PATH)), Err(PathError::TooLong));
    assert_eq!(Path::parse(&"/a".repeat(300)), Err(PathError::TooLong));
    assert_eq!(
        Path::parse(&format!("/{}", "|".repeat(MAX_PATH - 1))),
        Err(PathError::TooLong)
    );
}

#[test]
fn loose_form() {
    let loose = |raw: &str| Path::parse(raw).unwrap().loose_segments().join("/");
    assert_eq!(loose("/Admin;x=1/Users/"), "admin/users");
    assert_eq!(loose("/a%2FB"), "a/b");
    assert_eq!(loose("/"), "");
}

/// Decodes as often as anything is left to decode, as a careless chain of upstreams might.
fn decode_fully(text: &str) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    for _ in 0..5 {
        bytes = percent_encoding::percent_decode(&bytes).collect();
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn canonical_paths_are_fixpoints_without_dots(
        raw in "/([a-c./;\\\\|A%25-]|%2e|%2E|%2f|%5c|%25|%32|%65|%41|%3b|%00|%c0%ae|%e2%82%ac|\\.\\.|/){0,12}"
    ) {
        if let Ok(path) = Path::parse(&raw) {
            prop_assert_eq!(&Path::parse(path.as_str()).unwrap(), &path);
            let decoded = decode_fully(path.as_str());
            for segment in decoded.split(|b| matches!(b, b'/' | b'\\')) {
                let bare = segment.split(|b| *b == b';').next().unwrap();
                prop_assert!(bare != b".." && bare != b".", "{} from {}", path, raw);
            }
            prop_assert!(!path.as_str().contains("//"));
            prop_assert!(path.as_str().is_ascii());
        }
    }

    #[test]
    fn anything_parses_or_is_refused(raw in "/\\PC{0,60}") {
        if let Ok(path) = Path::parse(&raw) {
            prop_assert_eq!(Path::parse(path.as_str()).unwrap(), path);
        }
    }
}
