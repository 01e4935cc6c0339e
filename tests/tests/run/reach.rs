//! What the command can't reach.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Stdio;

use super::support::{POLICY, Place, SECRET, USERS, User, exeat, finish, text};

/// The attempts of `reach.py` and how they must end.
const REACH: &[(&str, &[&str])] = &[
    ("folder rename", &["EBUSY"]),
    ("folder above rename", &["EBUSY"]),
    ("folder write", &["ok"]),
    ("gate signal", &["ESRCH"]),
    ("gate memory", &["ENOENT"]),
    // A process without the gate's rights may send it; the kernel does not deliver it to an init.
    ("init signal", &["ok"]),
    ("init descriptors", &["EACCES"]),
    ("init memory", &["EACCES"]),
    ("init environment", &["EACCES"]),
    ("init trace", &["EPERM"]),
    ("processes outside", &["ok"]),
    ("unix socket", &["EPERM"]),
    ("unix pair", &["ok"]),
    ("unix datagram pair", &["EPERM"]),
    ("unix raw pair", &["EPERM"]),
    ("unix datagram pair with flags", &["EPERM"]),
    ("vsock", &["EPERM"]),
    ("packet", &["EPERM"]),
    ("bluetooth", &["EPERM"]),
    ("qipcrtr", &["EPERM"]),
    ("raw ip", &["EPERM"]),
    ("netlink route", &["ok"]),
    ("netlink netfilter", &["EPERM"]),
    ("interfaces", &["ok"]),
    ("io_uring_setup", &["EPERM"]),
    ("add_key", &["EPERM"]),
    ("keyctl", &["EPERM"]),
    ("bpf", &["EPERM"]),
    ("open_by_handle_at", &["EPERM"]),
    ("perf_event_open", &["EPERM"]),
    ("x32 socket", &["EPERM", "ENOSYS"]),
    ("type into the terminal", &["EPERM"]),
    ("type with high bits set", &["EPERM"]),
    ("kernel setting", &["EROFS", "EACCES"]),
    ("sysrq", &["EROFS", "EACCES", "ENOENT"]),
    ("cron", &["EROFS", "EACCES"]),
    ("program of the system", &["EROFS", "EACCES", "ETXTBSY"]),
    ("control group", &["EROFS", "EACCES"]),
    ("block devices", &["ok"]),
];

/// The attempts on each protected file.
const FILE_REACH: &[(&str, &[&str])] = &[
    ("write", &["EACCES", "EROFS"]),
    ("append", &["EACCES", "EROFS"]),
    ("truncate", &["EACCES", "EROFS"]),
    ("chmod", &["EROFS"]),
    ("remove", &["EBUSY"]),
    ("rename", &["EBUSY"]),
    ("replace", &["EBUSY"]),
    ("link", &["EXDEV"]),
    ("through a link", &["EACCES", "EROFS"]),
    ("by /proc/1/root", &["EACCES"]),
    ("by /proc/self/root", &["EACCES", "EROFS"]),
    (
        "by /proc/thread-self/cwd/../../../../..",
        &["EACCES", "EROFS"],
    ),
    ("unmounted", &["status 32", "status 1"]),
    ("unmounted lazily", &["status 32", "status 1"]),
    ("remounted", &["status 32", "status 1"]),
    ("folder mounted elsewhere", &["status 32", "status 1"]),
    ("in a folder mounted elsewhere", &["status 1", "status 2"]),
    ("below its folder", &["status 32", "status 1"]),
];

