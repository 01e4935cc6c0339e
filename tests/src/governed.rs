//! A command under `exeat run`, as a user would start it, and what came of it: the command's own
//! output, what the gate said, and the trail.
//!
//! The environment is bare but for a search path and an empty home, so that certificates which this
//! machine was told to trust can't make a client work that would not work elsewhere.

use std::{
    env,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use tempfile::TempDir;
use tokio::task::spawn_blocking;

use crate::upstream::Upstream;

/// A policy, its credentials and the names it may reach, ready to run commands under.
#[derive(Debug)]
pub struct Governed {
    folder: TempDir,
    arguments: Vec<String>,
}

/// What came of a command.
#[derive(Debug)]
pub struct Ran {
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error, the gate's lines among it.
    pub stderr: String,
    /// The trail: one record a line.
    pub journal: Vec<Value>,
}

/// No client needs longer, however slow the machine; a hang is a failure.
const PATIENCE: Duration = Duration::from_mins(2);

// === impl Governed ===

impl Governed {
    /// Under this policy, with the upstream's root trusted.
    pub fn new(policy: &str, upstream: &Upstream) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        fs::write(folder.path().join("policy.yaml"), policy)?;
        fs::write(folder.path().join("upstream-ca.pem"), upstream.ca_pem())?;
        fs::create_dir(folder.path().join("home"))?;
        fs::create_dir(folder.path().join("credentials"))?;
        let mut governed = Self {
            folder,
            arguments: Vec::new(),
        };
        governed.option("--policy", "policy.yaml");
        governed.option("--audit", "journal.jsonl");
        governed.option("--upstream-ca", "upstream-ca.pem");
        Ok(governed)
    }

    /// The gate's answer for a name.
    #[must_use]
    pub fn resolve(mut self, name: &str, address: &str) -> Self {
        self.arguments
            .extend(["--resolve".to_owned(), format!("{name}={address}")]);
        self
    }

    /// A secret for a credential of the policy.
    pub fn credential(mut self, name: &str, secret: &str) -> Result<Self> {
        let file = self.folder.path().join("credentials").join(name);
        fs::write(&file, secret)?;
        self.arguments.extend([
            "--credential".to_owned(),
            format!("{name}={}", file.display()),
        ]);
        Ok(self)
    }

    /// A folder that the command may write to: its home.
    #[must_use]
    pub fn home(&self) -> PathBuf {
        self.folder.path().join("home")
    }

    /// The trail's file.
    #[must_use]
    pub fn journal(&self) -> PathBuf {
        self.folder.path().join("journal.jsonl")
    }

    /// Runs a command to its end. It is an error only if it could not be run or would not end; how
    /// it ended is in the result.
    pub async fn run<S: AsRef<OsStr>>(&self, words: &[S]) -> Result<Ran> {
        let mut command = self.command()?;
        command.args(words);
        let journal = self.journal();
        let output = spawn_blocking(move || command.output());
        let output = tokio::time::timeout(PATIENCE, output)
            .await
            .context("the command did not end")???;
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        let journal = read_journal(&journal)
            .with_context(|| format!("it ended with {} and said: {stderr}", output.status))?;
        Ok(Ran {
            status: output.status,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr,
            journal,
        })
    }

    /// `exeat run … --`, to which a command is still to be added.
    pub fn command(&self) -> Result<Command> {
        let mut command = Command::new("timeout");
        command
            .arg("--kill-after=5")
            .arg((PATIENCE.as_secs() - 20).to_string())
            .arg(program("exeat")?)
            .arg("run")
            .args(&self.arguments)
            .arg("--")
            .env_clear()
            .env("PATH", env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.home())
            .env("LANG", "C.UTF-8")
            .current_dir(self.home())
            .stdin(Stdio::null());
        Ok(command)
    }

    fn option(&mut self, name: &str, file: &str) {
        let file = self.folder.path().join(file);
        self.arguments
            .extend([name.to_owned(), file.display().to_string()]);
    }
}

// === impl Ran ===

impl Ran {
    /// The lines of the command's output that are JSON objects.
    #[must_use]
    pub fn lines(&self) -> Vec<Value> {
        let lines = self.stdout.lines().filter(|line| line.starts_with('{'));
        lines
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect()
    }

    /// The decisions on record.
    #[must_use]
    pub fn decisions(&self) -> Vec<&Value> {
        let decisions = self.journal.iter();
        decisions
            .filter(|record| record["event"] == "exeat.egress.decision")
            .collect()
    }

    /// The decisions of one kind, `allow` or `deny`, on HTTP requests to paths that start so.
    #[must_use]
    pub fn decided(&self, decision: &str, path: &str) -> Vec<&Value> {
        let mut decisions = self.decisions();
        decisions.retain(|record| {
            let recorded = record["http"]["path"].as_str().unwrap_or_default();
            record["decision"] == decision && recorded.starts_with(path)
        });
        decisions
    }
}

fn read_journal(path: &Path) -> Result<Vec<Value>> {
    let text = fs::read_to_string(path)
        .with_context(|| format!("there is no journal at {}", path.display()))?;
    text.lines()
        .map(|line| serde_json::from_str(line).with_context(|| format!("not a record: {line}")))
        .collect()
}

/// A program of this workspace, built beside the running test.
pub fn program(name: &str) -> Result<PathBuf> {
    let test = env::current_exe()?;
    let folder = test
        .ancestors()
        .find(|folder| folder.join(name).is_file())
        .with_context(|| format!("`{name}` is not built; run `cargo build --workspace` first"))?;
    Ok(folder.join(name))
}

/// What `cargo xtask setup` fetched or made.
pub fn fetched(name: &str) -> Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = root.parent().unwrap_or(root).join(".cache").join(name);
    ensure!(
        path.exists(),
        "{} is missing; run `cargo xtask setup` first",
        path.display()
    );
    Ok(path)
}

/// A client's source among the tests.
pub fn client(name: &str) -> Result<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("clients")
        .join(name);
    if !path.exists() {
        bail!("there is no client {}", path.display());
    }
    Ok(path)
}
