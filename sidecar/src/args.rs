//! What the sidecar is told on its command line. Nothing is taken from the environment: what a pod's
//! author can set there must not steer the gate.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Args, Parser, Subcommand, ValueEnum, value_parser};
use exeat_policy::Host;
use exeat_sidecar::{
    gate::{DEFAULT_CONNECTION_LIMIT, DEFAULT_JOURNAL_BYTES, Settings},
    ledger::{Durability, JournalConfig, Principal},
    process::{
        confine::Files,
        health,
        reload::{Labels, PolicySource},
    },
};

/// As the command line has it.
#[expect(clippy::cast_possible_truncation, reason = "a few thousand")]
const DEFAULT_CONNECTIONS: u32 = DEFAULT_CONNECTION_LIMIT as u32;

/// Two descriptors each: more than any process is given.
const MOST_CONNECTIONS: i64 = 1 << 20;

/// More threads than any node has processors.
const MOST_WORKERS: i64 = 1024;

/// The gate in a pod's one way out.
#[derive(Debug, Parser)]
#[command(
    name = "exeat-sidecar",
    version,
    about,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    /// Absent with a subcommand, and only then: `--audit` is required.
    #[command(flatten)]
    pub(crate) serve: Option<Serve>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Ask a running sidecar how it is; exits 0 when the stage is reached
    Healthz(Healthz),
}

#[derive(Debug, Args)]
pub(crate) struct Healthz {
    /// Which question to ask
    #[arg(long, value_enum, default_value = "ready")]
    stage: Stage,
    /// Where the sidecar's health is served
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:15021")]
    address: SocketAddr,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Stage {
    /// Every listener is served
    Started,
    /// Calls that a policy allows can pass
    Ready,
    /// The process answers
    Live,
}

#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// Folder of ToolPolicy files, as kubelet mounts a ConfigMap; watched
    #[arg(
        long,
        value_name = "DIR",
        conflicts_with = "policy",
        required_unless_present = "policy"
    )]
    policy_dir: Option<PathBuf>,
    /// A ToolPolicy file; watched
    #[arg(long, value_name = "FILE")]
    policy: Vec<PathBuf>,
    /// The pod's labels, as the downward API writes them; watched
    #[arg(long, value_name = "FILE", conflicts_with = "label")]
    labels_file: Option<PathBuf>,
    /// A label that `podSelector` is matched against; without any, every policy applies
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair::<String>)]
    label: Vec<(String, String)>,
    /// The journal: one JSON object a line
    #[arg(long, value_name = "FILE")]
    audit: PathBuf,
    /// What a record must survive before its call may go on
    #[arg(long, value_enum, default_value = "written")]
    durability: DurabilityArgument,
    /// The journal never grows beyond this; governed calls are refused instead
    #[arg(long, value_name = "BYTES", default_value_t = DEFAULT_JOURNAL_BYTES)]
    journal_max_bytes: u64,
    /// Folder with one file for each credential, as kubelet mounts a Secret; watched
    #[arg(long, value_name = "DIR")]
    credentials_dir: Option<PathBuf>,
    /// The file of one credential; watched
    #[arg(long, value_name = "NAME=FILE", value_parser = pair::<PathBuf>)]
    credential: Vec<(String, PathBuf)>,
    /// Further roots to verify upstreams with, beside the system's
    #[arg(long, value_name = "FILE")]
    upstream_ca: Vec<PathBuf>,
    /// The gate's answer for a name; a rule's `addresses` still apply
    #[arg(long, value_name = "HOST=ADDRESS", value_parser = resolve)]
    resolve: Vec<(Host, IpAddr)>,
    /// A name server to ask, instead of those in /etc/resolv.conf, which containers of a pod share
    #[arg(long, value_name = "ADDRESS[:PORT]", value_parser = nameserver)]
    nameserver: Vec<SocketAddr>,
    /// A hosts file to honour; none unless given, because containers of a pod share /etc/hosts
    #[arg(long, value_name = "FILE")]
    hosts_file: Option<PathBuf>,
    /// Export records to this OTLP endpoint (`http://host:4317` for gRPC, `http://host:4318/v1/logs`)
    #[arg(long, value_name = "ENDPOINT")]
    otlp: Option<String>,
    /// Write the certificate of this pod's own authority here
    #[arg(long, value_name = "FILE")]
    pub(crate) ca_out: Option<PathBuf>,
    /// Write the system's roots and this pod's authority here
    #[arg(long, value_name = "FILE")]
    pub(crate) ca_bundle_out: Option<PathBuf>,
    /// Write the same as a key store for Java here
    #[arg(long, value_name = "FILE")]
    pub(crate) ca_java_out: Option<PathBuf>,
    /// Addresses of the transparent, explicit and DNS listeners
    #[arg(long, value_name = "ADDRESS", default_values = ["127.0.0.1", "::1"])]
    pub(crate) listen_address: Vec<IpAddr>,
    /// Addresses of the health listener
    #[arg(long, value_name = "ADDRESS", default_values = ["0.0.0.0", "::"])]
    pub(crate) health_address: Vec<IpAddr>,
    /// Port that connections are redirected to
    #[arg(long, value_name = "PORT", default_value_t = 15001, value_parser = value_parser!(u16).range(1..))]
    pub(crate) transparent_port: u16,
    /// Port for clients that are told of a proxy
    #[arg(long, value_name = "PORT", default_value_t = 15002, value_parser = value_parser!(u16).range(1..))]
    pub(crate) explicit_port: u16,
    /// Port that DNS is redirected to
    #[arg(long, value_name = "PORT", default_value_t = 15053, value_parser = value_parser!(u16).range(1..))]
    pub(crate) dns_port: u16,
    /// Port of health and metrics
    #[arg(long, value_name = "PORT", default_value_t = 15021, value_parser = value_parser!(u16).range(1..))]
    pub(crate) health_port: u16,
    /// Connections of the agent served at once
    #[arg(long, value_name = "COUNT", default_value_t = DEFAULT_CONNECTIONS, value_parser = value_parser!(u32).range(1..=MOST_CONNECTIONS))]
    connection_limit: u32,
    /// How long calls may take to end after SIGTERM
    #[arg(long, value_name = "SECONDS", default_value_t = 20)]
    pub(crate) grace_seconds: u64,
    /// Test at intervals that the confinement is there around the gate; without it, never ready
    #[arg(long)]
    self_test: bool,
    /// Threads that serve connections
    #[arg(long, value_name = "COUNT", default_value_t = 2, value_parser = value_parser!(u16).range(1..=MOST_WORKERS))]
    pub(crate) workers: u16,
    /// What is logged to standard error
    #[arg(long, value_name = "FILTER", default_value = "info")]
    pub(crate) log: String,
    /// The pod's namespace, for its records
    #[arg(long, value_name = "NAME")]
    namespace: Option<String>,
    /// The pod's name, for its records
    #[arg(long, value_name = "NAME")]
    pod: Option<String>,
    /// The pod's UID, for its records
    #[arg(long, value_name = "UID")]
    pod_uid: Option<String>,
    /// The pod's service account, for its records
    #[arg(long, value_name = "NAME")]
    service_account: Option<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum DurabilityArgument {
    /// kill -9
    Written,
    /// Loss of power
    Synced,
}

