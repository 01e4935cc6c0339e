//! `exeat inject` and `exeat uninject`: the patch that admission makes, for manifests.
//!
//! A manifest that admission would refuse is refused here, with the same words, and nothing is printed.

mod difference;
mod manifest;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use exeat_inject::{
    Durability, Image, PullPolicy, SecretName, Settings, is_injected, mutate_template, remove,
    validate_template,
};
use serde_json::Value;

/// What `exeat inject` takes.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub(crate) struct Arguments {
    #[command(flatten)]
    input: Input,
    /// The sidecar's image, by digest
    #[arg(long, value_name = "IMAGE", value_parser = Image::parse)]
    sidecar_image: Image,
    /// The guard's image, by digest
    #[arg(long, value_name = "IMAGE", value_parser = Image::parse)]
    init_image: Image,
    /// Print nothing; exit with 1 and the fields at fault where admission would refuse
    #[arg(long, conflicts_with = "diff")]
    check: bool,
    /// Print what would change
    #[arg(long)]
    diff: bool,
    /// The Secret that holds the credentials of these templates; without it their pods get their own
    /// at admission
    #[arg(long, value_name = "NAME", value_parser = SecretName::parse)]
    credentials_secret: Option<SecretName>,
    /// When the kubelet fetches the images
    #[arg(long, value_name = "POLICY", default_value = "IfNotPresent", value_parser = PullPolicy::parse)]
    image_pull_policy: PullPolicy,
    /// Where records are exported to
    #[arg(long, value_name = "URL")]
    otlp: Option<String>,
    /// A name server that the sidecar asks, instead of the pod's
    #[arg(long, value_name = "ADDRESS")]
    nameserver: Vec<String>,
    /// Take roots for upstreams from the ConfigMap `exeat-upstream-ca` too
    #[arg(long)]
    upstream_ca: bool,
    /// Refuse a container that does not say as which user it runs: its image's could be the gate's
    #[arg(long)]
    require_run_as_user: bool,
    /// What a record must survive before its call may go on: written, synced
    #[arg(long, value_name = "LEVEL", value_parser = Durability::parse)]
    durability: Option<Durability>,
}

/// What `exeat uninject` takes.
#[derive(Debug, Args)]
pub(crate) struct RemoveArguments {
    #[command(flatten)]
    input: Input,
}

#[derive(Debug, Args)]
struct Input {
    /// Manifests, YAML or JSON, one document or several; `-` is standard input
    #[arg(short, long = "filename", value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// How to print them
    #[arg(long, value_enum, default_value = "yaml")]
    format: Format,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Yaml,
    Json,
}

/// One template of a manifest, as it is and as it becomes.
type Change<'a> = &'a mut dyn FnMut(&str, &str, &Value) -> Option<Value>;

pub(crate) fn main(arguments: &Arguments) -> ExitCode {
    finish(run(arguments))
}

pub(crate) fn main_remove(arguments: &RemoveArguments) -> ExitCode {
    finish(run_remove(arguments))
}

fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let settings = arguments.settings();
    let mut documents = manifest::read(&arguments.input.files)?;
    let before = documents.clone();
    let mut refused = Vec::new();
    let mut found = 0_usize;
    let mut change = |name: &str, prefix: &str, pod: &Value| {
        found += 1;
        let mut refuse = |refusals: Vec<exeat_inject::Refusal>| {
            refused.extend(refusals.iter().map(|one| format!("{name}: {prefix}{one}")));
        };
        if arguments.check {
            if is_injected(pod) {
                refuse(validate_template(pod, &settings));
            } else {
                refused.push(format!(
                    "{name}: {prefix}spec.initContainers: has no gate; run `exeat inject` on it"
                ));
            }
            return None;
        }
        match mutate_template(pod, &settings, arguments.credentials_secret.as_ref()) {
            Ok(governed) => {
                for warning in &governed.warnings {
                    complain(&format!("warning: {name}: {prefix}{warning}"));
                }
                refuse(validate_template(&governed.pod, &settings));
                Some(governed.pod)
            }
            Err(refusals) => {
                refuse(refusals.0);
                None
            }
        }
    };
    manifest::change(&mut documents, &mut change)?;
    refused.extend(manifest::around(&before));
    for line in &refused {
        complain(line);
    }
    if !refused.is_empty() {
        return Ok(ExitCode::FAILURE);
    }
    anyhow::ensure!(
        found > 0,
        "nothing here has pods{}; give a Pod, what makes pods (Deployment, Job, …), a Sandbox or a \
         SandboxTemplate",
        manifest::names(&documents)
    );
    if arguments.check {
        return Ok(ExitCode::SUCCESS);
    }
    let after = manifest::render(&documents, arguments.input.format)?;
    if arguments.diff {
        let before = manifest::render(&before, arguments.input.format)?;
        print(&difference::unified(&before, &after))?;
    } else {
        print(&after)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn run_remove(arguments: &RemoveArguments) -> anyhow::Result<ExitCode> {
    let mut documents = manifest::read(&arguments.input.files)?;
    manifest::change(&mut documents, &mut |_, _, pod| Some(remove(pod)))?;
    print(&manifest::render(&documents, arguments.input.format)?)?;
    Ok(ExitCode::SUCCESS)
}

fn finish(result: anyhow::Result<ExitCode>) -> ExitCode {
    result.unwrap_or_else(|error| {
        complain(&format!("error: {error:#}"));
        ExitCode::FAILURE
    })
}

fn print(text: &str) -> anyhow::Result<()> {
    std::io::stdout()
        .write_all(text.as_bytes())
        .context("can't write to standard output")
}

fn complain(line: &str) {
    // Nobody to tell it to is no reason to fail otherwise.
    drop(writeln!(std::io::stderr(), "{line}"));
}

// === impl Arguments ===

impl Arguments {
    fn settings(&self) -> Settings {
        let mut settings = Settings::new(self.sidecar_image.clone(), self.init_image.clone());
        settings.pull_policy = self.image_pull_policy;
        settings.otlp.clone_from(&self.otlp);
        settings.name_servers.clone_from(&self.nameserver);
        settings.upstream_ca = self.upstream_ca;
        settings.require_run_as_user = self.require_run_as_user;
        settings.durability = self.durability;
        settings
    }
}
