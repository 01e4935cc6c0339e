//! A pod in gVisor: a `runsc` sandbox whose network namespace the test has made, so that an observer
//! outside sees every frame that leaves it. Init, the gate and the agent are processes of one
//! sandbox, as a pod's containers are, each with its own user and capabilities.

use std::{
    fs,
    net::IpAddr,
    os::unix::fs::{PermissionsExt as _, chown, symlink},
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use exeat_tests::{
    governed::{fetched, program},
    inside::MARKER,
    netns::{Persona, Pod, WORLD_V4, WORLD_V6},
    sink::{Capture, Frame},
    upstream::{Settings, Upstream},
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// The one secret of these tests.
pub const SECRET: &str = "the-gates-own-secret";

/// A resolver that is not there: whoever gets an answer has it from the gate.
const RESOLVER: &str = "10.96.0.10";

/// The only user that may send.
pub const GATE: &str = "64100:64100";
/// Everybody else.
pub const AGENT: &str = "1000:1000";

/// What the init container has in a pod whose runtime is gVisor, and nothing else has.
pub const INIT: &[&str] = &["CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_SETUID", "CAP_SETGID"];

/// A sandbox and a debug build on a busy machine need this long to start, at worst.
const PATIENCE: Duration = Duration::from_mins(1);

/// A process in the sandbox that takes longer hangs.
const HANGS: &str = "60";

const POLICY: &str = r#"
apiVersion: exeat.dev/v1alpha1
kind: ToolPolicy
metadata: {name: gvisor}
spec:
  tools:
  - name: api
    http: {hosts: [api.exeat.test], addresses: [10.77.0.0/24], methods: [GET], paths: ["/allowed/**"]}
    credential: api
  - name: six
    http: {hosts: [six.exeat.test], addresses: ["fd77::/64"], methods: [GET], paths: ["/allowed/**"]}
  credentials:
  - {name: api, secret: {name: api, key: token}, inject: {bearer: {}}}
"#;

/// A sandbox; all of it ends when dropped.
pub struct Sandbox {
    pub pod: Pod,
    pub capture: Capture,
    folder: TempDir,
    words: Vec<&'static str>,
    name: String,
    process: Child,
    upstream: Option<(Vec<Upstream>, Runtime)>,
}

/// A process in it that goes on until it is killed there.
pub struct Background(Child);

// === impl Sandbox ===

impl Sandbox {
    /// With raw sockets for those who have the capability, as these rules need it.
    pub fn new() -> Self {
        Self::with(&["--net-raw"])
    }

    /// With other words for `runsc`.
    pub fn with(words: &[&'static str]) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let pod = Pod::new().expect("a pod can be made; this needs root");
        let capture = Capture::start(&pod).expect("frames can be captured");
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("exeat-{}-{count}", std::process::id());
        let folder = folder(&pod);
        let mut command = runsc(&folder, words);
        command
            .args(["run", "--bundle"])
            .arg(folder.path().join("bundle"))
            .arg(&name);
        let log = fs::File::create(folder.path().join("runsc.log")).unwrap();
        let process = pod
            .inside
            .run(Persona::Root, || {
                command
                    .stdin(Stdio::null())
                    .stdout(log.try_clone().unwrap())
                    .stderr(log)
                    .spawn()
                    .expect("runsc starts")
            })
            .unwrap();
        let mut sandbox = Self {
            pod,
            capture,
            folder,
            words: words.to_vec(),
            name,
            process,
            upstream: None,
        };
        let started = Instant::now();
        while !sandbox.run("0:0", &[], &["/usr/bin/true"]).status.success() {
            let ended = sandbox.process.try_wait().unwrap();
            assert!(
                ended.is_none() && started.elapsed() < PATIENCE,
                "the sandbox does not start ({ended:?}): {}",
                fs::read_to_string(sandbox.folder.path().join("runsc.log")).unwrap()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        drop(sandbox.capture.take());
        sandbox
    }

    /// With the rules.
    pub fn confined() -> Self {
        let sandbox = Self::new();
        sandbox.init(&["apply"]).expect("the rules are applied");
        drop(sandbox.capture.take());
        sandbox
    }

    /// With the rules, the gate, and upstreams that it may reach.
    pub fn governed() -> (Self, Background) {
        let mut sandbox = Self::confined();
        sandbox.serve();
        let gate = sandbox.gate();
        sandbox.wait_until_ready();
        drop(sandbox.capture.take());
        (sandbox, gate)
    }

    /// A program in the sandbox, to its end.
    pub fn run(&self, user: &str, capabilities: &[&str], words: &[&str]) -> Output {
        self.command(user, capabilities, words)
            .output()
            .expect("`timeout` is here")
    }

    /// Runs `exeat-init` as a pod's init container would, and returns what it printed.
    pub fn init(&self, words: &[&str]) -> Result<String, (Option<i32>, String)> {
        self.init_with(INIT, words)
    }

    /// The same with other capabilities.
    pub fn init_with(
        &self,
        capabilities: &[&str],
        words: &[&str],
    ) -> Result<String, (Option<i32>, String)> {
        let all: Vec<&str> = ["/programs/exeat-init"]
            .iter()
            .chain(words)
            .copied()
            .collect();
        let output = self.run("0:0", capabilities, &all);
        let (out, complaint) = (text(&output.stdout), text(&output.stderr));
        if output.status.success() {
            Ok(out)
        } else {
            Err((output.status.code(), complaint))
        }
    }

    /// A line of shell by root, with what the init container may do.
    pub fn root(&self, line: &str) -> String {
        let output = self.run("0:0", INIT, &["/bin/sh", "-c", line]);
        assert!(output.status.success(), "{line}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    /// What the agent does inside, and its lines.
    pub fn agent(&self, words: &[&str]) -> Vec<String> {
        let output = self.run(AGENT, &[], &inside(words));
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout).lines().map(str::to_owned).collect()
    }

    /// One attempt by a user, as the line that says what became of it.
    pub fn tries(&self, user: &str, attempt: &str) -> String {
        text(&self.run(user, &[], &inside(&["try", attempt])).stdout)
    }

    /// Ends every process of the agent's user.
    pub fn end_agents(&self) {
        let _itself_too = self.run(AGENT, &[], &["/bin/sh", "-c", "kill -9 -1"]);
    }

    /// The same, by root with what the init container may do.
    pub fn init_inside(&self, words: &[&str]) -> String {
        text(&self.run("0:0", INIT, &inside(words)).stdout)
    }

    /// An agent that goes on by itself, once it has begun.
    pub fn agent_goes_on(&self, words: &[&str]) -> Background {
        let mut child = self
            .command(AGENT, &[], &inside(words))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut begun = [0; 6];
        let out = child.stdout.as_mut().unwrap();
        std::io::Read::read_exact(out, &mut begun).expect("the agent begins");
        assert_eq!(&begun, b"begun\n");
        Background(child)
    }

    /// `curl` by the agent: status and body.
    pub fn curl(&self, url: &str) -> (String, String) {
        let words = [
            "/usr/bin/curl",
            "-sS",
            "-m",
            "10",
            "--cacert",
            "/pod/state/ca.pem",
            "-w",
            "\n%{http_code}",
            url,
        ];
        let output = self.run(AGENT, &[], &words);
        let said = text(&output.stdout);
        let (body, status) = said.rsplit_once('\n').unwrap_or(("", &said));
        (status.to_owned(), format!("{body}{}", text(&output.stderr)))
    }

    /// Starts the gate, as the sidecar's container would.
    pub fn gate(&self) -> Background {
        let resolve = [
            format!("--resolve=api.exeat.test={WORLD_V4}"),
            format!("--resolve=six.exeat.test={WORLD_V6}"),
        ];
        let mut words = vec![
            "/programs/exeat-sidecar",
            "--policy=/pod/policy.yaml",
            "--audit=/pod/state/journal.jsonl",
            "--credentials-dir=/pod/credentials",
            "--upstream-ca=/pod/upstream-ca.pem",
            "--ca-out=/pod/state/ca.pem",
            "--self-test",
        ];
        words.extend(resolve.iter().map(String::as_str));
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.folder.path().join("gate.log"))
            .unwrap();
        // Through a pipe: a file that both write has two ideas of where its end is.
        let mut child = self
            .command(GATE, &[], &words)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = child.stderr.take().unwrap();
        std::thread::spawn(move || std::io::copy(&mut said, &mut &log));
        Background(child)
    }

    /// The sidecar's own readiness probe passes: its self-test among the rest.
    pub fn wait_until_ready(&self) {
        let started = Instant::now();
        let words = ["/programs/exeat-sidecar", "healthz", "--stage", "ready"];
        while !self.run(GATE, &[], &words).status.success() {
            assert!(
                started.elapsed() < PATIENCE,
                "the gate does not become ready: {}",
                self.log()
            );
        }
    }

    /// Sends a signal to every process of the gate's user, the sender too.
    pub fn signal_gate(&self, signal: &str) {
        let line = format!("kill -{signal} -1");
        let _itself_too = self.run(GATE, &[], &["/bin/sh", "-c", &line]);
    }

    /// A file of this pod's, outside.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What the gate has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("gate.log")).unwrap_or_default()
    }

    /// Every line of the journal.
    pub fn journal(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.folder.path().join("state/journal.jsonl")).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// What reached the upstreams: paths, each with the credential that came along.
    pub fn requests(&self) -> Vec<(String, Option<String>)> {
        let (upstreams, _) = self.upstream.as_ref().unwrap();
        upstreams
            .iter()
            .flat_map(Upstream::requests)
            .map(|request| {
                let credential = request.header("authorization").map(str::to_owned);
                (request.path.clone(), credential)
            })
            .collect()
    }

    /// Frames that had no business to leave: with a gate, its own calls to the upstreams have.
    pub fn escapes(&self, gate: bool) -> Vec<Frame> {
        self.capture
            .take()
            .into_iter()
            .filter(|frame| !(frame.neighbour || joins(frame) || gate && is_gates(frame)))
            .collect()
    }

    /// Upstreams on the world's two addresses.
    fn serve(&mut self) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let mut upstreams = Vec::new();
        let mut roots = String::new();
        for address in [WORLD_V4, WORLD_V6] {
            let settings = Settings {
                address: address.parse::<IpAddr>().unwrap(),
                tls_port: 443,
                plain_port: 80,
                ..Settings::default()
            };
            let upstream = self
                .pod
                .outside
                .run(Persona::Root, || runtime.block_on(Upstream::with(settings)))
                .unwrap()
                .unwrap();
            roots += upstream.ca_pem();
            upstreams.push(upstream);
        }
        fs::write(self.folder.path().join("upstream-ca.pem"), roots).unwrap();
        self.upstream = Some((upstreams, runtime));
    }

    fn command(&self, user: &str, capabilities: &[&str], words: &[&str]) -> Command {
        let mut command = Command::new("timeout");
        command.args(["--signal=KILL", HANGS]);
        command
            .args(arguments(&self.folder, &self.words))
            .arg("exec");
        command.args(["--user", user]);
        for capability in capabilities {
            command.args(["--cap", capability]);
        }
        command.arg(&self.name).args(words).stdin(Stdio::null());
        command
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the gate's log ---\n{}", self.log());
        }
        for words in [
            ["kill", &self.name, "KILL"],
            ["delete", "-force", &self.name],
        ] {
            // It may have ended by itself.
            let _gone = runsc(&self.folder, &self.words).args(words).output();
        }
        let _gone = self.process.kill();
        let _reaped = self.process.wait();
        // `runsc` leaves an empty network namespace mounted, and the folder could not be removed.
        let left = self.path("root/null-netns");
        let _none = nix::mount::umount2(&left, nix::mount::MntFlags::MNT_DETACH);
    }
}

// === impl Background ===

impl Background {
    /// Waits for its end and returns what it printed after it had begun.
    pub fn end(mut self) -> String {
        let mut said = String::new();
        if let Some(mut out) = self.0.stdout.take() {
            std::io::Read::read_to_string(&mut out, &mut said).unwrap();
        }
        self.0.wait().unwrap();
        said
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}

fn arguments(folder: &TempDir, words: &[&str]) -> Vec<String> {
    let runsc =
        fetched("cluster/bin/runsc").expect("runsc is built by `cargo xtask cluster build`");
    let root = folder.path().join("root").display().to_string();
    [
        runsc.display().to_string().as_str(),
        "--root",
        &root,
        "--platform=systrap",
        "--ignore-cgroups",
        "--network=sandbox",
        "--overlay2=none",
        // What the test writes later is seen.
        "--file-access=shared",
    ]
    .iter()
    .chain(words)
    .map(|word| (*word).to_owned())
    .collect()
}

fn runsc(folder: &TempDir, words: &[&str]) -> Command {
    let arguments = arguments(folder, words);
    let mut command = Command::new(&arguments[0]);
    command.args(&arguments[1..]);
    command
}

/// A bundle: the machine's own programs, ours, and the pod's files, of which only the gate's state
/// can be written.
fn folder(pod: &Pod) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let open = |path: &PathBuf| fs::set_permissions(path, fs::Permissions::from_mode(0o755));
    open(&folder.path().to_owned()).unwrap();
    fs::write(path("policy.yaml"), POLICY).unwrap();
    fs::write(path("resolv.conf"), format!("nameserver {RESOLVER}\n")).unwrap();
    fs::create_dir(path("credentials")).unwrap();
    fs::write(path("credentials/api"), SECRET).unwrap();
    fs::create_dir(path("state")).unwrap();
    for (name, mode) in [("credentials/api", 0o400), ("state", 0o755)] {
        fs::set_permissions(path(name), fs::Permissions::from_mode(mode)).unwrap();
        chown(path(name), Some(64_100), Some(64_100)).unwrap();
    }
    let rootfs = path("rootfs");
    for name in ["usr", "etc", "proc", "dev", "run", "tmp", "pod", "programs"] {
        fs::create_dir_all(rootfs.join(name)).unwrap();
    }
    let bind = |to: &str, from: &str, how: &str| json!({"destination": to, "type": "bind", "source": from, "options": ["rbind", how]});
    let tmpfs = |to: &str| json!({"destination": to, "type": "tmpfs", "source": "tmpfs"});
    let programs = program("exeat-init").unwrap();
    let text = |path: PathBuf| path.display().to_string();
    let mut mounts = vec![
        json!({"destination": "/proc", "type": "proc", "source": "proc"}),
        tmpfs("/dev"),
        tmpfs("/run"),
        tmpfs("/tmp"),
        bind("/usr", "/usr", "ro"),
        bind("/etc", "/etc", "ro"),
        bind("/etc/resolv.conf", &text(path("resolv.conf")), "ro"),
        bind(
            "/programs",
            &text(programs.parent().unwrap().to_owned()),
            "ro",
        ),
        bind("/pod", &text(folder.path().to_owned()), "ro"),
        bind("/pod/state", &text(path("state")), "rw"),
    ];
    for name in ["bin", "sbin", "lib", "lib64"] {
        let host = PathBuf::from("/").join(name);
        if let Ok(target) = fs::read_link(&host) {
            symlink(target, rootfs.join(name)).unwrap();
        } else if host.is_dir() {
            fs::create_dir(rootfs.join(name)).unwrap();
            mounts.push(bind(&text(host.clone()), &text(host), "ro"));
        }
    }
    let namespaces = ["pid", "mount", "ipc", "uts"].map(|kind| json!({"type": kind}));
    let mut namespaces = namespaces.to_vec();
    namespaces.push(json!({"type": "network", "path": pod.inside.path()}));
    fs::create_dir(path("bundle")).unwrap();
    let config = json!({
        "ociVersion": "1.0.0",
        "process": {
            "user": {"uid": 1000, "gid": 1000}, "args": ["/usr/bin/sleep", "600"], "cwd": "/",
            "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"], "noNewPrivileges": true,
            // What a process of the pod may be given at most.
            "capabilities": {"bounding": INIT},
        },
        "root": {"path": rootfs, "readonly": true},
        "hostname": "pod",
        "mounts": mounts,
        "linux": {"namespaces": namespaces},
    });
    fs::write(path("bundle/config.json"), config.to_string()).unwrap();
    folder
}

fn inside<'a>(words: &[&'a str]) -> Vec<&'a str> {
    ["/programs/exeat-test-pod", "inside"]
        .iter()
        .chain(words)
        .copied()
        .collect()
}

/// A call to an upstream. The agent's own bytes are in none.
fn is_gates(frame: &Frame) -> bool {
    let world = [WORLD_V4, WORLD_V6].map(|address| match address.parse().unwrap() {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    });
    matches!(frame.ports, Some((_, 443)))
        && world.iter().any(|address| frame.holds(address))
        && !frame.holds(MARKER)
}

/// IGMP, or MLD behind a hop-by-hop option: the node's kernel announces the groups of the pod's addresses
/// before the sandbox takes them over, and a little after. gVisor itself sends none.
fn joins(frame: &Frame) -> bool {
    matches!(frame.protocol, Some(0 | 2)) && !frame.holds(MARKER)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
