//! Policies and credentials that are replaced under it.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};

use super::support::{POLICY, Place, Running, SECRET, USERS, end, exeat, finish, text, wait_for};

#[test]
fn a_policy_is_reloaded_from_outside_and_never_from_inside() {
    for user in USERS {
        let place = Place::new(user);
        // Whenever it is told to, the command tries to write into the policy, and to put its own there.
        let script = "while read word; do \
                        if echo forged >>../policy.yaml; then echo WROTE; fi; \
                        if cp ../policy.yaml mine && mv -f mine ../policy.yaml; then echo REPLACED; fi; \
                        echo tried; \
                      done 2>/dev/null";
        let mut command = place.run(&[], &["sh", "-c", script]);
        let mut running = Running::start(command.stdin(Stdio::piped()));
        let child = &mut running.child;
        let mut stdin = child.stdin.take().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut attempt = || {
            stdin.write_all(b"now\n").unwrap();
            let mut line = String::new();
            stdout.read_line(&mut line).unwrap();
            assert_eq!(line, "tried\n", "{user:?}");
        };
        attempt();
        // Written into: believed.
        fs::write(
            place.path("policy.yaml"),
            POLICY.replace("api.example.com", "two.example.com"),
        )
        .unwrap();
        let line = wait_for(&mut stderr, "policy:");
        assert!(
            line.contains("generation 2 is in force"),
            "{user:?}: {line}"
        );
        attempt();
        // Not understood: the last good one stays, and the file is named as the user knows it.
        fs::write(place.path("policy.yaml"), POLICY.replace("hosts:", "hots:")).unwrap();
        let line = wait_for(&mut stderr, "policy:");
        assert!(
            line.contains("generation 2 stays in force"),
            "{user:?}: {line}"
        );
        fs::write(
            place.path("policy.yaml"),
            POLICY.replace("api.example.com", "three.example.com"),
        )
        .unwrap();
        wait_for(&mut stderr, "generation 3 is in force");
        // Another file in a folder that the command can write to: not believed, and covered again.
        place.write(
            "next",
            &POLICY.replace("api.example.com", "four.example.com"),
        );
        fs::rename(place.path("next"), place.path("policy.yaml")).unwrap();
        wait_for(&mut stderr, "was replaced by another file");
        attempt();
        drop(stdin);
        assert_eq!(end(running).status.code(), Some(0), "{user:?}");
        assert!(
            !fs::read_to_string(place.path("policy.yaml"))
                .unwrap()
                .contains("forged"),
            "{user:?}"
        );
    }
}

#[test]
fn a_policy_may_be_replaced_in_a_read_only_folder() {
    for user in USERS {
        let place = Place::new(user);
        fs::create_dir(place.path("policies")).unwrap();
        place.give(&place.path("policies"));
        place.write("policies/a.yaml", POLICY);
        let folder = place.path("policies").display().to_string();
        let policy = place.path("policies/a.yaml").display().to_string();
        let script = "touch ../policies/mine 2>/dev/null && echo WROTE; \
                      unshare -Urm sh -c 'mount -o remount,bind,rw ../policies; touch ../policies/mine' 2>/dev/null && echo WROTE; \
                      echo ready; read word";
        let mut command = place.bare(&[
            "--policy",
            &policy,
            "--read-only",
            &folder,
            "--",
            "sh",
            "-c",
            script,
        ]);
        let mut running = Running::start(command.stdin(Stdio::piped()));
        let child = &mut running.child;
        let stdin = child.stdin.take().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n", "{user:?}");
        place.write(
            "policies/next",
            &POLICY.replace("api.example.com", "two.example.com"),
        );
        fs::rename(place.path("policies/next"), place.path("policies/a.yaml")).unwrap();
        wait_for(&mut stderr, "generation 2 is in force");
        drop(stdin);
        end(running);
    }
}

#[test]
fn a_replaced_credential_is_hidden_again() {
    for user in USERS {
        let place = Place::new(user);
        let script = "echo ready; read word; cat ../token; ls ..; read word; cat ../token";
        let mut running =
            Running::start(place.run(&[], &["sh", "-c", script]).stdin(Stdio::piped()));
        let child = &mut running.child;
        let mut stdin = child.stdin.take().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        wait_for(&mut stdout, "ready");
        place.write("next", SECRET);
        fs::rename(place.path("next"), place.path("token")).unwrap();
        wait_for(&mut stderr, "is hidden again");
        stdin.write_all(b"now\n").unwrap();
        wait_for(&mut stderr, "Permission denied");
        // Moved away and made anew: no mount goes, and it is seen to all the same.
        fs::rename(place.path("token"), place.path("token.old")).unwrap();
        place.write("token", SECRET);
        wait_for(&mut stderr, "is hidden again");
        stdin.write_all(b"now\n").unwrap();
        drop(stdin);
        let mut rest = String::new();
        stdout.read_to_string(&mut rest).unwrap();
        assert!(!rest.contains(SECRET), "{user:?}: {rest}");
        end(running);
    }
}

/// In a folder of its own no moment is left between a new file and its cover.
#[test]
fn a_credential_replaced_in_a_folder_of_its_own_is_never_seen() {
    for user in USERS {
        let place = Place::new(user);
        fs::create_dir(place.path("secrets")).unwrap();
        place.write("secrets/token", SECRET);
        place.give(&place.path("secrets"));
        place.give(&place.path("secrets/token"));
        let secrets = place.path("secrets");
        let script = format!(
            "import os, time\n\
             end = time.time() + 3; seen = set(); tried = 0\n\
             print('looking', flush=True)\n\
             while time.time() < end:\n\
             \x20 tried += 1\n\
             \x20 for name in ('token', '.next'):\n\
             \x20   try: seen.add(open('{0}/' + name).read())\n\
             \x20   except OSError as e: seen.add(type(e).__name__)\n\
             \x20 try: seen.update(os.listdir('{0}'))\n\
             \x20 except OSError as e: seen.add(type(e).__name__)\n\
             print(tried > 100, sorted(seen))",
            secrets.display()
        );
        let mut outer = place.program(exeat());
        outer.args(["run", "--credential"]);
        outer.arg(format!("api={}", secrets.join("token").display()));
        outer.args(["--", "python3", "-c", &script]);
        let done = AtomicBool::new(false);
        let output = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    fs::write(secrets.join(".next"), SECRET).unwrap();
                    fs::rename(secrets.join(".next"), secrets.join("token")).unwrap();
                }
            });
            let output = finish(&mut outer);
            done.store(true, Ordering::Relaxed);
            output
        });
        let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(
            stdout, "looking\nTrue ['PermissionError']\n",
            "{user:?}: {stderr}"
        );
        assert!(!stdout.contains(SECRET));
    }
}
