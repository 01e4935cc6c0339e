//! A gate to be treated badly: the real sidecar in a confined pod, a world outside that keeps what
//! it saw, and the means to kill, starve and mislead.
//!
//! Everything that decides whether a test passes is outside of the gate: the world's requests, the
//! frames on the cable, and the journal's lines checked with nothing but SHA-256.

pub mod client;
pub mod journal;
pub mod volume;

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io,
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail};
use exeat_init::{Backend, Plan, Uid};
use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, chown},
};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use self::volume::Volume;
use crate::{
    gate::{self, GATE_UID},
    governed::program,
    netns::{Persona, Pod, WORLD_V4},
    upstream::Upstream,
};

/// A name that the gate resolves to the world.
pub const API: &str = "api.exeat.test";

/// A debug build starts in some tens of milliseconds; two busy cores can make seconds of it.
const START_PATIENCE: Duration = Duration::from_secs(20);

/// A pod that is confined, its files, and the world outside.
#[derive(Debug)]
pub struct Stage {
    /// The namespaces.
    pub pod: Pod,
    /// Who answers out there, on ports 80 and 443.
    pub world: World,
    /// The policies, as kubelet mounts them.
    pub policies: Volume,
    folder: TempDir,
    program: File,
}

/// An upstream in the namespace outside.
#[derive(Debug)]
pub struct World {
    upstream: Upstream,
    _runtime: Runtime,
}

/// A sidecar that runs.
#[derive(Debug)]
pub struct Sidecar {
    child: Child,
    log: PathBuf,
}

/// What a program that ended said.
#[derive(Clone, Debug)]
pub struct Said {
    /// How it ended.
    pub status: ExitStatus,
    /// Both of its outputs.
    pub text: String,
}

// === impl Stage ===

impl Stage {
    /// A confined pod with this policy, whose `PORT` needs no replacing: the world has 80 and 443.
    pub fn new(policy: &str) -> Result<Self> {
        let pod = Pod::new()?;
        confine(&pod)?;
        let world = World::new(&pod)?;
        let folder = tempfile::tempdir()?;
        let path = folder.path();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
        for name in ["journal", "public", "work"] {
            own_folder(&path.join(name), 0o755)?;
        }
        own_folder(&path.join("credentials"), 0o700)?;
        fs::write(path.join("upstream-ca.pem"), world.upstream().ca_pem())?;
        let mut policies = Volume::new(path.join("policies"))?;
        policies.publish(&[("policy.yaml", policy)])?;
        let program = File::open(program("exeat-sidecar")?)?;
        Ok(Self {
            pod,
            world,
            policies,
            folder,
            program,
        })
    }

    /// A file or folder of the stage's own.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The journal.
    #[must_use]
    pub fn journal(&self) -> PathBuf {
        self.path("journal/journal.jsonl")
    }

    /// The certificate of the gate's authority, once it has started.
    #[must_use]
    pub fn authority(&self) -> PathBuf {
        self.path("public/ca.crt")
    }

    /// What every sidecar of this stage is told.
    #[must_use]
    pub fn arguments(&self) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = Vec::new();
        let mut option = |name: &str, value: OsString| arguments.extend([name.into(), value]);
        option("--policy-dir", self.policies.path().into());
        option("--audit", self.journal().into());
        option("--upstream-ca", self.path("upstream-ca.pem").into());
        option("--ca-out", self.authority().into());
        for name in [API, "other.exeat.test"] {
            option("--resolve", format!("{name}={WORLD_V4}").into());
        }
        arguments
    }

    /// Starts a sidecar with some more arguments, and does not wait for it.
    pub fn spawn(&self, more: &[&str]) -> Result<Sidecar> {
        let mut arguments = self.arguments();
        arguments.extend(more.iter().map(OsString::from));
        self.spawn_with(&arguments)
    }

    /// Starts a sidecar with exactly these arguments, and does not wait for it.
    pub fn spawn_with(&self, arguments: &[OsString]) -> Result<Sidecar> {
        let log = self.path("sidecar.log");
        let file = File::create(&log)?;
        let child = self.pod.inside.run(Persona::Root, || {
            gate::as_gate(&self.program)
                .args(arguments)
                .current_dir(self.path("work"))
                .stdin(Stdio::null())
                .stdout(file.try_clone()?)
                .stderr(file)
                .spawn()
        })?;
        let child = child.context("starting the sidecar")?;
        Ok(Sidecar { child, log })
    }

    /// Starts a sidecar whose journal's folder is a small file system of its own, with these options
    /// of `mount`; nobody else sees it.
    pub fn spawn_on_small_disk(&self, options: &str, more: &[&str]) -> Result<Sidecar> {
        let copy = self.path("exeat-sidecar");
        if !copy.exists() {
            fs::copy(program("exeat-sidecar")?, &copy)?;
        }
        let log = self.path("sidecar.log");
        let file = File::create(&log)?;
        let script = format!(
            "mount -t tmpfs -o mode=755,uid={GATE_UID},{options} none \"$1\" && shift && exec setpriv \
             --reuid {GATE_UID} --regid {GATE_UID} --clear-groups \"$@\""
        );
        let child = self.pod.inside.run(Persona::Root, || {
            std::process::Command::new("unshare")
                .args(["--mount", "sh", "-c", &script, "sh"])
                .arg(self.path("journal"))
                .arg(copy)
                .args(self.arguments())
                .args(more)
                .stdin(Stdio::null())
                .stdout(file.try_clone()?)
                .stderr(file)
                .spawn()
        })?;
        let child = child.context("starting the sidecar on a small disk")?;
        Ok(Sidecar { child, log })
    }

    /// Starts a sidecar and waits until it serves.
    pub fn start(&self, more: &[&str]) -> Result<Sidecar> {
        let mut sidecar = self.spawn(more)?;
        sidecar.ready()?;
        Ok(sidecar)
    }

    /// Runs a sidecar that is expected to give up, and returns what it said.
    pub fn refuses(&self, arguments: &[OsString]) -> Result<Said> {
        let mut sidecar = self.spawn_with(arguments)?;
        let status = sidecar.ended(START_PATIENCE)?;
        Ok(Said {
            status,
            text: sidecar.log(),
        })
    }

    /// Runs a sidecar with one credential file.
    pub fn credential(&self, name: &str, secret: &str) -> Result<String> {
        let path = self.path("credentials").join(name);
        fs::write(&path, secret)?;
        chown(&path, Some(GATE_UID.into()), Some(GATE_UID.into()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        Ok(format!("{name}={}", path.display()))
    }

    /// Does something as the agent, in the pod.
    ///
    /// # Panics
    /// If the agent can't enter its pod; that is nothing a test can go on from.
    pub fn agent<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        match self.pod.inside.run(Persona::Agent, work) {
            Ok(done) => done,
            Err(error) => panic!("the agent could not enter its pod: {error}"),
        }
    }
}

