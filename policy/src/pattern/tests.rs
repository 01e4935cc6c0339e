//! What patterns match and what are none.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;
use crate::path::Path;

fn host(text: &str) -> Host {
    Host::parse(text).unwrap()
}

#[test]
fn wildcards_are_below_and_never_the_apex() {
    let pattern = HostPattern::parse("*.Example.com", false).unwrap();
    for name in ["a.example.com", "a.b.example.com"] {
        assert!(pattern.matches(&host(name)), "{name}");
    }
    for name in [
        "example.com",
        "notexample.com",
        "example.com.evil.org",
        "com",
    ] {
        assert!(!pattern.matches(&host(name)), "{name}");
    }
}

#[test]
fn wildcards_are_never_wide() {
    for text in [
        "*",
        "**",
        "*.*",
        "*.com",
        "*.co.uk",
        "*.github.io",
        "*.internal",
        "a.*.com",
        "*a.example.com",
        "*.*.example.com",
        "*.10.0.0.1",
        "*.",
        "",
    ] {
        assert!(HostPattern::parse(text, false).is_err(), "{text}");
    }
    assert!(HostPattern::parse("*.com", true).is_ok());
}

#[test]
fn overlaps() {
    let p = |t| HostPattern::parse(t, false).unwrap();
    assert!(p("*.example.com").overlaps(&p("a.example.com")));
    assert!(p("*.example.com").overlaps(&p("*.a.example.com")));
    assert!(!p("*.example.com").overlaps(&p("example.com")));
    assert!(!p("*.ample.com").overlaps(&p("*.example.com")));
}

#[test]
fn globs() {
    for (pattern, text, expected) in [
        ("gpt-5*", "gpt-5-mini", true),
        ("gpt-5*", "gpt-5", true),
        ("gpt-5*", "gpt-4", false),
        ("gpt-5", "gpt-5-mini", false),
        ("*", "", true),
        ("*-mini", "gpt-5-mini", true),
        ("a*b*c", "aXbYc", true),
        ("a*b*c", "aXbY", false),
        ("", "a", false),
        ("gpt-5*", "GPT-5", false),
        ("*a*a*a*a*b", &"a".repeat(5000), false),
    ] {
        assert_eq!(
            Glob::new(pattern).matches(text),
            expected,
            "{pattern} {text}"
        );
    }
}

#[test]
fn paths() {
    for (pattern, path, expected) in [
        ("/", "/", true),
        ("/", "/a", false),
        ("/a", "/a", true),
        ("/a", "/a/", false),
        ("/a", "/A", false),
        ("/a/", "/a/", true),
        ("/a/*", "/a/b", true),
        ("/a/*", "/a/", false),
        ("/a/*", "/a/b/c", false),
        ("/a/**", "/a", true),
        ("/a/**", "/a/", true),
        ("/a/**", "/a/b/c", true),
        ("/a/**", "/ab", false),
        ("/**", "/", true),
        ("/**", "/a/b", true),
        ("/**", "/a%2Fb", false),
        ("/a/*", "/a/b%2Fc", false),
        ("/a/*%2F*", "/a/b%2Fc", true),
        ("/a/*%2f*", "/a/b%2fc", true),
        ("/a/*%2F*", "/a/b%2Fc%2Fd", false),
        ("/a/*%2F*", "/a/b", false),
        ("/%61", "/a", true),
        ("/a;v=1", "/a;v=1", true),
        ("/a", "/a;v=1", false),
    ] {
        let path = Path::parse(path).unwrap();
        let matched = PathPattern::parse(pattern)
            .unwrap()
            .matches(&path)
            .is_some();
        assert_eq!(matched, expected, "{pattern} {path}");
    }
}

#[test]
fn captures_are_decoded() {
    let pattern = PathPattern::parse("/repos/{owner}%2F{repo}/**").unwrap();
    let path = Path::parse("/repos/a%20b%2Fc/issues").unwrap();
    let captures = pattern.matches(&path).unwrap();
    assert_eq!(captures, [("owner", "a b".into()), ("repo", "c".into())]);
}

#[test]
fn loose_matching_sees_through_disguises() {
    for (pattern, path, expected) in [
        ("/admin/**", "/ADMIN/users", true),
        ("/admin/**", "/admin;x=1/users", true),
        ("/admin/**", "/admin%2Fusers", true),
        ("/admin", "/admin/", true),
        ("/a/*", "/a%2Fb", true),
        ("/a/b%2Fc", "/a/b/c", true),
        ("/admin/**", "/administrator", false),
        ("/admin", "/admin/x", false),
    ] {
        let path = Path::parse(path).unwrap();
        let loose = path.loose_segments();
        let matched = PathPattern::parse(pattern)
            .unwrap()
            .matches_loosely(&path, &loose);
        assert_eq!(matched, expected, "{pattern} {path}");
    }
}

#[test]
fn no_path_patterns() {
    for text in [
        "", "a", "/a/../b", "/a//b", "//", "/a/**/b", "/a*", "/{a", "/{a}{b}", "/{a}/{a}", "/{}",
        "/{a-b}", "/a?b", "/%2e%2e/", "/a/***", "/x**", "/a b", "/{a}x", "/a/%2525",
    ] {
        assert!(PathPattern::parse(text).is_err(), "{text}");
    }
}
