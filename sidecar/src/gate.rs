//! The gate put together: what every connection shares, and the listeners that feed it.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr, TcpListener as StdTcpListener, UdpSocket as StdUdpSocket},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use exeat_policy::Host;
use tokio::{
    net::{TcpListener, TcpStream, UdpSocket},
    sync::{Semaphore, broadcast, watch},
};

use crate::{
    agent::{
        caller::Callers,
        dns, explicit,
        leaf::{Authority, MintError},
        names::VirtualNames,
        terminate::Terminator,
    },
    decide::live::Calls,
    flow,
    ledger::{
        Durability, ExportConfig, ExportError, JournalConfig, JournalError, Ledger, Principal,
        export::ConfigError,
    },
    process::{
        health::{self, Health},
        metrics::Metrics,
        reload::{Labels, Policies, PolicyError, PolicySource},
        selftest::{self, SelfTest},
        status::Status,
        watch::Watch,
        workers::Workers,
    },
    upstream::{
        credential::{CredentialError, Credentials},
        pool::Pool,
        resolve::{Resolver, ResolverSettings},
        tls::{TrustError, UpstreamTls},
    },
};

/// Connections of the agent served at once, when nothing else is said. Each costs two file
/// descriptors and a few tens of KiB at most; one more is refused at once.
pub const DEFAULT_CONNECTION_LIMIT: usize = 4096;

/// The journal's size at most, when nothing else is said: about two million records.
pub const DEFAULT_JOURNAL_BYTES: u64 = 2 * 1024 * 1024 * 1024;

/// How often idle upstream connections are looked through.
const SWEEP_INTERVAL: Duration = Duration::from_secs(10);

/// How long a call that is no longer allowed may take to notice. It takes no time, unless its agent
/// does not read.
const STALLED: Duration = Duration::from_millis(500);

/// How long to wait where `accept` fails for want of file descriptors: long enough not to spin.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(20);

/// What the gate is set up with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where policies come from.
    pub policy: PolicySource,
    /// The labels that policies select by; neither given nor in a file: every policy applies.
    pub labels: Labels,
    /// The journal.
    pub journal: JournalConfig,
    /// A folder with one file for each credential.
    pub credentials_dir: Option<PathBuf>,
    /// Files of single credentials.
    pub credential_files: BTreeMap<String, PathBuf>,
    /// Further roots to verify upstreams with.
    pub upstream_ca: Vec<PathBuf>,
    /// The gate's answers for names, before any resolver's.
    pub resolve: Vec<(Host, IpAddr)>,
    /// Name servers to ask; none: those of `/etc/resolv.conf`.
    pub name_servers: Vec<SocketAddr>,
    /// A hosts file to honour, which the agent must not be able to write.
    pub hosts_file: Option<PathBuf>,
    /// Where records are exported to.
    pub otlp: Option<String>,
    /// Whom the gate serves.
    pub principal: Principal,
    /// Connections of the agent at once.
    pub connection_limit: usize,
    /// The agent is in another network namespace than this process: its sockets can't be looked up.
    pub elsewhere: bool,
    /// Whether the gate tests, now and at intervals, that the confinement is there around it.
    pub self_test: bool,
}

/// Sockets that are bound already, for each of the gate's ports.
#[derive(Debug, Default)]
pub struct Listeners {
    /// Where the kernel redirects connections to.
    pub transparent: Vec<StdTcpListener>,
    /// For clients that are told of a proxy.
    pub explicit: Vec<StdTcpListener>,
    /// DNS over UDP.
    pub dns_udp: Vec<StdUdpSocket>,
    /// DNS over TCP.
    pub dns_tcp: Vec<StdTcpListener>,
    /// Health and metrics.
    pub health: Vec<StdTcpListener>,
}

