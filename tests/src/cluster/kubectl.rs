//! The real kubectl, as somebody.

use std::{
    io::Write as _,
    path::PathBuf,
    process::{Command, Output, Stdio},
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

/// kubectl with an identity.
#[derive(Clone, Debug)]
pub struct Kubectl {
    program: PathBuf,
    kubeconfig: PathBuf,
}

// === impl Kubectl ===

impl Kubectl {
    /// With this program, as whoever the file says.
    #[must_use]
    pub fn new(program: PathBuf, kubeconfig: PathBuf) -> Self {
        Self {
            program,
            kubeconfig,
        }
    }

    /// With words; what it printed, or what it complained of.
    pub fn run(&self, words: &[&str]) -> Result<String> {
        self.fed(words, "")
    }

    /// With words and an input.
    pub fn fed(&self, words: &[&str], input: &str) -> Result<String> {
        let output = self.output(words, input)?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            let complaint = String::from_utf8_lossy(&output.stderr);
            bail!("kubectl {}: {}{said}", words.join(" "), complaint.trim());
        }
        Ok(said)
    }

    /// With words, to its end, however it ends.
    pub fn output(&self, words: &[&str], input: &str) -> Result<Output> {
        let mut child = self
            .command(words)
            .stdin(if input.is_empty() {
                Stdio::null()
            } else {
                Stdio::piped()
            })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("could not start kubectl")?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.as_bytes())?;
        }
        Ok(child.wait_with_output()?)
    }

    /// A command with words, not started yet.
    #[must_use]
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .args(words)
            .env_remove("KUBECONFIG");
        command
    }

    /// `apply -f -` of a value.
    pub fn apply(&self, value: &Value) -> Result<String> {
        self.apply_text(&value.to_string())
    }

    /// `apply -f -` of YAML.
    pub fn apply_text(&self, text: &str) -> Result<String> {
        self.fed(&["apply", "-f", "-"], text)
    }

    /// One thing as the API server has it.
    pub fn get(&self, words: &[&str]) -> Result<Value> {
        let words = [&["get", "-o", "json"], words].concat();
        Ok(serde_json::from_str(&self.run(&words)?)?)
    }
}
