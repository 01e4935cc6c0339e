//! The command's streams, signals and end.

use std::fs;
use std::io::{BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::support::{POLICY, Place, Running, USERS, User, end, exeat, finish, text, wait_for};

#[test]
fn the_commands_exit_status_is_the_runs() {
    for user in USERS {
        let place = Place::new(user);
        place.write("work/plain", "#!/bin/sh\n");
        for (words, expected) in [
            (&["true"][..], 0),
            (&["sh", "-c", "exit 7"], 7),
            (&["sh", "-c", "exit 255"], 255),
            (&["sh", "-c", "kill -TERM $$"], 143),
            (&["sh", "-c", "kill -KILL $$"], 137),
            (&["there-is-no-such-command"], 127),
            (&["/there/is/no/such/command"], 127),
            (&["./plain"], 126),
            (&["/"], 126),
        ] {
            let output = finish(place.run(&[], words).arg("--an-argument-of-the-command"));
            let stderr = text(&output.stderr);
            assert_eq!(
                output.status.code(),
                Some(expected),
                "{user:?} {words:?}: {stderr}"
            );
            assert_eq!(text(&output.stdout), "", "{user:?} {words:?}");
        }
    }
}

#[test]
fn the_streams_are_the_commands_alone() {
    for user in USERS {
        let place = Place::new(user);
        let mut command = place.run(&[], &["sh", "-c", "cat; echo error >&2"]);
        let mut running = Running::start(command.stdin(Stdio::piped()));
        let child = &mut running.child;
        let input = vec![b'x'; 300_000];
        let mut stdin = child.stdin.take().unwrap();
        let sent = input.clone();
        let writer = std::thread::spawn(move || stdin.write_all(&sent).unwrap());
        let output = end(running);
        writer.join().unwrap();
        assert_eq!(text(&output.stderr), "error\n", "{user:?}");
        assert!(output.stdout == input, "{user:?}");
    }
}

#[test]
fn what_cannot_be_built_is_125_with_the_reason() {
    for user in USERS {
        let place = Place::new(user);
        place.write("bad.yaml", &POLICY.replace("hosts:", "hots:"));
        place.write("linked.yaml", POLICY);
        fs::hard_link(place.path("linked.yaml"), place.path("other.yaml")).unwrap();
        place.write("ca.pem", "no certificate");
        let path = |name: &str| place.path(name).display().to_string();
        let missing = format!("api={}", path("missing"));
        for (options, reason) in [
            (
                vec!["--there-is-no-such-option"],
                "--there-is-no-such-option",
            ),
            (vec!["--policy", &path("missing")], "No such file"),
            (vec!["--policy", &path("work")], "not a regular file"),
            (vec!["--policy", &path("bad.yaml")], "hots"),
            (vec!["--policy", &path("linked.yaml")], "hard link"),
            (vec!["--credential", &missing], "No such file"),
            (vec!["--credential", "api"], "="),
            (
                vec!["--resolve", "api.example.com=nowhere"],
                "not an IP address",
            ),
            (vec!["--label", "app"], "KEY=VALUE"),
            (vec!["--audit", "/there/is/no/journal"], "No such file"),
            (vec!["--upstream-ca", &path("ca.pem")], "ca.pem"),
        ] {
            let mark = place.path("work/started");
            let output = finish(place.bare(&options).arg("--").arg("touch").arg(&mark));
            let stderr = text(&output.stderr);
            assert_eq!(
                output.status.code(),
                Some(125),
                "{user:?} {options:?}: {stderr}"
            );
            assert!(stderr.contains(reason), "{user:?} {options:?}: {stderr}");
            assert!(!mark.exists(), "{user:?} {options:?}: it was started");
        }
    }
}

#[test]
fn without_user_namespaces_it_says_what_helps() {
    let place = Place::new(User::Root);
    // A namespace in which no further one may be made, and where being root means nothing.
    let script = "echo 0 >/proc/sys/user/max_user_namespaces && \
                  exec setpriv --bounding-set=-all --inh-caps=-all \"$0\" run -- true";
    let mut command = place.program(Path::new("unshare"));
    command
        .args(["--user", "--map-root-user", "sh", "-c", script])
        .arg(exeat());
    let output = finish(&mut command);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{stderr}");
    assert!(stderr.contains("user.max_user_namespaces"), "{stderr}");
    assert!(stderr.contains("as root"), "{stderr}");
}

#[test]
fn signals_reach_the_command_and_the_gate_outlives_it() {
    for user in USERS {
        let place = Place::new(user);
        for (signal, name) in [
            (Signal::SIGTERM, "TERM"),
            (Signal::SIGINT, "INT"),
            (Signal::SIGHUP, "HUP"),
            (Signal::SIGUSR1, "USR1"),
        ] {
            let script =
                format!("trap 'echo got; exit 3' {name}; echo ready; while :; do sleep 0.01; done");
            let mut running = Running::start(&mut place.run(&[], &["sh", "-c", &script]));
            let child = &mut running.child;
            let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
            let mut lines = BufReader::new(child.stdout.take().unwrap());
            wait_for(&mut lines, "ready");
            // To the gate alone, not to its group.
            kill(pid, signal).unwrap();
            wait_for(&mut lines, "got");
            assert_eq!(end(running).status.code(), Some(3), "{user:?} {name}");
            let journal = fs::read_to_string(place.path("journal.jsonl")).unwrap();
            assert!(
                journal
                    .lines()
                    .rev()
                    .nth(1) // the last one signs it
                    .unwrap()
                    .contains("exeat.journal.closed"),
                "{user:?} {name}: {journal}"
            );
        }
    }
}

#[test]
fn the_command_does_not_outlive_a_killed_gate() {
    for user in USERS {
        let place = Place::new(user);
        let script =
            "trap '' TERM INT HUP; (sleep 1000 &); echo ready; while :; do sleep 0.01; done";
        let mut running = Running::start(&mut place.run(&[], &["sh", "-c", script]));
        let child = &mut running.child;
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        wait_for(&mut lines, "ready");
        child.kill().unwrap();
        let started = Instant::now();
        let mut rest = String::new();
        // The end of the stream: nobody of the command is left who holds it open.
        lines.read_to_string(&mut rest).unwrap();
        assert!(started.elapsed() < Duration::from_secs(5), "{user:?}");
        assert_eq!(child.wait().unwrap().signal(), Some(9));
    }
}

#[test]
fn orphans_are_buried_and_end_with_the_command() {
    for user in USERS {
        let place = Place::new(user);
        let script = "for i in 1 2 3 4 5; do (sh -c 'exit 0' & ) ; done; (sleep 1000 &); sleep 0.3; \
                      grep -l '^State:.Z' /proc/[0-9]*/status 2>/dev/null | wc -l";
        let output = finish(&mut place.run(&[], &["sh", "-c", script]));
        assert_eq!(text(&output.stdout).trim(), "0", "{user:?}");
    }
}

#[test]
fn an_interrupt_from_the_terminal_comes_once() {
    for user in USERS {
        let place = Place::new(user);
        // A second signal, passed on by the gate, would be counted.
        let script =
            "n=; trap 'n=x$n' INT; echo ready; sleep 5; sleep 0.5; echo \"<$n>\"; exit 5\n";
        place.write("work/interrupted", script);
        let run = format!("exec {} run -- sh interrupted", exeat().display());
        let mut command = place.program(Path::new("script"));
        command.args(["--quiet", "--return", "--command", &run, "/dev/null"]);
        let mut running = Running::start(command.stdin(Stdio::piped()));
        let mut stdin = running.child.stdin.take().unwrap();
        let mut lines = BufReader::new(running.child.stdout.take().unwrap());
        wait_for(&mut lines, "ready");
        stdin.write_all(b"\x03").unwrap();
        wait_for(&mut lines, "<x>");
        assert_eq!(end(running).status.code(), Some(5), "{user:?}");
    }
}
