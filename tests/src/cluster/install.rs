//! Exeat as a platform engineer installs it: the chart, by the real helm, into `exeat-system`.

use std::{
    ops::Deref,
    path::Path,
    process::Command,
    sync::{OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::Duration,
};

use anyhow::{Result, bail, ensure};

use super::{Cluster, Kubectl, eventually};

/// Two replicas have to be scheduled, started, and have made their certificates.
const PATIENCE: Duration = Duration::from_mins(3);

static INSTALLED: OnceLock<Result<(), String>> = OnceLock::new();
static TURN: RwLock<()> = RwLock::new(());

/// The cluster with the chart installed, for one test.
#[derive(Debug)]
pub struct Installed {
    cluster: &'static Cluster,
    _turn: Turn,
}

#[derive(Debug)]
#[expect(dead_code, reason = "held, and looked at by nobody")]
enum Turn {
    Shared(RwLockReadGuard<'static, ()>),
    Alone(RwLockWriteGuard<'static, ()>),
}

impl Deref for Installed {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        self.cluster
    }
}

impl Cluster {
    /// With the chart installed: once for a test program, by whichever test asks first.
    ///
    /// # Panics
    ///
    /// If it can't be installed: no test that needs it can pass.
    pub fn installed(&'static self) -> Installed {
        let turn = TURN.read().unwrap_or_else(PoisonError::into_inner);
        self.with(Turn::Shared(turn))
    }

    /// The same for a test that disturbs the others, and so has it to itself.
    ///
    /// # Panics
    ///
    /// If it can't be installed.
    pub fn alone(&'static self) -> Installed {
        let turn = TURN.write().unwrap_or_else(PoisonError::into_inner);
        self.with(Turn::Alone(turn))
    }

    fn with(&'static self, turn: Turn) -> Installed {
        let done = INSTALLED.get_or_init(|| self.install().map_err(|error| format!("{error:#}")));
        if let Err(error) = done {
            panic!("Exeat could not be installed: {error}");
        }
        Installed {
            cluster: self,
            _turn: turn,
        }
    }

    /// helm, as the administrator.
    #[must_use]
    pub fn helm(&self, words: &[&str]) -> Command {
        let mut command = self.node().command("helm");
        command
            .args(words)
            .arg("--kubeconfig")
            .arg(self.node().file("admin.kubeconfig"));
        command
    }

    fn install(&self) -> Result<()> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let chart = root.parent().unwrap_or(root).join("deploy/chart/exeat");
        let mut helm = self.helm(&["upgrade", "--install", "exeat"]);
        helm.arg(chart).args([
            "--namespace=exeat-system",
            "--create-namespace",
            "--set=imagePullPolicy=Never",
            // The tests' servers have certificates of an authority of their own.
            "--set=sidecar.upstreamCA=true",
            "--set",
            &format!("sidecar.otlp={}", self.collector.endpoint),
        ]);
        for name in ["sidecar", "init", "operator"] {
            let image = self.images.reference(name);
            helm.args(["--set", &format!("images.{name}={image}")]);
        }
        let output = helm.output()?;
        if !output.status.success() {
            bail!("helm: {}", String::from_utf8_lossy(&output.stderr));
        }
        eventually("the operator to be available", PATIENCE, || {
            operator_is_available(&self.kubectl)
        })
        .map(drop)
        .map_err(|error| error.context(self.operator_said(80)))
    }

    /// The last lines that the operators logged.
    #[must_use]
    pub fn operator_said(&self, lines: u32) -> String {
        let tail = format!("--tail={lines}");
        let words = [
            "logs",
            "-n=exeat-system",
            "-l=app.kubernetes.io/component=operator",
            &tail,
        ];
        self.kubectl
            .run(&words)
            .unwrap_or_else(|error| error.to_string())
    }
}

/// All replicas are ready, and the API server was told whom to believe.
fn operator_is_available(kubectl: &Kubectl) -> Result<()> {
    let deployment = kubectl.get(&["deployment", "-n=exeat-system", "exeat-operator"])?;
    let status = &deployment["status"];
    ensure!(
        status["readyReplicas"] == deployment["spec"]["replicas"]
            && status["observedGeneration"] == deployment["metadata"]["generation"],
        "{status}"
    );
    for kind in [
        "mutatingwebhookconfiguration",
        "validatingwebhookconfiguration",
    ] {
        let hooks = kubectl.get(&[kind, "exeat"])?;
        for hook in hooks["webhooks"].as_array().into_iter().flatten() {
            ensure!(
                hook["clientConfig"]["caBundle"].is_string(),
                "{kind} `{}` has no authority yet",
                hook["name"]
            );
        }
    }
    Ok(())
}
