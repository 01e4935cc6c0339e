//! Runs the packet filter's own programs: by absolute path, with a clean environment, no shell.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::error::InitError;

/// Where programs are looked for. Never `PATH`: who starts us must not choose what we run.
const DIRECTORIES: [&str; 6] = [
    "/usr/sbin",
    "/sbin",
    "/usr/bin",
    "/bin",
    "/usr/local/sbin",
    "/usr/local/bin",
];

/// How much of a program's complaint is shown.
const MESSAGE_LIMIT: usize = 400;

/// A program that was found.
#[derive(Clone, Debug)]
pub(crate) struct Tool {
    path: PathBuf,
    name: &'static str,
}

impl Tool {
    /// Looks for a program.
    pub(crate) fn find(name: &'static str) -> Option<Self> {
        DIRECTORIES
            .iter()
            .map(|directory| PathBuf::from(directory).join(name))
            .find(|path| path.is_file())
            .map(|path| Self { path, name })
    }

    /// Runs it, feeds it `input`, and returns what it printed.
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the place: an absolute path, a clean environment, no shell"
    )]
    pub(crate) fn run(&self, arguments: &[&str], input: Option<&str>) -> Result<String, InitError> {
        let system = |doing: &str| {
            let doing = format!("{doing} {}", self.path.display());
            move |source| InitError::System { doing, source }
        };
        let mut child = Command::new(&self.path)
            .args(arguments)
            .env_clear()
            // The legacy programs look for helpers there; the locale keeps their output readable.
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("LC_ALL", "C")
            .stdin(if input.is_some() {
                Stdio::piped()
            } else {
                Stdio::null()
            })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(system("starting"))?;
        if let (Some(input), Some(mut stdin)) = (input, child.stdin.take()) {
            // The texts are smaller than a pipe, so this can't wait for the program to read. One
            // that has died already says why on its standard error.
            let _broken_pipe = stdin.write_all(input.as_bytes());
        }
        let output = child.wait_with_output().map_err(system("waiting for"))?;
        let complaint = String::from_utf8_lossy(&output.stderr);
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        } else {
            Err(self.classify(output.status.code(), complaint.trim()))
        }
    }

    /// Names the cause behind a failure. What isn't recognised stays what the program said.
    fn classify(&self, code: Option<i32>, complaint: &str) -> InitError {
        let message: String = complaint
            .lines()
            .take(3)
            .collect::<Vec<_>>()
            .join("; ")
            .chars()
            .take(MESSAGE_LIMIT)
            .collect();
        let has = |words: &[&str]| words.iter().any(|word| complaint.contains(word));
        if has(&[
            "Operation not permitted",
            "Permission denied",
            "you must be root",
        ]) {
            InitError::Capability(format!("{}: {message}", self.name))
        } else if has(&["xtables lock", "Resource temporarily unavailable"]) || code == Some(4) {
            InitError::Locked(format!("{}: {message}", self.name))
        } else if has(&[
            "No such file or directory",
            "not supported",
            "No chain/target/match by that name",
            "can't initialize",
            "Could not fetch rule set generation id",
            "Couldn't load match",
            "Couldn't load target",
            "Protocol not available",
        ]) {
            InitError::Module(format!("{}: {message}", self.name))
        } else {
            InitError::Program {
                program: self.name.to_owned(),
                message,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn complaints_get_their_cause() {
        let tool = Tool {
            path: PathBuf::from("/sbin/nft"),
            name: "nft",
        };
        for (code, complaint, cause) in [
            (
                1,
                "netlink: Error: cache initialization failed: Operation not permitted",
                "missing_capability",
            ),
            (
                3,
                "iptables v1.8.9 (legacy): can't initialize iptables table `filter': Table does not exist",
                "missing_kernel_support",
            ),
            (
                4,
                "Another app is currently holding the xtables lock.",
                "locked",
            ),
            (
                1,
                "Could not process rule: No such file or directory",
                "missing_kernel_support",
            ),
            (
                1,
                "Error: syntax error, unexpected string",
                "backend_failed",
            ),
        ] {
            assert_eq!(
                tool.classify(Some(code), complaint).cause(),
                cause,
                "{complaint}"
            );
        }
    }

    #[test]
    fn programs_are_not_looked_for_in_path() {
        assert!(Tool::find("no-such-program").is_none());
        assert!(Tool::find("../../etc/passwd").is_none_or(|tool| tool.path.is_file()));
    }
}
