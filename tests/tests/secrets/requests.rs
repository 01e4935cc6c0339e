//! What arrives upstream: the gate's secret of now, and never the agent's own.

use std::time::Duration;

use exeat_tests::{
    chaos::{API, Stage, client::Client, journal, own_folder, until, volume::Volume},
    gate::http2,
};
use serde_json::Value;

use super::support::{POLICY, SECRET, get, stage};

/// Names under which somebody takes a key, in the ways that people write them.
fn names_of_keys() -> Vec<String> {
    let mut names: Vec<String> = [
        "Authorization",
        "AUTHORIZATION",
        "Proxy-Authorization",
        "X-Amz-Security-Token",
        "PRIVATE-TOKEN",
        "X-Goog-Api-Key",
        "Ocp-Apim-Subscription-Key",
        "X-Vault-Token",
        "X-Auth-Key",
        "X-Functions-Key",
        "X-Shopify-Access-Token",
        "X-Figma-Token",
        "Circle-Token",
        "X-Pm-Token",
        "DD-API-KEY",
        "DD-APPLICATION-KEY",
        "X-Insert-Key",
        "X-Algolia-API-Key",
        "X-Rapidapi-Key",
        "X-Master-Key",
        "X-Access-Key",
        "X-Secret-Key",
        "X-Client-Secret",
        "X-Amz-Authorization",
        "X-Original-Authorization",
    ]
    .map(str::to_owned)
    .to_vec();
    for prefix in ["", "x-", "X-Acme-", "openai-", "x_"] {
        for key in [
            "api-key",
            "apikey",
            "API_KEY",
            "api-token",
            "access-token",
            "auth-token",
            "token",
            "secret",
        ] {
            names.push(format!("{prefix}{key}"));
        }
    }
    names
}

#[test]
fn what_the_agent_brings_along_never_arrives() {
    const BROUGHT: &str = "agents-own-key-5531";
    let (stage, _sidecar) = stage(&[]);
    let names = names_of_keys();
    let (to, authority) = (stage.world.tls(), stage.authority());
    stage.agent(|| {
        let mut client = Client::tls(to, API, &authority).unwrap();
        for name in &names {
            // Alone, twice, and where it was said to be for one hop only.
            for fields in [
                format!("{name}: {BROUGHT}\r\n"),
                format!("{name}: {BROUGHT}\r\n{name}: Bearer {BROUGHT}\r\n"),
                format!("connection: {name}\r\n{name}: {BROUGHT}\r\n"),
            ] {
                let answer = client.get(API, "/reports/bearer/1", &fields).unwrap();
                assert!(matches!(answer.status, 200 | 400), "{name}: {} {}", answer.status, answer.text());
                if answer.status == 400 {
                    client = Client::tls(to, API, &authority).unwrap();
                }
            }
        }
        // In trailers.
        let trailers = format!(
            "POST /reports/bearer/2 HTTP/1.1\r\nhost: {API}\r\ntransfer-encoding: chunked\r\ntrailer: authorization, x-api-key\r\n\r\n\
             1\r\nx\r\n0\r\nauthorization: {BROUGHT}\r\nx-api-key: {BROUGHT}\r\n\r\n"
        );
        client.send(trailers.as_bytes()).unwrap();
        client.answer().unwrap();
        // Over HTTP/2.
        let mut client = Client::tls_with(to, API, &authority, &[b"h2"]).unwrap();
        client.send(&http2::opening()).unwrap();
        for (at, name) in (0_u32..).zip(&names).take(40) {
            let name = name.to_ascii_lowercase();
            let mut list = http2::get(API, "/reports/bearer/h2");
            list.push((&name, BROUGHT));
            client.send(&http2::request(at * 2 + 1, &list)).unwrap();
        }
        until("all arrive over HTTP/2", Duration::from_secs(20), || {
            stage.world.upstream().requests_to("/reports/bearer/h2").len() == 40
        })
        .unwrap();
    });
    let requests = stage.world.upstream().requests();
    assert!(requests.len() > names.len() * 2, "{}", requests.len());
    let through: Vec<_> = requests
        .iter()
        .filter(|request| request.mentions(BROUGHT))
        .flat_map(|request| request.headers.iter().chain(&request.trailers))
        .filter(|(_, value)| String::from_utf8_lossy(value.as_bytes()).contains(BROUGHT))
        .map(|(name, _)| name.to_string())
        .collect();
    assert!(
        through.is_empty(),
        "the agent's own key arrived as {through:?}"
    );
    for request in requests {
        assert_eq!(
            request.header("authorization"),
            Some(&*format!("Bearer {SECRET}")),
            "{request:?}"
        );
        assert_eq!(request.headers.get_all("authorization").iter().count(), 1);
    }
}

#[test]
fn a_secret_is_rotated_and_removed_by_a_swap() {
    let stage = Stage::new(POLICY).unwrap();
    let folder = stage.path("mounted");
    let mut volume = Volume::new(folder.clone()).unwrap();
    volume.publish(&[("bearer", "first\n")]).unwrap();
    own_folder(&folder, 0o755).unwrap();
    let sidecar = stage
        .start(&["--credentials-dir", folder.to_str().unwrap()])
        .unwrap();
    let call = || {
        let answer = get(&stage, API, 443, "/reports/bearer/1", "");
        let last = stage.world.upstream().requests().pop();
        let sent = last.and_then(|request| request.header("authorization").map(str::to_owned));
        (answer, sent)
    };
    assert_eq!(call().1.as_deref(), Some("Bearer first"));
    for secret in ["second", "third"] {
        volume.publish(&[("bearer", secret)]).unwrap();
        until("the new one is sent", Duration::from_secs(2), || {
            call().1 == Some(format!("Bearer {secret}"))
        })
        .unwrap();
        // And the old one never again.
        for _ in 0..5 {
            assert_eq!(call().1, Some(format!("Bearer {secret}")));
        }
    }
    for (content, why) in [
        (None, "there is no file"),
        (Some(""), "is empty"),
        (Some("two\nlines"), "is not one line"),
    ] {
        let files: Vec<_> = content
            .map(|content| ("bearer", content))
            .into_iter()
            .collect();
        volume.publish(&files).unwrap();
        until("it is missed", Duration::from_secs(2), || {
            let answer = call().0;
            answer.status == 503 && answer.text().contains(why)
        })
        .unwrap();
        let sent = stage.world.upstream().requests().len();
        let (answer, _) = call();
        let body: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(body["error"]["code"], "credential_unavailable", "{body}");
        assert_eq!(
            stage.world.upstream().requests().len(),
            sent,
            "it went out without its credential"
        );
        // A decision that allowed, and an outcome that says why nothing came of it.
        let told = || {
            let records = journal::read(&stage.journal()).unwrap();
            let decision = records
                .iter()
                .find(|record| record["id"] == body["error"]["id"])
                .cloned();
            decision.and_then(|decision| journal::outcome(&records, &decision).cloned())
        };
        until("it has its outcome", Duration::from_secs(2), || {
            told().is_some()
        })
        .unwrap();
        let outcome = told().unwrap();
        assert!(
            outcome["error"]
                .as_str()
                .unwrap()
                .contains("credential_unavailable"),
            "{outcome}"
        );
    }
    volume.publish(&[("bearer", "fourth")]).unwrap();
    until("it is back", Duration::from_secs(2), || {
        call().1.as_deref() == Some("Bearer fourth")
    })
    .unwrap();
    drop(sidecar);
}
