//! The policy asked: facts in, a permit or a refusal out.
//!
//! A [`Permit`] is the only thing that the ledger's receipt can be turned into a call with, and only
//! this file makes one. Each carries the decision as it is to be recorded.

use std::{borrow::Cow, sync::Arc};

use exeat_policy::{
    Content, Denial, Destination, Grant, HttpCall, McpBody, Mode, Plan, Reason, Scheme, Verdict,
};
use http::header;

use super::live::{Facts, FactsProtocol};
use crate::{
    agent::{identify::Identity, trace::TraceContext},
    ledger::{self, Decision, DecisionId},
};

/// What allowed calls have as their reason.
const ALLOWED: &str = "allowed_by_rule";

/// A call that the policy allows, and that is not recorded yet.
#[derive(Debug)]
pub struct Permit {
    grant: Grant,
    decision: Decision,
    facts: Arc<Facts>,
    plan: Arc<Plan>,
}

/// A call that is refused, with the decision that says so.
#[derive(Debug)]
pub struct Refusal {
    /// Why.
    pub denial: Denial,
    /// As it is to be recorded.
    pub decision: Box<Decision>,
}

/// Judges a call by one plan.
pub fn judge(
    plan: Arc<Plan>,
    identity: &Identity,
    facts: Arc<Facts>,
    protocol: &'static str,
) -> Result<Permit, Refusal> {
    let mut decision = decision(&plan, identity, Some(&facts.destination), protocol);
    describe(&mut decision, identity, &facts);
    match plan.decide(&facts.call()) {
        Verdict::Allow(grant) => {
            decision.allow = true;
            decision.reason = Cow::Borrowed(ALLOWED);
            decision.mode = mode(grant.mode);
            decision.policy = Some(Arc::clone(&grant.policy));
            decision.rule = Some(Arc::clone(&grant.rule)).filter(|rule| !rule.is_empty());
            decision.credential = grant
                .credential
                .as_ref()
                .map(|credential| Arc::clone(&credential.name));
            decision.shadowed = grant.shadowed.as_ref().map(|denial| ledger::Shadowed {
                reason: denial.reason.code().into(),
                policy: denial.policy.clone(),
                rule: denial.rule.clone(),
            });
            Ok(Permit {
                grant,
                decision,
                facts,
                plan,
            })
        }
        Verdict::Deny(denial) => Err(Refusal::new(denial, decision)),
    }
}

/// A refusal for what the policy was never asked: no identity, no protocol, no room.
#[must_use]
pub fn refuse(
    plan: &Plan,
    identity: &Identity,
    destination: Option<&Destination>,
    protocol: &'static str,
    denial: Denial,
) -> Refusal {
    let established = identity.destination();
    let destination = destination.or(established.as_ref());
    let mut decision = decision(plan, identity, destination, protocol);
    decision.tcp = identity.sni.as_ref().map(|name| ledger::Tcp {
        opaque: false,
        server_name: Some(name.to_string()),
    });
    Refusal::new(denial, decision)
}

// === impl Permit ===

impl Permit {
    /// The decision's name.
    #[must_use]
    pub fn id(&self) -> DecisionId {
        self.decision.id
    }

    /// The decision, as it is to be recorded.
    #[must_use]
    pub fn decision(&self) -> &Decision {
        &self.decision
    }

    /// What was granted.
    #[must_use]
    pub fn grant(&self) -> &Grant {
        &self.grant
    }

    /// Where to.
    #[must_use]
    pub fn destination(&self) -> &Destination {
        &self.facts.destination
    }

    /// What was judged.
    #[must_use]
    pub fn facts(&self) -> &Arc<Facts> {
        &self.facts
    }

    /// What it was judged by.
    #[must_use]
    pub fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }
}

// === impl Refusal ===

impl Refusal {
    fn new(denial: Denial, mut decision: Decision) -> Self {
        decision.allow = false;
        decision.reason = Cow::Borrowed(denial.reason.code());
        decision.message = Some(denial.message.clone());
        decision.policy.clone_from(&denial.policy);
        decision.rule.clone_from(&denial.rule);
        Self {
            denial,
            decision: Box::new(decision),
        }
    }
}

fn decision(
    plan: &Plan,
    identity: &Identity,
    destination: Option<&Destination>,
    protocol: &'static str,
) -> Decision {
    let address = identity.origin.address;
    let destination = ledger::Destination {
        host: destination.map(|destination| destination.host.to_string()),
        port: destination.map_or(identity.origin.port, |destination| destination.port),
        address: address.map(|address| address.ip()),
    };
    let mut decision = Decision::denied(protocol, destination, Reason::NoRule.code());
    decision.caller_uid = identity.origin.caller;
    decision.judged_by(plan);
    decision
}

fn describe(decision: &mut Decision, identity: &Identity, facts: &Facts) {
    match &facts.protocol {
        FactsProtocol::Http(http) => describe_http(decision, http),
        FactsProtocol::Tcp | FactsProtocol::Tls => {
            decision.tcp = Some(ledger::Tcp {
                opaque: true,
                server_name: identity.sni.as_ref().map(ToString::to_string),
            });
        }
    }
}

fn describe_http(decision: &mut Decision, http: &HttpCall) {
    let text = |name| {
        let value: Option<&http::HeaderValue> = http.headers.get(name);
        value
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned)
    };
    decision.http = Some(ledger::Http {
        method: http.method.to_string(),
        scheme: match http.scheme {
            Scheme::Http => "http",
            Scheme::Https => "https",
        },
        path: http.path.as_str().to_owned(),
        query: http.query.clone(),
        user_agent: text(header::USER_AGENT),
    });
    if let Some(trace) = TraceContext::of(&http.headers) {
        decision.trace_id = Some(trace.trace_id);
        decision.span_id = Some(trace.parent_id);
    }
    match &http.content {
        Content::Mcp(mcp) => {
            let calls = mcp.messages.iter().map(|message| match &message.body {
                McpBody::Tool { name, .. } => ledger::McpCall {
                    method: "tools/call".to_owned(),
                    name: Some(name.clone()),
                },
                McpBody::Method { name } => ledger::McpCall {
                    method: name.clone(),
                    name: None,
                },
                McpBody::Response => ledger::McpCall {
                    method: "(response)".to_owned(),
                    name: None,
                },
            });
            decision.mcp = Some(ledger::Mcp {
                calls: calls.collect(),
            });
        }
        Content::Inference(inference) => {
            decision.inference = Some(ledger::Inference {
                dialect: inference.dialect.as_str().into(),
                model: Some(inference.model.clone()),
                stream: inference.stream,
                max_output_tokens: None,
            });
        }
        Content::Unread | Content::Invalid(_) => {}
    }
}

fn mode(mode: Mode) -> ledger::Mode {
    match mode {
        Mode::Enforce => ledger::Mode::Enforce,
        Mode::Shadow => ledger::Mode::Shadow,
    }
}
