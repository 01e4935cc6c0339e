//! What may be asked for on the command line. Nothing here can widen the way out.

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::error::InitError;
use crate::plan::{Backend, DEFAULT_UID, Plan, Ports, Uid};

/// Confines the network namespace it is started in: nothing but the gate can leave it.
#[derive(Debug, Parser)]
#[command(name = "exeat-init", version, about)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Write the rules, read them back, and try to get out
    Apply {
        /// What is to hold
        #[command(flatten)]
        options: Options,
        /// Do not try to get out afterwards
        #[arg(long)]
        no_prove: bool,
        /// For tests: kill this process after that many steps
        #[arg(long, hide = true)]
        fault_after_step: Option<u32>,
    },
    /// Read the rules back, compare them with the plan, and try to get out; change nothing
    Verify {
        /// What is to hold
        #[command(flatten)]
        options: Options,
        /// Do not try to get out
        #[arg(long)]
        no_prove: bool,
    },
    /// Take the rules away: everything in the namespace may leave it again
    Clean {
        /// The packet filter to clean; auto cleans all of them
        #[arg(long, default_value = "auto")]
        backend: Backend,
        /// How to answer
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Print the rules that would be written; touch nothing
    Plan {
        /// What is to hold
        #[command(flatten)]
        options: Options,
    },
}

/// What is to hold.
#[derive(Args, Debug)]
pub struct Options {
    /// The only UID that may send: the sidecar's
    #[arg(long, default_value_t = DEFAULT_UID, conflicts_with = "outside")]
    pub uid: u32,
    /// Nobody may send: the gate is outside this namespace
    #[arg(long)]
    pub outside: bool,
    /// The packet filter
    #[arg(long, default_value = "auto")]
    pub backend: Backend,
    /// Where the gate takes redirected TCP
    #[arg(long, default_value_t = Ports::default().transparent)]
    pub port: u16,
    /// Where the gate serves as a proxy
    #[arg(long, default_value_t = Ports::default().explicit)]
    pub explicit_port: u16,
    /// Where the gate answers DNS
    #[arg(long, default_value_t = Ports::default().dns)]
    pub dns_port: u16,
    /// Where the gate serves health and metrics
    #[arg(long, default_value_t = Ports::default().health)]
    pub health_port: u16,
    /// How to answer
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

/// How to answer.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub enum Format {
    /// For a person.
    #[default]
    Text,
    /// For a program.
    Json,
}

// === impl Options ===

impl Options {
    /// The plan that they mean.
    pub fn plan(&self) -> Result<Plan, InitError> {
        let ports = Ports::new(
            self.port,
            self.explicit_port,
            self.dns_port,
            self.health_port,
        )?;
        let plan = if self.outside {
            Plan::outside()
        } else {
            Plan::sidecar(Uid::new(self.uid)?)
        };
        Ok(plan.with_ports(ports))
    }
}
