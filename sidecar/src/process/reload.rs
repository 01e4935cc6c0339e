//! The policy in force, kept up to date.
//!
//! [`Policies`] holds the one plan that decides, swapped whole: a request takes it once and is
//! judged by it from start to end. The files are read through folders held since the start, at every
//! change and every half minute, compiled, and put in force under the next generation. In doubt the
//! narrower stands: a policy that does not compile keeps the last good one and says so, none at all
//! (deleted, empty, never there) denies everything. A bundle of another namespace, one from before the
//! one in force, or another one under the same generation, is not taken either.

mod labels;
mod source;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use exeat_policy::{Bundle, BundleId, Plan};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use super::metrics::Counter;
use super::watch::{Watch, watch};
use source::{Content, Held, Written};

pub use source::SourceError;

/// Some editors move a file away before they write the new one; a policy that is gone for less than
/// this was being saved, not deleted.
const SAVE: Duration = Duration::from_millis(200);

/// Where policies come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PolicySource {
    /// These files, all of them: if one is gone, so are its denials, and everything is denied.
    Files(Vec<PathBuf>),
    /// The `.yaml`, `.yml` and `.json` files of a folder, as kubelet mounts a `ConfigMap`.
    Directory(PathBuf),
}

/// The labels that policies select by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels {
    /// Given once. Neither these nor a file: every policy applies.
    pub given: Option<BTreeMap<String, String>>,
    /// A downward-API file, read again when it changes; it wins over those given.
    pub file: Option<PathBuf>,
}

/// The plan in force.
pub struct Policies {
    current: ArcSwap<Plan>,
    generation: tokio::sync::watch::Sender<u64>,
    status: tokio::sync::watch::Sender<PolicyStatus>,
    held: Option<Held>,
    /// The pod's own, where it is known: bundles of others are refused.
    namespace: Option<String>,
    /// How often what the files said was not taken.
    refused: Counter,
    /// What the last look saw; also held so that two looks never race.
    seen: Mutex<Seen>,
}

/// What is in force, and what stands against anything newer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyStatus {
    /// The generation that decides now.
    pub generation: u64,
    /// Its digest.
    pub digest: String,
    /// How many files it is made of.
    pub sources: usize,
    /// The operator's bundle that it was compiled from, if it was.
    pub bundle: Option<BundleId>,
    /// Whether that is what the files say.
    pub state: PolicyState,
    /// Since when.
    pub since: SystemTime,
}

/// How the plan in force relates to the files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PolicyState {
    /// It is what they say.
    Enforcing,
    /// They can't be understood or read; the last good one stays in force.
    KeptLastGood(String),
    /// There is none: everything is denied.
    DenyAll(String),
}

/// Why there is no policy to start with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// A file or folder can't be used.
    #[error("the policy cannot be read: {0}")]
    Source(#[from] SourceError),
    /// The policy does not compile.
    #[error("the policy does not compile:\n{0}")]
    Invalid(String),
}

#[derive(Default)]
struct Seen {
    fingerprint: Option<[u8; 32]>,
    last_generation: u64,
}

// === impl Policies ===

impl Policies {
    /// Holds on to the files and puts what they say in force.
    ///
    /// Named files must be there and compile, since someone waits to read why not. A folder may be
    /// empty or wrong, since a pod starts before its policies: it is denied everything meanwhile.
    /// `namespace` is the pod's own; a bundle of another is refused.
    pub fn open(
        source: &PolicySource,
        labels: Labels,
        namespace: Option<&str>,
    ) -> Result<Arc<Self>, PolicyError> {
        let held = Held::open(source, labels)?;
        let mut policies = Self::starting_with(Plan::deny_all(0), Some(held));
        policies.namespace = namespace.map(str::to_owned);
        let policies = Arc::new(policies);
        policies.look();
        if let PolicySource::Files(_) = source {
            match policies.status().state {
                PolicyState::Enforcing => {}
                PolicyState::KeptLastGood(problem) => return Err(PolicyError::Invalid(problem)),
                PolicyState::DenyAll(problem) => {
                    return Err(SourceError::NoPolicy(problem).into());
                }
            }
        }
        Ok(policies)
    }

