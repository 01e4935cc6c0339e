//! The servers that agents call, on the node's address: every name under `upstream.test` is theirs.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::PathBuf,
    process::{Child, ChildStdin, Stdio},
};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::Node;
use crate::governed::program;

/// The tests' upstream on the node.
#[derive(Debug)]
pub struct World {
    /// The root that its certificates chain to.
    pub ca: String,
    log: PathBuf,
    _process: (Child, Option<ChildStdin>),
}

// === impl World ===

impl World {
    pub(super) fn start(node: &Node) -> Result<Self> {
        let (log, ca, git) = (
            node.file("upstream.jsonl"),
            node.file("upstream-ca.pem"),
            node.file("git"),
        );
        fs::create_dir_all(&git)?;
        let upstream = program("exeat-test-upstream")?;
        let mut child = node
            .command(&upstream.display().to_string())
            .args([
                "--address",
                &node.address,
                "--tls-port=443",
                "--plain-port=80",
            ])
            .arg("--log")
            .arg(&log)
            .arg("--ca-out")
            .arg(&ca)
            .arg("--git-root")
            .arg(&git)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdin = child.stdin.take();
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        serde_json::from_str::<Value>(&line).context("the upstream did not start")?;
        Ok(Self {
            ca: fs::read_to_string(ca)?,
            log,
            _process: (child, stdin),
        })
    }

    /// All requests to paths that start so, in order of arrival.
    pub fn requests_to(&self, prefix: &str) -> Result<Vec<Value>> {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let requests = text.lines().map(serde_json::from_str::<Value>);
        let mut found = Vec::new();
        for request in requests {
            let request = request?;
            if request["path"]
                .as_str()
                .is_some_and(|path| path.starts_with(prefix))
            {
                found.push(request);
            }
        }
        Ok(found)
    }
}
