#![allow(clippy::unwrap_used)]
use http::Request;

use super::*;

fn tls(sni: &str) -> Identity {
    Identity {
        origin: Origin {
            address: Some("198.18.0.9:443".parse().unwrap()),
            port: 443,
            name: None,
            caller: None,
        },
        sni: Some(Host::parse(sni).unwrap()),
        scheme: Scheme::Https,
        proxy_request: false,
    }
}

fn plain(address: &str, name: Option<&str>) -> Identity {
    let address: std::net::SocketAddr = address.parse().unwrap();
    Identity {
        origin: Origin {
            address: Some(address),
            port: address.port(),
            name: name.map(|name| Host::parse(name).unwrap()),
            caller: None,
        },
        sni: None,
        scheme: Scheme::Http,
        proxy_request: false,
    }
}

fn ask(
    identity: &Identity,
    version: Version,
    target: &str,
    hosts: &[&str],
) -> Result<String, Reason> {
    let mut request = Request::builder().version(version).uri(target);
    for host in hosts {
        request = request.header("host", *host);
    }
    let (parts, ()) = request.body(()).unwrap().into_parts();
    identity
        .request(&parts)
        .map(|to| format!("{}:{}", to.host, to.port))
        .map_err(|error| error.reason)
}

#[test]
fn all_must_agree() {
    use Reason::{IdentityMismatch as Mismatch, InvalidHost, InvalidRequest as Invalid};
    const H1: Version = Version::HTTP_11;
    const H2: Version = Version::HTTP_2;
    let tls = tls("api.test");
    let ok = Ok("api.test:443".to_owned());
    for (version, target, hosts, expected) in [
        (H1, "/", &["api.test"][..], ok.clone()),
        (H1, "/", &["API.Test."], ok.clone()),
        (H1, "/", &["api.test:443"], ok.clone()),
        (H1, "https://api.test/", &["api.test"], ok.clone()),
        (H2, "https://api.test/", &[], ok.clone()),
        (H2, "https://api.test/", &["api.test"], ok),
        (H1, "/", &[], Err(Invalid)),
        (H1, "/", &[""], Err(Invalid)),
        (H1, "/", &["api.test", "api.test"], Err(Invalid)),
        (H1, "/", &["api.test,evil.test"], Err(Invalid)),
        (H1, "/", &["api.test@evil.test"], Err(Invalid)),
        (H1, "/", &["api.test:22"], Err(Mismatch)),
        (H1, "/", &["api.test:0"], Err(Invalid)),
        (H1, "/", &["api.test:"], Err(Invalid)),
        (H1, "/", &["evil.test"], Err(Mismatch)),
        (H1, "/", &["a b"], Err(Invalid)),
        (H1, "/", &["api_.test\u{e9}"], Err(Invalid)),
        (H1, "https://evil.test/", &["api.test"], Err(Mismatch)),
        (H1, "https://api.test/", &["evil.test"], Err(Mismatch)),
        (H1, "http://api.test/", &["api.test"], Err(Invalid)),
        (H1, "https://api.test/", &[], Err(Invalid)),
        (H2, "https://evil.test/", &[], Err(Mismatch)),
        (H2, "https://api.test/", &["evil.test"], Err(Mismatch)),
        (H2, "/", &["api.test"], Err(Invalid)),
    ] {
        let got = ask(&tls, version, target, hosts);
        let got_host_error = got == Err(InvalidHost) && expected == Err(Invalid);
        assert!(
            got == expected || got_host_error,
            "{target} {hosts:?}: {got:?}"
        );
    }
}

#[test]
fn a_literal_address_is_its_own_name_only() {
    let identity = plain("203.0.113.5:80", None);
    assert_eq!(
        ask(&identity, Version::HTTP_11, "/", &["203.0.113.5"]),
        Ok("203.0.113.5:80".into())
    );
    assert_eq!(
        ask(&identity, Version::HTTP_11, "/", &["3405803781"]),
        Ok("203.0.113.5:80".into())
    );
    assert_eq!(
        ask(&identity, Version::HTTP_11, "/", &["169.254.169.254"]),
        Err(Reason::IdentityMismatch)
    );
    // A name decides, and the gate resolves it itself.
    assert_eq!(
        ask(&identity, Version::HTTP_11, "/", &["api.test"]),
        Ok("api.test:80".into())
    );
}

#[test]
fn a_virtual_address_is_its_name() {
    let identity = plain("198.18.4.5:8080", Some("api.test"));
    assert_eq!(
        ask(&identity, Version::HTTP_11, "/", &["api.test:8080"]),
        Ok("api.test:8080".into())
    );
    assert_eq!(
        ask(&identity, Version::HTTP_11, "/", &["evil.test:8080"]),
        Err(Reason::IdentityMismatch)
    );
    assert_eq!(
        ask(&identity, Version::HTTP_11, "/", &["api.test"]),
        Err(Reason::IdentityMismatch)
    );
    assert_eq!(
        ask(&identity, Version::HTTP_11, "/", &["198.18.4.5:8080"]),
        Err(Reason::IdentityMismatch)
    );
}

#[test]
fn tls_without_a_name_is_the_address_that_was_dialled() {
    let mut identity = tls("api.test");
    identity.sni = None;
    assert_eq!(
        ask(&identity, Version::HTTP_11, "/", &["198.18.0.9"]),
        Ok("198.18.0.9:443".into())
    );
    assert_eq!(
        ask(&identity, Version::HTTP_11, "/", &["api.test"]),
        Err(Reason::IdentityMismatch)
    );
}
