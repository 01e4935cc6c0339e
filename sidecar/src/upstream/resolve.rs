//! From a name to addresses, by the gate's own asking.
//!
//! What the agent's DNS was told never matters: the gate asks its own servers, for the full name
//! only (no search domains: a name has one meaning), and whoever dials judges every answer with
//! [`super::address::vet`]. Overrides come first, then a hosts file if there is one, then DNS.
//! In doubt there is no address: a name that can't be resolved is not dialled.
//!
//! The servers are read once, at the start: in a pod, `resolv.conf` is shared with the agent.

mod hosts;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use exeat_policy::Host;
use hickory_proto::rr::{Name, RecordType};
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use parking_lot::Mutex;
use tokio::sync::{OnceCell, Semaphore};
use tokio::time::{Instant, timeout};

use hosts::HostsFile;

/// One server gets this long to answer one question.
const ATTEMPT: Duration = Duration::from_secs(2);

/// Beyond this the call fails: a client that waits has given up by then.
const DEADLINE: Duration = Duration::from_secs(6);

/// Once one family has answered, the other gets this long (the resolution delay of RFC 8305).
const OTHER_FAMILY: Duration = Duration::from_millis(50);

/// An answer is used for at least this long, also with a TTL of zero: calls come in bursts.
const TTL_MIN: Duration = Duration::from_secs(1);

/// An answer is asked again after this long, whatever its TTL: addresses move when things break.
const TTL_MAX: Duration = Duration::from_mins(1);

/// An answer that lacks a family because that was slow is soon asked again.
const TTL_PARTIAL: Duration = Duration::from_secs(5);

/// "There is no such name" is believed for this long.
const TTL_NEGATIVE: Duration = Duration::from_secs(5);

/// A failure of the servers is not retried for this long, so that a burst asks once.
const TTL_FAILED: Duration = Duration::from_secs(1);

/// Names remembered at once; a wildcard rule lets the agent choose names.
const MAX_NAMES: usize = 4096;

/// Questions under way at once.
const MAX_QUESTIONS: usize = 64;

/// Addresses kept of one answer.
const MAX_ADDRESSES: usize = 32;

/// Where names are looked up.
#[derive(Clone, Debug, Default)]
pub struct ResolverSettings {
    /// Answers that come before any other; several for one host are kept in order.
    pub overrides: Vec<(Host, IpAddr)>,
    /// The servers to ask; none: those of `/etc/resolv.conf`.
    pub servers: Vec<SocketAddr>,
    /// A hosts file to honour. It must not be one that the agent can write.
    pub hosts_file: Option<PathBuf>,
}

/// The gate's own resolver.
pub struct Resolver {
    overrides: HashMap<Host, Arc<[IpAddr]>>,
    hosts: Option<HostsFile>,
    servers: Option<TokioResolver>,
    known: Mutex<HashMap<Host, Known>>,
    asking: Semaphore,
}

/// Why a name has no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// The servers say so.
    #[error("the name `{0}` does not exist, or has no address")]
    NoSuchName(Host),
    /// There is nobody to ask.
    #[error(
        "no name server is configured, so `{0}` cannot be resolved; is `/etc/resolv.conf` empty?"
    )]
    NoServers(Host),
    /// They did not answer.
    #[error("the name servers did not answer for `{0}` in time")]
    Timeout(Host),
    /// They answered with an error.
    #[error("the name servers failed for `{host}`: {cause}")]
    Failed {
        /// Which name.
        host: Host,
        /// What they said.
        cause: String,
    },
    /// Too many names at once.
    #[error("too many names are being resolved at once; `{0}` was not tried")]
    Busy(Host),
}

type Answer = Result<Arc<[IpAddr]>, ResolveError>;

/// An answer, or one being waited for: whoever comes while it is asked waits for the same.
struct Known {
    answer: Arc<OnceCell<(Answer, Instant)>>,
    since: Instant,
}

// === impl Resolver ===

