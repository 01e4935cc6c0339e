//! The compiled policies: an immutable plan that answers what may be done with a call.
//!
//! Deny is the zero value. A denial of any policy wins over every allow; an allow needs its rule
//! to fit in every part and its `when` to be true; a rule that can't be evaluated allows nothing.
//!
//! Policies in `Shadow` never refuse. Where only such policies apply, what they would have refused
//! passes, marked, without a credential and without leave for special-purpose addresses. Where
//! others apply as well, the others alone decide, and a Shadow denial is only noted.

pub mod explain;

mod canonical;
mod judge;
mod message;
pub(crate) mod rule;
mod table;

use std::sync::Arc;

use crate::body::{BodyNeed, Endpoint, INFERENCE_LIMIT, MCP_LIMIT, Provider, endpoint};
use crate::bundle::BundleId;
use crate::call::{Call, Content, Destination, HttpCall, Protocol, Treatment};
use crate::credential::Credential;
use crate::host::Host;
use crate::path::Path;
use crate::reason::Reason;
use crate::verdict::{Denial, Grant, Mode, UpstreamTls, Verdict};
use judge::Miss;
use rule::{Kind, Rule};
use table::Table;

/// The compiled policies: immutable, cheap to ask.
#[derive(Debug)]
pub struct Plan {
    generation: u64,
    digest: String,
    /// What it was made from, if that was a bundle.
    bundle: Option<BundleId>,
    credentials: Vec<Arc<Credential>>,
    /// The policies that apply, by name.
    policies: Vec<Arc<str>>,
    /// The guardrails that apply, by name.
    guardrails: Vec<Arc<str>>,
    mode: Mode,
    allow: Table,
    /// Denials of guardrails: they hold whatever the policies' mode.
    guard: Table,
    deny: Table,
    /// Denials of Shadow policies and guardrails beside enforced ones.
    shadow_deny: Table,
}

/// What a plan is made of: the rules of the policies that decide, and those that only watch.
#[derive(Debug, Default)]
pub(crate) struct Parts {
    pub(crate) policies: Vec<Arc<str>>,
    pub(crate) guardrails: Vec<Arc<str>>,
    pub(crate) shadow: bool,
    pub(crate) allow: Vec<Rule>,
    pub(crate) guard: Vec<Rule>,
    pub(crate) deny: Vec<Rule>,
    pub(crate) shadow_deny: Vec<Rule>,
}

// === impl Plan ===

impl Plan {
    /// A plan that denies everything.
    #[must_use]
    pub fn deny_all(generation: u64) -> Self {
        Self::new(Parts::default(), generation)
    }

    pub(crate) fn new(parts: Parts, generation: u64) -> Self {
        let allow = Table::new(parts.allow, false);
        let guard = Table::new(parts.guard, true);
        let deny = Table::new(parts.deny, true);
        let shadow_deny = Table::new(parts.shadow_deny, true);
        let mode = if parts.shadow {
            Mode::Shadow
        } else {
            Mode::Enforce
        };
        let mut credentials: Vec<Arc<Credential>> = Vec::new();
        for credential in allow.rules().filter_map(|rule| rule.credential.as_ref()) {
            if !credentials.contains(credential) {
                credentials.push(Arc::clone(credential));
            }
        }
        let mut policies = parts.policies;
        policies.sort();
        let mut guardrails = parts.guardrails;
        guardrails.sort();
        let mut plan = Self {
            generation,
            digest: String::new(),
            bundle: None,
            credentials,
            policies,
            guardrails,
            mode,
            allow,
            guard,
            deny,
            shadow_deny,
        };
        plan.digest = canonical::digest(&plan);
        plan
    }

    pub(crate) fn made_from(mut self, bundle: BundleId) -> Self {
        self.bundle = Some(bundle);
        self
    }

    /// The same under another generation.
    #[must_use]
    pub fn with_generation(mut self, generation: u64) -> Self {
        self.generation = generation;
        self
    }

    /// The bundle that it was made from, if it was one.
    #[must_use]
    pub fn bundle(&self) -> Option<&BundleId> {
        self.bundle.as_ref()
    }

    /// `sha256:…` of the canonical form. Independent of the order of files and rules, of the
    /// generation, and of what it was made from.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Which generation of the policies this is.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The policies that apply, as `namespace/name`, sorted.
    #[must_use]
    pub fn policies(&self) -> &[Arc<str>] {
        &self.policies
    }

