//! The real sidecar in a real pod: what stands around it, what the agent does, what the world saw.
//!
//! `exeat-sidecar` runs under the gate's UID in a namespace that `exeat-init` has confined. The agent
//! is a thread of the test in the same namespace, UID 1000, without capabilities; its sockets stay
//! the agent's when other threads use them. The world is another namespace with two upstreams: the
//! one that policies name, and a stranger at whose address nothing may ever arrive. Needs root.

mod faults;
mod http1;
pub mod http2;
mod policy;
mod raw;
mod trail;

use std::{
    fs::{self, File},
    io,
    net::{IpAddr, SocketAddr, TcpStream},
    os::{
        fd::AsRawFd as _,
        unix::{
            fs::{PermissionsExt as _, chown},
            process::CommandExt as _,
        },
    },
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned, pki_types::pem::PemObject,
};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use self::trail::Trail;
pub use self::{
    faults::Faults,
    http1::{Reply, ask, replies, request},
    policy::{POLICY, SECRET},
    raw::Raw,
    trail::{Mark, Watch},
};
use crate::{
    governed::program,
    netns::{POD_V4, Persona, Pod, WORLD_V4},
    sink::Capture,
    upstream::{Settings, Upstream},
};

/// Where the stranger lives: TEST-NET-3, so that nobody is meant.
pub const STRANGER: &str = "203.0.113.66";

/// The names that lead to the upstream.
pub const NAMES: &[&str] = &[
    "any.exeat.test",
    "api.exeat.test",
    "open.exeat.test",
    "plain.exeat.test",
    "tools.exeat.test",
    "models.exeat.test",
    "raw.exeat.test",
    "blind.exeat.test",
    "a.wild.exeat.test",
    "expired.exeat.test",
    "self-signed.exeat.test",
    "untrusted.exeat.test",
    "wrong-name.exeat.test",
];

/// The UID that the confinement exempts.
pub const GATE_UID: u32 = 64_100;

/// A refusal that takes longer is a client that hangs.
pub const PROMPT: Duration = Duration::from_secs(10);

/// A debug build on a busy machine needs this long to start, at worst.
const PATIENCE: Duration = Duration::from_secs(30);

/// A pod with its gate; all of it ends when dropped.
pub struct Gate {
    /// The namespaces.
    pub pod: Pod,
    /// What leaves the pod.
    pub capture: Capture,
    /// The upstream that policies name.
    pub upstream: Upstream,
    /// The one that no policy names.
    pub stranger: Upstream,
    trail: Mutex<Trail>,
    sidecar: Child,
    folder: TempDir,
    _runtime: Runtime,
}

/// The agent's end of a TLS connection.
pub type Tls = StreamOwned<ClientConnection, TcpStream>;

// === impl Gate ===

impl Gate {
    /// With the policy that most attacks are tried against.
    pub fn start() -> Result<Self> {
        Self::with(POLICY, &[])
    }

    /// With a policy and further words on the sidecar's command line.
    pub fn with(policy: &str, words: &[&str]) -> Result<Self> {
        ensure!(
            rustix::process::geteuid().is_root(),
            "this test makes network namespaces and needs root"
        );
        let pod = Pod::new()?;
        let capture = Capture::start(&pod)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let upstream = upstream(&pod, &runtime, WORLD_V4)?;
        let stranger = upstream_at_stranger(&pod, &runtime)?;
        let folder = files(policy, &upstream)?;
        pod.inside
            .command(text(&program("exeat-init")?)?, &["apply"])
            .context("the pod could not be confined")?;
        let sidecar = sidecar(&pod, &folder, words)?;
        let mut gate = Self {
            pod,
            capture,
            upstream,
            stranger,
            trail: Mutex::default(),
            sidecar,
            folder,
            _runtime: runtime,
        };
        gate.wait_until_ready()?;
        drop(gate.capture.take());
        Ok(gate)
    }

