//! `exeat run`: a command under the gate, on one machine, without root and without a cluster.
//!
//! The command runs as the same user, in namespaces of its own, where every address leads to the
//! gate; the gate stays outside. The kernel keeps the two apart: `network` leaves no other way out,
//! `files` covers what the command must not touch, `calls` refuses what would reach past both, and
//! `first` gives up every capability before the command starts. In doubt nothing is started: then
//! the exit status is 125, and the reason is on standard error.

mod calls;
mod channel;
mod environment;
mod files;
mod first;
mod gate;
mod keeper;
mod lines;
mod namespace;
mod network;
mod policies;
mod prepare;
pub(crate) mod stage;
mod trust;

use std::ffi::OsString;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{ExitCode, ExitStatus};
use std::time::Duration;

use clap::{Args, ValueEnum};
use exeat_policy::Host;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::SignalFd;
use rustix::event::{PollFd, PollFlags, poll};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{mpsc, oneshot};

use channel::Channel;
use gate::{Gate, StartError};
use keeper::{Order, Report};
use lines::Lines;
use policies::Policies;
use prepare::Prepared;
use stage::Name;

/// How long the calls that are under way when the command ends may take to be recorded.
const GRACE: Duration = Duration::from_secs(2);

/// Options of `exeat run`.
#[derive(Debug, Args)]
#[command(after_help = "\
The exit status is the command's (128 and the signal, if one ended it); 125 when the gate could not \
be built, 126 when the command could not be executed, 127 when there is none.\n\n\
The command runs as you. It keeps your environment, secrets in it included, and can read and write \
your files, but for the credential files and the journal (hidden) and the policies (read-only). It \
can't reach the network but through the gate, nor the machine's Unix sockets, nor any process \
outside.")]
pub(crate) struct Arguments {
    /// A file of policies (`ToolPolicy`), watched and reloaded; without any, everything is denied
    #[arg(long, value_name = "FILE")]
    policy: Vec<PathBuf>,

    /// Where the journal is kept, as JSON lines [default: nowhere after the run]
    #[arg(long, value_name = "FILE")]
    audit: Option<PathBuf>,

    /// What a record must survive before its call goes on
    #[arg(long, value_enum, default_value_t)]
    durability: Durability,

    /// Where the secret of a policy's `credentials` entry comes from
    #[arg(long, value_name = "NAME=FILE", value_parser = credential)]
    credential: Vec<(String, PathBuf)>,

    /// Roots to verify upstreams by, beside the system's (PEM)
    #[arg(long, value_name = "FILE")]
    upstream_ca: Vec<PathBuf>,

    /// The gate's answer for a name; a rule's `addresses` still apply
    #[arg(long, value_name = "HOST=ADDRESS", value_parser = resolution)]
    resolve: Vec<(Host, IpAddr)>,

    /// Send the records to this OpenTelemetry collector, too
    #[arg(long, value_name = "ENDPOINT")]
    otlp: Option<String>,

    /// A label that `podSelector` is matched against; without any, every policy applies
    #[arg(long, value_name = "KEY=VALUE", value_parser = label)]
    label: Vec<(String, String)>,

    /// A folder that the command may read but change nothing in, and policies may be replaced in
    #[arg(long, value_name = "FOLDER")]
    read_only: Vec<PathBuf>,

    /// Let the command open Unix sockets: D-Bus, a container engine, ssh-agent are ways out
    #[arg(long)]
    allow_unix_sockets: bool,

