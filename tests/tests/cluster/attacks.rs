//! What an agent tries from inside of a real pod, judged by what an observer on the node sees.

use std::{process::Command, time::Duration};

use anyhow::ensure;
use exeat_tests::cluster::{Agent, Cluster, cluster, eventually};
use serde_json::Value;

use super::support::{MINUTE, Observer, governed, the_gates_own, with_policy};

const ATTEMPTS: &str = include_str!("attempts.py");

/// Nothing of it is to hang: refused, and at once.
const PROMPT_MS: u64 = 4_000;

fn attempts(agent: &Agent<'_>) -> Vec<Value> {
    let said = agent.python(ATTEMPTS).unwrap();
    let lines: Vec<Value> = said
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    assert!(lines.len() > 60, "{said}");
    lines
}

/// The oracle must see what it is there to see, or the next test proves nothing.
#[test]
fn from_a_pod_without_a_guard_the_attempts_leave() {
    let cluster = cluster();
    let namespace = cluster.namespace("bare", &[]).unwrap();
    let agent = Agent::start(cluster, &Agent::plain(cluster, &namespace, "bare")).unwrap();
    let observer = Observer::of(cluster, &agent);
    attempts(&agent);
    let sent = observer.sent_beside(cluster, the_gates_own()).join("\n");
    for what in [
        "198.51.100.7.443: Flags [S]",
        "2001:db8::7.443: Flags [S]",
        "203.0.113.77.123: ",
        "203.0.113.77: ICMP echo request",
        "169.254.169.254.80: Flags [S]",
        "fd00:203::77.9443: Flags [S]",
    ] {
        assert!(sent.contains(what), "`{what}` was not seen in:\n{sent}");
    }
}

#[test]
fn from_a_governed_pod_nothing_leaves_but_the_gates_own() {
    let cluster = cluster();
    let namespace = with_policy(cluster, "attacked", "a-secret-nobody-gets");
    let agent = governed(cluster, &namespace);
    let observer = Observer::of(cluster, &agent);
    let made = attempts(&agent);
    let sent = observer.sent_beside(cluster, the_gates_own());
    assert!(sent.is_empty(), "{sent:#?}");
    for attempt in &made {
        assert!(
            attempt["ms"].as_u64().unwrap() < PROMPT_MS,
            "it hung: {attempt}"
        );
    }
    // What is refused by the gate, and not by the kernel, is on record with where it was to go.
    eventually("the record of A1", MINUTE, || {
        let denied = cluster.collector.records("198.51.100.7")?;
        ensure!(
            denied
                .iter()
                .any(|record| record.to_string().contains(&namespace)),
            "nothing of {namespace} in {denied:?}"
        );
        Ok(())
    })
    .unwrap();
}

/// No secret, no key, no place to write: J1, J3, J6, J7, C14, H17.
#[test]
fn there_is_nothing_of_the_gate_in_the_agents_container() {
    let cluster = cluster();
    let namespace = with_policy(cluster, "searched", "a-secret-to-search-for");
    let agent = governed(cluster, &namespace);
    let answer = agent
        .curl(&["https://api.upstream.test/reports/1"])
        .unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    let (_, said) = agent
        .exec(&[
            "/bin/sh",
            "-c",
            "grep -rsl a-secret-to-search-for /etc /home /tmp /run /var /proc/*/environ; \
             grep -rsl 'PRIVATE KEY' /etc/exeat; ls /etc/exeat /etc/exeat/ca /var/lib/exeat; \
             ps -eo args | grep -c '[e]xeat-sidecar'; \
             echo x > /etc/exeat/ca/ca.pem; echo x > /etc/exeat/ca/mine; id -u; \
             curl -sS -m 2 http://127.0.0.1:15021/metrics; kill -STOP 1; echo survived",
        ])
        .unwrap();
    for line in said.lines() {
        assert!(
            !line.starts_with("/etc/exeat/") || line.ends_with(':'),
            "{said}"
        );
        assert!(!line.starts_with("/proc/"), "{said}");
    }
    assert!(said.contains("ca:\nbundle.pem\nca.pem\n"), "{said}");
    assert_eq!(said.matches("Read-only file system").count(), 2, "{said}");
    assert!(!said.contains("exeat_decisions_total"), "{said}");
    assert!(
        said.contains("\n0\n"),
        "the gate's processes are not to be seen: {said}"
    );
}

/// A23, A25: while the gate is away the pod is shut, and when it is back everything is as before.
#[test]
fn a_gate_that_is_killed_under_load_lets_nothing_out() {
    let cluster = cluster();
    let namespace = with_policy(cluster, "killed", "a-secret-that-outlives");
    let agent = governed(cluster, &namespace);
    let observer = Observer::of(cluster, &agent);
    let flood = "import socket,time\nend=time.monotonic()+45\nn=0\nwhile time.monotonic()<end:\n\
                 \x20for to,port in (('198.51.100.7',443),('203.0.113.77',9443),('198.51.100.7',53)):\n\
                 \x20 for kind in (socket.SOCK_STREAM,socket.SOCK_DGRAM):\n\
                 \x20  try:\n\
                 \x20   with socket.socket(socket.AF_INET,kind) as s:\n\
                 \x20    s.settimeout(.05); s.connect((to,port)); s.send(b'exeat-escape-attempt'); n+=1\n\
                 \x20  except OSError: pass\n\
                 print(n)";
    std::thread::scope(|scope| {
        let flooding = scope.spawn(|| agent.python(flood));
        for round in 0..3 {
            kill(cluster, &agent, round);
        }
        flooding.join().unwrap().unwrap();
    });
    let sent = observer.sent_beside(cluster, the_gates_own());
    assert!(
        sent.is_empty(),
        "{} packets: {:#?}",
        sent.len(),
        sent.first()
    );
    agent.ready().unwrap();
    eventually("the first call after", MINUTE, || {
        let answer = agent.curl(&["https://api.upstream.test/reports/after"])?;
        ensure!(answer.status == 200, "{answer:?}");
        Ok(())
    })
    .unwrap();
}

fn kill(cluster: &Cluster, agent: &Agent<'_>, round: u32) {
    let (process, _) = eventually("the gate to run", 2 * MINUTE, || {
        let pod = agent.get()?;
        let gate = &pod["status"]["initContainerStatuses"][1];
        ensure!(
            gate["restartCount"] == round && !gate["state"]["running"].is_null(),
            "{gate}"
        );
        cluster.node().process(
            &cluster.kubectl,
            &agent.namespace,
            &agent.pod,
            "exeat-sidecar",
        )
    })
    .unwrap();
    std::thread::sleep(Duration::from_secs(1));
    let killed = Command::new("kill")
        .args(["-KILL", &process.to_string()])
        .status();
    assert!(killed.unwrap().success());
}
