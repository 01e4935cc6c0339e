//! Bodies against the gate: tool calls and model names that hide in duplicate keys, batches,
//! encodings, other content types. A body that a rule looks into is read in one way or not at all,
//! and what the upstream receives is what was judged, byte for byte.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use anyhow::{Result, ensure};
use exeat_tests::gate::{Faults, Gate, Reply, ask, request};

const TOOLS: &str = "tools.exeat.test";
const MODELS: &str = "models.exeat.test";
const CHAT: &str = "/v1/chat/completions";

/// Why a body is not let through.
const REASONS: &[&str] = &[
    "body_invalid",
    "body_too_large",
    "tool_not_allowed",
    "model_not_allowed",
    "hosted_tool_not_allowed",
    "no_rule",
    "method_not_allowed",
    "invalid_request",
];

fn post(gate: &Gate, host: &str, path: &str, more: &str, body: &[u8]) -> Result<Vec<Reply>> {
    let more = format!("Content-Length: {}\r\n{more}", body.len());
    let bytes = [&request("POST", path, host, &more)[..], body].concat();
    ask(&mut gate.tls(host)?, &bytes, 1)
}

const JSON: &str =
    "Content-Type: application/json\r\nAccept: application/json, text/event-stream\r\n";

/// A call of a tool.
fn call(name: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"{name}","arguments":{{}}}}}}"#
    )
}

fn denied(gate: &Gate, host: &str, path: &str, more: &str, body: &[u8]) -> Result<()> {
    let watch = gate.watch();
    post(gate, host, path, more, body)?;
    watch.denied(REASONS).map(drop)
}

