//! The cluster's processes: started in its namespace, written down, ended by what was written.
//!
//! A number that the kernel has given to another process since is not ended: the time at which a
//! process began is written down beside it.

use std::{
    fs::{self, File},
    path::PathBuf,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use super::place::{Place, netns};
use crate::shell::quietly;

/// How long a process may take to end by itself.
const PATIENCE: Duration = Duration::from_secs(5);

/// A process that was written down.
struct Written {
    pid: String,
    began: String,
}

/// A command in the node's network namespace.
pub(super) fn inside(program: impl Into<PathBuf>) -> Command {
    let mut command = Command::new("nsenter");
    command
        .arg(format!("--net={}", netns()))
        .arg(program.into());
    command
}

/// Starts a program of the cluster's with a log of its own.
pub(super) fn start(place: &Place, name: &str, program: &str, words: &[String]) -> Result<()> {
    use std::os::unix::process::CommandExt as _;
    let log = place.state.join("log").join(format!("{name}.log"));
    let log = File::options()
        .create(true)
        .append(true)
        .open(&log)
        .with_context(|| format!("could not make {}", log.display()))?;
    let path = std::env::var("PATH").unwrap_or_default();
    let child = inside(place.bin.join(program))
        .args(words)
        // containerd looks for its shim there, and the shim for runc.
        .env(
            "PATH",
            format!("{}:{path}:/usr/sbin:/sbin", place.bin.display()),
        )
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        // What is typed at the terminal is not for them.
        .process_group(0)
        .spawn()
        .with_context(|| format!("could not start {program}"))?;
    let pid = child.id().to_string();
    let began = began(&pid).with_context(|| format!("{name} ended at once"))?;
    fs::write(pids(place).join(name), format!("{pid} {began}"))?;
    Ok(())
}

/// Whether a started one still runs.
pub(super) fn runs(place: &Place, name: &str) -> bool {
    written(place, name).is_some_and(|process| process.is_alive())
}

/// Each that was started, and how it is.
pub(super) fn all(place: &Place) -> Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(pids(place))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let state = match written(place, &name) {
            Some(process) if process.is_alive() => format!("runs, process {}", process.pid),
            _ => format!("ended; {}/log/{name}.log", place.state.display()),
        };
        found.push((name, state));
    }
    found.sort();
    Ok(found)
}

/// Ends one, by force if it takes long. Nothing happens if it has ended.
pub(super) fn end(place: &Place, name: &str) {
    let Some(process) = written(place, name) else {
        return;
    };
    let begun = Instant::now();
    process.signal("-TERM");
    while process.is_alive() {
        if begun.elapsed() > PATIENCE {
            process.signal("-KILL");
        }
        if begun.elapsed() > 2 * PATIENCE {
            break;
        }
        thread::sleep(Duration::from_millis(20));
    }
    let _gone = fs::remove_file(pids(place).join(name));
}

/// Asks until the answer is yes.
pub(super) fn until(
    what: &str,
    patience: Duration,
    mut asked: impl FnMut() -> Result<bool>,
) -> Result<()> {
    let begun = Instant::now();
    loop {
        let answer = asked();
        if matches!(answer, Ok(true)) {
            return Ok(());
        }
        if begun.elapsed() > patience {
            let why = answer.err().map(|error| format!(": {error:#}"));
            bail!(
                "{what} took longer than {} s{}",
                patience.as_secs(),
                why.unwrap_or_default()
            );
        }
        thread::sleep(Duration::from_millis(100));
    }
}

/// kubectl as the cluster's administrator.
pub(super) fn kubectl(place: &Place, words: &[&str]) -> Result<String> {
    quietly(
        inside(place.bin.join("kubectl"))
            .arg("--kubeconfig")
            .arg(place.kubeconfig())
            .args(words),
    )
}

fn pids(place: &Place) -> PathBuf {
    place.state.join("pids")
}

fn written(place: &Place, name: &str) -> Option<Written> {
    let text = fs::read_to_string(pids(place).join(name)).ok()?;
    let (pid, began) = text.split_once(' ')?;
    Some(Written {
        pid: pid.to_owned(),
        began: began.to_owned(),
    })
}

/// When a process began, in ticks since the machine did: with the number, it names one process.
pub(super) fn began(pid: &str) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is a name in parentheses, which may hold spaces and more of them.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    (fields.next()? != "Z").then_some(())?;
    fields.nth(18).map(str::to_owned)
}

// === impl Written ===

impl Written {
    fn is_alive(&self) -> bool {
        began(&self.pid).is_some_and(|began| began == self.began)
    }

    fn signal(&self, signal: &str) {
        if self.is_alive() {
            let _ended_meanwhile = quietly(Command::new("kill").args([signal, &self.pid]));
        }
    }
}