/// What every connection of one agent shares.
pub struct Pod {
    pub(crate) policies: Arc<Policies>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) names: Arc<VirtualNames>,
    pub(crate) callers: Callers,
    pub(crate) terminator: Terminator,
    pub(crate) credentials: Arc<Credentials>,
    pub(crate) pool: Arc<Pool>,
    pub(crate) calls: Arc<Calls>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) stopping: watch::Sender<bool>,
}

/// A gate that runs.
pub struct Gate {
    pod: Arc<Pod>,
    health: Arc<Health>,
    workers: Workers,
    connections: Arc<Semaphore>,
    connection_limit: usize,
    _watches: Vec<Watch>,
}

/// Why a gate does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The policies can't be read.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The journal can't be opened.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The credentials can't be opened.
    #[error(transparent)]
    Credential(#[from] CredentialError),
    /// There is no trust for upstreams.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The collector's address can't be used.
    #[error(transparent)]
    Collector(#[from] ConfigError),
    /// The export can't be set up.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// The certificate authority can't be made.
    #[error(transparent)]
    Authority(#[from] MintError),
    /// A listener can't be used.
    #[error("taking over a listener: {0}")]
    Listener(#[from] io::Error),
}

// A gate holds secrets and keys: none of it is printable.
impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gate").finish_non_exhaustive()
    }
}

// === impl Settings ===

impl Settings {
    /// Settings with everything that has a default at its default.
    #[must_use]
    pub fn new(policy: PolicySource, journal: PathBuf) -> Self {
        Self {
            policy,
            labels: Labels::default(),
            journal: JournalConfig {
                path: journal,
                durability: Durability::Written,
                max_bytes: DEFAULT_JOURNAL_BYTES,
            },
            credentials_dir: None,
            credential_files: BTreeMap::new(),
            upstream_ca: Vec::new(),
            resolve: Vec::new(),
            name_servers: Vec::new(),
            hosts_file: Some(PathBuf::from("/etc/hosts")),
            otlp: None,
            principal: Principal::default(),
            connection_limit: DEFAULT_CONNECTION_LIMIT,
            elsewhere: false,
            self_test: false,
        }
    }
}

// === impl Listeners ===

impl Listeners {
    /// Tests that nobody, the gate itself included, reaches these but by a redirect.
    fn self_test(&self) -> Arc<SelfTest> {
        let tcp = self.transparent.iter().chain(&self.dns_tcp);
        let tcp: Vec<_> = tcp.filter_map(|socket| socket.local_addr().ok()).collect();
        let udp = self.dns_udp.iter();
        let udp: Vec<_> = udp.filter_map(|socket| socket.local_addr().ok()).collect();
        SelfTest::new(&tcp, &udp)
    }
}

// === impl Gate ===

impl Gate {
    /// Starts a gate on these listeners, all in the caller's runtime. When it returns, every listener
    /// is served.
    pub async fn start(settings: Settings, listeners: Listeners) -> Result<Self, StartError> {
        Self::start_with(settings, listeners, Workers::here()).await
    }

    /// The same, with the connections spread over these workers.
    #[expect(
        clippy::unused_async,
        reason = "it needs the runtime that it spawns on"
    )]
    pub async fn start_with(
        settings: Settings,
        listeners: Listeners,
        workers: Workers,
    ) -> Result<Self, StartError> {
        let namespace = settings.principal.namespace.as_deref();
        let policies = Policies::open(&settings.policy, settings.labels, namespace)?;
        let credentials = Arc::new(Credentials::new(
            settings.credentials_dir,
            settings.credential_files,
        )?);
        let tls = UpstreamTls::new(&settings.upstream_ca)?;
        let authority = Arc::new(Authority::generate()?);
        let status = Status::new(&credentials, settings.principal.uid.as_deref());
        let ledger = Arc::new(Ledger::open(settings.journal, settings.principal)?);
        if let Some(otlp) = settings.otlp {
            let collector = ExportConfig::new(&otlp, None, None)?;
            ledger.export(collector.trusting(&settings.upstream_ca))?;
        }
        let resolver = Arc::new(Resolver::new(ResolverSettings {
            overrides: settings.resolve,
            servers: settings.name_servers,
            hosts_file: settings.hosts_file,
        }));
        let watches = vec![policies.watch(), credentials.watch()];
        let pod = Arc::new(Pod {
            names: Arc::new(VirtualNames::default()),
            callers: if settings.elsewhere {
                Callers::elsewhere()
            } else {
                Callers::here()
            },
            terminator: Terminator::new(authority),
            pool: Arc::new(Pool::new(resolver, tls)),
            calls: Arc::default(),
            metrics: Arc::default(),
            stopping: watch::Sender::new(false),
            policies,
            ledger,
            credentials,
        });
        let self_test = settings.self_test.then(|| listeners.self_test());
        let gate = Self {
            health: Health::new(
                &pod.policies,
                &pod.ledger,
                &pod.metrics,
                self_test.clone(),
                Some(status),
            ),
            pod,
            workers,
            connections: Arc::new(Semaphore::new(settings.connection_limit)),
            connection_limit: settings.connection_limit,
            _watches: watches,
        };
        gate.serve(listeners)?;
        if let Some(test) = self_test {
            gate.test_at_intervals(test);
        }
        Ok(gate)
    }

    /// Tells those who ask for its health that the gate has started.
    pub fn announce(&self) {
        self.health.started();
    }

    /// The certificate of the pod's own authority, PEM.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        self.pod.terminator.authority().pem()
    }

    /// The public key that the journal's heads are signed with, in hexadecimal.
    #[must_use]
    pub fn journal_key(&self) -> String {
        self.pod.ledger.public_key()
    }

    /// Every journal line from now on.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<Arc<str>> {
        self.pod.ledger.subscribe()
    }

    /// The policies in force.
    #[must_use]
    pub fn policies(&self) -> &Arc<Policies> {
        &self.pod.policies
    }

    /// Stops: takes no new connections, lets calls end for `grace`, then ends them, and writes down
    /// all that is pending.
    pub async fn shutdown(self, grace: Duration) {
        self.health.stopping();
        self.pod.stopping.send_replace(true);
        let all = u32::try_from(self.connection_limit).unwrap_or(u32::MAX);
        // Every permit back is every connection gone.
        let drained = tokio::time::timeout(grace, self.connections.acquire_many(all)).await;
        if drained.is_err() {
            tracing::info!(
                calls = self.pod.calls.count(),
                "grace is over; ending what is left"
            );
        }
        self.pod.ledger.shutdown().await;
    }

    fn serve(&self, listeners: Listeners) -> io::Result<()> {
        for listener in listeners.transparent {
            let pod = Arc::clone(&self.pod);
            self.accept(listener, move |tcp| {
                let pod = Arc::clone(&pod);
                async move {
                    pod.metrics.connections_transparent.increment();
                    let _active = pod.metrics.connections_active.enter();
                    drop(flow::transparent(&pod, tcp).await);
                }
            })?;
        }
        for listener in listeners.explicit {
            let pod = Arc::clone(&self.pod);
            self.accept(listener, move |tcp| {
                let pod = Arc::clone(&pod);
                async move {
                    pod.metrics.connections_explicit.increment();
                    let _active = pod.metrics.connections_active.enter();
                    explicit::serve(&pod, tcp).await;
                }
            })?;
        }
        let context = dns::DnsContext::new(&self.pod.policies, &self.pod.names, &self.pod.ledger);
        let context = Arc::new(context.with_metrics(&self.pod.metrics));
        for socket in listeners.dns_udp {
            socket.set_nonblocking(true)?;
            tokio::spawn(dns::serve_udp(
                UdpSocket::from_std(socket)?,
                Arc::clone(&context),
            ));
        }
        for listener in listeners.dns_tcp {
            listener.set_nonblocking(true)?;
            tokio::spawn(dns::serve_tcp(
                TcpListener::from_std(listener)?,
                Arc::clone(&context),
            ));
        }
        for listener in listeners.health {
            listener.set_nonblocking(true)?;
            tokio::spawn(health::serve(
                TcpListener::from_std(listener)?,
                Arc::clone(&self.health),
            ));
        }
        self.sweep();
        self.rejudge();
        Ok(())
    }

    /// Serves each connection of a listener in a task of its own, as many as there are places.
    fn accept<F, T>(&self, listener: StdTcpListener, serve: F) -> io::Result<()>
    where
        F: Fn(TcpStream) -> T + Send + Sync + 'static,
        T: Future<Output = ()> + Send + 'static,
    {
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let places = Arc::clone(&self.connections);
        let workers = self.workers.clone();
        let serve = Arc::new(serve);
        let metrics = Arc::clone(&self.pod.metrics);
        let mut stopping = self.pod.stopping.subscribe();
        tokio::spawn(async move {
            loop {
                let accepted = tokio::select! {
                    accepted = listener.accept() => accepted,
                    () = crate::serve::stopped(&mut stopping) => return,
                };
                let tcp = match accepted {
                    Ok((tcp, _)) => tcp,
                    Err(error) => {
                        tracing::warn!(%error, "accepting a connection failed");
                        tokio::time::sleep(ACCEPT_BACKOFF).await;
                        continue;
                    }
                };
                let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                    metrics.connections_refused.increment();
                    // Reset, so that the caller knows at once.
                    drop(socket2::SockRef::from(&tcp).set_linger(Some(Duration::ZERO)));
                    continue;
                };
                drop(tcp.set_nodelay(true));
                let seat = workers.seat();
                if seat.is_here() {
                    let serving = serve(tcp);
                    tokio::spawn(async move {
                        serving.await;
                        drop((place, seat));
                    });
                    continue;
                }
                let Ok(tcp) = tcp.into_std() else {
                    continue;
                };
                let serve = Arc::clone(&serve);
                let runtime = seat.runtime().clone();
                runtime.spawn(async move {
                    // It listens for its readiness where it is served.
                    if let Ok(tcp) = TcpStream::from_std(tcp) {
                        serve(tcp).await;
                    }
                    drop((place, seat));
                });
            }
        });
        Ok(())
    }

    /// The first at once: a gate that is not confined is never ready.
    fn test_at_intervals(&self, test: Arc<SelfTest>) {
        let mut stopping = self.pod.stopping.subscribe();
        tokio::spawn(async move {
            loop {
                let tested = Arc::clone(&test);
                if let Err(error) = tokio::task::spawn_blocking(move || tested.run()).await {
                    tracing::error!(%error, "the self-test ended early");
                }
                tokio::select! {
                    () = tokio::time::sleep(selftest::INTERVAL) => {}
                    () = crate::serve::stopped(&mut stopping) => return,
                }
            }
        });
    }

    fn sweep(&self) {
        let pod = Arc::clone(&self.pod);
        let mut stopping = self.pod.stopping.subscribe();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = tokio::time::sleep(SWEEP_INTERVAL) => pod.pool.sweep(),
                    () = crate::serve::stopped(&mut stopping) => return,
                }
            }
        });
    }

    /// Ends the calls that a new generation does not allow, as soon as it is in force.
    fn rejudge(&self) {
        let pod = Arc::clone(&self.pod);
        let mut changed = self.pod.policies.changed();
        tokio::spawn(async move {
            while changed.changed().await.is_ok() {
                let plan = pod.policies.current();
                let ended = pod.calls.rejudge(&plan);
                if ended == 0 {
                    continue;
                }
                tracing::info!(
                    generation = plan.generation(),
                    ended,
                    "calls no longer allowed"
                );
                let calls = Arc::clone(&pod.calls);
                tokio::spawn(async move {
                    tokio::time::sleep(STALLED).await;
                    calls.cut_stalled();
                });
            }
        });
    }
}
