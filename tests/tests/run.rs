//! `exeat run` as a user meets it: what passes through, what the command can't reach, and what is
//! said when the gate can't be built.
//!
//! Every test is run as root and as an ordinary user, whose namespaces are made in another way.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::used_underscore_binding,
    reason = "a test fails by panicking, and says what it does in its own way"
)]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use exeat_tests::governed::program;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

/// Neither of a person nor of a service.
const ORDINARY: u32 = 61_234;

/// Nothing here takes longer, however slow the machine.
const PATIENCE: Duration = Duration::from_secs(20);

const SECRET: &str = "s3cr3t-of-the-gate";

const POLICY: &str = "\
apiVersion: exeat.dev/v1alpha1
kind: ToolPolicy
metadata: {name: research}
spec:
  tools:
  - name: web
    http: {hosts: [api.example.com]}
    credential: api
  credentials:
  - {name: api, secret: {name: api, key: token}, inject: {bearer: {}}}
";

/// Who runs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum User {
    Root,
    Ordinary,
}

const USERS: [User; 2] = [User::Root, User::Ordinary];

/// A user's folder with a policy, a credential file and place for a journal.
struct Place {
    user: User,
    _above: TempDir,
    folder: PathBuf,
}

// === impl Place ===

impl Place {
    fn new(user: User) -> Self {
        assert!(
            nix::unistd::geteuid().is_root(),
            "these tests run commands as root and as an ordinary user: run them as root"
        );
        let above = tempfile::tempdir().unwrap();
        let folder = above.path().join("files");
        fs::create_dir(&folder).unwrap();
        fs::create_dir(folder.join("work")).unwrap();
        fs::write(folder.join("policy.yaml"), POLICY).unwrap();
        fs::write(folder.join("token"), SECRET).unwrap();
        fs::set_permissions(folder.join("token"), fs::Permissions::from_mode(0o600)).unwrap();
        let place = Self {
            user,
            folder,
            _above: above,
        };
        for path in [
            place._above.path(),
            &place.folder,
            &place.path("work"),
            &place.path("policy.yaml"),
            &place.path("token"),
        ] {
            place.give(path);
        }
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Makes it the user's.
    fn give(&self, path: &Path) {
        let id = match self.user {
            User::Root => 0,
            User::Ordinary => ORDINARY,
        };
        chown(path, Some(id), Some(id)).unwrap();
    }

    fn write(&self, name: &str, content: &str) {
        fs::write(self.path(name), content).unwrap();
        self.give(&self.path(name));
    }

    /// The program as this user, in the folder where it may work.
    fn program(&self, name: &Path) -> Command {
        let mut command = match self.user {
            User::Root => Command::new(name),
            User::Ordinary => {
                let mut command = Command::new("setpriv");
                let id = ORDINARY.to_string();
                command.args(["--reuid", &id, "--regid", &id, "--clear-groups"]);
                command.arg("--bounding-set=-all").arg(name);
                command
            }
        };
        command
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")
            .env("HOME", self.path("work"))
            .env("LANG", "C.UTF-8")
            .current_dir(self.path("work"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// `exeat run` with these options and nothing else.
    fn bare(&self, words: &[&str]) -> Command {
        let mut command = self.program(exeat());
        command.arg("run").args(words);
        command
    }

    /// `exeat run` with all of the folder's files.
    fn run(&self, options: &[&str], words: &[&str]) -> Command {
        let mut command = self.program(exeat());
        command.arg("run");
        command.arg("--policy").arg(self.path("policy.yaml"));
        command.arg("--audit").arg(self.path("journal.jsonl"));
        let token = format!("api={}", self.path("token").display());
        command.arg("--credential").arg(token);
        command.args(options).arg("--").args(words);
        command
    }
}

/// The binary where an ordinary user may execute it, whatever folder the project is in.
fn exeat() -> &'static Path {
    static COPY: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = COPY.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let path = folder.path().join("exeat");
        fs::copy(program("exeat").unwrap(), &path).unwrap();
        (folder, path)
    });
    path
}

/// A command that was started and will not stay, whatever becomes of the test.
struct Running {
    child: Child,
    done: Arc<AtomicBool>,
}

// === impl Running ===

impl Running {
    fn start(command: &mut Command) -> Self {
        let child = command.spawn().unwrap();
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
        let done = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&done);
        std::thread::spawn(move || {
            let deadline = Instant::now() + PATIENCE;
            while Instant::now() < deadline {
                if ended.load(Ordering::Acquire) {
                    return;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            // Not waited for yet, so still this process and no other.
            kill(pid, Signal::SIGKILL).ok();
        });
        Self { child, done }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.done.store(true, Ordering::Release);
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Runs to the end, which must come.
fn finish(command: &mut Command) -> Output {
    end(Running::start(command))
}

fn end(mut running: Running) -> Output {
    // Read in threads: a command that fills a pipe must not wait for this one.
    let read = |stream: Option<Box<dyn Read + Send>>| {
        std::thread::spawn(move || {
            let mut all = Vec::new();
            if let Some(mut stream) = stream {
                stream.read_to_end(&mut all).unwrap();
            }
            all
        })
    };
    let child = &mut running.child;
    drop(child.stdin.take());
    let stdout = read(child.stdout.take().map(|it| Box::new(it) as _));
    let stderr = read(child.stderr.take().map(|it| Box::new(it) as _));
    let output = Output {
        stdout: stdout.join().unwrap(),
        stderr: stderr.join().unwrap(),
        status: child.wait().unwrap(),
    };
    assert_ne!(
        output.status.signal(),
        Some(9),
        "it did not end; it said: {}",
        text(&output.stderr)
    );
    output
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Waits until a line with `what` comes.
fn wait_for(lines: &mut impl BufRead, what: &str) -> String {
    let mut seen = String::new();
    loop {
        let mut line = String::new();
        assert!(
            lines.read_line(&mut line).unwrap() > 0,
            "no `{what}` came, but: {seen}"
        );
        if line.contains(what) {
            return line;
        }
        seen.push_str(&line);
    }
}

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
        place.write("work/reach.py", include_str!("run/reach.py"));
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

#[test]
fn nothing_leaves_but_through_the_gate() {
    for user in USERS {
        let place = Place::new(user);
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        tcp.set_nonblocking(true).unwrap();
        udp.set_nonblocking(true).unwrap();
        let (tcp_port, udp_port) = (
            tcp.local_addr().unwrap().port(),
            udp.local_addr().unwrap().port(),
        );
        let script = format!(
            "import socket\n\
             for address in ('127.0.0.1', '192.0.2.1', '::1', '2001:db8::1'):\n\
             \x20 family = socket.AF_INET6 if ':' in address else socket.AF_INET\n\
             \x20 for kind, port in ((socket.SOCK_STREAM, {tcp_port}), (socket.SOCK_DGRAM, {udp_port})):\n\
             \x20   s = socket.socket(family, kind); s.settimeout(3)\n\
             \x20   try:\n\
             \x20     s.connect((address, port)); s.send(bytes(16)); print(address, kind.name, s.recv(1))\n\
             \x20   except OSError as e: print(address, kind.name, type(e).__name__)\n"
        );
        let output = finish(&mut place.run(&[], &["python3", "-c", &script]));
        let stdout = text(&output.stdout);
        assert_eq!(
            stdout.lines().count(),
            8,
            "{user:?}: {}",
            text(&output.stderr)
        );
        assert!(!stdout.contains("b'"), "{user:?}: {stdout}");
        assert!(tcp.accept().is_err(), "{user:?}: a connection came through");
        assert!(
            udp.recv(&mut [0; 16]).is_err(),
            "{user:?}: a datagram came through"
        );
    }
}

#[test]
fn a_denied_call_is_told_in_one_line() {
    for user in USERS {
        let place = Place::new(user);
        let words = [
            "curl",
            "-sS",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            "https://192.0.2.7/x",
        ];
        let output = finish(&mut place.run(&[], &words));
        let stderr = text(&output.stderr);
        assert_eq!(text(&output.stdout), "403", "{user:?}: {stderr}");
        let told: Vec<_> = stderr
            .lines()
            .filter(|line| line.starts_with("exeat: denied "))
            .collect();
        assert_eq!(told.len(), 1, "{user:?}: {stderr}");
        assert!(
            told[0].contains("GET https://192.0.2.7/x"),
            "{user:?}: {stderr}"
        );
        assert!(
            !stderr.contains('\u{1b}'),
            "{user:?}: no terminal, no colours: {stderr:?}"
        );
        let quiet = finish(&mut place.run(&["--quiet"], &words));
        assert_eq!(text(&quiet.stderr), "", "{user:?}");
        let journal = fs::read_to_string(place.path("journal.jsonl")).unwrap();
        assert!(journal.contains("192.0.2.7"), "{user:?}: {journal}");
    }
}

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
