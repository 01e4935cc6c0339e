//! The demo's servers: children that end with it, also when it is interrupted, because each runs
//! until its standard input ends.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use super::said;
use crate::shell::{built, root};

/// Loopback, but not where other programs listen.
pub(super) const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 77, 0, 1);

/// The policy names it.
const PORT: u16 = 8443;

/// A cold start of Python on a small machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// The running servers; they end when dropped.
#[derive(Debug)]
pub(super) struct Servers {
    children: Vec<Child>,
    log: PathBuf,
}

// === impl Servers ===

impl Servers {
    pub(super) fn start(folder: &Path, python: &Path) -> Result<Self> {
        let mut servers = Self {
            children: Vec::new(),
            log: folder.join("upstream.jsonl"),
        };
        let tickets = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        servers.spawn(
            Command::new(python)
                .arg(root().join("examples/demo/servers/tickets.py"))
                .arg(tickets.port().to_string())
                .stdout(said(folder, "tickets-output")?)
                .stderr(said(folder, "tickets")?),
        )?;
        let upstream = servers.spawn(
            Command::new(built("exeat-test-upstream"))
                .args(["--address", &ADDRESS.to_string()])
                .args(["--tls-port", &PORT.to_string()])
                .args(["--front", &format!("tools.demo.test={tickets}")])
                .arg("--git-root")
                .arg(folder.join("git"))
                .arg("--log")
                .arg(servers.log.clone())
                .arg("--ca-out")
                .arg(folder.join("upstream-ca.pem"))
                .stdout(Stdio::piped())
                .stderr(said(folder, "upstream")?),
        )?;

        let mut line = String::new();
        if let Some(out) = upstream.stdout.take() {
            BufReader::new(out).read_line(&mut line)?;
        }
        if line.is_empty() {
            let why = fs::read_to_string(folder.join("upstream.log")).unwrap_or_default();
            bail!("the demo's servers did not start: {}", why.trim());
        }
        servers.wait_for(tickets, folder)?;
        Ok(servers)
    }

    /// What the servers wrote down, a request a line.
    pub(super) fn log(&self) -> Result<String> {
        fs::read_to_string(&self.log)
            .with_context(|| format!("the servers left no record at {}", self.log.display()))
    }

    fn spawn(&mut self, command: &mut Command) -> Result<&mut Child> {
        let child = command
            .stdin(Stdio::piped())
            .spawn()
            .with_context(|| format!("could not start {}", command.get_program().display()))?;
        self.children.push(child);
        self.children.last_mut().context("a child was just added")
    }

    fn wait_for(&mut self, address: SocketAddr, folder: &Path) -> Result<()> {
        let start = Instant::now();
        while TcpStream::connect(address).is_err() {
            let ended = self.children[0].try_wait()?.is_some();
            if ended || start.elapsed() > PATIENCE {
                let why = fs::read_to_string(folder.join("tickets.log")).unwrap_or_default();
                bail!("the demo's MCP server did not start: {}", why.trim());
            }
            sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        for child in &mut self.children {
            // It may have ended by itself.
            let _gone = child.kill();
            let _reaped = child.wait();
        }
    }
}
