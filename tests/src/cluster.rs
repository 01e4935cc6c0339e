//! A real cluster for tests: started once for a test binary, ended with it.
//!
//! `cargo xtask cluster hold` owns the node and ends it when this process does, however that comes.
//! docs/CLUSTER.md says what it is and what it is not. In doubt a test here fails: nothing is skipped
//! because something is missing.

mod agent;
mod collector;
mod images;
mod install;
mod kubectl;
mod node;
mod world;

use std::{
    cell::RefCell,
    env,
    path::PathBuf,
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

pub use self::{
    agent::Agent, collector::Collector, images::Images, install::Installed, kubectl::Kubectl,
    node::Node, world::World,
};

/// The cluster and all that stands around it.
#[derive(Debug)]
pub struct Cluster {
    /// As its administrator.
    pub kubectl: Kubectl,
    /// The node, if it is ours.
    pub node: Option<Node>,
    /// The images under test.
    pub images: Images,
    /// The servers that agents call.
    pub world: World,
    /// The real OpenTelemetry Collector.
    pub collector: Collector,
}

static CLUSTER: OnceLock<Result<Cluster, String>> = OnceLock::new();
static NAMESPACES: AtomicU32 = AtomicU32::new(0);

thread_local! {
    static MADE: RefCell<Made> = const { RefCell::new(Made(Vec::new())) };
}

/// The namespaces that a test made. A node with the pods of thirty tests is busy with their probes, so
/// they go when their test is over.
struct Made(Vec<(Kubectl, String)>);

impl Drop for Made {
    fn drop(&mut self) {
        for (kubectl, namespace) in &self.0 {
            let words = ["delete", "namespace", namespace, "--wait=false"];
            let _at_the_end_with_the_node = kubectl.run(&words);
        }
    }
}

/// The one cluster of this test binary.
///
/// # Panics
///
/// If it could not be started: no test that needs it can pass.
pub fn cluster() -> &'static Cluster {
    let begun = CLUSTER.get_or_init(|| Cluster::start().map_err(|error| format!("{error:#}")));
    match begun {
        Ok(cluster) => cluster,
        Err(error) => panic!("no cluster: {error}"),
    }
}

// === impl Cluster ===

impl Cluster {
    fn start() -> Result<Self> {
        let images = Images::build()?;
        if let Some(path) = env::var_os("KUBECONFIG").filter(|path| !path.is_empty()) {
            bail!(
                "KUBECONFIG is {}: using a cluster of yours is not written yet; unset it",
                PathBuf::from(path).display()
            );
        }
        let node = Node::hold()?;
        let kubectl = node.kubectl()?;
        node.import(&images)?;
        let world = World::start(&node)?;
        let collector = Collector::of(&node);
        let cluster = Self {
            kubectl,
            node: Some(node),
            images,
            world,
            collector,
        };
        Ok(cluster)
    }

    /// The node; tests that need to reach into it can't run on a stranger's.
    ///
    /// # Panics
    ///
    /// If the cluster is not ours.
    #[must_use]
    pub fn node(&self) -> &Node {
        let Some(node) = &self.node else {
            panic!("this test reaches into the node, which is not ours: unset KUBECONFIG");
        };
        node
    }

    /// A namespace of a test's own, which ends with the test's thread, with the root of the tests' servers in it.
    pub fn namespace(&self, name: &str, labels: &[(&str, &str)]) -> Result<String> {
        let number = NAMESPACES.fetch_add(1, Ordering::Relaxed);
        let name = format!("{name}-{number}");
        let labels: serde_json::Map<String, serde_json::Value> = labels
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).into()))
            .collect();
        // Left from an earlier run on a cluster that stayed up.
        let _absent = self
            .kubectl
            .run(&["delete", "namespace", &name, "--ignore-not-found"]);
        self.kubectl.apply(&serde_json::json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": name, "labels": labels},
        }))?;
        MADE.with_borrow_mut(|made| made.0.push((self.kubectl.clone(), name.clone())));
        self.kubectl.apply(&serde_json::json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "exeat-upstream-ca", "namespace": name},
            "data": {"ca.pem": self.world.ca},
        }))?;
        Ok(name)
    }

    /// A namespace whose pods are governed.
    pub fn governed(&self, name: &str) -> Result<String> {
        self.namespace(
            name,
            &[
                ("exeat.dev/governed", "true"),
                // The guard needs NET_ADMIN; Exeat's own admission judges everybody else.
                ("pod-security.kubernetes.io/enforce", "privileged"),
            ],
        )
    }
}

/// Asks until there is an answer; says the last refusal when there never is one. Also how long it took.
pub fn eventually<T>(
    what: &str,
    patience: Duration,
    mut ask: impl FnMut() -> Result<T>,
) -> Result<(T, Duration)> {
    let begun = Instant::now();
    loop {
        match ask() {
            Ok(answer) => return Ok((answer, begun.elapsed())),
            Err(error) if begun.elapsed() > patience => {
                return Err(error)
                    .with_context(|| format!("{what}: not within {} s", patience.as_secs()));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}
