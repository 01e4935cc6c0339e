//! A namespace: whether it is governed, what holds in it, and the pods that slipped by. Pure.

use exeat_inject::is_injected;
use exeat_inject::names::{GOVERNED_LABEL, POLICY_CONFIG_MAP};
use serde_json::Value;

use super::finding::{Finding, Findings, Look, Scope};
use super::pod::{self, alive, name};
use super::policies;
use super::read::Read;

/// Namespaces that the webhooks leave out, so that the cluster can start.
const LEFT_OUT: [&str; 2] = ["exeat-system", "kube-system"];
/// Where it says `warn`, the operator lets powerful accounts by.
const ACCOUNT_ACCESS: &str = "exeat.dev/service-account-access";
/// Pods that are named; the rest are counted.
const MAX_NAMED: usize = 10;

/// What was read of it.
#[derive(Debug)]
pub(super) struct Space {
    pub(super) name: String,
    pub(super) namespace: Read,
    pub(super) config_map: Read,
    pub(super) policies: Read,
    pub(super) pods: Read,
    /// A plain pod after a dry run; `None` where there was no sense in one.
    pub(super) probe: Option<Read>,
    /// Accounts of its pods, and what each may do.
    pub(super) powers: Vec<(String, Read)>,
    /// When the mutating webhook was made.
    pub(super) installed: Option<String>,
}

// === impl Space ===

impl Space {
    /// The label, as far as it could be read.
    pub(super) fn governed(&self) -> Option<bool> {
        match &self.namespace {
            Read::Found(namespace) => Some(
                namespace["metadata"]["labels"][GOVERNED_LABEL] == "true"
                    && !LEFT_OUT.contains(&self.name.as_str()),
            ),
            Read::Absent => Some(false),
            _ => None,
        }
    }

    /// The pod that a dry run came to, if it has a gate.
    pub(super) fn injected(&self) -> Option<&Value> {
        match &self.probe {
            Some(Read::Found(pod)) if is_injected(pod) => Some(pod),
            _ => None,
        }
    }
}

/// What there is to say about it; with `pods`, about each of its pods too.
pub(super) fn judge(space: &Space, pods: bool) -> Vec<Finding> {
    let mut findings = Findings::of(Scope::Namespace);
    label(space, &mut findings);
    if matches!(space.namespace, Read::Absent) {
        return findings.done();
    }
    probe(space, &mut findings);
    let list = match findings.read_aside("policies", "its ToolPolicies", &space.policies) {
        Look::There(list) => list.as_array().cloned().unwrap_or_default(),
        _ => Vec::new(),
    };
    let count = matches!(space.policies, Read::Found(_)).then_some(list.len());
    policies::bundle(&space.config_map, count, &mut findings);
    if list.is_empty() && matches!(space.policies, Read::Found(_)) {
        findings.warning(
            "policies",
            "there is none: its pods may call nothing",
            "nobody has written a ToolPolicy here",
            "docs/POLICY.md has a first one",
        );
    }
    if pods {
        for policy in &list {
            policies::status(policy, &mut findings);
        }
        self::pods(space, &mut findings);
    }
    accounts(space, &mut findings);
    findings.done()
}

fn label(space: &Space, findings: &mut Findings) {
    const SUBJECT: &str = "label";
    let name = &space.name;
    let found = match findings.read(SUBJECT, &format!("the namespace {name}"), &space.namespace) {
        Look::There(found) => found,
        Look::Absent => {
            findings.problem(
                SUBJECT,
                format!("there is no namespace {name}"),
                "its name is mistyped, or it is in another cluster",
                "kubectl get namespaces; kubectl config get-contexts",
            );
            return;
        }
        Look::Unread => return,
    };
    if LEFT_OUT.contains(&name.as_str()) {
        findings.problem(
            SUBJECT,
            format!("{name} is never governed"),
            "the webhooks leave it out, so that the cluster and the operator can start",
            "run agents in a namespace of their own",
        );
        return;
    }
    match found["metadata"]["labels"][GOVERNED_LABEL].as_str() {
        Some("true") => findings.ok(SUBJECT, format!("{GOVERNED_LABEL}=true")),
        other => findings.problem(
            SUBJECT,
            format!("{name} is not governed"),
            match other {
                Some(value) => format!("its label {GOVERNED_LABEL} is `{value}`, not `true`"),
                None => format!("it has no label {GOVERNED_LABEL}"),
            },
            format!("kubectl label --overwrite namespace {name} {GOVERNED_LABEL}=true, then start its pods anew"),
        ),
    }
    let level = found["metadata"]["labels"]["pod-security.kubernetes.io/enforce"].as_str();
    if let Some(level @ ("baseline" | "restricted")) = level {
        findings.problem(
            SUBJECT,
            format!("Pod Security `{level}` refuses the guard, and so every pod"),
            "exeat-init needs NET_ADMIN; Exeat's own admission holds everybody else to the baseline",
            format!("kubectl label --overwrite namespace {name} pod-security.kubernetes.io/enforce=privileged"),
        );
    }
}