#[test]
fn the_command_cannot_reach_the_gate_or_the_host() {
    for user in USERS {
        let place = Place::new(user);
        place.write("work/reach.py", include_str!("reach.py"));
        let script = format!("exec python3 reach.py {} $0", place.folder.display());
        // The shell's pid is the gate's, since it becomes the gate; told to the command by its name.
        let mut outer = place.run(&[], &["sh", "-c", &script, "GATE"]);
        let mut words: Vec<_> = outer.get_args().map(ToOwned::to_owned).collect();
        words.pop();
        let program = outer.get_program().to_owned();
        let mut command = place.program(Path::new("sh"));
        command.args(["-c", "exec \"$@\" $$", "sh"]);
        if user == User::Root {
            command.arg(&program);
            command.args(&words);
        } else {
            // Already the ordinary user: what `setpriv` was to execute.
            let at = words.iter().position(|word| word == exeat()).unwrap();
            command.args(&words[at..]);
        }
        outer.stdin(Stdio::null());
        let output = finish(&mut command);
        let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
        let found: BTreeMap<_, _> = stdout
            .lines()
            .filter_map(|line| line.split_once('\t'))
            .collect();

        let mut expected: Vec<(String, &[&str])> = REACH
            .iter()
            .map(|(name, outcomes)| ((*name).to_owned(), *outcomes))
            .collect();
        for file in ["token", "journal", "policy"] {
            for (name, outcomes) in FILE_REACH {
                expected.push((format!("{file} {name}"), outcomes));
            }
        }
        expected.push(("token read".to_owned(), &["EACCES"]));
        expected.push(("journal read".to_owned(), &["EACCES"]));
        expected.push(("policy read".to_owned(), &["ok"]));
        let wrong: Vec<_> = expected
            .iter()
            .filter(|(name, outcomes)| {
                !found
                    .get(name.as_str())
                    .is_some_and(|found| outcomes.contains(found))
            })
            .map(|(name, outcomes)| {
                format!("{name}: {:?}, not {outcomes:?}", found.get(name.as_str()))
            })
            .collect();
        assert!(wrong.is_empty(), "{user:?}: {wrong:#?}\n{stderr}");
        assert_eq!(fs::read_to_string(place.path("token")).unwrap(), SECRET);
        assert_eq!(
            fs::read_to_string(place.path("policy.yaml")).unwrap(),
            POLICY
        );
    }
}

#[test]
fn unix_sockets_can_be_opened_by_the_user() {
    for user in USERS {
        let place = Place::new(user);
        let script = "import socket; socket.socket(socket.AF_UNIX); \
                      socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM); print('open')";
        let open = finish(&mut place.run(&["--allow-unix-sockets"], &["python3", "-c", script]));
        assert_eq!(
            text(&open.stdout),
            "open\n",
            "{user:?}: {}",
            text(&open.stderr)
        );
        // And only those.
        let script = "import socket; socket.socket(socket.AF_VSOCK)";
        let other = finish(&mut place.run(&["--allow-unix-sockets"], &["python3", "-c", script]));
        assert!(
            text(&other.stderr).contains("Operation not permitted"),
            "{user:?}"
        );
    }
}

#[test]
fn nothing_of_the_gate_is_in_the_commands_view() {
    for user in USERS {
        let place = Place::new(user);
        let script = "cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline /proc/self/mountinfo 2>/dev/null; env; \
                      for gone in http_proxy HTTPS_PROXY OTEL_EXPORTER_OTLP_HEADERS SSL_CERT_DIR; do \
                        if printenv $gone; then echo LEFT $gone; fi; done; \
                      grep -E '^(Cap|NoNew|Seccomp:)' /proc/self/status; ls /proc/self/fd | wc -l";
        let mut command = place.run(&[], &["sh", "-c", script]);
        command.env("SSL_CERT_DIR", "/etc/ssl/certs");
        for name in ["http_proxy", "HTTPS_PROXY", "OTEL_EXPORTER_OTLP_HEADERS"] {
            command.env(name, "key=left.example");
        }
        let output = finish(&mut command);
        let stdout = text(&output.stdout);
        assert!(!stdout.contains(SECRET), "{user:?}: {stdout}");
        assert!(!stdout.contains("left.example"), "{user:?}: {stdout}");
        assert!(
            !stdout.lines().any(|line| line.starts_with("LEFT")),
            "{user:?}: {stdout}"
        );
        for name in ["Inh", "Prm", "Eff", "Bnd", "Amb"] {
            assert!(
                stdout.contains(&format!("Cap{name}:\t0000000000000000")),
                "{user:?}: {stdout}"
            );
        }
        assert!(stdout.contains("NoNewPrivs:\t1"), "{user:?}: {stdout}");
        assert!(stdout.contains("Seccomp:\t2"), "{user:?}: {stdout}");
        assert!(stdout.contains("SSL_CERT_FILE="), "{user:?}: {stdout}");
    }
}

#[test]
fn open_files_of_the_shell_are_not_inherited() {
    for user in USERS {
        let place = Place::new(user);
        let mut command = place.program(Path::new("sh"));
        let script = "exec 7<../token 9>>../policy.yaml; exec \"$0\" run -- sh -c 'ls /proc/self/fd; cat <&7'";
        command.args(["-c", script]).arg(exeat());
        let output = finish(&mut command);
        let stdout = text(&output.stdout);
        assert!(!stdout.contains(SECRET), "{user:?}: {stdout}");
        let open: Vec<_> = stdout.lines().collect();
        assert_eq!(
            open,
            ["0", "1", "2", "3"],
            "{user:?}: 3 is that of `ls` itself"
        );
    }
}
