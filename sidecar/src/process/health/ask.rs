//! The probe's side: asks a gate how it is.
//!
//! Blocking and without a runtime, since a probe does this and nothing else. The answer counts only
//! if the port is held by our own user: when the gate is dead, the agent may take its port and say
//! "ready". In doubt the answer is no.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::Stage;

/// A gate that answers later is not well.
const PATIENCE: Duration = Duration::from_secs(2);

/// A status line and a few headers.
const MAX_ANSWER: u64 = 4096;

/// `LISTEN` in the kernel's tables.
const LISTEN: &str = "0A";

/// Why a gate is not as well as was asked.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody answers.
    #[error("no answer from {address}: {cause}; is the gate running?")]
    NoAnswer {
        /// Who was asked.
        address: SocketAddr,
        /// What the system says.
        cause: std::io::Error,
    },
    /// The port is held by somebody else.
    #[error("port {0} is held by another user than this one, so its answer is worth nothing")]
    Stranger(u16),
    /// The gate says no.
    #[error("the gate answers: {0}")]
    No(String),
}

/// Asks the gate at `address` whether it has reached `stage`.
pub fn ask(address: SocketAddr, stage: Stage) -> Result<(), AskError> {
    let user = nix::unistd::geteuid();
    if address.ip().is_loopback() && !user.is_root() && !holds(user.as_raw(), address.port()) {
        // Nobody at all is the more common case, and better told as such.
        exchange(address, stage)?;
        return Err(AskError::Stranger(address.port()));
    }
    let answer = exchange(address, stage)?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    if head.starts_with("HTTP/1.1 200 ") {
        return Ok(());
    }
    let why = if body.trim().is_empty() { head } else { body };
    let why: String = why.chars().filter(|c| !c.is_control()).take(200).collect();
    Err(AskError::No(why))
}

#[expect(
    clippy::disallowed_methods,
    reason = "a probe asks the gate itself, and carries nothing of an agent's"
)]
fn exchange(address: SocketAddr, stage: Stage) -> Result<String, AskError> {
    let asked = || {
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let path = stage.path();
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n"
        )?;
        let mut answer = Vec::new();
        stream.take(MAX_ANSWER).read_to_end(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    asked().map_err(|cause| AskError::NoAnswer { address, cause })
}

/// Is everyone who listens on `port` in this network namespace this user?
fn holds(user: u32, port: u16) -> bool {
    let tables = ["/proc/self/net/tcp", "/proc/self/net/tcp6"];
    let tables = tables.map(|table| fs::read_to_string(table).unwrap_or_default());
    let owners: Vec<u32> = tables
        .iter()
        .flat_map(|table| table.lines().skip(1))
        .filter_map(|line| owner(line, port))
        .collect();
    !owners.is_empty() && owners.iter().all(|owner| *owner == user)
}

/// The user of a table's line, if it is of a socket that listens on `port`.
fn owner(line: &str, port: u16) -> Option<u32> {
    let mut words = line.split_ascii_whitespace();
    let (_, local) = words.nth(1)?.rsplit_once(':')?;
    let state = words.nth(1)?;
    let user = words.nth(3)?;
    let listens = state == LISTEN && u16::from_str_radix(local, 16) == Ok(port);
    listens.then(|| user.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;
    use std::net::TcpListener;

    #[test]
    fn a_line_of_the_kernels_table() {
        let line = "   0: 00000000:3AAD 00000000:0000 0A 00000000:00000000 00:00000000 00000000 64100        0 30931 1 0000000000000000 100 0 0 10 0";
        assert_eq!(owner(line, 15021), Some(64100));
        assert_eq!(owner(line, 15001), None);
        assert_eq!(owner(&line.replace(" 0A ", " 01 "), 15021), None);
        assert_eq!(owner("", 15021), None);
    }

    #[test]
    fn the_port_of_another_user_is_told_from_ours() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let user = nix::unistd::geteuid().as_raw();
        assert!(holds(user, port));
        assert!(!holds(user + 1, port));
        drop(listener);
        assert!(!holds(user, port));
    }
}
