//! The second stage: makes the namespaces, and keeps them for as long as the command runs.
//!
//! It stands between the gate, which stays outside, and the command: it has the capabilities that
//! the setup takes, sits in the command's network and mounts but not among its processes, and holds
//! neither secrets nor policy. When the gate is gone, it ends the command. In doubt it does too.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Child, ExitStatus};

use nix::sys::signal::SigSet;
use nix::sys::signalfd::SignalFd;
use rustix::event::{PollFd, PollFlags, poll};
use serde::{Deserialize, Serialize};

use super::channel::Channel;
use super::files::{self, Plan};
use super::network::{self, Kind};
use super::stage::{self, Broken};
use super::{first, namespace};

/// What the gate tells the keeper.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Order {
    /// The first message, with the true standard input: make the namespaces.
    Prepare,
    /// The gate listens: protect the files, and start the command.
    Start {
        files: Plan,
        folder: PathBuf,
        unix_sockets: bool,
    },
    /// Pass this signal on to the command.
    Signal(i32),
}

/// What the keeper tells the gate.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Report {
    /// The network stands; the listeners are in this order.
    Listening(Vec<Kind>),
    /// These files lost their cover for a moment, because someone outside replaced them.
    Replaced(Vec<PathBuf>),
}

/// Runs the stage; its exit status is the command's.
pub(super) fn main(command: &[OsString]) -> Result<u8, Broken> {
    let gate = Channel::from_stdin()?;
    stage::die_with_parent()?;
    let (Order::Prepare, mut fds) = gate.receive()? else {
        return Err(Broken::Protocol);
    };
    let stdin = fds.pop().ok_or(Broken::Protocol)?;

    namespace::leave()?;
    // Entering a user namespace takes it back.
    stage::die_with_parent()?;
    files::part_from_host()?;
    let listeners = network()?;
    let kinds = listeners.iter().map(|(kind, _)| *kind).collect();
    let fds: Vec<_> = listeners.iter().map(|(_, fd)| fd.as_fd()).collect();
    gate.send(&Report::Listening(kinds), &fds)?;
    // Once the gate is gone, nobody must answer.
    drop(listeners);

    let (
        Order::Start {
            files,
            folder,
            unix_sockets,
        },
        _,
    ) = gate.receive()?
    else {
        return Err(Broken::Protocol);
    };
    files.apply()?;
    namespace::leave_processes()?;
    // The terminal's signals are the command's to answer, and must not end or stop the keeper.
    let signals = stage::read_signals(&SigSet::all())?;
    let (init, child) = stage::spawn(stage::Name::First, command, |_| ())?;
    let start = first::Order::Start {
        folder,
        unix_sockets,
    };
    init.send(&start, &[stdin.as_fd()])?;
    drop(stdin);
    let status = keep(&gate, &init, child, &signals, &files)?;
    Ok(stage::exit_code(status))
}

/// The network: everything leads to the listeners, and what can't be led there is refused.
fn network() -> Result<Vec<(Kind, OwnedFd)>, Broken> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    runtime.block_on(network::lead_everything_here())?;
    drop(runtime);
    let listeners = network::listeners()?;
    network::confine()?;
    Ok(listeners)
}

/// Passes signals on and looks after the covers, until the command has ended.
fn keep(
    gate: &Channel,
    init: &Channel,
    mut child: Child,
    signals: &SignalFd,
    files: &Plan,
) -> Result<ExitStatus, Broken> {
    let covers = files::Events::new(files)?;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        let [mounts, names] = covers.poll();
        let mut fds = [
            PollFd::new(gate, PollFlags::IN),
            PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN),
            mounts,
            names,
        ];
        rustix::io::retry_on_intr(|| poll(&mut fds, None)).map_err(io::Error::from)?;
        let [from_gate, from_kernel, mounts, names] = fds.map(|fd| !fd.revents().is_empty());
        if from_kernel {
            while signals.read_signal()?.is_some() {}
        }
        if mounts || names {
            covers.clear();
            let replaced = files.repair()?;
            if !replaced.is_empty() {
                gate.send(&Report::Replaced(replaced), &[])?;
            }
        }
        if from_gate {
            // An end of the channel is the end of the gate, and by returning the command's.
            let (Order::Signal(signal), _) = gate.receive()? else {
                return Err(Broken::Protocol);
            };
            pass_on(init, signal)?;
        }
    }
}

fn pass_on(init: &Channel, signal: i32) -> Result<(), Broken> {
    match init.send(&first::Order::Signal(signal), &[]) {
        // The command has just ended.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => Ok(result?),
    }
}
