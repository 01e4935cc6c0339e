//! `exeat check`: is this cluster, this namespace, this pod governed, and if not, why.
//!
//! It reads, and judges what it read; the judging is pure. In doubt the answer is that it could not
//! be found out, with the right that it takes.

mod certificate;
mod cluster;
mod finding;
mod namespace;
mod pod;
mod policies;
mod read;
mod settings;
mod show;

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use exeat_inject::names::POLICY_CONFIG_MAP;
use rustls_pki_types::UnixTime;
use serde_json::Value;

use cluster::{CERTIFICATE, CONFIGURATION, CRDS, Cluster, OPERATOR, OPERATOR_NAMESPACE};
use finding::Report;
use namespace::Space;
use read::{Read, Reader, Right};

/// Could not find out.
const UNKNOWN: u8 = 2;
/// Accounts that are asked about: each takes fourteen questions.
const MAX_ACCOUNTS: usize = 20;

/// What `exeat check` takes.
#[derive(Debug, Args)]
#[command(after_help = "\
Exit status: 0 governed, 1 not, 2 could not find out.

As a kubectl plugin: ln -s \"$(command -v exeat)\" ~/.local/bin/kubectl-exeat; kubectl exeat check")]
pub(crate) struct Arguments {
    /// The pod to look at, in the namespace given or that of the context
    #[arg(value_name = "POD", value_parser = pod_name)]
    pod: Option<String>,
    /// The namespace to look at; without it and without a pod, the cluster alone
    #[arg(short, long, value_name = "NAMESPACE", value_parser = dns_name)]
    namespace: Option<String>,
    /// The kubeconfig; KUBECONFIG, ~/.kube/config or the pod's own account without it
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
    /// How the findings are printed
    #[arg(short, long, value_enum, default_value = "text")]
    output: Format,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Text,
    Json,
}

pub(crate) fn main(arguments: &Arguments) -> ExitCode {
    let outcome = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("starting the runtime")
        .and_then(|runtime| runtime.block_on(look(arguments)));
    match outcome {
        Ok(report) => {
            let text = match arguments.output {
                Format::Text => show::text(&report),
                Format::Json => format!("{:#}", report.json()),
            };
            // A closed pipe is the reader's wish.
            drop(writeln!(std::io::stdout().lock(), "{text}"));
            ExitCode::from(report.exit())
        }
        Err(error) => {
            drop(writeln!(
                std::io::stderr().lock(),
                "error: could not find out: {error:#}"
            ));
            ExitCode::from(UNKNOWN)
        }
    }
}

async fn look(arguments: &Arguments) -> anyhow::Result<Report> {
    let reader = Reader::new(
        arguments.kubeconfig.as_deref(),
        arguments.context.as_deref(),
    )
    .await?;
    reader.reach().await?;
    let cluster = read_cluster(&reader).await;
    let name = arguments.namespace.clone().or_else(|| {
        arguments
            .pod
            .is_some()
            .then(|| reader.namespace().to_owned())
    });
    let space = match &name {
        Some(name) => Some(read_namespace(&reader, name, &cluster).await),
        None => None,
    };
    let labels = space.as_ref().and_then(|space| match &space.namespace {
        // The webhooks are judged by whether they would select it if it were labelled.
        Read::Found(namespace) if space.governed() == Some(true) => {
            Some(policies::labels(namespace))
        }
        _ => None,
    });
    let mut findings = cluster::judge(&cluster, labels.as_ref(), UnixTime::now());
    if let Some(space) = &space {
        // What a pod was seen to come to needs no look at what makes it so.
        if space.injected().is_some() {
            for finding in &mut findings {
                finding.decisive = false;
            }
        }
        findings.extend(namespace::judge(space, arguments.pod.is_none()));
        if let Some(name) = &arguments.pod {
            findings.extend(look_at_pod(&reader, &cluster, space, name).await);
        }
    }
    Ok(Report {
        server: reader.server().to_owned(),
        namespace: name,
        pod: arguments.pod.clone(),
        findings,
    })
}

async fn read_cluster(reader: &Reader) -> Cluster {
    let admission = |kind: &str| format!("/apis/admissionregistration.k8s.io/v1/{kind}");
    let right = |verb, kind: &str| Right::new(verb, format!("{kind}.admissionregistration.k8s.io"));
    let crd = async |name: &str| {
        let path = format!("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}");
        let right = Right::new("get", "customresourcedefinitions.apiextensions.k8s.io");
        reader.get(&path, right).await
    };
    let configuration = async |kind: &str| {
        let path = format!("{}/{CONFIGURATION}", admission(kind));
        reader.get(&path, right("get", kind)).await
    };
    let list = async |kind: &str| reader.list(&admission(kind), right("list", kind)).await;
    let deployment =
        format!("/apis/apps/v1/namespaces/{OPERATOR_NAMESPACE}/deployments/{OPERATOR}");
    let secret = format!("/api/v1/namespaces/{OPERATOR_NAMESPACE}/secrets/{CERTIFICATE}");
    let there = |resource: &str| Right::new("get", resource).of(OPERATOR_NAMESPACE);
    let (first, second, mutating, validating, policies, bindings, deployment, certificate) = tokio::join!(
        crd(CRDS[0]),
        crd(CRDS[1]),
        configuration("mutatingwebhookconfigurations"),
        configuration("validatingwebhookconfigurations"),
        list("validatingadmissionpolicies"),
        list("validatingadmissionpolicybindings"),
        reader.get(&deployment, there("deployments.apps")),
        reader.get(&secret, there("secrets")),
    );
    Cluster {
        crds: [first, second],
        mutating,
        validating,
        policies,
        bindings,
        deployment,
        certificate,
    }
}

