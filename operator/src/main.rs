//! `exeat-operator`: arguments, threads, signals; nothing else.

mod admission;
mod api;
mod args;
mod certificates;
mod control;
mod desired;
mod hex;
mod lease;
mod settings;
mod status;
mod telemetry;

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use clap::Parser as _;
use kube::Client;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use admission::Admission;
use args::Arguments;
use certificates::keep::Keeper;
use certificates::{Seal, Served};
use control::{Cache, Control, Queue};
use lease::Elector;
use settings::Settings;
use status::poll::Poller;
use telemetry::{Health, Metrics};

/// `EX_CONFIG` of sysexits.h: set up wrongly; trying again changes nothing.
const EXIT_CONFIGURATION: u8 = 78;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = tracing_subscriber::EnvFilter::try_new(&arguments.log)
        .context("--log is not a filter; use for example `info` or `exeat_operator=debug`")
        .and_then(|filter| {
            tracing_subscriber::fmt()
                .json()
                .with_env_filter(filter)
                .with_writer(std::io::stderr)
                .init();
            rustls::crypto::aws_lc_rs::default_provider()
                .install_default()
                .map_err(|_| anyhow::anyhow!("another TLS provider is installed"))?;
            tokio::runtime::Builder::new_multi_thread()
                .enable_all()
                .build()
                .context("starting the runtime")
        })
        .and_then(|runtime| runtime.block_on(run(arguments)));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("exeat-operator: {error:#}");
            ExitCode::from(EXIT_CONFIGURATION)
        }
    }
}

async fn run(arguments: Arguments) -> Result<()> {
    let client = Client::try_default()
        .await
        .context("no API server: run it in a pod, or name one in KUBECONFIG")?;
    let metrics = Metrics::default();
    let health = Arc::new(Health::new(&metrics));
    let served = Arc::new(Served::default());
    let keeper = Arc::new(Keeper::new(
        client.clone(),
        &arguments.namespace,
        arguments.names(),
        Arc::clone(&served),
    ));
    let admission = Admission {
        client: client.clone(),
        settings: Arc::new(Settings::new(&arguments)?),
        metrics: metrics.clone(),
    };
    let (stop, stopped) = watch::channel(false);
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    let mut elector = Elector::new(client.clone(), &arguments.namespace, &arguments.identity);
    let mut webhooks = tokio::spawn(admission::server::serve(
        arguments.listen,
        Arc::clone(&served),
        admission,
        stopped,
    ));
    let beside = async {
        tokio::join!(keeper.follow(), async {
            loop {
                health.set_ready(served.state().is_some());
                tokio::time::sleep(std::time::Duration::from_millis(500)).await;
            }
        })
    };
    let outcome = tokio::select! {
        _ = term.recv() => Ok(()),
        _ = int.recv() => Ok(()),
        _ = beside => Ok(()),
        outcome = telemetry::serve(arguments.health, Arc::clone(&health)) => outcome,
        outcome = &mut webhooks => outcome.context("the webhooks' server broke").and_then(|o| o),
        outcome = lead(client, &arguments, &mut elector, &keeper, &metrics) => outcome,
    };
    health.set_ready(false);
    // Others may lead at once, and reviews under way are answered.
    if let Err(error) = elector.release().await {
        tracing::warn!(error = format!("{error:#}"), "the lease was not released");
    }
    stop.send(true).ok();
    if !webhooks.is_finished()
        && let Err(error) = webhooks.await
    {
        tracing::warn!(%error, "the webhooks' server broke");
    }
    outcome
}

/// Leads whenever it may, for ever.
async fn lead(
    client: Client,
    arguments: &Arguments,
    elector: &mut Elector,
    keeper: &Keeper,
    metrics: &Metrics,
) -> Result<()> {
    loop {
        elector.win().await;
        tracing::info!(identity = arguments.identity, "leading");
        metrics.leader.set(1);
        let outcome = tokio::select! {
            () = elector.hold() => Ok(()),
            outcome = control(client.clone(), arguments, keeper, metrics) => outcome,
        };
        metrics.leader.set(0);
        outcome?;
    }
}

async fn control(
    client: Client,
    arguments: &Arguments,
    keeper: &Keeper,
    metrics: &Metrics,
) -> Result<()> {
    let state = loop {
        match keeper.look().await {
            Ok(state) => break state,
            Err(error) => {
                tracing::warn!(
                    error = format!("{error:#}"),
                    "no certificates yet; trying again"
                );
                tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            }
        }
    };
    let seal = Seal::new(&state.seal).context("the seal's key is none")?;
    let poller = Arc::new(Poller::new(metrics.clone(), arguments.status_port));
    let control = Arc::new(Control {
        cache: Cache::default(),
        queue: Queue::default(),
        poller: Arc::clone(&poller),
        metrics: metrics.clone(),
        seal,
        identity: arguments.identity.clone(),
        guardrails_changed: tokio::sync::Notify::new(),
    });
    let told = Arc::clone(&control);
    tokio::select! {
        outcome = control::run(client, control) => outcome,
        () = poller.run(move |namespace| told.queue.add(namespace)) => Ok(()),
        () = keeper.lead() => Ok(()),
    }
}