impl Resolver {
    /// A resolver as set up. That there are no servers is told when one is needed.
    #[must_use]
    pub fn new(settings: ResolverSettings) -> Self {
        let mut overrides: HashMap<Host, Vec<IpAddr>> = HashMap::new();
        for (host, address) in settings.overrides {
            overrides.entry(host).or_default().push(address);
        }
        Self {
            overrides: overrides
                .into_iter()
                .map(|(host, all)| (host, all.into()))
                .collect(),
            hosts: settings.hosts_file.map(HostsFile::new),
            servers: servers(&settings.servers),
            known: Mutex::new(HashMap::new()),
            asking: Semaphore::new(MAX_QUESTIONS),
        }
    }

    /// The addresses of `host`, IPv4 before IPv6; an address is its own.
    pub async fn resolve(&self, host: &Host) -> Answer {
        if let Some(ip) = host.ip() {
            return Ok(Arc::new([ip]));
        }
        if let Some(addresses) = self.overrides.get(host) {
            return Ok(Arc::clone(addresses));
        }
        if let Some(addresses) = self.hosts.as_ref().and_then(|hosts| hosts.get(host)) {
            return Ok(addresses);
        }
        let Some(answer) = self.remembered(host) else {
            return Err(ResolveError::Busy(host.clone()));
        };
        // If the one who asks goes away, the next who waits asks in its place.
        let (answer, _) = answer.get_or_init(|| self.ask(host)).await;
        answer.clone()
    }

    /// The cell with the answer for `host`, made empty if there is none that is still good.
    fn remembered(&self, host: &Host) -> Option<Arc<OnceCell<(Answer, Instant)>>> {
        let now = Instant::now();
        let mut known = self.known.lock();
        if let Some(one) = known.get(host)
            && one.is_good(now)
        {
            return Some(Arc::clone(&one.answer));
        }
        if known.len() >= MAX_NAMES && !known.contains_key(host) {
            known.retain(|_, one| one.is_good(now));
            if known.len() >= MAX_NAMES {
                // The oldest answer goes; an unanswered question stays, someone waits for it.
                let oldest = known
                    .iter()
                    .filter(|(_, one)| one.answer.initialized())
                    .min_by_key(|(_, one)| one.since)
                    .map(|(host, _)| host.clone())?;
                known.remove(&oldest);
            }
        }
        let answer = Arc::new(OnceCell::new());
        let fresh = Known {
            answer: Arc::clone(&answer),
            since: now,
        };
        known.insert(host.clone(), fresh);
        Some(answer)
    }

    /// Asks the servers; the answer comes with the instant until which it is good.
    async fn ask(&self, host: &Host) -> (Answer, Instant) {
        let asked = timeout(DEADLINE, self.ask_servers(host)).await;
        let asked = asked.unwrap_or_else(|_| Err(ResolveError::Timeout(host.clone())));
        let (answer, ttl) = match asked {
            Ok((addresses, ttl)) => (Ok(addresses), ttl.clamp(TTL_MIN, TTL_MAX)),
            Err(error @ ResolveError::NoSuchName(_)) => (Err(error), TTL_NEGATIVE),
            Err(error) => (Err(error), TTL_FAILED),
        };
        (answer, Instant::now() + ttl)
    }