async fn read_namespace(reader: &Reader, name: &str, cluster: &Cluster) -> Space {
    let path = format!("/api/v1/namespaces/{name}");
    let map = format!("{path}/configmaps/{POLICY_CONFIG_MAP}");
    let policies = format!("/apis/exeat.dev/v1alpha1/namespaces/{name}/toolpolicies");
    let pods = format!("{path}/pods");
    let (namespace, config_map, policies, pods) = tokio::join!(
        reader.get(&path, Right::new("get", format!("namespaces/{name}"))),
        reader.get(
            &map,
            Right::new("get", format!("configmaps/{POLICY_CONFIG_MAP}")).of(name)
        ),
        reader.list(
            &policies,
            Right::new("list", "toolpolicies.exeat.dev").of(name)
        ),
        reader.list(&pods, Right::new("list", "pods").of(name)),
    );
    let mut space = Space {
        name: name.to_owned(),
        namespace,
        config_map,
        policies,
        pods,
        probe: None,
        powers: Vec::new(),
        installed: match &cluster.mutating {
            Read::Found(found) => found["metadata"]["creationTimestamp"]
                .as_str()
                .map(str::to_owned),
            _ => None,
        },
    };
    // Where the label could not be read, a pod that comes out with a gate says what it says.
    if space.governed() != Some(false) {
        space.probe = Some(reader.probe(name).await);
    }
    let mut accounts = BTreeSet::from(["default".to_owned()]);
    if let Read::Found(Value::Array(pods)) = &space.pods {
        accounts.extend(
            pods.iter()
                .filter(|it| pod::alive(it))
                .filter_map(|it| it["spec"]["serviceAccountName"].as_str().map(str::to_owned)),
        );
    }
    if !matches!(space.namespace, Read::Absent) {
        for account in accounts.into_iter().take(MAX_ACCOUNTS) {
            let powers = reader.powers(name, &account).await;
            space.powers.push((account, powers));
        }
    }
    space
}

async fn look_at_pod(
    reader: &Reader,
    cluster: &Cluster,
    space: &Space,
    name: &str,
) -> Vec<finding::Finding> {
    let namespace = &space.name;
    let path = format!("/api/v1/namespaces/{namespace}/pods/{name}");
    let right = |verb, resource: &str| Right::new(verb, resource).of(namespace);
    let pod = reader.get(&path, right("get", "pods")).await;
    let mut secret = Read::Absent;
    let mut metrics = Read::Absent;
    if let Read::Found(pod) = &pod {
        if let Some(name) = pod::secret_of(pod) {
            let path = format!("/api/v1/namespaces/{namespace}/secrets/{name}");
            secret = reader.get(&path, right("get", "secrets")).await;
        }
        // The proxy of the API server, to where the gate's probes and metrics are. Where nobody listens
        // it waits for long.
        if pod::serves(pod) {
            let page = format!("{path}:15021/proxy/metrics");
            metrics = reader.text(&page, right("get", "pods/proxy")).await;
        }
    }
    let settings = match &cluster.deployment {
        Read::Found(deployment) => settings::of_operator(deployment),
        _ => space.injected().and_then(settings::of_pod),
    };
    let bundle = match &space.config_map {
        Read::Found(map) => policies::unpack(map).ok(),
        _ => None,
    };
    pod::judge(&pod::Facts {
        pod: &pod,
        namespace: &space.namespace,
        installed: space.installed.as_deref(),
        settings: settings.as_ref(),
        bundle: bundle.as_ref(),
        policies: &space.policies,
        secret: &secret,
        metrics: &metrics,
    })
}

/// A name that may stand in a path.
fn dns_name(text: &str) -> Result<String, String> {
    let good = |c: u8| matches!(c, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.');
    let bare = text.trim_matches(['-', '.']);
    if !text.is_empty() && text.len() <= 253 && text.bytes().all(good) && bare == text {
        Ok(text.to_owned())
    } else {
        Err("names have lower-case letters, digits, `-` and `.`".to_owned())
    }
}

/// `NAME`, or `pod/NAME` as kubectl prints it.
fn pod_name(text: &str) -> Result<String, String> {
    let name = ["pod/", "pods/", "po/"]
        .into_iter()
        .find_map(|prefix| text.strip_prefix(prefix));
    dns_name(name.unwrap_or(text))
}