#[test]
fn a_tool_call_is_seen_wherever_it_hides() {
    let gate = Gate::start().unwrap();
    let mut faults = Faults::default();
    let (good, bad) = (call("search"), call("delete"));
    faults.check("the allowed one", || {
        let watch = gate.watch();
        post(&gate, TOOLS, "/mcp", JSON, good.as_bytes())?;
        let seen = watch.allowed(1)?;
        ensure!(seen[0].body == good.as_bytes(), "{seen:?}");
        Ok(())
    });
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let nested = |value: &str| good.replace("{}", &format!(r#"{{"x":{value}}}"#));
    let bodies: Vec<Vec<u8>> = vec![
        bad.clone().into_bytes(),
        format!("[{good},{bad}]").into_bytes(),
        format!("[{bad},{good}]").into_bytes(),
        format!("[[{bad}]]").into_bytes(),
        format!("[{good},[{bad}]]").into_bytes(),
        format!("{good}{bad}").into_bytes(),
        format!("{good}\n{bad}").into_bytes(),
        format!("{good},{bad}").into_bytes(),
        format!("\u{feff}{good}").into_bytes(),
        format!("{good}\0").into_bytes(),
        format!("// x\n{good}").into_bytes(),
        good.replace("\"2.0\"", "\"2.0\",").into_bytes(),
        good.replace('"', "'").into_bytes(),
        // Twice the same key, in every order and spelling.
        good.replace(r#""name":"search""#, r#""name":"search","name":"delete""#)
            .into_bytes(),
        good.replace(r#""name":"search""#, r#""name":"delete","name":"search""#)
            .into_bytes(),
        good.replace(
            r#""name":"search""#,
            r#""name":"search","n\u0061me":"delete""#,
        )
        .into_bytes(),
        good.replace(r#""name":"search""#, r#""name":"search","Name":"delete""#)
            .into_bytes(),
        good.replace(
            r#""method":"tools/call""#,
            r#""method":"ping","method":"tools/call""#,
        )
        .into_bytes(),
        good.replace(
            r#""method":"tools/call""#,
            r#""method":"tools/list","METHOD":"tools/call""#,
        )
        .into_bytes(),
        good.replace(r#""method""#, r#""m\u0065thod":"tools/list","method""#)
            .into_bytes(),
        good.replace(r#""params":"#, r#""params":{"name":"delete"},"params":"#)
            .into_bytes(),
        good.replace(r#""id":1"#, r#""id":1,"id":2"#).into_bytes(),
        // Names that are nearly the allowed one.
        call("Search").into_bytes(),
        call("search ").into_bytes(),
        call(" search").into_bytes(),
        call("search\\u0000").into_bytes(),
        call("s\\u0435arch").into_bytes(),
        call("search\\u200b").into_bytes(),
        call("").into_bytes(),
        call("*").into_bytes(),
        good.replace(r#""name":"search","#, "").into_bytes(),
        good.replace(r#""search""#, "null").into_bytes(),
        good.replace(r#""search""#, r#"["search"]"#).into_bytes(),
        good.replace(r#""tools/call""#, r#""tools/call ""#)
            .into_bytes(),
        good.replace(r#""tools/call""#, r#""TOOLS/CALL""#)
            .into_bytes(),
        good.replace(r#""tools/call""#, r#"["tools/call"]"#)
            .into_bytes(),
        good.replace(r#""2.0""#, r#""1.0""#).into_bytes(),
        // Numbers and depths on which readers disagree.
        nested("NaN").into_bytes(),
        nested("Infinity").into_bytes(),
        nested("1e999").into_bytes(),
        nested("-").into_bytes(),
        nested("01").into_bytes(),
        nested(&deep).into_bytes(),
        deep.clone().into_bytes(),
        // Other encodings of the same text.
        bad.encode_utf16().flat_map(u16::to_le_bytes).collect(),
        bad.encode_utf16().flat_map(u16::to_be_bytes).collect(),
        bad.chars().flat_map(|c| (c as u32).to_be_bytes()).collect(),
        good.replace("search", "s\u{1}earch").into_bytes(),
        [good.as_bytes(), b"\xff"].concat(),
        good.replace("search", "\\ud800").into_bytes(),
        format!("+AHs-{bad}").into_bytes(),
        b"null".to_vec(),
        b"[]".to_vec(),
        b"\"tools/call\"".to_vec(),
        Vec::new(),
        vec![b' '; 20 << 20],
    ];
    for body in bodies {
        let shown = body[..body.len().min(160)].escape_ascii().to_string();
        faults.check(shown, || denied(&gate, TOOLS, "/mcp", JSON, &body));
    }
    faults.none();
    assert!(!gate.upstream.saw(b"delete"));
    gate.nothing_strayed().unwrap();
}

#[test]
fn no_content_type_or_encoding_hides_a_body() {
    let gate = Gate::start().unwrap();
    let mut faults = Faults::default();
    let bad = call("delete");
    for kind in [
        "text/plain",
        "application/json; charset=utf-16",
        "application/json;charset=utf-7",
        "multipart/form-data; boundary=x",
        "application/x-www-form-urlencoded",
        "text/event-stream",
        "application/octet-stream",
        "application/grpc",
        "application/cbor",
        "",
        "application/json, text/plain",
    ] {
        faults.check(format!("type {kind:?}"), || {
            denied(
                &gate,
                TOOLS,
                "/mcp",
                &format!("Content-Type: {kind}\r\n"),
                bad.as_bytes(),
            )
        });
    }
    faults.check("no type", || {
        denied(&gate, TOOLS, "/mcp", "", bad.as_bytes())
    });
    for coding in [
        "gzip",
        "x-gzip",
        "deflate",
        "br",
        "zstd",
        "compress",
        "identity, gzip",
        "GZIP",
        "unknown",
    ] {
        for (host, path, body) in [
            (TOOLS, "/mcp", call("search")),
            (
                MODELS,
                CHAT,
                r#"{"model":"gpt-5","messages":[]}"#.to_owned(),
            ),
        ] {
            faults.check(format!("{coding} to {host}"), || {
                denied(
                    &gate,
                    host,
                    path,
                    &format!("{JSON}Content-Encoding: {coding}\r\n"),
                    body.as_bytes(),
                )
            });
        }
    }
    // A tool that is no part of a POST to the server is none.
    for method in ["PUT", "PATCH", "OPTIONS", "SEARCH", "QUERY"] {
        faults.check(method, || {
            let mut tls = gate.tls(TOOLS)?;
            let watch = gate.watch();
            let more = format!("Content-Length: {}\r\n{JSON}", bad.len());
            let bytes = [&request(method, "/mcp", TOOLS, &more)[..], bad.as_bytes()].concat();
            ask(&mut tls, &bytes, 1)?;
            watch.denied(REASONS)
        });
    }
    for method in ["GET", "DELETE"] {
        for framing in [
            format!("Content-Length: {}\r\n", bad.len()),
            "Transfer-Encoding: chunked\r\n".to_owned(),
        ] {
            faults.check(format!("{method} with a body, {framing:?}"), || {
                let body = if framing.starts_with('T') {
                    format!("{:x}\r\n{bad}\r\n0\r\n\r\n", bad.len())
                } else {
                    bad.clone()
                };
                let bytes = [
                    &request(method, "/mcp", TOOLS, &format!("{framing}{JSON}"))[..],
                    body.as_bytes(),
                ]
                .concat();
                let mut tls = gate.tls(TOOLS)?;
                let watch = gate.watch();
                ask(&mut tls, &bytes, 1)?;
                watch.denied(REASONS)
            });
        }
    }
    faults.check("GET without one", || {
        let watch = gate.watch();
        ask(
            &mut gate.tls(TOOLS)?,
            &request("GET", "/mcp", TOOLS, JSON),
            1,
        )?;
        watch.allowed(1)
    });
    for path in ["/mcp/", "/mcp/x", "/MCP", "/mcp?x", "/", "/%6dcp", "/mcp;x"] {
        faults.check(path, || denied(&gate, TOOLS, path, JSON, bad.as_bytes()));
    }
    faults.none();
    assert!(!gate.upstream.saw(b"delete"));
    gate.nothing_strayed().unwrap();
}

#[test]
fn a_model_is_named_once() {
    let gate = Gate::start().unwrap();
    let mut faults = Faults::default();
    let good = r#"{"model":"gpt-5-mini","messages":[{"role":"user","content":"hi"}]}"#;
    faults.check("the allowed one", || {
        let watch = gate.watch();
        post(&gate, MODELS, CHAT, JSON, good.as_bytes())?;
        let seen = watch.allowed(1)?;
        ensure!(seen[0].body == good.as_bytes(), "{seen:?}");
        Ok(())
    });
    for model in [
        r#""model":"o1""#,
        r#""model":"gpt-4""#,
        r#""model":"GPT-5""#,
        r#""model":" gpt-5""#,
        r#""model":"""#,
        r#""model":null"#,
        r#""model":["gpt-5"]"#,
        r#""model":5"#,
        r#""Model":"gpt-5""#,
        r#""model":"gpt-5","model":"o1""#,
        r#""model":"o1","model":"gpt-5""#,
        r#""model":"gpt-5","mod\u0065l":"o1""#,
        r#""model":"gpt-5","MODEL":"o1""#,
        r#""x":1"#,
        r#""model":"gpt-5","tools":[{"type":"web_search"}]"#,
        r#""model":"gpt-5","tools":[{"type":"mcp","server_url":"https://evil.test"}]"#,
        r#""model":"gpt-5","web_search_options":{}"#,
    ] {
        faults.check(model, || {
            let body = good.replace(r#""model":"gpt-5-mini""#, model);
            denied(&gate, MODELS, CHAT, JSON, body.as_bytes())
        });
    }
    for (path, model) in [
        ("/v1/files", "gpt-5"),
        ("/v1/fine_tuning/jobs", "gpt-5"),
        ("/v1/responses/x", "gpt-5"),
        ("/v1/batches", "gpt-5"),
        ("/v1/models/o1", "gpt-5"),
        ("/v1/unknown", "gpt-5"),
        ("/v2/chat/completions", "gpt-5"),
    ] {
        faults.check(path, || {
            let body = good.replace("gpt-5-mini", model);
            denied(&gate, MODELS, path, JSON, body.as_bytes())
        });
    }
    faults.none();
    gate.nothing_strayed().unwrap();
}
