//! Who runs it, where, and what is waited for.

use std::fs;
use std::io::{BufRead, Read};
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
pub(crate) const ORDINARY: u32 = 61_234;

/// Nothing here takes longer, however slow the machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) const SECRET: &str = "s3cr3t-of-the-gate";

pub(crate) const POLICY: &str = "\
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
pub(crate) enum User {
    Root,
    Ordinary,
}

pub(crate) const USERS: [User; 2] = [User::Root, User::Ordinary];

/// A user's folder with a policy, a credential file and place for a journal.
pub(crate) struct Place {
    user: User,
    _above: TempDir,
    pub(crate) folder: PathBuf,
}

// === impl Place ===

impl Place {
    pub(crate) fn new(user: User) -> Self {
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

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Makes it the user's.
    pub(crate) fn give(&self, path: &Path) {
        let id = match self.user {
            User::Root => 0,
            User::Ordinary => ORDINARY,
        };
        chown(path, Some(id), Some(id)).unwrap();
    }

    pub(crate) fn write(&self, name: &str, content: &str) {
        fs::write(self.path(name), content).unwrap();
        self.give(&self.path(name));
    }

    /// The program as this user, in the folder where it may work.
    pub(crate) fn program(&self, name: &Path) -> Command {
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
    pub(crate) fn bare(&self, words: &[&str]) -> Command {
        let mut command = self.program(exeat());
        command.arg("run").args(words);
        command
    }

    /// `exeat run` with all of the folder's files.
    pub(crate) fn run(&self, options: &[&str], words: &[&str]) -> Command {
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
pub(crate) fn exeat() -> &'static Path {
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
pub(crate) struct Running {
    pub(crate) child: Child,
    done: Arc<AtomicBool>,
}

// === impl Running ===

impl Running {
    pub(crate) fn start(command: &mut Command) -> Self {
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
pub(crate) fn finish(command: &mut Command) -> Output {
    end(Running::start(command))
}

pub(crate) fn end(mut running: Running) -> Output {
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

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Waits until a line with `what` comes.
pub(crate) fn wait_for(lines: &mut impl BufRead, what: &str) -> String {
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
