//! Before the gate listens, while it is killed and comes back, and while the pod is told to end.

use std::time::Duration;

use crate::attempts;
use crate::support::{SECRET, Sandbox};

/// A22: the agent is first. A hundred starts of the gate would take minutes here; instead the agent
/// tries some hundred times before it listens, and while it starts.
#[test]
fn an_agent_that_is_first_gets_nowhere() {
    let sandbox = Sandbox::confined();
    let words: Vec<&str> = ["repeat", "8"].into_iter().chain(quick()).collect();
    let agent = sandbox.agent_goes_on(&words);
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(sandbox.escapes(false), [], "before the gate is there");
    std::fs::write(sandbox.path("upstream-ca.pem"), "").unwrap();
    let _gate = sandbox.gate();
    let made = made(agent.end());
    assert!(made > 200, "{made} attempts only");
    assert_eq!(sandbox.escapes(false), [], "while it starts");
}

/// A23 and A25: killed as the kernel kills what has no memory left, over and over, under load.
#[test]
fn a_gate_that_is_killed_leaves_nothing_open() {
    let (sandbox, gate) = Sandbox::governed();
    let words: Vec<&str> = ["repeat", "25"].into_iter().chain(quick()).collect();
    let agent = sandbox.agent_goes_on(&words);
    let mut gate = Some(gate);
    for round in 0..6 {
        std::thread::sleep(Duration::from_millis(300));
        sandbox.signal_gate("KILL");
        drop(gate.take());
        // Not at once, in every other round: the agent has it for itself.
        if round % 2 == 0 {
            std::thread::sleep(Duration::from_millis(700));
        }
        gate = Some(sandbox.gate());
    }
    sandbox.wait_until_ready();
    let (status, body) = sandbox.curl("https://api.exeat.test/allowed/after");
    assert_eq!(status, "200", "{body}");
    let made = made(agent.end());
    assert!(made > 500, "{made} attempts only");
    let escapes = sandbox.escapes(true);
    assert!(escapes.is_empty(), "{escapes:?}");
    assert_eq!(
        sandbox.requests(),
        [(
            "/allowed/after".to_owned(),
            Some(format!("Bearer {SECRET}"))
        )]
    );
}

/// A24: the gate ends as it should; the agent was told to, and does not.
#[test]
fn an_agent_that_outlives_its_gate_gets_nowhere() {
    let (sandbox, gate) = Sandbox::governed();
    let words: Vec<&str> = ["repeat", "8"].into_iter().chain(quick()).collect();
    let agent = sandbox.agent_goes_on(&words);
    sandbox.signal_gate("TERM");
    sandbox.root("kill -TERM -1; true");
    drop(gate.end());
    assert!(sandbox.log().contains("stopping"), "{}", sandbox.log());
    let (status, _) = sandbox.curl("https://api.exeat.test/allowed/late");
    assert_eq!(status, "000");
    assert!(made(agent.end()) > 200);
    assert_eq!(sandbox.escapes(true), []);
    assert_eq!(sandbox.requests(), []);
    sandbox
        .init(&["verify"])
        .expect("the rules are there to the end");
}

/// Those that are answered at once, so that many can be made.
fn quick() -> Vec<&'static str> {
    attempts::all()
        .into_iter()
        .filter(|attempt| !(attempt.starts_with("ping") || attempt.starts_with("udp/224")))
        .collect()
}

fn made(said: String) -> u32 {
    let count = said.trim().strip_prefix("made ").expect(&said);
    count.parse().unwrap()
}
