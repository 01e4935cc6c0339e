//! The node of `cargo xtask cluster hold`: who to talk to, and how to reach into it.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::{Images, Kubectl, eventually};
use crate::governed::program;

/// A node that is there as long as this process is.
#[derive(Debug)]
pub struct Node {
    /// The address that it has to the pods.
    pub address: String,
    bin: PathBuf,
    state: PathBuf,
    namespace: String,
    /// The node ends when this is closed.
    _hold: (Child, Option<ChildStdin>),
}

// === impl Node ===

impl Node {
    pub(super) fn hold() -> Result<Self> {
        let mut child = Command::new(program("xtask")?)
            .args(["cluster", "hold"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("could not start xtask")?;
        let stdin = child.stdin.take();
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        let told: Value = serde_json::from_str(&line)
            .context("`xtask cluster hold` did not start a node; it said why on standard error")?;
        let text = |name: &str| told[name].as_str().unwrap_or_default().to_owned();
        Ok(Self {
            address: text("node"),
            bin: text("bin").into(),
            state: text("state").into(),
            namespace: text("namespace"),
            _hold: (child, stdin),
        })
    }

    /// kubectl as the administrator.
    pub fn kubectl(&self) -> Result<Kubectl> {
        self.kubectl_as("admin")
    }

    /// kubectl as one of the node's identities.
    pub fn kubectl_as(&self, who: &str) -> Result<Kubectl> {
        let kubeconfig = self.state.join(format!("{who}.kubeconfig"));
        ensure!(kubeconfig.exists(), "there is no identity `{who}`");
        Ok(Kubectl::new(self.bin.join("kubectl"), kubeconfig))
    }

    /// One of the cluster's programs, in the node's network namespace.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.namespace));
        let built = self.bin.join(program);
        command.arg(if built.exists() {
            built
        } else {
            program.into()
        });
        command
    }

    /// One of the cluster's programs, by its path.
    #[must_use]
    pub fn program(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }

    /// A file of its state.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.state.join(name)
    }

    /// containerd's own client.
    pub fn ctr(&self, words: &[&str]) -> Result<String> {
        let output = Command::new(self.bin.join("ctr"))
            .arg("-a")
            .arg(self.state.join("containerd.sock"))
            .args(["-n", "k8s.io"])
            .args(words)
            .output()?;
        if !output.status.success() {
            bail!(
                "ctr {}: {}",
                words.join(" "),
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    pub(super) fn import(&self, images: &Images) -> Result<()> {
        for archive in &images.archives {
            self.ctr(&["images", "import", &archive.display().to_string()])?;
        }
        Ok(())
    }

    /// The process of a container, by what containerd knows of it.
    pub fn process(
        &self,
        kubectl: &Kubectl,
        namespace: &str,
        pod: &str,
        container: &str,
    ) -> Result<u32> {
        let pod = kubectl.get(&["pod", "-n", namespace, pod])?;
        let statuses = ["initContainerStatuses", "containerStatuses"]
            .into_iter()
            .filter_map(|list| pod["status"][list].as_array())
            .flatten();
        let id = statuses
            .filter(|status| status["name"] == container)
            .find_map(|status| status["containerID"].as_str())
            .with_context(|| format!("{container} has not started"))?
            .trim_start_matches("containerd://")
            .to_owned();
        let tasks = self.ctr(&["tasks", "ls"])?;
        tasks
            .lines()
            .find_map(|line| {
                let mut words = line.split_whitespace();
                (words.next()? == id).then(|| words.next()?.parse().ok())?
            })
            .with_context(|| format!("{container} ({id}) does not run: {tasks}"))
    }

    /// Ends the kubelet by its recorded process id and starts it again with the words that it had.
    pub fn restart_kubelet(&self) -> Result<()> {
        let recorded = self.state.join("pids/kubelet");
        let text = fs::read_to_string(&recorded)?;
        let pid = text.split(' ').next().unwrap_or_default().to_owned();
        let words = fs::read(Path::new("/proc").join(&pid).join("cmdline"))?;
        let mut words = words
            .split(|byte| *byte == 0)
            .map(|word| String::from_utf8_lossy(word).into_owned())
            .filter(|word| !word.is_empty());
        let program = words.next().context("the kubelet does not run")?;
        let words: Vec<String> = words.collect();
        let _gone = Command::new("kill").arg(&pid).status()?;
        eventually("the kubelet to end", Duration::from_secs(20), || {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            ensure!(stat.is_empty() || stat.contains(") Z "), "it runs");
            Ok(())
        })?;
        let log = fs::File::options()
            .append(true)
            .open(self.state.join("log/kubelet.log"))?;
        let child = self
            .command(&program)
            .args(words)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let pid = child.id();
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let (_, rest) = stat.rsplit_once(')').context("an odd process")?;
        let began = rest.split_whitespace().nth(19).context("an odd process")?;
        Ok(fs::write(recorded, format!("{pid} {began}"))?)
    }
}