    /// The guardrails that apply, by name, sorted.
    #[must_use]
    pub fn guardrails(&self) -> &[Arc<str>] {
        &self.guardrails
    }

    /// Whether denials count: `Shadow` only if every policy that applies is.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Whether DNS may answer this name: some rule could allow a call there.
    #[must_use]
    pub fn resolves(&self, host: &Host) -> bool {
        if host.ip().is_some() {
            return false;
        }
        let denied = |table: &Table| {
            table.on_host(host).any(|rule| {
                rule.is_total() && rule.scope.ports.is_empty() && rule.scope.scheme.is_none()
            })
        };
        if denied(&self.guard) {
            return false;
        }
        if self.mode == Mode::Shadow {
            return true;
        }
        !denied(&self.deny) && self.allow.on_host(host).next().is_some()
    }

    /// How connections to this destination are handled.
    #[must_use]
    pub fn treatment(&self, host: &Host, port: u16) -> Treatment {
        let mut treatment = None;
        for rule in self
            .allow
            .on_host(host)
            .filter(|rule| rule.scope.port_matches(port))
        {
            match treatment_of(rule) {
                Treatment::Intercept => return Treatment::Intercept,
                other => treatment = treatment.or(Some(other)),
            }
        }
        treatment.unwrap_or(Treatment::Intercept)
    }

    /// Only a POST carries an MCP message, and there the gate reads it. A body on another method could
    /// be read by the server all the same, so it must turn out to be empty.
    fn bodiless_need(&self, destination: &Destination, call: &HttpCall) -> BodyNeed {
        let rules = self.allow.candidates(&destination.host, Some(&call.path));
        let mcp = rules.into_iter().any(|rule| {
            judge::on_socket(rule, destination, call.scheme)
                && matches!(&rule.kind, Kind::Mcp(mcp) if mcp.path.as_ref() == Some(&call.path))
        });
        if mcp {
            BodyNeed::Mcp { limit: 0 }
        } else {
            BodyNeed::Unread
        }
    }

    /// What must be read of a body before this call can be decided.
    #[must_use]
    pub fn body_need(&self, destination: &Destination, call: &HttpCall) -> BodyNeed {
        if call.websocket {
            return BodyNeed::Unread;
        }
        if call.method != http::Method::POST {
            return self.bodiless_need(destination, call);
        }
        let mut need = BodyNeed::Unread;
        for rule in self.allow.candidates(&destination.host, Some(&call.path)) {
            if !judge::on_socket(rule, destination, call.scheme) {
                continue;
            }
            match &rule.kind {
                Kind::Mcp(mcp) if mcp.path.as_ref() == Some(&call.path) => {
                    return BodyNeed::Mcp { limit: MCP_LIMIT };
                }
                Kind::Inference(inference) => {
                    if let Some(Endpoint::Model(dialect)) =
                        endpoint(inference.provider, &call.method, &call.path)
                    {
                        need = BodyNeed::Inference {
                            dialect,
                            limit: INFERENCE_LIMIT,
                        };
                    }
                }
                _ => {}
            }
        }
        for table in [&self.guard, &self.deny, &self.shadow_deny] {
            for rule in table.candidates(&destination.host, Some(&call.path)) {
                if let Kind::Mcp(mcp) = &rule.kind
                    && mcp
                        .path
                        .as_ref()
                        .is_some_and(|path| judge::same_loosely(path, &call.path))
                    && judge::on_socket(rule, destination, call.scheme)
                    && need == BodyNeed::Unread
                {
                    return BodyNeed::Mcp { limit: MCP_LIMIT };
                }
            }
        }
        need
    }

    /// Judges one call.
    #[must_use]
    pub fn decide(&self, call: &Call<'_>) -> Verdict {
        // A guardrail that is enforced is, also where the policies only watch.
        if !self.policies.is_empty()
            && let Err(denial) = judge::guarded(&self.guard, call)
        {
            return Verdict::Deny(denial);
        }
        match (self.judge(call), self.mode) {
            (Ok(rule), mode) => {
                let shadowed = judge::denied(&self.shadow_deny, call).err();
                Verdict::Allow(grant(rule, mode, shadowed))
            }
            (Err(denial), Mode::Enforce) => Verdict::Deny(denial),
            (Err(denial), Mode::Shadow) => Verdict::Allow(Grant {
                policy: denial
                    .policy
                    .clone()
                    .or_else(|| self.policies.first().cloned())
                    .unwrap_or_default(),
                rule: denial.rule.clone().unwrap_or_default(),
                mode: Mode::Shadow,
                shadowed: Some(denial),
                credential: None,
                addresses: Arc::default(),
                upstream_tls: UpstreamTls::default(),
            }),
        }
    }

