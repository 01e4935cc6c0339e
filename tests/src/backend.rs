//! Servers that nobody here wrote, as child processes on loopback that end with their test.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;

use crate::governed::{client, fetched};

/// A server in plaintext; it ends when dropped.
#[derive(Debug)]
pub struct Backend {
    child: Child,
    address: SocketAddr,
    _folder: TempDir,
}

/// A cold start of node or Python on two busy cores.
const PATIENCE: Duration = Duration::from_mins(1);

// === impl Backend ===

impl Backend {
    /// The MCP project's own example server, with more than a dozen tools, over Streamable HTTP.
    pub fn everything() -> Result<Self> {
        let server = "node/node_modules/@modelcontextprotocol/server-everything/dist/index.js";
        let mut command = Command::new("node");
        command
            .arg("--require")
            .arg(client("node/loopback.cjs")?)
            .arg(fetched(server)?)
            .arg("streamableHttp");
        Self::start(command, |command, port| {
            command.env("PORT", port.to_string());
        })
    }

    /// `mockllm`: OpenAI's chat completions, streamed too, and Anthropic's messages.
    pub fn models() -> Result<Self> {
        let mut command = Command::new(fetched("python/bin/python")?);
        command.args(["-m", "uvicorn", "mockllm.server:app", "--host", "127.0.0.1"]);
        Self::start(command, |command, port| {
            command
                .args(["--port", &port.to_string()])
                .env("MOCKLLM_RESPONSES_FILE", "responses.yml");
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    fn start(mut command: Command, listen: impl FnOnce(&mut Command, u16)) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        std::fs::write(folder.path().join("responses.yml"), RESPONSES)?;
        let address = free_address()?;
        listen(&mut command, address.port());
        let child = command
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("could not start {command:?}"))?;
        let mut backend = Self {
            child,
            address,
            _folder: folder,
        };
        let start = Instant::now();
        while TcpStream::connect(address).is_err() {
            if let Some(status) = backend.child.try_wait()? {
                bail!("{command:?} ended at once: {status}");
            }
            if start.elapsed() > PATIENCE {
                bail!("{command:?} does not listen on {address}");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(backend)
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// What `mockllm` answers; it reads this file by itself.
const RESPONSES: &str = "\
responses:
  \"May this pass?\": \"It may, said a server that others wrote.\"
defaults:
  unknown_response: \"It may, said a server that others wrote.\"
settings:
  lag_enabled: false
";

/// A port that was free a moment ago, for servers that can't choose one themselves.
fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}
