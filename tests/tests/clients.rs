//! Unmodified clients through the gate, interception on: each makes an allowed call, and a denied
//! one, and is looked at from both ends.
//!
//! No client is told anything but the URL. That it trusts the gate's certificate, gets the injected
//! credential past its own, streams, and understands a refusal is the gate's doing or its bug.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support {
    pub(crate) mod world;
}

use serde_json::{Value, json};

use exeat_tests::{backend::Backend, governed::fetched};
use support::world::{API, World, client, text};

/// What the agent brings along in every call, in one header or another.
const AGENTS_OWN: &str = "agents-own";

/// One allowed call and one denied, on one session, for a client that prints a line for each.
async fn calls(words: &[String]) {
    let world = World::start().await;
    let allowed = world.url("/allowed/1");
    let denied = world.url("/denied/1");
    let mut words = words.to_vec();
    words.extend(["GET".to_owned(), allowed, denied]);
    let ran = world.run(&words).await;

    let lines = ran.lines();
    assert_eq!(lines.len(), 2, "{ran:#?}");
    assert_eq!(lines[0]["status"], 200, "{ran:#?}");
    assert_eq!(lines[1]["status"], 403, "{ran:#?}");
    refused(lines[1]["body"].as_str().unwrap());
    arrived_with_the_credential(&world, "/allowed");
    assert!(world.upstream.requests_to("/denied").is_empty());
    assert_eq!(ran.decided("allow", "/allowed").len(), 1, "{ran:#?}");
    assert_eq!(ran.decided("deny", "/denied").len(), 1, "{ran:#?}");
}

/// The body of a refusal, in the one shape that it has.
fn refused(body: &str) -> Value {
    let refusal: Value = serde_json::from_str(body).expect("a refusal is JSON");
    assert_eq!(refusal["error"]["type"], "egress_denied", "{body}");
    for field in ["code", "message", "id"] {
        assert!(
            refusal["error"][field]
                .as_str()
                .is_some_and(|text| !text.is_empty()),
            "{field} is missing: {body}"
        );
    }
    refusal
}

/// Every request to such paths has the gate's credential, and nowhere the agent's.
fn arrived_with_the_credential(world: &World, path: &str) {
    let requests = world.upstream.requests_to(path);
    assert!(!requests.is_empty(), "nothing arrived at {path}");
    for request in requests {
        assert_eq!(
            request.header("authorization"),
            Some("Bearer upstream-secret"),
            "{request:#?}"
        );
        assert!(!request.mentions(AGENTS_OWN), "{request:#?}");
        assert_eq!(request.headers.get_all("authorization").iter().count(), 1);
    }
}

// === HTTP libraries ===

