//! Spellings of hosts, and what is no host.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use proptest::prelude::*;

use super::*;

#[test]
fn one_spelling() {
    for (raw, expected) in [
        ("api.github.com", "api.github.com"),
        ("API.GitHub.COM", "api.github.com"),
        ("api.github.com.", "api.github.com"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("BÜCHER.example", "xn--bcher-kva.example"),
        ("XN--BCHER-KVA.example", "xn--bcher-kva.example"),
        ("ａｐｉ.example", "api.example"),
        ("127.0.0.1", "127.0.0.1"),
        ("127.0.0.1.", "127.0.0.1"),
        ("0x7f.1", "127.0.0.1"),
        ("2130706433", "127.0.0.1"),
        ("0177.0.0.1", "127.0.0.1"),
        ("127.1", "127.0.0.1"),
        ("①②⑦.0.0.1", "127.0.0.1"),
        ("１２７.0.0.1", "127.0.0.1"),
        ("[::1]", "::1"),
        ("::1", "::1"),
        ("0:0:0:0:0:0:0:1", "::1"),
        ("[::ffff:10.0.0.1]", "10.0.0.1"),
        ("_sip.example.com", "_sip.example.com"),
        ("localhost", "localhost"),
    ] {
        assert_eq!(Host::parse(raw).unwrap().as_str(), expected, "{raw}");
    }
}

#[test]
fn no_host() {
    for raw in [
        "",
        ".",
        "..",
        "a..b",
        ".a",
        "a.b..",
        "allowed@evil.com",
        "evil.com:22",
        "evil.com/x",
        "evil.com\\x",
        "evil%2ecom",
        "evil.com\0",
        "evil com",
        "evil\tcom",
        "evil.com?x",
        "evil.com#x",
        "[::1",
        "::1]",
        "[fe80::1%eth0]",
        "fe80::1%1",
        "[1.2.3.4]",
        "1.2.3.4.5",
        "256.1.1.1",
        "0x1ffffffff",
        "a,b",
        "*.example.com",
        "xn--a",
    ] {
        assert!(Host::parse(raw).is_err(), "{raw:?}");
    }
    assert!(Host::parse(&"a".repeat(64)).is_err());
    assert!(Host::parse(&["abc"; 90].join(".")).is_err());
    assert!(Host::parse(&"a.".repeat(100_000)).is_err());
}

#[test]
fn homographs_stay_apart() {
    // The second has a Cyrillic а.
    assert_ne!(
        Host::parse("api.github.com").unwrap(),
        Host::parse("аpi.github.com").unwrap()
    );
}

proptest! {
    #[test]
    fn parsing_is_idempotent(raw in "\\PC{0,40}") {
        if let Ok(host) = Host::parse(&raw) {
            let again = Host::parse(host.as_str()).unwrap();
            prop_assert_eq!(again.ip(), host.ip());
            prop_assert_eq!(&again, &host);
            prop_assert_eq!(&Host::parse(&host.authority()).unwrap(), &host);
        }
    }

    #[test]
    fn likely_hosts_are_idempotent(raw in "[a-zA-Z0-9x_.:\\[\\]-]{1,30}") {
        if let Ok(host) = Host::parse(&raw) {
            prop_assert_eq!(Host::parse(host.as_str()).unwrap(), host);
        }
    }
}