    /// Don't print what is denied
    #[arg(long, short)]
    quiet: bool,

    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// How much a record must survive.
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum Durability {
    /// kill -9 of the gate
    #[default]
    Written,
    /// Power loss
    Synced,
}

/// Why the gate could not be built.
#[derive(Debug, thiserror::Error)]
enum NotBuilt {
    #[error(transparent)]
    Prepare(#[from] prepare::PrepareError),
    #[error(transparent)]
    Gate(#[from] StartError),
    #[error("the gate could not be set up: {0}")]
    Io(#[from] io::Error),
    #[error("the gate could not be set up: {0}")]
    System(#[from] nix::Error),
    #[error("the parts of the gate do not understand each other")]
    Protocol,
    /// The keeper could not do its part, and has said why.
    #[error("")]
    Said,
}

/// Runs the subcommand.
pub(crate) fn main(arguments: &Arguments) -> ExitCode {
    match run(arguments) {
        Ok(code) => code.into(),
        Err(error) => {
            if !matches!(error, NotBuilt::Said) {
                lines::problem(&error);
            }
            stage::NOT_BUILT.into()
        }
    }
}

fn run(arguments: &Arguments) -> Result<u8, NotBuilt> {
    let lines = Lines::new(arguments.quiet);
    let prepared = Prepared::new(arguments)?;
    for remark in &prepared.remarks {
        lines.say(remark);
    }

    // Started by this very thread: the kernel ends the keeper when it is gone.
    let (keeper, mut child) = stage::spawn(Name::Keeper, &arguments.command, |command| {
        environment::set(command, prepared.private.path(), prepared.places.tell_java);
    })?;
    // Secrets are in this process's memory: no other process of the user may look at it, and none
    // of it goes to the disk.
    nix::sys::prctl::set_dumpable(false)?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    // Before there are threads, so that none of them is interrupted.
    let signals = stage::read_signals(&forwarded())?;

    keeper.send(&Order::Prepare, &[io::stdin().as_fd()])?;
    let Ok((report, fds)) = keeper.receive() else {
        child.wait()?;
        return Err(NotBuilt::Said);
    };
    let Report::Listening(kinds) = report else {
        return Err(NotBuilt::Protocol);
    };
    let listeners = gate::listeners(&kinds, fds)?;

    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let (ended, end) = oneshot::channel();
    std::thread::spawn(move || ended.send(child.wait()));
    let code = runtime.block_on(async {
        let policies = Policies::new(
            prepared.private.path(),
            arguments.policy.iter().zip(&prepared.policies),
            &prepared.read_only,
        )?;
        let gate = Gate::start(gate::settings(&prepared, policies.source()), listeners).await?;
        prepared.publish(gate.ca_pem())?;
        let start = Order::Start {
            files: prepared.files()?,
            folder: prepared.folder.clone(),
            unix_sockets: arguments.allow_unix_sockets,
        };
        keeper.send(&start, &[])?;
        let run = Run {
            gate,
            keeper,
            policies,
            signals,
            end,
            lines,
        };
        run.watch_over().await
    });
    // A thread that waits for a signal must not hold up the end.
    runtime.shutdown_background();
    code
}

/// A run whose command has been started.
struct Run {
    gate: Gate,
    keeper: Channel,
    policies: Policies,
    signals: SignalFd,
    end: oneshot::Receiver<io::Result<ExitStatus>>,
    lines: Lines,
}

// === impl Run ===

impl Run {
    /// Tells of denials and passes signals on until the command has ended; then closes the gate.
    async fn watch_over(mut self) -> Result<u8, NotBuilt> {
        let mut events = self.gate.events();
        let mut signals = heard(self.signals);
        let mut reports = reports(self.keeper.try_clone()?);
        let mut statuses = self.gate.policies().statuses();
        let mut policy = statuses.borrow_and_update().clone();
        let rename = self.policies.names();
        let (tell, mut refused) = mpsc::unbounded_channel();
        let watch = self.policies.watch(tell);
        let status = loop {
            tokio::select! {
                status = &mut self.end => break status,
                event = events.recv() => match event {
                    Ok(line) => self.lines.record(&line),
                    Err(RecvError::Lagged(missed)) => self.lines.say(format_args!(
                        "{missed} records came too fast to be looked at here; the journal has them"
                    )),
                    // The gate tells nothing any more; the command's end is near.
                    Err(RecvError::Closed) => break self.end.await,
                },
                Ok(()) = statuses.changed() => {
                    let status = statuses.borrow_and_update().clone();
                    if (status.generation, &status.state) != (policy.generation, &policy.state) {
                        self.lines.say(format_args!("policy: {}", rename(&status.to_string())));
                    }
                    policy = status;
                }
                Some(refused) = refused.recv() => self.lines.say(refused),
                Some(Report::Replaced(files)) = reports.recv() => {
                    for file in files {
                        self.lines.say(format_args!(
                            "`{}` was replaced from outside, and is hidden again; the command \
                             could have read the new file before: write into the file itself, or \
                             use a folder that the command can't read",
                            file.display()
                        ));
                    }
                }
                Some(signal) = signals.recv() => {
                    drop(self.keeper.send(&Order::Signal(signal), &[]));
                }
            }
        };
        drop(watch);
        self.gate.shutdown(GRACE).await;
        while let Ok(line) = events.try_recv() {
            self.lines.record(&line);
        }
        Ok(stage::exit_code(status.map_err(|_| NotBuilt::Protocol)??))
    }
}

/// What the keeper reports, read where waiting is allowed.
fn reports(keeper: Channel) -> mpsc::UnboundedReceiver<Report> {
    let (sender, receiver) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        while let Ok((report, _)) = keeper.receive() {
            if sender.send(report).is_err() {
                break;
            }
        }
    });
    receiver
}

/// The signals that somebody sent to the gate, read where waiting is allowed.
fn heard(signals: SignalFd) -> mpsc::UnboundedReceiver<i32> {
    let (sender, receiver) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        loop {
            let mut fds = [PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN)];
            if poll(&mut fds, None).is_err() {
                continue;
            }
            while let Ok(Some(signal)) = signals.read_signal() {
                // What the terminal sends, it has sent to the command as well.
                let told = signal.ssi_code == nix::libc::SI_KERNEL;
                let Ok(number) = i32::try_from(signal.ssi_signo) else {
                    continue;
                };
                if !told && sender.send(number).is_err() {
                    return;
                }
            }
        }
    });
    receiver
}

/// The signals that are passed on when they are sent to the gate alone.
fn forwarded() -> SigSet {
    [
        Signal::SIGHUP,
        Signal::SIGINT,
        Signal::SIGQUIT,
        Signal::SIGTERM,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
    ]
    .into_iter()
    .collect()
}

fn pair(text: &str) -> Result<(&str, &str), String> {
    text.split_once('=')
        .filter(|(key, value)| !key.is_empty() && !value.is_empty())
        .ok_or_else(|| "expected two parts with `=` between them".to_owned())
}

fn credential(text: &str) -> Result<(String, PathBuf), String> {
    pair(text).map(|(name, file)| (name.to_owned(), file.into()))
}

fn label(text: &str) -> Result<(String, String), String> {
    // A label's value may be empty.
    let (key, value) = text
        .split_once('=')
        .filter(|(key, _)| !key.is_empty())
        .ok_or("expected KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

fn resolution(text: &str) -> Result<(Host, IpAddr), String> {
    let (host, address) = pair(text)?;
    let host = Host::parse(host).map_err(|error| error.to_string())?;
    let address = address
        .trim_start_matches('[')
        .trim_end_matches(']')
        .parse()
        .map_err(|_| format!("`{address}` is not an IP address"))?;
    Ok((host, address))
}
