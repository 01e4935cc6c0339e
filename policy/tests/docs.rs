//! The examples of the manual: each compiles, and each call in it is judged as it says.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "support/calls.rs"]
mod support;

use exeat_policy::{Source, Verdict, compile};
use support::{Case, judge};

fn case(line: &str) -> Case {
    let (call, expect) = line
        .rsplit_once(" -> ")
        .unwrap_or_else(|| panic!("no verdict in {line}"));
    let (call, body) = match call.find(" {") {
        Some(at) => (&call[..at], Some(call[at + 1..].to_owned())),
        None => (call, None),
    };
    Case {
        call: call.to_owned(),
        headers: Vec::new(),
        body,
        websocket: false,
        expect: expect.to_owned(),
        message: None,
        note: None,
    }
}

fn said(verdict: &Result<Verdict, String>) -> String {
    match verdict {
        Ok(Verdict::Allow(grant)) => match (&grant.shadowed, &grant.credential) {
            (Some(denial), _) => format!("shadow {}", denial.reason),
            (None, Some(credential)) => format!("allow {} with {}", grant.rule, credential.name),
            (None, None) => format!("allow {}", grant.rule),
        },
        Ok(Verdict::Deny(denial)) => format!("deny {}", denial.reason),
        Err(_) => "refused".to_owned(),
    }
}

#[test]
fn every_example() {
    let manual = include_str!("../../docs/POLICY.md");
    let (mut examples, mut calls) = (0, 0);
    for block in manual.split("```yaml\n").skip(1) {
        let block = block.split("```").next().unwrap();
        examples += 1;
        let compiled = compile(&[Source::new("POLICY.md", block)], None, 1);
        if let Some((_, why)) = block.split_once("# refused: ") {
            let found = compiled.expect_err(block).to_string();
            assert!(found.contains(why.trim()), "{found}");
            continue;
        }
        let plan = compiled.unwrap_or_else(|found| panic!("{found}"));
        for line in block.lines().filter_map(|line| line.strip_prefix("# ")) {
            calls += 1;
            let case = case(line);
            assert_eq!(said(&judge(&plan, &case).unwrap()), case.expect, "{line}");
        }
    }
    assert!(
        examples >= 9 && calls >= 35,
        "{examples} examples, {calls} calls"
    );
}