    /// Always this plan, with no files behind it.
    #[must_use]
    pub fn fixed(plan: Plan) -> Arc<Self> {
        Arc::new(Self::starting_with(plan, None))
    }

    /// The plan that decides now. A request takes it once.
    #[must_use]
    pub fn current(&self) -> Arc<Plan> {
        self.current.load_full()
    }

    /// Tells each new generation.
    #[must_use]
    pub fn changed(&self) -> tokio::sync::watch::Receiver<u64> {
        self.generation.subscribe()
    }

    /// What is in force and why.
    #[must_use]
    pub fn status(&self) -> PolicyStatus {
        self.status.borrow().clone()
    }

    /// How often what the files said was not taken, and the last good policy kept.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.get()
    }

    /// Tells each new status, also when the plan stays the same.
    #[must_use]
    pub fn statuses(&self) -> tokio::sync::watch::Receiver<PolicyStatus> {
        self.status.subscribe()
    }

    /// Keeps the plan up to date for as long as the result is kept.
    #[must_use]
    pub fn watch(self: &Arc<Self>) -> Watch {
        let folders = self.held.as_ref().map(Held::folders).unwrap_or_default();
        let policies = Arc::clone(self);
        watch("policies", &folders, move || policies.look())
    }

    /// Reads the files, and puts what they say in force if it is new and good.
    pub fn look(&self) {
        let Some(held) = &self.held else { return };
        let mut seen = self.seen.lock();
        let mut content = held.read();
        if matches!(content, Ok(None)) && seen.last_generation > 0 {
            std::thread::sleep(SAVE);
            content = held.read();
        }
        let fingerprint = fingerprint(&content);
        if seen.fingerprint == Some(fingerprint) {
            return;
        }
        seen.fingerprint = Some(fingerprint);
        let next = seen.last_generation + 1;
        match content {
            Ok(Some(content)) => {
                if let Written::Bundle(bundle) = &content.policies
                    && let Some(problem) = self.refusal(bundle)
                {
                    self.keep(&mut seen, problem);
                    return;
                }
                match content.policies.compile(content.labels.as_ref(), next) {
                    Ok(plan) if self.is_in_force(&plan, next) => self.renew(plan),
                    Ok(plan) => {
                        seen.last_generation = next;
                        let count = content.policies.count();
                        self.enforce(plan, count, PolicyState::Enforcing);
                    }
                    Err(problem) => self.keep(&mut seen, problem.to_string()),
                }
            }
            Ok(None) => {
                seen.last_generation = next;
                let state = PolicyState::DenyAll(held.gone());
                self.enforce(Plan::deny_all(next), 0, state);
            }
            Err(problem) => self.keep(&mut seen, problem.to_string()),
        }
    }

    fn starting_with(plan: Plan, held: Option<Held>) -> Self {
        let status = PolicyStatus {
            generation: plan.generation(),
            digest: plan.digest().to_owned(),
            sources: 0,
            bundle: None,
            state: match held {
                None => PolicyState::Enforcing,
                Some(_) => PolicyState::DenyAll("no policy has been read yet".to_owned()),
            },
            since: SystemTime::now(),
        };
        let seen = Seen {
            fingerprint: None,
            last_generation: plan.generation(),
        };
        Self {
            generation: tokio::sync::watch::Sender::new(plan.generation()),
            current: ArcSwap::from_pointee(plan),
            status: tokio::sync::watch::Sender::new(status),
            held,
            namespace: None,
            refused: Counter::default(),
            seen: Mutex::new(seen),
        }
    }

    /// Does the plan say what the one in force says? Then requests go on under the same generation.
    fn is_in_force(&self, plan: &Plan, next: u64) -> bool {
        let denying = matches!(self.status.borrow().state, PolicyState::DenyAll(_));
        next > 1 && !denying && self.current.load().digest() == plan.digest()
    }

    /// Why a bundle is not to be taken, whatever it says.
    fn refusal(&self, bundle: &Bundle) -> Option<String> {
        if let Some(own) = &self.namespace
            && bundle.namespace() != own
        {
            return Some(format!(
                "the bundle is of the namespace `{}`, and this pod is in `{own}`",
                bundle.namespace()
            ));
        }
        let status = self.status.borrow();
        let (new, old) = (bundle.id(), status.bundle.as_ref()?);
        if new.generation < old.generation {
            // Someone, or a slow node, would take policies back.
            return Some(format!(
                "the bundle is of generation {}, older than {}, which is in force",
                new.generation, old.generation
            ));
        }
        // Two who write, or one who forgot what it wrote: which of them counts, nobody said.
        (new.generation == old.generation && new.digest != old.digest).then(|| {
            format!(
                "the bundle is {} under generation {}, under which {} is in force",
                new.digest, new.generation, old.digest
            )
        })
    }

    /// The policies are what they were, and perhaps of a later bundle: records name that one from now
    /// on, and nothing is judged again.
    fn renew(&self, plan: Plan) {
        let plan = plan.with_generation(self.current.load().generation());
        let bundle = plan.bundle().cloned();
        self.current.store(Arc::new(plan));
        self.status.send_modify(|status| status.bundle = bundle);
        self.stands(PolicyState::Enforcing);
    }

    fn enforce(&self, plan: Plan, sources: usize, state: PolicyState) {
        let status = PolicyStatus {
            generation: plan.generation(),
            digest: plan.digest().to_owned(),
            sources,
            bundle: plan.bundle().cloned(),
            state,
            since: SystemTime::now(),
        };
        let generation = status.generation;
        if let PolicyState::DenyAll(problem) = &status.state {
            tracing::warn!(generation, %problem, "no policy: everything is denied");
        } else {
            let bundle = status.bundle.as_ref().map(|bundle| bundle.generation);
            tracing::info!(generation, bundle, digest = %status.digest, "policy in force");
        }
        self.current.store(Arc::new(plan));
        self.status.send_replace(status);
        // Last: who is told of a generation finds it in force.
        self.generation.send_replace(generation);
    }

    /// The files can't be used: the last good plan stays, and before there was one, nothing goes.
    fn keep(&self, seen: &mut Seen, problem: String) {
        if seen.last_generation == 0 {
            seen.last_generation = 1;
            self.enforce(
                Plan::deny_all(1),
                0,
                PolicyState::KeptLastGood(problem.clone()),
            );
        }
        self.refused.increment();
        tracing::warn!(
            generation = self.current.load().generation(),
            %problem,
            "the policy cannot be used; the last good one stays in force"
        );
        self.stands(PolicyState::KeptLastGood(problem));
    }

    fn stands(&self, state: PolicyState) {
        self.status.send_modify(|status| {
            if status.state != state {
                status.state = state;
                status.since = SystemTime::now();
            }
        });
    }
}

/// Tells one state of the files from another.
fn fingerprint(content: &Result<Option<Content>, SourceError>) -> [u8; 32] {
    let mut hash = Sha256::new();
    let mut add = |text: &str| {
        hash.update((text.len() as u64).to_be_bytes());
        hash.update(text);
    };
    match content {
        Err(problem) => add(&problem.to_string()),
        Ok(None) => add("none"),
        Ok(Some(content)) => {
            match &content.policies {
                Written::Sources(sources) => {
                    for source in sources {
                        add(&source.name);
                        add(&source.text);
                    }
                }
                Written::Bundle(bundle) => {
                    add(&bundle.generation().to_string());
                    add(bundle.digest());
                }
            }
            for (key, value) in content.labels.iter().flatten() {
                add(key);
                add(value);
            }
        }
    }
    hash.finalize().into()
}

impl fmt::Display for PolicyStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let generation = self.generation;
        match &self.state {
            PolicyState::Enforcing => write!(f, "generation {generation} is in force"),
            PolicyState::KeptLastGood(problem) => {
                write!(f, "generation {generation} stays in force: {problem}")
            }
            PolicyState::DenyAll(problem) => write!(f, "everything is denied: {problem}"),
        }
    }
}

#[cfg(test)]
mod tests;