// === impl Healthz ===

impl Healthz {
    pub(crate) fn run(&self) -> ExitCode {
        let stage = match self.stage {
            Stage::Started => health::Stage::Started,
            Stage::Ready => health::Stage::Ready,
            Stage::Live => health::Stage::Live,
        };
        match health::ask(self.address, stage) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("exeat-sidecar: {error}");
                ExitCode::FAILURE
            }
        }
    }
}

// === impl Serve ===

impl Serve {
    /// The files that this gate needs, to give up all others.
    pub(crate) fn files(&self) -> Files {
        let folder = |file: &PathBuf| match file.parent() {
            Some(parent) if parent.as_os_str().is_empty() => PathBuf::from("."),
            Some(parent) => parent.to_owned(),
            None => PathBuf::from("/"),
        };
        let credentials = self.credential.iter().map(|(_, file)| file);
        let single = self
            .policy
            .iter()
            .chain(&self.labels_file)
            .chain(&self.hosts_file);
        let single = single.chain(credentials).chain(&self.upstream_ca);
        let folders = self.policy_dir.iter().chain(&self.credentials_dir).cloned();
        let written = [
            Some(&self.audit),
            self.ca_out.as_ref(),
            self.ca_bundle_out.as_ref(),
            self.ca_java_out.as_ref(),
        ];
        Files {
            read: single.map(folder).chain(folders).collect(),
            write: written.into_iter().flatten().map(folder).collect(),
        }
    }

    pub(crate) fn into_settings(self) -> Settings {
        let policy = match self.policy_dir {
            Some(dir) => PolicySource::Directory(dir),
            None => PolicySource::Files(self.policy),
        };
        let labels: BTreeMap<String, String> = self.label.into_iter().collect();
        let mut settings = Settings::new(policy, self.audit.clone());
        settings.labels = Labels {
            given: Some(labels.clone()).filter(|labels| !labels.is_empty()),
            file: self.labels_file,
        };
        settings.journal = JournalConfig {
            path: self.audit,
            durability: match self.durability {
                DurabilityArgument::Written => Durability::Written,
                DurabilityArgument::Synced => Durability::Synced,
            },
            max_bytes: self.journal_max_bytes,
        };
        settings.credentials_dir = self.credentials_dir;
        settings.credential_files = self.credential.into_iter().collect();
        settings.upstream_ca = self.upstream_ca;
        settings.resolve = self.resolve;
        settings.name_servers = self.nameserver;
        settings.hosts_file = self.hosts_file;
        settings.otlp = self.otlp;
        settings.self_test = self.self_test;
        settings.connection_limit =
            usize::try_from(self.connection_limit).unwrap_or(DEFAULT_CONNECTION_LIMIT);
        settings.principal = Principal {
            namespace: self.namespace,
            pod: self.pod,
            uid: self.pod_uid,
            service_account: self.service_account,
            labels,
        };
        settings
    }
}

fn pair<T: for<'a> From<&'a str>>(text: &str) -> Result<(String, T), String> {
    let (key, value) = text
        .split_once('=')
        .filter(|(key, value)| !key.is_empty() && !value.is_empty())
        .ok_or("expected KEY=VALUE")?;
    Ok((key.to_owned(), T::from(value)))
}

fn resolve(text: &str) -> Result<(Host, IpAddr), String> {
    let (host, address) = text.split_once('=').ok_or("expected HOST=ADDRESS")?;
    let host = Host::parse(host).map_err(|error| error.to_string())?;
    let address = address
        .parse()
        .map_err(|_| format!("`{address}` is no IP address"))?;
    Ok((host, address))
}

fn nameserver(text: &str) -> Result<SocketAddr, String> {
    const DNS: u16 = 53;
    let address = text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, DNS));
    address
        .or_else(|_| text.parse())
        .map_err(|_| format!("`{text}` is no address"))
}