fn probe(space: &Space, findings: &mut Findings) {
    const SUBJECT: &str = "a new pod";
    let Some(read) = &space.probe else {
        return;
    };
    if let Read::Failed(why) = read {
        let ours = why.contains("exeat.dev\" denied the request");
        let broken = why.contains("failed calling webhook") && why.contains("exeat.dev");
        if broken {
            findings.problem(
                SUBJECT,
                "would be refused: the operator does not answer",
                why.as_str(),
                "kubectl -n exeat-system get pods",
            );
        } else if why.contains("ValidatingAdmissionPolicy 'exeat-pods'") {
            findings.problem(
                SUBJECT,
                "would be refused: it comes without a gate, and only the admission policies hold",
                why.as_str(),
                "see what is said about the cluster",
            );
        } else if ours {
            findings.warning(
                SUBJECT,
                "a plain one would be refused by Exeat's admission",
                why.as_str(),
                "do what the message says",
            );
        } else {
            findings.unknown(
                SUBJECT,
                "could not be tried: something else refuses it",
                why.as_str(),
                "try with a pod of your own: kubectl apply --dry-run=server -o yaml -f POD",
            );
        }
        return;
    }
    if let Look::There(pod) = findings.read_aside(SUBJECT, "what would become of it", read) {
        if is_injected(pod) {
            findings.ok(SUBJECT, "would be governed (tried, as a dry run)");
        } else {
            findings.problem(
                SUBJECT,
                "would start without a gate (tried, as a dry run)",
                "the webhook is not asked about it",
                "see what is said about the cluster",
            );
        }
    }
}

fn pods(space: &Space, findings: &mut Findings) {
    const SUBJECT: &str = "pods";
    let found = match findings.read(SUBJECT, "its pods", &space.pods) {
        Look::There(found) => found.as_array().map_or(&[][..], Vec::as_slice),
        _ => return,
    };
    let living: Vec<&Value> = found.iter().filter(|pod| alive(pod)).collect();
    let (governed, bare): (Vec<&Value>, Vec<&Value>) =
        living.iter().partition(|pod| is_injected(pod));
    for pod in bare.iter().take(MAX_NAMED) {
        let (cause, remedy) = pod::bare(pod, &space.namespace, space.installed.as_deref());
        findings.problem(SUBJECT, format!("{} has no gate", name(pod)), cause, remedy);
    }
    if bare.len() > MAX_NAMED {
        findings.problem(
            SUBJECT,
            format!("{} more have no gate", bare.len() - MAX_NAMED),
            "as those above",
            "start them anew",
        );
    }
    let mut ill = 0;
    for pod in &governed {
        let mut own = Findings::of(Scope::Namespace);
        pod::guard(pod, &mut own);
        pod::sidecar(pod, &mut own);
        let bad = own.done();
        let Some(worst) = bad.iter().find(|it| it.cause.is_some()) else {
            continue;
        };
        ill += 1;
        if ill <= MAX_NAMED {
            findings.warning(
                SUBJECT,
                format!("{}: {}", name(pod), worst.message),
                worst.cause.clone().unwrap_or_default(),
                format!("exeat check -n {} {}", space.name, name(pod)),
            );
        }
    }
    if bare.is_empty() {
        findings.ok(
            SUBJECT,
            match governed.len() {
                0 => "none yet".to_owned(),
                count => format!("{} of {count} have a gate that is ready", count - ill),
            },
        );
    }
}

fn accounts(space: &Space, findings: &mut Findings) {
    const SUBJECT: &str = "accounts";
    let warned = match &space.namespace {
        Read::Found(namespace) => namespace["metadata"]["labels"][ACCOUNT_ACCESS] == "warn",
        _ => false,
    };
    let mut good = 0;
    for (account, powers) in &space.powers {
        let what = format!("what the ServiceAccount {account} may do");
        let Look::There(found) = findings.read_aside(SUBJECT, &what, powers) else {
            // It will not be told about the next one either.
            return;
        };
        let list = found.as_array().into_iter().flatten();
        let list: Vec<&str> = list.filter_map(Value::as_str).collect();
        if list.is_empty() {
            good += 1;
            continue;
        }
        let message = format!("{account} may {}", list.join(", "));
        let cause = "a pod with its token could undo its own gate, or go around it";
        let remedy = format!(
            "kubectl -n {} get rolebindings -o wide; take the right away, or run the pod as another account",
            space.name
        );
        if warned {
            findings.warning(SUBJECT, message, cause, remedy);
        } else {
            findings.problem(SUBJECT, message, cause, remedy);
        }
    }
    if good > 0 && good == space.powers.len() {
        findings.ok(
            SUBJECT,
            format!("none of {good} could undo the gate or change `{POLICY_CONFIG_MAP}`'s source"),
        );
    }
}

#[cfg(test)]
mod tests;