    /// Does something as the agent, in its namespace.
    pub fn agent<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        Ok(self.pod.inside.run(Persona::Agent, work)?)
    }

    /// A connection of the agent's.
    pub fn connect(&self, to: impl AsRef<str>) -> Result<TcpStream> {
        let to: SocketAddr = to.as_ref().parse()?;
        let stream = self.agent(|| TcpStream::connect_timeout(&to, PROMPT))??;
        stream.set_read_timeout(Some(PROMPT))?;
        stream.set_write_timeout(Some(PROMPT))?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// A connection to the upstream's TLS port with this server name.
    pub fn tls(&self, name: &str) -> Result<Tls> {
        self.tls_to(&format!("{WORLD_V4}:443"), name, &[b"http/1.1"])
    }

    /// A TLS connection of the agent's, which trusts the gate; the handshake is done.
    pub fn tls_to(&self, to: &str, name: &str, alpn: &[&[u8]]) -> Result<Tls> {
        let mut config = ClientConfig::builder()
            .with_root_certificates(self.roots()?)
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        self.tls_with(to, name, config)
    }

    /// The same with a configuration of one's own.
    pub fn tls_with(&self, to: &str, name: &str, config: ClientConfig) -> Result<Tls> {
        let mut tcp = self.connect(to)?;
        let mut session = ClientConnection::new(Arc::new(config), name.to_owned().try_into()?)?;
        while session.is_handshaking() {
            session.complete_io(&mut tcp)?;
        }
        Ok(StreamOwned::new(session, tcp))
    }

    /// What a client in the pod trusts.
    pub fn roots(&self) -> Result<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(rustls::pki_types::CertificateDer::from_pem_file(
            self.path("ca.pem"),
        )?)?;
        Ok(roots)
    }

    /// One request over TLS on a connection of its own.
    pub fn get(&self, name: &str, path: &str) -> Result<Reply> {
        let mut tls = self.tls(name)?;
        let replies = ask(&mut tls, &request("GET", path, name, ""), 1)?;
        replies.into_iter().next().context("no answer")
    }

    /// Rewrites the policy under the running gate.
    pub fn set_policy(&self, policy: &str) -> Result<()> {
        let new = self.path("policy.new");
        fs::write(&new, policy)?;
        Ok(fs::rename(new, self.path("policy.yaml"))?)
    }

    /// A file of this gate's.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The sidecar's resident memory, in bytes.
    pub fn memory(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.sidecar.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes: u64 = line
            .and_then(|line| line.trim().strip_suffix(" kB"))
            .context("the sidecar is gone")?
            .trim()
            .parse()?;
        Ok(kilobytes * 1024)
    }

    /// Asks the sidecar for its health, as its own probe does.
    pub fn healthy(&self) -> Result<()> {
        let program = File::open(program("exeat-sidecar")?)?;
        let output = self.pod.inside.run(Persona::Root, || {
            as_gate(&program)
                .args(["healthz", "--stage", "live"])
                .output()
        })??;
        let told = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{}: {told}", output.status);
        Ok(())
    }

    /// The sidecar's process.
    #[must_use]
    pub fn process(&self) -> u32 {
        self.sidecar.id()
    }

    /// What the sidecar has logged.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("sidecar.log")).unwrap_or_default()
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let start = Instant::now();
        while !self.path("state/ca.pem").exists() {
            if let Some(status) = self.sidecar.try_wait()? {
                bail!("the sidecar ended at once ({status}): {}", self.log());
            }
            if start.elapsed() > PATIENCE {
                bail!("the sidecar does not start: {}", self.log());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        // Written last, and under another name before that.
        fs::copy(self.path("state/ca.pem"), self.path("ca.pem"))?;
        Ok(())
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _gone = self.sidecar.kill();
        let _reaped = self.sidecar.wait();
        if std::thread::panicking() {
            eprintln!("--- the sidecar's log ---\n{}", self.log());
        }
    }
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gate").finish_non_exhaustive()
    }
}

pub(crate) fn upstream(pod: &Pod, runtime: &Runtime, address: &str) -> Result<Upstream> {
    let settings = Settings {
        address: address.parse::<IpAddr>()?,
        tls_port: 443,
        plain_port: 80,
        ..Settings::default()
    };
    // The future runs on this thread, so its sockets are made in this namespace.
    pod.outside
        .run(Persona::Root, || runtime.block_on(Upstream::with(settings)))?
}

fn upstream_at_stranger(pod: &Pod, runtime: &Runtime) -> Result<Upstream> {
    upstream(pod, runtime, STRANGER)
}

/// Policy, credentials and roots as the sidecar may read them, and a folder where it may write.
fn files(policy: &str, upstream: &Upstream) -> Result<TempDir> {
    let folder = tempfile::tempdir()?;
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
    let path = |name: &str| folder.path().join(name);
    fs::write(path("policy.yaml"), policy)?;
    fs::write(path("upstream-ca.pem"), upstream.ca_pem())?;
    fs::create_dir(path("credentials"))?;
    for name in ["api", "query", "key"] {
        let file = path("credentials").join(name);
        fs::write(&file, format!("{SECRET}-{name}\n"))?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o400))?;
        chown(&file, Some(GATE_UID), Some(GATE_UID))?;
    }
    let state = path("state");
    fs::create_dir(&state)?;
    fs::set_permissions(&state, fs::Permissions::from_mode(0o700))?;
    chown(&state, Some(GATE_UID), Some(GATE_UID))?;
    Ok(folder)
}

fn sidecar(pod: &Pod, folder: &TempDir, words: &[&str]) -> Result<Child> {
    let program = File::open(program("exeat-sidecar")?)?;
    let log = File::create(folder.path().join("sidecar.log"))?;
    let path = |name: &str| folder.path().join(name);
    let child = pod.inside.run(Persona::Root, || {
        let mut command = as_gate(&program);
        command.arg("--policy").arg(path("policy.yaml"));
        command.arg("--audit").arg(path("state/journal.jsonl"));
        command.arg("--credentials-dir").arg(path("credentials"));
        command.arg("--upstream-ca").arg(path("upstream-ca.pem"));
        command.arg("--ca-out").arg(path("state/ca.pem"));
        for name in NAMES {
            command.arg("--resolve").arg(format!("{name}={WORLD_V4}"));
        }
        command
            .args(words)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
    })??;
    Ok(child)
}

/// The sidecar's program under the gate's UID. It is started by its descriptor, so that the folders
/// above it need not be open to that UID.
pub(crate) fn as_gate(program: &File) -> Command {
    let mut command = Command::new(format!("/proc/self/fd/{}", program.as_raw_fd()));
    command
        .arg0("exeat-sidecar")
        .uid(GATE_UID)
        .gid(GATE_UID)
        .env_clear()
        .current_dir("/");
    command
}

fn text(path: &std::path::Path) -> io::Result<&str> {
    path.to_str()
        .ok_or_else(|| io::Error::other("the path of a program is not UTF-8"))
}

/// The pod's own address, as the world dials it.
#[must_use]
pub fn pod_address(port: u16) -> String {
    format!("{POD_V4}:{port}")
}

/// The upstream's address, as the agent dials it.
#[must_use]
pub fn world(port: u16) -> String {
    format!("{WORLD_V4}:{port}")
}
