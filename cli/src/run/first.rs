//! The third stage: the first of the command's processes.
//!
//! It gives up all that the command must not have, starts the command, passes signals on to it and
//! buries the processes that nobody else waits for. It is the command's equal, and holds nothing
//! worth taking: no descriptor but the one it is told signals by. In doubt nothing is started.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use rustix::event::{PollFd, PollFlags, poll};
use serde::{Deserialize, Serialize};

use super::channel::Channel;
use super::stage::{self, Broken};
use super::{calls, files, lines, namespace};

/// As of a shell: the command was found but could not be executed.
const NOT_EXECUTABLE: u8 = 126;

/// As of a shell: there is no such command.
const NOT_FOUND: u8 = 127;

/// What the keeper tells this process.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Order {
    /// The first message, with the true standard input.
    Start {
        /// The command's working folder.
        folder: PathBuf,
        /// May it open Unix sockets?
        unix_sockets: bool,
    },
    /// Send this signal to the command.
    Signal(i32),
}

/// Runs the stage; its exit status is the command's.
#[expect(
    clippy::disallowed_methods,
    reason = "this starts the command that the user gave"
)]
pub(super) fn main(command: &[OsString]) -> Result<u8, Broken> {
    let keeper = Channel::from_stdin()?;
    stage::die_with_parent()?;
    let (
        Order::Start {
            folder,
            unix_sockets,
        },
        fds,
    ) = keeper.receive()?
    else {
        return Err(Broken::Protocol);
    };
    let stdin = fds.first().ok_or(Broken::Protocol)?;
    rustix::stdio::dup2_stdin(stdin).map_err(io::Error::from)?;
    drop(fds);

    files::mount_proc()?;
    // By name and anew: the folder inherited is still the one below the mounts that protect.
    std::env::set_current_dir(&folder)
        .map_err(|error| Broken::Folder(folder.display().to_string(), error))?;
    // Unseen by the command, which is the same user: it could else stop or steer this process.
    nix::sys::prctl::set_dumpable(false)?;
    namespace::give_up_capabilities()?;
    let signals = stage::read_signals(&SigSet::all())?;
    let filter = calls::filter(unix_sockets).map_err(|error| Broken::Calls(error.to_string()))?;
    seccompiler::apply_filter(&filter).map_err(|error| Broken::Calls(error.to_string()))?;

    let [program, arguments @ ..] = command else {
        return Err(Broken::Protocol);
    };
    // What is blocked here would be blocked in the command.
    SigSet::all().thread_unblock()?;
    let spawned = Command::new(program).args(arguments).spawn();
    SigSet::all().thread_block()?;
    let child = match spawned {
        Ok(child) => child,
        Err(error) => {
            lines::not_started(program, &error);
            let missing = error.kind() == io::ErrorKind::NotFound || !is_there(program);
            return Ok(if missing { NOT_FOUND } else { NOT_EXECUTABLE });
        }
    };
    let child = Pid::from_raw(i32::try_from(child.id()).map_err(|_| Broken::Protocol)?);
    // It may have ended while signals were not read.
    if let Some(code) = bury(child)? {
        return Ok(code);
    }
    loop {
        let mut fds = [
            PollFd::new(&keeper, PollFlags::IN),
            PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN),
        ];
        rustix::io::retry_on_intr(|| poll(&mut fds, None)).map_err(io::Error::from)?;
        let [from_keeper, from_kernel] = fds.map(|fd| !fd.revents().is_empty());
        if from_kernel {
            // Only those of children matter; what the terminal sends, it sends to the command too.
            while signals.read_signal()?.is_some() {}
            if let Some(code) = bury(child)? {
                return Ok(code);
            }
        }
        if from_keeper {
            let (Order::Signal(signal), _) = keeper.receive()? else {
                return Err(Broken::Protocol);
            };
            match kill(child, Signal::try_from(signal)?) {
                // It has ended and not been waited for yet.
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Is there such a command? A folder of `PATH` that may not be entered looks like one to the kernel.
#[expect(
    clippy::disallowed_methods,
    reason = "where the user's shell would look for the command"
)]
fn is_there(program: &OsStr) -> bool {
    if Path::new(program).components().count() > 1 {
        return true;
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).exists())
}

/// Waits for every process that has ended; the status of `child`, if it is among them.
fn bury(child: Pid) -> Result<Option<u8>, Broken> {
    let mut code = None;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, status)) if pid == child => {
                code = u8::try_from(status & 0xff).ok();
            }
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == child => {
                code = u8::try_from(128 + signal as i32).ok();
            }
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return Ok(code),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
