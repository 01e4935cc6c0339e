//! What the stages of a run have in common.
//!
//! A run is this program three times: the gate outside (many threads), the keeper (in the command's
//! network and mounts), and the first process of the command's process namespace. Each stage starts
//! the next as a program, because a process with threads can neither fork safely nor enter a user
//! namespace. In doubt a stage prints why and ends, and the others with it.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::RawFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};

use clap::ValueEnum;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::channel::Channel;
use super::files::FilesError;
use super::namespace::NamespaceError;
use super::network::NetworkError;
use super::{first, keeper};

/// The exit status when the gate could not be built, as of `timeout` and `env`.
pub(crate) const NOT_BUILT: u8 = 125;

/// The hidden subcommand that starts a stage.
pub(crate) const SUBCOMMAND: &str = "run-stage";

/// Arguments of the hidden subcommand.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    name: Name,
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

/// Which stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Name {
    /// In the namespaces, beside the command.
    Keeper,
    /// The first of the command's processes.
    First,
}

/// Why a stage could not do its part.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    #[error(transparent)]
    Network(#[from] NetworkError),
    #[error(transparent)]
    Files(#[from] FilesError),
    #[error("the command could not be confined: {0}")]
    Calls(String),
    #[error("the working folder `{0}` could not be entered: {1}")]
    Folder(String, io::Error),
    #[error("the gate could not be set up: {0}")]
    Io(#[from] io::Error),
    #[error("the gate could not be set up: {0}")]
    System(#[from] nix::Error),
    #[error("the parts of the gate do not understand each other")]
    Protocol,
}

/// Runs a stage.
pub(crate) fn main(arguments: &Arguments) -> ExitCode {
    let result = close_inherited()
        .map_err(Broken::from)
        .and_then(|()| match arguments.name {
            Name::Keeper => keeper::main(&arguments.command),
            Name::First => first::main(&arguments.command),
        });
    match result {
        Ok(code) => code.into(),
        // The gate went away: it has said why, or was killed.
        Err(Broken::Io(error)) if error.kind() == io::ErrorKind::UnexpectedEof => NOT_BUILT.into(),
        Err(error) => {
            super::lines::problem(&error);
            NOT_BUILT.into()
        }
    }
}

/// Starts the next stage; the channel is its standard input.
#[expect(
    clippy::disallowed_methods,
    reason = "this program itself, as its next stage"
)]
pub(super) fn spawn(
    name: Name,
    command: &[OsString],
    furnish: impl FnOnce(&mut Command),
) -> io::Result<(Channel, Child)> {
    let (ours, theirs) = Channel::pair()?;
    let mut stage = Command::new("/proc/self/exe");
    let name = name.to_possible_value();
    stage
        .arg0("exeat")
        .arg(SUBCOMMAND)
        .arg(name.as_ref().map_or("", |value| value.get_name()))
        .arg("--")
        .args(command)
        .stdin(Stdio::from(theirs));
    furnish(&mut stage);
    Ok((ours, stage.spawn()?))
}

/// Asks the kernel to kill this process when the one that started it is gone.
pub(super) fn die_with_parent() -> nix::Result<()> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)
}

/// Blocks these signals, and reads them from a descriptor instead.
pub(super) fn read_signals(signals: &SigSet) -> nix::Result<SignalFd> {
    signals.thread_block()?;
    SignalFd::with_flags(signals, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
}

/// The exit status as a shell tells it: that of the process, or 128 and the signal that ended it.
pub(super) fn exit_code(status: ExitStatus) -> u8 {
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok())
        .unwrap_or(NOT_BUILT)
}

/// Closes what the user's shell left open beside the three standard streams: an open file or
/// socket of the host would be a way past everything that follows.
fn close_inherited() -> io::Result<()> {
    let open: Vec<RawFd> = fs::read_dir("/proc/self/fd")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    for fd in open.into_iter().filter(|fd| *fd > 2) {
        // That of the listing itself is closed by now.
        match nix::unistd::close(fd) {
            Ok(()) | Err(nix::Error::EBADF) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
