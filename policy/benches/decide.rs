//! What a decision costs, with 1, 100 and 1000 rules: it must not grow with rules that can't apply.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::fmt::Write as _;

use divan::Bencher;
use exeat_policy::{Call, Content, Host, HttpCall, Plan, Protocol, Source, Target, compile};
use http::{HeaderMap, Method};

const SIZES: [usize; 3] = [1, 100, 1000];

fn main() {
    divan::main();
}

fn plan(rules: usize, one_host: bool, when: &str) -> Plan {
    let mut text = "apiVersion: exeat.dev/v1alpha1\nkind: ToolPolicy\nmetadata: {name: bench}\nspec:\n  tools:\n".to_owned();
    for at in 0..rules {
        let host = if one_host { 0 } else { at };
        writeln!(
            text,
            "  - name: r{at}\n    http: {{hosts: [h{host}.example.com], methods: [GET], paths: [\"/p{at}/{{owner}}/**\"]}}{when}"
        )
        .unwrap();
    }
    text.push_str("  deny:\n  - name: no-deletes\n    http: {methods: [DELETE]}\n");
    compile(&[Source::new("bench", text)], None, 1).unwrap()
}

fn ask(bencher: Bencher<'_, '_>, plan: &Plan, url: &str) {
    let target = Target::parse(url).unwrap();
    let http = HttpCall {
        scheme: target.scheme,
        method: Method::GET,
        path: target.path,
        query: None,
        headers: HeaderMap::new(),
        websocket: false,
        content: Content::Unread,
    };
    let call = Call {
        destination: &target.destination,
        protocol: Protocol::Http(&http),
    };
    assert!(plan.decide(&call).is_allowed());
    bencher.bench_local(|| plan.decide(divan::black_box(&call)));
}

#[divan::bench(args = SIZES)]
fn hosts(bencher: Bencher<'_, '_>, rules: usize) {
    ask(
        bencher,
        &plan(rules, false, ""),
        "https://h0.example.com/p0/acme/x",
    );
}

#[divan::bench(args = SIZES)]
fn paths_of_one_host(bencher: Bencher<'_, '_>, rules: usize) {
    ask(
        bencher,
        &plan(rules, true, ""),
        "https://h0.example.com/p0/acme/x",
    );
}

// Each expression is parsed at load; a thousand take long in a build without optimisation.
#[divan::bench(args = [1, 100])]
fn with_when(bencher: Bencher<'_, '_>, rules: usize) {
    let when = "\n    when: path.owner in ['acme'] && request.host.endsWith('.example.com')";
    let url = "https://h0.example.com/p0/acme/x";
    ask(bencher, &plan(rules, false, when), url);
}

#[divan::bench]
fn parse_host(bencher: Bencher<'_, '_>) {
    bencher.bench_local(|| Host::parse(divan::black_box("api.github.com")));
}

#[divan::bench]
fn parse_path(bencher: Bencher<'_, '_>) {
    bencher
        .bench_local(|| exeat_policy::Path::parse(divan::black_box("/repos/acme/%61pp/issues/1")));
}
