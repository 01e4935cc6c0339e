//! The program: arguments in, an exit status out, data on stdout and the rest on stderr.

use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::apply::xtables;
use crate::args::{Arguments, Command, Format, Options};
use crate::error::InitError;
use crate::plan::{Backend, Plan};
use crate::prove::{Proof, prove_watching};
use crate::render::{iptables, nft};
use crate::report::Report;
use crate::ruleset::{Family, Ruleset};
use crate::survey::surroundings;
use crate::{apply_observed, clean, prove, verify};

/// The exit status for arguments that make no sense.
const USAGE: u8 = 64;

/// Does what the arguments say.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Nothing can be done about a closed terminal.
            let _closed = error.print();
            return if error.use_stderr() {
                USAGE.into()
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    let format = arguments.command.format();
    match run(&arguments.command) {
        Ok(answer) => match std::io::stdout().write_all(answer.as_bytes()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
        Err(error) => {
            let text = match format {
                Format::Text => format!("exeat-init: {error}\nhint: {}\n", error.remedy()),
                Format::Json => format!(
                    "{}\n",
                    serde_json::json!({
                        "error": {"cause": error.cause(), "message": error.to_string(), "remedy": error.remedy()}
                    })
                ),
            };
            let _closed = std::io::stderr().write_all(text.as_bytes());
            error.exit_code().into()
        }
    }
}

fn run(command: &Command) -> Result<String, InitError> {
    match command {
        Command::Apply {
            options,
            no_prove,
            fault_after_step,
        } => {
            let plan = options.plan()?;
            let mut steps = 0;
            let mut fault = |_| {
                steps += 1;
                if *fault_after_step == Some(steps) {
                    // As a kernel out of memory would: no destructor, no last word.
                    let _unkillable = kill(Pid::this(), Signal::SIGKILL);
                }
            };
            let mut report = apply_observed(&plan, options.backend, &mut fault)?;
            if !no_prove {
                report.proof = Some(proven(&plan, report.backend)?);
            }
            Ok(shown(&report, options.format))
        }
        Command::Verify { options, no_prove } => {
            let plan = options.plan()?;
            let mut report = verify(&plan, options.backend)?;
            if !no_prove {
                report.proof = Some(proven(&plan, report.backend)?);
            }
            Ok(shown(&report, options.format))
        }
        Command::Clean { backend, format } => {
            clean(*backend)?;
            Ok(match format {
                Format::Text => {
                    "the rules are gone: everything in this namespace may leave it\n".to_owned()
                }
                Format::Json => "{\"cleaned\":true}\n".to_owned(),
            })
        }
        Command::Plan { options } => planned(options),
    }
}

/// What gVisor drops it does not always refuse, so there the packets are watched.
fn proven(plan: &Plan, backend: Backend) -> Result<Proof, InitError> {
    match backend {
        Backend::Gvisor => prove_watching(plan),
        _ => prove(plan),
    }
}

fn planned(options: &Options) -> Result<String, InitError> {
    let plan = options.plan()?;
    let ruleset = match options.backend {
        Backend::Gvisor => xtables::ruleset(&plan, Backend::Gvisor)?,
        _ => Ruleset::new(&plan, &surroundings(None)?),
    };
    let tables: Vec<_> = iptables::tables(&ruleset).collect();
    let text = match options.backend {
        Backend::Auto | Backend::Nft => nft::script(&ruleset, nft::Existing::Refill),
        _ => {
            let mut text = String::new();
            let jumps = iptables::Jumps::Absent { stale: Vec::new() };
            for tables in [&tables[..1], &tables[1..]] {
                for (family, program) in [
                    (Family::V4, "iptables-restore"),
                    (Family::V6, "ip6tables-restore"),
                ] {
                    text.extend(["# ", program, " --noflush\n"]);
                    for table in tables {
                        text.push_str(&iptables::script(&ruleset, family, *table, &jumps));
                    }
                }
            }
            text
        }
    };
    Ok(match options.format {
        Format::Text => text,
        Format::Json => format!("{}\n", serde_json::json!({"plan": plan, "rules": text})),
    })
}

fn shown(report: &Report, format: Format) -> String {
    match format {
        Format::Text => {
            let mut text = report.to_string();
            for attempt in report.proof.iter().flat_map(|proof| &proof.attempts) {
                text.extend(["  ", &attempt.to_string(), "\n"]);
            }
            text
        }
        Format::Json => format!("{}\n", serde_json::json!(report)),
    }
}

// === impl Command ===

impl Command {
    fn format(&self) -> Format {
        match self {
            Self::Apply { options, .. } | Self::Verify { options, .. } | Self::Plan { options } => {
                options.format
            }
            Self::Clean { format, .. } => *format,
        }
    }
}