#[tokio::test(flavor = "multi_thread")]
async fn python_httpx() {
    calls(&client("python/http_client.py", &["httpx"])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn python_requests() {
    calls(&client("python/http_client.py", &["requests"])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn python_aiohttp() {
    calls(&client("python/http_client.py", &["aiohttp"])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn python_urllib() {
    calls(&client("python/http_client.py", &["urllib"])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn node_fetch() {
    calls(&client("node/fetch.mjs", &[])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn go_net_http() {
    calls(&[text(fetched("bin/go-client").unwrap())]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn java_http_client() {
    let classes = text(fetched("java").unwrap());
    calls(&["java", "-cp", &classes, "Client"].map(str::to_owned)).await;
}

// === curl and wget ===

/// curl's own idea of a call: the status and the body on one line.
async fn curl(options: &[&str], version: &str) {
    let world = World::start().await;
    let mut words = vec![
        "curl",
        "-sS",
        "--max-time",
        "20",
        "-H",
        "authorization: Bearer agents-own",
        "-w",
        "\n{\"status\":%{http_code},\"version\":\"%{http_version}\"}\n",
    ];
    words.extend(options);
    let (allowed, denied) = (world.url("/allowed/1"), world.url("/denied/1"));
    words.extend([allowed.as_str(), denied.as_str()]);
    let ran = world.run(&words).await;

    let lines: Vec<Value> = ran.lines();
    let codes: Vec<&Value> = lines
        .iter()
        .filter(|line| line.get("version").is_some_and(|found| found == version))
        .map(|line| &line["status"])
        .collect();
    assert_eq!(codes, [&json!(200), &json!(403)], "{ran:#?}");
    let refusal = ran
        .stdout
        .lines()
        .find(|line| line.contains("egress_denied"));
    refused(refusal.unwrap());
    arrived_with_the_credential(&world, "/allowed");
    assert!(world.upstream.requests_to("/denied").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_http1() {
    curl(&["--http1.1"], "1.1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_http2() {
    curl(&["--http2"], "2").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_upload_with_100_continue() {
    let world = World::start().await;
    let script = format!(
        "head -c 2000000 /dev/zero | curl -sS --max-time 30 --http1.1 -H 'Expect: 100-continue' \
         --data-binary @- {}",
        world.url("/allowed/upload")
    );
    let ran = world.run(&["sh", "-c", &script]).await;
    assert!(ran.status.success(), "{ran:#?}");
    let requests = world.upstream.requests_to("/allowed/upload");
    assert_eq!(requests.len(), 1);
    assert_eq!(requests[0].body_length, 2_000_000);
    assert!(requests[0].complete);
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_sees_a_refusal_while_it_still_sends() {
    let world = World::start().await;
    let script = r#"
        for version in --http1.1 --http2; do
            for size in 17 100000 3000000; do
                head -c "$size" /dev/zero | curl -sS --max-time 30 "$version" -o /dev/null \
                    -w "$version $size %{http_code}\n" --data-binary @- "$1"
            done
        done
    "#;
    let ran = world
        .run(&["sh", "-c", script, "sh", &world.url("/denied/upload")])
        .await;
    assert_eq!(ran.stdout.lines().count(), 6, "{ran:#?}");
    assert!(
        ran.stdout.lines().all(|line| line.ends_with(" 403")),
        "{ran:#?}"
    );
    assert!(world.upstream.requests().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_head_and_trailers_and_events() {
    let world = World::start().await;
    let script = format!(
        "set -e; curl -sS --max-time 20 -I {}; curl -sS --max-time 20 --http1.1 --raw -H 'TE: trailers' {}; \
         curl -sS -N --max-time 20 '{}'",
        world.url("/bytes/1000000"),
        world.url("/trailers"),
        world.url("/sse?events=3&ms=10"),
    );
    let ran = world.run(&["sh", "-c", &script]).await;
    assert!(ran.status.success(), "{ran:#?}");
    assert!(ran.stdout.contains("content-length: 1000000"), "{ran:#?}");
    assert!(ran.stdout.contains("x-checksum: abc123"), "{ran:#?}");
    assert_eq!(ran.stdout.matches("event: tick").count(), 3, "{ran:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn wget() {
    let world = World::start().await;
    let script = format!(
        "wget -q -O - --header 'Authorization: Bearer agents-own' {}; echo; \
         wget -q -O - --content-on-error {}; echo; echo \"ended $?\"",
        world.url("/allowed/1"),
        world.url("/denied/1"),
    );
    let ran = world.run(&["sh", "-c", &script]).await;
    let lines = ran.lines();
    assert_eq!(lines.len(), 2, "{ran:#?}");
    assert_eq!(lines[0]["path"], "/allowed/1");
    refused(&lines[1].to_string());
    arrived_with_the_credential(&world, "/allowed");
    assert!(world.upstream.requests_to("/denied").is_empty());
}

// === WebSocket ===

async fn websocket(words: &[String], messages: usize) {
    let world = World::start().await;
    let mut words = words.to_vec();
    let socket = |path| world.url(path).replacen("https", "wss", 1);
    words.extend([socket("/ws"), socket("/denied/ws")]);
    let ran = world.run(&words).await;
    let lines = ran.lines();
    assert_eq!(lines.len(), 2, "{ran:#?}");
    assert_eq!(lines[0], json!({"status": 101, "messages": messages}));
    assert_eq!(lines[1]["status"], 403, "{ran:#?}");
    refused(lines[1]["body"].as_str().unwrap());
    arrived_with_the_credential(&world, "/ws");
    assert!(world.upstream.requests_to("/denied").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn python_websockets() {
    websocket(&client("python/websocket_client.py", &[]), 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn node_ws() {
    websocket(&client("node/websocket.cjs", &[]), 2).await;
}

// === models ===

/// Asks an allowed model, then another; the answer must come piece by piece.
async fn model(library: &str, allowed: &str, path: &str, credential: (&str, &str)) {
    let world = World::start().await;
    let words = client(
        "python/models.py",
        &[
            library,
            &world.base(support::world::MODELS),
            allowed,
            "another-model",
        ],
    );
    let ran = world.run(&words).await;
    let lines = ran.lines();
    assert_eq!(lines.len(), 2, "{ran:#?}");
    let pieces: Vec<&str> = lines[0]["pieces"]
        .as_array()
        .unwrap()
        .iter()
        .map(|piece| piece.as_str().unwrap_or_default())
        .collect();
    assert_eq!(
        pieces.concat(),
        "The gate let this answer through.",
        "{ran:#?}"
    );
    let times = lines[0]["times"].as_array().unwrap();
    let time = |value: Option<&Value>| value.and_then(Value::as_f64).unwrap();
    assert!(
        time(times.last()) - time(times.first()) > 0.3,
        "the answer came all at once: {ran:#?}"
    );
    assert_eq!(lines[1]["pieces"][0]["status"], 403, "{ran:#?}");
    refused(lines[1]["pieces"][0]["body"].as_str().unwrap());

    let requests = world.upstream.requests_to(path);
    assert_eq!(requests.len(), 1, "{requests:#?}");
    assert_eq!(requests[0].header(credential.0), Some(credential.1));
    assert!(!requests[0].mentions(AGENTS_OWN), "{requests:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn python_openai() {
    let credential = ("authorization", "Bearer upstream-secret");
    model("openai", "gpt-5-mini", "/v1/chat/completions", credential).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn python_anthropic() {
    let credential = ("x-api-key", "upstream-secret");
    model("anthropic", "claude-tiny", "/v1/messages", credential).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn python_openai_against_a_server_of_others() {
    let backend = Backend::models().unwrap();
    let world = World::with_front(support::world::MODELS, backend.address()).await;
    let words = client(
        "python/models.py",
        &["openai", &world.base(support::world::MODELS), "gpt-5-mini"],
    );
    let ran = world.run(&words).await;
    let lines = ran.lines();
    assert_eq!(lines.len(), 1, "{ran:#?}");
    let pieces = lines[0]["pieces"].as_array().unwrap();
    let said: String = pieces.iter().filter_map(Value::as_str).collect();
    assert!(said.len() > 10 && pieces.len() > 10, "{ran:#?}");
    arrived_with_the_credential(&world, "/v1/chat/completions");
}

// === tools ===

#[tokio::test(flavor = "multi_thread")]
async fn python_mcp() {
    let backend = Backend::everything().unwrap();
    let world = World::with_front(support::world::TOOLS, backend.address()).await;
    let words = client(
        "python/tools.py",
        &[
            &format!("{}/mcp", world.base(support::world::TOOLS)),
            r#"echo={"message":"hello"}"#,
            "get-env={}",
        ],
    );
    let ran = world.run(&words).await;
    let lines = ran.lines();
    assert_eq!(lines.len(), 3, "{ran:#?}");
    let tools = lines[0]["tools"].as_array().unwrap();
    assert!(tools.contains(&json!("echo")), "{ran:#?}");
    assert_eq!(lines[1]["text"], json!(["Echo: hello"]), "{ran:#?}");
    let denied = lines[2].to_string();
    assert!(denied.contains("egress_denied"), "{ran:#?}");
    assert!(
        !world
            .upstream
            .requests()
            .iter()
            .any(|request| request.mentions("get-env") || request.mentions("Bearer agents-own")),
        "{ran:#?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn python_grpc() {
    let world = World::start().await;
    let target = world.base(API).replacen("https://", "", 1);
    let ran = world
        .run(&client("python/grpc_client.py", &[&target]))
        .await;
    let lines = ran.lines();
    assert_eq!(lines.len(), 4, "{ran:#?}");
    assert_eq!(lines[0], json!({"call": "Say", "replies": 1}), "{ran:#?}");
    assert_eq!(lines[1], json!({"call": "Count", "replies": 5}), "{ran:#?}");
    assert_eq!(lines[2], json!({"call": "Chat", "replies": 4}), "{ran:#?}");
    assert_eq!(lines[3]["code"], "PERMISSION_DENIED", "{ran:#?}");
    assert!(
        !lines[3]["details"].as_str().unwrap().is_empty(),
        "{ran:#?}"
    );
    arrived_with_the_credential(&world, "/exeat.test.Echo");
    assert!(world.upstream.requests_to("/exeat.test.Secret").is_empty());
}

// === git ===

#[tokio::test(flavor = "multi_thread")]
async fn git_clone_fetch_and_push() {
    let world = World::start().await;
    let script = r#"
        set -e
        export GIT_TERMINAL_PROMPT=0
        git config --global user.name Agent
        git config --global user.email agent@exeat.test
        git config --global init.defaultBranch main
        git clone -q "$1/git/acme/open.git" work
        cd work
        echo one > file && git add file && git commit -qm one
        git push -q origin HEAD:main
        git fetch -q origin main
        test "$(git rev-parse HEAD)" = "$(git rev-parse FETCH_HEAD)"
        echo "pushed and fetched"
        git clone -q "$1/git/acme/read-only.git" ../read-only
        cd ../read-only
        echo two > file && git add file && git commit -qm two
        if git push -q origin HEAD:main; then echo "pushed where it must not"; fi
        if git clone -q "$1/git/other/private.git" ../private; then echo "cloned what it must not"; fi
    "#;
    let base = world.base(API);
    let ran = world.run(&["sh", "-c", script, "sh", &base]).await;
    assert!(ran.stdout.contains("pushed and fetched"), "{ran:#?}");
    assert!(!ran.stdout.contains("must not"), "{ran:#?}");
    assert!(ran.stderr.contains("403"), "{ran:#?}");
    assert!(world.has_commit("acme/open.git", "one"));
    assert!(!world.has_commit("acme/read-only.git", "two"));
    arrived_with_the_credential(&world, "/git/acme");
    assert!(world.upstream.requests_to("/git/other").is_empty());
}
