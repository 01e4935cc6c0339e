//! A secret is in the request that it is for, and nowhere else.
//!
//! It is looked for in every spelling that a program could have given it, in all that the agent can
//! reach and all that the gate leaves behind: answers, logs at their most talkative, the journal, what
//! is exported, health, metrics, `/proc`, core dumps, and the printed form of whatever may hold it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    collections::BTreeMap,
    fs,
    io::Read as _,
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_STANDARD, prelude::BASE64_URL_SAFE};
use exeat_sidecar::upstream::credential::Credentials;
use exeat_tests::{
    chaos::{
        API, Sidecar, Stage,
        client::{Answer, Client},
        journal, own_folder, until,
        volume::Volume,
    },
    gate::http2,
    governed::Governed,
    netns::Persona,
    upstream::Upstream,
};
use nix::sys::signal::Signal;
use serde_json::Value;

/// No word of any language, and no pattern that a redaction would know.
const SECRET: &str = "qzvunmatched7Wjx+/Tq";
const USER: &str = "robot";

const POLICY: &str = r#"
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

const CREDENTIALS: [&str; 4] = ["bearer", "basic", "header", "query"];

/// The secret in all spellings, so also a part of it in the middle of other base64.
fn spellings(secret: &str) -> Vec<String> {
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

fn assert_absent(place: &str, bytes: &[u8]) {
    assert_not_in(place, bytes, SECRET);
}

fn assert_not_in(place: &str, bytes: &[u8], secret: &str) {
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
fn stage(more: &[&str]) -> (Stage, Sidecar) {
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

fn get(stage: &Stage, host: &str, port: u16, path: &str, fields: &str) -> Answer {
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
fn exercise(stage: &Stage) -> Vec<(String, Answer)> {
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

#[test]
fn a_secret_is_nowhere_but_in_its_request() {
    let collector = "http://10.77.0.1:80/v1/logs";
    let (stage, mut sidecar) = stage(&[
        "--otlp",
        collector,
        "--resolve",
        "untrusted.exeat.test=10.77.0.1",
    ]);
    let answers = exercise(&stage);
    over_http2(&stage);
    // It did arrive where it belongs, or nothing of this is a test.
    let upstream = stage.world.upstream();
    let one = |path: &str| upstream.requests_to(path).into_iter().next().unwrap();
    let basic = BASE64_STANDARD.encode(format!("{USER}:{SECRET}"));
    assert_eq!(
        one("/reports/bearer").header("authorization"),
        Some(&*format!("Bearer {SECRET}"))
    );
    assert_eq!(
        one("/reports/basic").header("authorization"),
        Some(&*format!("Basic {basic}"))
    );
    assert_eq!(
        one("/comments/header").header("x-special"),
        Some(&*format!("key {SECRET}"))
    );
    assert_eq!(
        one("/comments/query").query.as_deref(),
        Some("a=b&key=qzvunmatched7Wjx%2B%2FTq")
    );

    for (what, answer) in &answers {
        assert_absent(what, answer.head.as_bytes());
        assert_absent(what, &answer.body);
    }
    not_in_proc(&stage, &sidecar);
    // What is exported follows within its interval.
    until("records are exported", Duration::from_secs(10), || {
        !upstream.requests_to("/v1/logs").is_empty()
    })
    .unwrap();
    sidecar.signal(Signal::SIGTERM).unwrap();
    sidecar.ended(Duration::from_secs(30)).unwrap();
    for export in upstream.requests_to("/v1/logs") {
        assert_absent("what is exported", &export.body);
        assert!(!export.mentions(SECRET), "{export:?}");
    }
    let log = sidecar.log();
    assert!(
        log.contains("TRACE"),
        "the log is not at its most talkative"
    );
    assert_absent("the log", log.as_bytes());
    let journal = fs::read(stage.journal()).unwrap();
    assert!(journal::read(&stage.journal()).unwrap().len() > 20);
    assert_absent("the journal", &journal);
    for name in ["public", "journal"] {
        for entry in fs::read_dir(stage.path(name)).unwrap() {
            let path = entry.unwrap().path();
            assert_absent(&path.display().to_string(), &fs::read(&path).unwrap());
        }
    }
}

/// One call over HTTP/2 on both sides, where other code writes the fields.
fn over_http2(stage: &Stage) {
    let (to, authority) = (stage.world.tls(), stage.authority());
    let arrived = || {
        stage
            .world
            .upstream()
            .requests_to("/reports/bearer/h2")
            .len()
    };
    stage.agent(|| {
        let mut client = Client::tls_with(to, API, &authority, &[b"h2"]).unwrap();
        client.send(&http2::opening()).unwrap();
        client
            .send(&http2::request(1, &http2::get(API, "/reports/bearer/h2")))
            .unwrap();
        until("it arrives over HTTP/2", Duration::from_secs(10), || {
            arrived() == 1
        })
        .unwrap();
    });
    let request = stage
        .world
        .upstream()
        .requests_to("/reports/bearer/h2")
        .remove(0);
    assert_eq!(request.version, "HTTP/2.0");
    assert_eq!(
        request.header("authorization"),
        Some(&*format!("Bearer {SECRET}"))
    );
}

/// Neither another user nor the gate's own can look into the process, though they see it here.
fn not_in_proc(stage: &Stage, sidecar: &Sidecar) {
    let proc = PathBuf::from(format!("/proc/{}", sidecar.id()));
    let closed = [
        "environ", "maps", "smaps", "mem", "stack", "syscall", "auxv", "io", "fd", "root", "cwd",
        "exe",
    ];
    let open = ["cmdline", "status", "comm", "stat", "statm", "limits"];
    stage.agent(|| {
        for name in closed {
            let path = proc.join(name);
            let read = match name {
                "fd" => fs::read_dir(&path).map(drop),
                "root" | "cwd" | "exe" => fs::read_link(&path).map(drop),
                _ => fs::File::open(&path)
                    .and_then(|mut file| file.read(&mut [0; 16]))
                    .map(drop),
            };
            assert!(read.is_err(), "the agent can read {}", path.display());
        }
        for name in open {
            if let Ok(bytes) = fs::read(proc.join(name)) {
                assert_absent(name, &bytes);
            }
        }
        for name in CREDENTIALS {
            assert!(fs::read(stage.path("credentials").join(name)).is_err());
        }
    });
    // Whoever gets to run as the gate's user is not in its memory yet.
    let mem = proc.join("mem");
    let same_user = std::process::Command::new("setpriv")
        .args([
            "--reuid",
            "64100",
            "--regid",
            "64100",
            "--clear-groups",
            "--bounding-set=-all",
            "head",
            "-c",
            "1",
        ])
        .arg(&mem)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&same_user.stderr).into_owned();
    assert!(
        !same_user.status.success() && said.contains("Permission denied"),
        "{said}"
    );
    // This process's own environment is as empty as the gate's is: it takes nothing from there.
    let environment = fs::read(proc.join("environ")).unwrap();
    assert_absent("the gate's environment", &environment);
}

#[test]
fn a_killed_sidecar_leaves_no_core_dump() {
    // As generous as a machine can be.
    let unlimited = nix::libc::RLIM_INFINITY;
    nix::sys::resource::setrlimit(
        nix::sys::resource::Resource::RLIMIT_CORE,
        unlimited,
        unlimited,
    )
    .unwrap();
    for signal in [
        Signal::SIGSEGV,
        Signal::SIGABRT,
        Signal::SIGQUIT,
        Signal::SIGBUS,
    ] {
        let (stage, mut sidecar) = stage(&[]);
        assert_eq!(get(&stage, API, 443, "/reports/bearer/1", "").status, 200);
        let limits = fs::read_to_string(format!("/proc/{}/limits", sidecar.id())).unwrap();
        let core = limits
            .lines()
            .find(|line| line.starts_with("Max core file size"))
            .unwrap();
        let words: Vec<_> = core.split_ascii_whitespace().collect();
        assert_eq!(words[4..6], ["0", "0"], "{core}");
        let before = listing(&stage.path("work"));
        // Rust's own handler takes the first of some of them for a stack overflow's, and steps aside.
        until("it dies of it", Duration::from_secs(10), || {
            drop(sidecar.signal(signal));
            sidecar.ended(Duration::from_millis(50)).is_ok()
        })
        .unwrap();
        let status = sidecar.ended(Duration::from_secs(10)).unwrap();
        assert_eq!(status.signal(), Some(signal as i32), "{status}");
        assert!(!status.core_dumped(), "{signal} left a core dump");
        assert_eq!(listing(&stage.path("work")), before);
    }
}

fn listing(path: &Path) -> Vec<PathBuf> {
    let mut all: Vec<_> = fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    all.sort();
    all
}

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

/// Under `exeat run`, the command has the gate's own user.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_finds_no_secret_around_itself() {
    // Not to be found in any source or leftover on this machine.
    let tail = BASE64_URL_SAFE
        .encode(std::process::id().to_ne_bytes())
        .replace('=', "");
    let secret = format!("qzv{tail}Wjx");
    // What is looked for on a command line without being on that command line.
    let pattern = format!("[q]zv{tail}Wjx");
    let upstream = Upstream::start().await.unwrap();
    let policy = POLICY.replace("10.77.0.0/24", "127.0.0.0/8").replace(
        "hosts: [api.exeat.test]",
        &format!(
            "hosts: [api.exeat.test], ports: [{}]",
            upstream.tls().port()
        ),
    );
    let mut governed = Governed::new(&policy, &upstream)
        .unwrap()
        .resolve(API, "127.0.0.1");
    for name in CREDENTIALS {
        governed = governed.credential(name, &secret).unwrap();
    }
    let credentials = governed.home().parent().unwrap().to_owned();
    let script = format!(
        "echo called $(curl -sS -o /dev/null -w '%{{http_code}}' https://{API}:{}/reports/bearer/1)
         env | grep -c '{pattern}'
         cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline 2>/dev/null | grep -a -c '{pattern}'
         grep -a -r -l '{pattern}' '{}' /tmp /run /dev/shm \"$HOME\" 2>/dev/null | grep -v '^/proc' | sed 's/^/FOUND /'
         for p in /proc/[0-9]*; do head -c 1 $p/mem 2>/dev/null; done
         echo looked",
        upstream.tls().port(),
        credentials.display(),
    );
    let ran = governed.run(&["sh", "-c", &script]).await.unwrap();
    let lines: Vec<_> = ran.stdout.lines().collect();
    assert_eq!(lines, ["called 200", "0", "0", "looked"], "{ran:#?}");
    let request = upstream.requests().remove(0);
    assert_eq!(
        request.header("authorization"),
        Some(&*format!("Bearer {secret}"))
    );
    assert_not_in("what the gate said", ran.stderr.as_bytes(), &secret);
    assert_not_in(
        "the journal",
        &fs::read(governed.journal()).unwrap(),
        &secret,
    );
}

#[test]
fn nothing_that_holds_a_secret_can_be_printed() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str| fs::write(folder.path().join(name), content).unwrap();
    file("good", SECRET);
    file("lines", &format!("{SECRET}\n{SECRET}"));
    file("control", &format!("{SECRET}\u{1}"));
    file("large", &SECRET.repeat(10_000));
    let files = BTreeMap::from([("single".to_owned(), folder.path().join("good"))]);
    let credentials = Credentials::new(Some(folder.path().to_owned()), files).unwrap();
    let mut printed = Vec::new();
    for name in ["good", "single"] {
        let secret = credentials.get(name).unwrap();
        assert_eq!(secret.expose(), SECRET);
        printed.push(format!("{secret:?} {secret:#?}"));
    }
    for name in ["lines", "control", "large", "absent"] {
        let error = credentials.get(name).unwrap_err();
        printed.push(format!("{error} {error:?} {error:#?}"));
    }
    printed.push(format!("{:?}", credentials.problems()));
    assert_absent("a printed form", printed.join("\n").as_bytes());
}