    async fn ask_servers(&self, host: &Host) -> Result<(Arc<[IpAddr]>, Duration), ResolveError> {
        let no_name = || ResolveError::NoSuchName(host.clone());
        let servers = self
            .servers
            .as_ref()
            .ok_or_else(|| ResolveError::NoServers(host.clone()))?;
        // With its root label the name is complete, and nothing is ever appended to it.
        let mut name = Name::from_ascii(host.as_str()).map_err(|_| no_name())?;
        name.set_fqdn(true);
        let _asking = self
            .asking
            .acquire()
            .await
            .map_err(|_| ResolveError::Busy(host.clone()))?;

        let v4 = records(servers, name.clone(), RecordType::A);
        let v6 = records(servers, name, RecordType::AAAA);
        tokio::pin!(v4, v6);
        let (v4, v6) = tokio::select! {
            v4 = &mut v4 => {
                let v6 = patient(v4.is_ok(), v6).await;
                (Some(v4), v6)
            }
            v6 = &mut v6 => {
                let v4 = patient(v6.is_ok(), v4).await;
                (v4, Some(v6))
            }
        };
        let mut addresses = Vec::new();
        let mut ttl = TTL_MAX;
        let mut failed = None;
        for family in [v4, v6] {
            match family {
                Some(Ok((mut some, good_for))) => {
                    addresses.append(&mut some);
                    ttl = ttl.min(good_for);
                }
                Some(Err(error)) if error.is_no_records_found() => {}
                Some(Err(error)) => {
                    failed = Some(error);
                    ttl = ttl.min(TTL_PARTIAL);
                }
                None => ttl = ttl.min(TTL_PARTIAL),
            }
        }
        addresses.truncate(MAX_ADDRESSES);
        match failed {
            _ if !addresses.is_empty() => Ok((addresses.into(), ttl)),
            None => Err(no_name()),
            Some(NetError::Timeout) => Err(ResolveError::Timeout(host.clone())),
            Some(error) => Err(ResolveError::Failed {
                host: host.clone(),
                cause: error.to_string(),
            }),
        }
    }
}

impl Known {
    fn is_good(&self, now: Instant) -> bool {
        self.answer.get().is_none_or(|(_, until)| now < *until)
    }
}

/// The addresses of one family, with how long they are good.
async fn records(
    servers: &TokioResolver,
    name: Name,
    kind: RecordType,
) -> Result<(Vec<IpAddr>, Duration), NetError> {
    let lookup = servers.lookup(name, kind).await?;
    let mut ttl = u32::MAX;
    let mut addresses = Vec::new();
    for record in lookup.answers() {
        // Aliases on the way count too: the shortest of the chain is what the whole is good for.
        ttl = ttl.min(record.ttl);
        if record.record_type() == kind
            && let Some(address) = record.data.ip_addr()
        {
            addresses.push(address);
        }
    }
    Ok((addresses, Duration::from_secs(ttl.into())))
}

/// Waits for the other family: briefly if there is an answer already, else for as long as it takes.
async fn patient<F: Future>(answered: bool, other: F) -> Option<F::Output> {
    if answered {
        timeout(OTHER_FAMILY, other).await.ok()
    } else {
        Some(other.await)
    }
}

fn servers(given: &[SocketAddr]) -> Option<TokioResolver> {
    let servers = if given.is_empty() {
        from_system()?
    } else {
        given.iter().map(server).collect()
    };
    let mut options = ResolverOpts::default();
    options.timeout = ATTEMPT;
    options.attempts = 1;
    options.cache_size = 0;
    options.use_hosts_file = ResolveHosts::Never;
    options.edns0 = true;
    let config = ResolverConfig::from_parts(None, Vec::new(), servers);
    let built = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        .with_options(options)
        .build();
    match built {
        Ok(resolver) => Some(resolver),
        Err(error) => {
            tracing::warn!(%error, "the name servers cannot be used; only overrides resolve");
            None
        }
    }
}

fn server(address: &SocketAddr) -> NameServerConfig {
    let mut udp = ConnectionConfig::udp();
    udp.port = address.port();
    let mut tcp = ConnectionConfig::tcp();
    tcp.port = address.port();
    NameServerConfig::new(address.ip(), true, vec![udp, tcp])
}

fn from_system() -> Option<Vec<NameServerConfig>> {
    match hickory_resolver::system_conf::read_system_conf() {
        Ok((config, _)) if !config.name_servers.is_empty() => Some(config.name_servers),
        Ok(_) => {
            tracing::warn!("`/etc/resolv.conf` names no server; only overrides resolve");
            None
        }
        Err(error) => {
            tracing::warn!(%error, "`/etc/resolv.conf` cannot be used; only overrides resolve");
            None
        }
    }
}

#[cfg(test)]
mod tests;