/// Confines a pod for the sidecar's user, as `exeat-init apply` does.
pub fn confine(pod: &Pod) -> Result<()> {
    let uid = Uid::new(GATE_UID).map_err(|error| anyhow!("{error}"))?;
    let plan = Plan::sidecar(uid);
    pod.inside
        .run(Persona::Root, || {
            exeat_init::apply(&plan, Backend::Auto).map(drop)
        })?
        .map_err(|error| anyhow!("the pod could not be confined: {error}"))
}

/// A folder that belongs to the gate.
pub fn own_folder(path: &Path, mode: u32) -> Result<()> {
    fs::create_dir_all(path)?;
    chown(path, Some(GATE_UID.into()), Some(GATE_UID.into()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    Ok(())
}

// === impl World ===

impl World {
    fn new(pod: &Pod) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        Ok(Self {
            upstream: gate::upstream(pod, &runtime, WORLD_V4)?,
            _runtime: runtime,
        })
    }

    /// What it saw.
    #[must_use]
    pub fn upstream(&self) -> &Upstream {
        &self.upstream
    }

    /// Where it serves plaintext.
    #[must_use]
    pub fn plain(&self) -> SocketAddr {
        self.upstream.plain()
    }

    /// Where it serves TLS.
    #[must_use]
    pub fn tls(&self) -> SocketAddr {
        self.upstream.tls()
    }
}

// === impl Sidecar ===

impl Sidecar {
    /// Waits until it serves.
    pub fn ready(&mut self) -> Result<()> {
        let begun = Instant::now();
        while !self.log().contains("exeat-sidecar is ready") {
            if let Some(status) = self.child.try_wait()? {
                bail!("the sidecar ended with {status}: {}", self.last_words());
            }
            if begun.elapsed() > START_PATIENCE {
                bail!("the sidecar is not ready: {}", self.last_words());
            }
            thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// All it said.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read(&self.log).map_or_else(
            |_| String::new(),
            |bytes| String::from_utf8_lossy(&bytes).into_owned(),
        )
    }

    /// The last it said, for people.
    #[must_use]
    pub fn last_words(&self) -> String {
        let log = self.log();
        let start = log.len().saturating_sub(2000);
        log.get(start..).unwrap_or(&log).to_owned()
    }

    /// Waits until it said this.
    pub fn says(&self, words: &str) -> Result<()> {
        until(
            &format!("the sidecar says `{words}`"),
            START_PATIENCE,
            || self.log().contains(words),
        )
        .with_context(|| self.last_words())
    }

    /// Its process.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let id = Pid::from_raw(i32::try_from(self.child.id())?);
        Ok(kill(id, signal)?)
    }

    /// Kills it as the kernel would: no last word.
    pub fn kill(mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }

    /// Waits for its end.
    pub fn ended(&mut self, patience: Duration) -> Result<ExitStatus> {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if begun.elapsed() > patience {
                bail!("the sidecar did not end: {}", self.last_words());
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Asks it to stop, and waits.
    pub fn stop(mut self) -> Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        self.ended(Duration::from_secs(30))
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        // Gone already, or gone now.
        let _gone = self.child.kill();
        let _status = self.child.wait();
    }
}

/// Waits for something to become true.
pub fn until(what: &str, patience: Duration, mut holds: impl FnMut() -> bool) -> Result<()> {
    let begun = Instant::now();
    while !holds() {
        if begun.elapsed() > patience {
            bail!("waited {patience:?} in vain until {what}");
        }
        thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// Opens a file to append to, as nobody but the gate should.
pub fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).open(path)
}
