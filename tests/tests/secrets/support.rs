//! A sidecar with secrets, every call that there is, and every spelling of a secret.

use base64::{Engine as _, prelude::BASE64_STANDARD, prelude::BASE64_URL_SAFE};
use exeat_tests::{
    chaos::{
        API, Sidecar, Stage,
        client::{Answer, Client},
    },
    netns::Persona,
};

/// No word of any language, and no pattern that a redaction would know.
pub(crate) const SECRET: &str = "qzvunmatched7Wjx+/Tq";
pub(crate) const USER: &str = "robot";

pub(crate) const POLICY: &str = r#"
apiVersion: exeat.dev/v1alpha1
kind: ToolPolicy
metadata: {name: secrets}
spec:
  tools:
  - name: bearer
    http: {hosts: [api.exeat.test], addresses: [10.77.0.0/24], methods: [GET, POST], paths: ["/reports/bearer/**", "/status/*", "/ws"]}
    credential: bearer
  - name: basic
    http: {hosts: [api.exeat.test], addresses: [10.77.0.0/24], methods: [GET], paths: ["/reports/basic/**"]}
    credential: basic
  - name: header
    http: {hosts: [api.exeat.test], addresses: [10.77.0.0/24], methods: [GET], paths: ["/comments/header/**"]}
    credential: header
  - name: query
    http: {hosts: [api.exeat.test], addresses: [10.77.0.0/24], methods: [GET], paths: ["/comments/query/**"]}
    credential: query
  - name: unreachable
    http: {hosts: [other.exeat.test], ports: [9443], addresses: [10.77.0.0/24]}
    credential: bearer
  - name: untrusted
    http: {hosts: [untrusted.exeat.test], addresses: [10.77.0.0/24]}
    credential: bearer
  - name: missing
    http: {hosts: [api.exeat.test], addresses: [10.77.0.0/24], methods: [GET], paths: ["/missing/**"]}
    credential: missing
  - name: tools
    mcp: {server: "https://api.exeat.test/mcp", tools: [search], addresses: [10.77.0.0/24]}
    credential: bearer
  credentials:
  - {name: bearer, secret: {name: s, key: bearer}, inject: {bearer: {}}}
  - {name: basic, secret: {name: s, key: basic}, inject: {basic: {username: robot}}}
  - {name: header, secret: {name: s, key: header}, inject: {header: {name: x-special, prefix: "key "}}}
  - {name: query, secret: {name: s, key: query}, inject: {query: {name: key}}}
  - {name: missing, secret: {name: s, key: missing}, inject: {bearer: {}}}
"#;

pub(crate) const CREDENTIALS: [&str; 4] = ["bearer", "basic", "header", "query"];

/// The secret in all spellings, so also a part of it in the middle of other base64.
pub(crate) fn spellings(secret: &str) -> Vec<String> {
    let hex = |upper: bool| -> String {
        secret
            .bytes()
            .map(|byte| {
                if upper {
                    format!("{byte:02X}")
                } else {
                    format!("{byte:02x}")
                }
            })
            .collect()
    };
    let mut all = vec![
        secret.to_owned(),
        secret.replace('+', "%2B").replace('/', "%2F"),
        hex(false),
        hex(true),
        // As the Debug form of bytes.
        format!("{:?}", secret.as_bytes())
            .trim_matches(['[', ']'])
            .to_owned(),
        secret.chars().rev().collect(),
    ];
    for engine in [BASE64_STANDARD, BASE64_URL_SAFE] {
        for shift in 0..3 {
            let text = engine.encode(format!("{}{secret}", "x".repeat(shift)));
            // Whole groups only: the first and last mix with what is around.
            all.push(text[4..text.len() - 4].to_owned());
        }
        all.push(engine.encode(format!("{USER}:{secret}")));
    }
    all
}

pub(crate) fn assert_absent(place: &str, bytes: &[u8]) {
    assert_not_in(place, bytes, SECRET);
}

pub(crate) fn assert_not_in(place: &str, bytes: &[u8], secret: &str) {
    for spelling in spellings(secret) {
        let found = bytes
            .windows(spelling.len())
            .position(|window| window == spelling.as_bytes());
        if let Some(at) = found {
            let around = &bytes[at.saturating_sub(200)..(at + 200).min(bytes.len())];
            panic!(
                "{place} has the secret as `{spelling}`: …{}…",
                String::from_utf8_lossy(around)
            );
        }
    }
}

