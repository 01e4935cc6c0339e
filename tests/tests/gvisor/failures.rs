//! What init says where something is missing, and what it notices.

use std::net::TcpListener;

use exeat_tests::netns::{Persona, WORLD_V4};

use crate::support::{INIT, Sandbox};

fn refused(answer: Result<String, (Option<i32>, String)>, status: i32, cause: &str) -> String {
    let (code, complaint) = answer.expect_err("it is refused");
    assert_eq!(code, Some(status), "{complaint}");
    let told: serde_json::Value = serde_json::from_str(complaint.trim()).expect(&complaint);
    assert_eq!(told["error"]["cause"], cause, "{complaint}");
    complaint
}

const APPLY: &[&str] = &["apply", "--format", "json"];

#[test]
fn without_raw_sockets_it_says_which_switch() {
    let sandbox = Sandbox::with(&[]);
    let complaint = refused(sandbox.init(APPLY), 89, "raw_sockets");
    assert!(complaint.contains("--net-raw"), "{complaint}");
}

#[test]
fn without_the_capability_it_says_which() {
    let sandbox = Sandbox::new();
    let without: Vec<&str> = INIT
        .iter()
        .copied()
        .filter(|name| *name != "CAP_NET_RAW")
        .collect();
    let complaint = refused(sandbox.init_with(&without, APPLY), 89, "raw_sockets");
    assert!(
        complaint.contains("NET_RAW to the init container"),
        "{complaint}"
    );
}

/// Chosen by what the kernel accepts; the same again changes nothing; clean takes it away.
#[test]
fn it_is_chosen_written_again_and_taken_away() {
    let sandbox = Sandbox::new();
    let first = sandbox.init(&["apply"]).unwrap();
    assert!(first.contains("backend: gvisor\n"), "{first}");
    let listed = || {
        sandbox.root("for t in filter nat; do iptables-legacy-save -t $t; ip6tables-legacy-save -t $t; done | grep -v '^#'")
    };
    let rules = listed();
    sandbox.init(&["apply"]).unwrap();
    assert_eq!(listed(), rules);
    sandbox.init(&["verify"]).unwrap();
    sandbox.init(&["clean"]).unwrap();
    assert!(!listed().contains("EXEAT"), "{}", listed());
    sandbox.agent(&["try", "udp/203.0.113.9:123"]);
    assert_ne!(sandbox.escapes(false), [], "it is open again");
}

/// gVisor does not print whom a rule lets out, so this is what the look-up of each rule is for. The
/// program for IPv6 looks up a rule without comparing what its matches say (iptables 1.8.9), so there
/// only the place of such a rule is known, and that nobody without rights gets out by it.
#[test]
fn another_user_in_the_gates_place_is_noticed() {
    let sandbox = Sandbox::confined();
    for (family, chain, table) in [
        ("iptables", "EXEAT_OUTPUT", "filter"),
        ("iptables", "EXEAT_CAPTURE", "nat"),
    ] {
        let rules = sandbox.root(&format!("{family}-legacy -t {table} -S {chain}"));
        let at = rules
            .lines()
            .filter(|line| line.starts_with("-A"))
            .position(|line| line.ends_with("[unsupported revision] -j ACCEPT"))
            .unwrap()
            + 1;
        let line = rules
            .lines()
            .filter(|line| line.starts_with("-A"))
            .nth(at - 1)
            .unwrap();
        let rule = |uid| {
            let protocol = if line.contains("-p udp") {
                "-p udp "
            } else if line.contains("-p tcp") {
                "-p tcp "
            } else {
                ""
            };
            let out = if line.contains("-o lo") { "-o lo " } else { "" };
            format!(
                "{family}-legacy -t {table} -R {chain} {at} {out}{protocol}-m owner --uid-owner {uid} -j ACCEPT"
            )
        };
        sandbox.root(&rule(1000));
        refused(
            sandbox.init(&["verify", "--format", "json"]),
            84,
            "readback_mismatch",
        );
        sandbox.root(&rule(64_100));
        sandbox.init(&["verify", "--no-prove"]).expect("as it was");
    }
}

#[test]
fn an_accept_before_ours_is_noticed() {
    let sandbox = Sandbox::confined();
    sandbox.root("iptables-legacy -I OUTPUT 1 -p udp -j ACCEPT");
    refused(
        sandbox.init(&["verify", "--format", "json"]),
        83,
        "foreign_rules",
    );
    sandbox.agent(&["try", "udp/203.0.113.9:123"]);
    assert_ne!(sandbox.escapes(false), [], "the hole was real");
}

/// Without states of flows, what was opened before looks like an answer to a caller.
#[test]
fn a_connection_from_before_is_told() {
    let sandbox = Sandbox::new();
    let _world = sandbox
        .pod
        .outside
        .run(Persona::Root, || {
            TcpListener::bind((WORLD_V4, 4000)).unwrap()
        })
        .unwrap();
    let held = sandbox.agent_goes_on(&["hold", &format!("{WORLD_V4}:4000")]);
    let complaint = refused(sandbox.init(APPLY), 85, "leak");
    assert!(
        complaint.contains("uid 1000") && complaint.contains(":4000"),
        "{complaint}"
    );
    drop(held);
}