    /// The credentials that this plan may inject.
    #[must_use]
    pub fn credentials(&self) -> &[Arc<Credential>] {
        &self.credentials
    }

    /// The rule that allows a call, or why none does.
    fn judge(&self, call: &Call<'_>) -> Result<&Rule, Denial> {
        if self.policies.is_empty() {
            return Err(Denial::new(
                Reason::NoPolicy,
                format!(
                    "no policy applies here, so nothing is allowed: not {} either",
                    message::subject(call)
                ),
            ));
        }
        if let Protocol::Http(http) = call.protocol {
            if let Content::Invalid(why) = &http.content {
                return Err(Denial::new(
                    Reason::BodyInvalid,
                    format!("{} was refused: {why}", message::subject(call)),
                ));
            }
            judge::methods(http).map_err(|why| {
                Denial::new(
                    Reason::InvalidRequest,
                    format!("{} was refused: {why}", message::subject(call)),
                )
            })?;
        }
        judge::denied(&self.deny, call)?;
        let path = match call.protocol {
            Protocol::Http(http) => Some(&http.path),
            Protocol::Tcp | Protocol::Tls => None,
        };
        let governed = self.is_governed(call);
        let mut nearest: Option<(Miss, &Rule)> = None;
        for rule in self.allow.candidates(&call.destination.host, path) {
            match judge::allowed(rule, call, governed) {
                Ok(()) => return Ok(rule),
                Err(miss) => nearer(&mut nearest, miss, rule),
            }
        }
        // Rules of the host with other paths could not match, but say what would.
        if path.is_some() {
            for rule in self
                .allow
                .on_host(&call.destination.host)
                .take(message::MAX_LOOKED_AT)
            {
                if let Err(miss) = judge::allowed(rule, call, governed) {
                    nearer(&mut nearest, miss, rule);
                }
            }
        }
        Err(message::denial(call, nearest))
    }

    /// Whether the call goes to an endpoint that a rule reads the bodies of. There, only such
    /// rules allow: an `http` rule for the same host would let pass what they are to judge.
    fn is_governed(&self, call: &Call<'_>) -> bool {
        let Protocol::Http(http) = call.protocol else {
            return false;
        };
        self.allow
            .governing(&call.destination.host)
            .filter(|rule| judge::on_socket(rule, call.destination, http.scheme))
            .any(|rule| match &rule.kind {
                Kind::Mcp(mcp) => mcp
                    .path
                    .as_ref()
                    .is_some_and(|path| judge::same_loosely(path, &http.path)),
                Kind::Inference(inference) => is_model_endpoint(inference.provider, &http.path),
                Kind::Http(_) | Kind::Tcp => false,
            })
    }
}

/// Whether a lenient server might take this path for that of a call to a model.
fn is_model_endpoint(provider: Provider, path: &Path) -> bool {
    let loose = Path::parse(&format!("/{}", path.loose_segments().join("/")));
    [Ok(path.clone()), loose].into_iter().flatten().any(|path| {
        matches!(
            endpoint(provider, &http::Method::POST, &path),
            Some(Endpoint::Model(_))
        )
    })
}

fn nearer<'r>(nearest: &mut Option<(Miss, &'r Rule)>, miss: Miss, rule: &'r Rule) {
    if nearest
        .as_ref()
        .is_none_or(|(known, _)| miss.rank() > known.rank())
    {
        *nearest = Some((miss, rule));
    }
}

pub(crate) fn treatment_of(rule: &Rule) -> Treatment {
    match rule.kind {
        Kind::Tcp => Treatment::Tcp,
        _ if rule.scope.passthrough => Treatment::Passthrough,
        _ => Treatment::Intercept,
    }
}

fn grant(rule: &Rule, mode: Mode, shadowed: Option<Denial>) -> Grant {
    Grant {
        policy: Arc::clone(&rule.policy),
        rule: Arc::clone(&rule.name),
        mode,
        shadowed,
        credential: rule.credential.clone(),
        addresses: Arc::clone(&rule.scope.addresses),
        upstream_tls: rule.scope.tls.clone(),
    }
}