/// A stage with every credential of the policy but one, and a sidecar that says all it can.
pub(crate) fn stage(more: &[&str]) -> (Stage, Sidecar) {
    let stage = Stage::new(POLICY).unwrap();
    for name in CREDENTIALS {
        stage.credential(name, &format!("{SECRET}\n")).unwrap();
    }
    let folder = stage.path("credentials");
    let mut words = vec![
        "--credentials-dir",
        folder.to_str().unwrap(),
        "--log",
        "trace",
    ];
    words.extend(more);
    let sidecar = stage.start(&words).unwrap();
    (stage, sidecar)
}

pub(crate) fn get(stage: &Stage, host: &str, port: u16, path: &str, fields: &str) -> Answer {
    let mut to = stage.world.tls();
    to.set_port(port);
    let authority = stage.authority();
    let named = if port == 443 {
        host.to_owned()
    } else {
        format!("{host}:{port}")
    };
    stage.agent(|| {
        Client::tls(to, host, &authority)
            .unwrap()
            .get(&named, path, fields)
            .unwrap()
    })
}

/// Makes a call of every kind and outcome that there is, and returns what the agent was answered.
pub(crate) fn exercise(stage: &Stage) -> Vec<(String, Answer)> {
    let mut answers = Vec::new();
    let mut expect = |what: &str, status: u16, answer: Answer| {
        assert_eq!(answer.status, status, "{what}: {}", answer.text());
        answers.push((what.to_owned(), answer));
    };
    for (name, path) in [
        ("bearer", "/reports/bearer/1"),
        ("basic", "/reports/basic/1"),
    ] {
        expect(name, 200, get(stage, API, 443, path, ""));
    }
    // These two are not what that server greets with 200.
    for (name, path) in [
        ("header", "/comments/header/1"),
        ("query", "/comments/query/1?a=b"),
    ] {
        expect(name, 401, get(stage, API, 443, path, ""));
    }
    expect(
        "the upstream fails",
        500,
        get(stage, API, 443, "/status/500", ""),
    );
    expect("no rule", 403, get(stage, API, 443, "/secret", ""));
    expect("no credential", 503, get(stage, API, 443, "/missing/1", ""));
    expect(
        "no upstream",
        502,
        get(stage, "other.exeat.test", 9443, "/", ""),
    );
    expect(
        "untrusted",
        502,
        get(stage, "untrusted.exeat.test", 443, "/", ""),
    );
    let (to, authority) = (stage.world.tls(), stage.authority());
    let ask = |bytes: &str| {
        let mut client = Client::tls(to, API, &authority).unwrap();
        client.send(bytes.as_bytes()).unwrap();
        client.answer().unwrap()
    };
    let call = r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"delete","arguments":{}}}"#;
    let rpc = format!(
        "POST /mcp HTTP/1.1\r\nhost: {API}\r\ncontent-type: application/json\r\naccept: application/json, text/event-stream\r\ncontent-length: {}\r\n\r\n{call}",
        call.len()
    );
    let two_hosts = "GET / HTTP/1.1\r\nhost: other.exeat.test\r\n\r\n";
    expect("two hosts", 403, stage.agent(|| ask(two_hosts)));
    expect("a tool", 200, stage.agent(|| ask(&rpc)));
    let grpc = format!(
        "POST /x.Y/Z HTTP/1.1\r\nhost: {API}\r\ncontent-type: application/grpc\r\ncontent-length: 0\r\n\r\n"
    );
    expect("gRPC", 200, stage.agent(|| ask(&grpc)));
    expect(
        "nonsense",
        400,
        stage.agent(|| ask("GET / HTTP/1.1\r\nhost: a b\r\n\r\n")),
    );
    let proxy = |bytes: &str| {
        let mut client = Client::plain(([127, 0, 0, 1], 15002).into()).unwrap();
        client.send(bytes.as_bytes()).unwrap();
        client.answer().unwrap()
    };
    expect(
        "no proxy request",
        400,
        stage.agent(|| proxy("GET / HTTP/1.1\r\nhost: a\r\n\r\n")),
    );
    expect(
        "a proxy request",
        403,
        stage.agent(|| proxy("GET http://api.exeat.test/reports/bearer/1 HTTP/1.1\r\nhost: api.exeat.test\r\n\r\n")),
    );
    let mut probe = |port: u16, path: &str, status| {
        let to = ([10, 77, 0, 2], port).into();
        let ask = || Client::plain(to).unwrap().get("gate", path, "").unwrap();
        expect(
            path,
            status,
            stage.pod.outside.run(Persona::Root, ask).unwrap(),
        );
    };
    for page in [
        "/metrics",
        "/healthz/started",
        "/healthz/live",
        "/healthz/ready",
    ] {
        probe(15021, page, 200);
    }
    probe(15021, "/debug/pprof", 404);
    answers
}
