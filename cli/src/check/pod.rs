//! One pod: whether it has a gate, whether the gate holds, and what it allows. Pure.
//!
//! Injection is judged by the same code as at admission. What a pod says of itself (its metrics) is
//! the agent's word too, while its gate is down, and is said to be that.

use std::collections::BTreeSet;

use exeat_init::error::InitError;
use exeat_inject::names::{CREDENTIALS_VOLUME, GOVERNED_LABEL, GUARD, SIDECAR};
use exeat_inject::{Refusal, Settings, is_injected, validate};
use exeat_policy::bundle::Bundle;
use serde_json::Value;

use super::finding::{Finding, Findings, Look, Scope};
use super::policies;
use super::read::Read;
use super::settings;

/// Faults that are named one by one.
const MAX_REFUSALS: usize = 5;
/// How often a gate may start again in its life before that is worth a word.
const RESTARTS: u64 = 3;

/// What was read of it.
#[derive(Debug)]
pub(super) struct Facts<'a> {
    pub(super) pod: &'a Read,
    pub(super) namespace: &'a Read,
    /// When the mutating webhook was made.
    pub(super) installed: Option<&'a str>,
    /// What the operator injects now.
    pub(super) settings: Option<&'a Settings>,
    pub(super) bundle: Option<&'a Bundle>,
    pub(super) policies: &'a Read,
    /// The pod's own Secret.
    pub(super) secret: &'a Read,
    /// The gate's page of metrics.
    pub(super) metrics: &'a Read,
}

/// What there is to say about it.
pub(super) fn judge(facts: &Facts<'_>) -> Vec<Finding> {
    let mut findings = Findings::of(Scope::Pod);
    let pod = match findings.read("pod", "the pod", facts.pod) {
        Look::There(pod) => pod,
        Look::Absent => {
            findings.problem(
                "pod",
                "there is no such pod",
                "its name is mistyped, it has ended, or it is in another namespace",
                "kubectl get pods",
            );
            return findings.done();
        }
        Look::Unread => return findings.done(),
    };
    if !alive(pod) {
        findings.warning(
            "pod",
            "it has ended or is being ended",
            pod["status"]["phase"].as_str().unwrap_or("deleted"),
            "what follows is about what it was",
        );
    }
    if !is_injected(pod) {
        let (cause, remedy) = bare(pod, facts.namespace, facts.installed);
        findings.problem("gate", "it has no gate", cause, remedy);
        return findings.done();
    }
    injection(pod, facts.settings, &mut findings);
    guard(pod, &mut findings);
    sidecar(pod, &mut findings);
    let labels = policies::labels(pod);
    if let Some(bundle) = facts.bundle {
        selected(bundle, &labels, &mut findings);
        lagging(pod, facts.policies, &mut findings);
        current(bundle, facts.metrics, &mut findings);
        credentials(pod, bundle, facts.secret, &mut findings);
    }
    findings.done()
}

/// It runs, or is about to.
pub(super) fn alive(pod: &Value) -> bool {
    !matches!(
        pod["status"]["phase"].as_str(),
        Some("Succeeded" | "Failed")
    ) && pod["metadata"]["deletionTimestamp"].is_null()
}

/// Its name.
pub(super) fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

/// Why a pod has no gate, and what to do.
pub(super) fn bare(pod: &Value, namespace: &Read, installed: Option<&str>) -> (String, String) {
    let again =
        "start it anew: kubectl rollout restart, or delete it where something makes it again";
    let born = pod["metadata"]["creationTimestamp"]
        .as_str()
        .unwrap_or_default();
    if !pod["metadata"]["annotations"]["kubernetes.io/config.mirror"].is_null() {
        return (
            "it is the node's own: the kubelet runs it from a file, and asks nobody".to_owned(),
            "move it out of the node's folder of manifests, into a Deployment".to_owned(),
        );
    }
    if let Read::Found(namespace) = namespace {
        if namespace["metadata"]["labels"][GOVERNED_LABEL] != "true" {
            return (
                format!("its namespace has no label {GOVERNED_LABEL}=true"),
                format!(
                    "kubectl label --overwrite namespace {} {GOVERNED_LABEL}=true, then {again}",
                    name(namespace)
                ),
            );
        }
        // Times of the API server are all of one form, so they sort as text.
        if let Some(labelled) = labelled(namespace)
            && born < labelled
        {
            return (
                format!("it was made at {born}, before its namespace was labelled ({labelled})"),
                again.to_owned(),
            );
        }
    }
    match installed {
        Some(installed) if born < installed => (
            format!("it was made at {born}, before Exeat's webhook was there ({installed})"),
            again.to_owned(),
        ),
        _ => (
            "it was made while the webhook was not asked: bypassed, away, or another object's rules"
                .to_owned(),
            format!("see what is said about the cluster, then {again}"),
        ),
    }
}

/// When the label was last written, as far as the API server keeps track.
fn labelled(namespace: &Value) -> Option<&str> {
    let managers = namespace["metadata"]["managedFields"].as_array()?;
    let field = format!("f:{GOVERNED_LABEL}");
    let wrote = |it: &&Value| !it["fieldsV1"]["f:metadata"]["f:labels"][&field].is_null();
    managers
        .iter()
        .filter(wrote)
        .filter_map(|it| it["time"].as_str())
        .max()
}

/// As admission judges it.
fn injection(pod: &Value, now: Option<&Settings>, findings: &mut Findings) {
    const SUBJECT: &str = "injection";
    const ANEW: &str = "make a new pod; admission writes these parts";
    let own = settings::of_pod(pod);
    let faults = |settings: Option<&Settings>| settings.map(|settings| validate(pod, settings));
    match (faults(now), faults(own.as_ref())) {
        (Some(faults), _) if faults.is_empty() => {
            findings.ok(SUBJECT, "guard, gate and the rest of the pod are as admission wants them");
        }
        (Some(faults), Some(as_made)) if as_made.is_empty() => findings.warning(
            SUBJECT,
            "it was injected with other settings than the operator has now",
            listed(&faults),
            ANEW,
        ),
        (None, Some(as_made)) if as_made.is_empty() => findings.unknown(
            SUBJECT,
            "its parts are whole, but whether their images are the operator's could not be found out",
            "neither the operator's Deployment nor a dry run could be read",
            "kubectl auth can-i get deployments.apps -n exeat-system",
        ),
        (_, Some(faults)) | (Some(faults), None) => findings.problem(
            SUBJECT,
            "admission would refuse it today",
            listed(&faults),
            ANEW,
        ),
        (None, None) => findings.problem(
            SUBJECT,
            "its gate's images are not pinned by digest",
            "whoever may push to the registry could exchange the gate",
            ANEW,
        ),
    }
}

fn listed(faults: &[Refusal]) -> String {
    let mut text: Vec<String> = faults
        .iter()
        .take(MAX_REFUSALS)
        .map(|fault| format!("{}: {}", fault.field, fault.message))
        .collect();
    if faults.len() > MAX_REFUSALS {
        text.push(format!("and {} more", faults.len() - MAX_REFUSALS));
    }
    text.join("; ")
}

/// How the guard ended.
pub(super) fn guard(pod: &Value, findings: &mut Findings) {
    const SUBJECT: &str = "guard";
    let logs = format!("kubectl logs {} -c {GUARD} has the whole of it", name(pod));
    let status = container(pod, GUARD);
    let ended = [
        &status["state"]["terminated"],
        &status["lastState"]["terminated"],
    ]
    .into_iter()
    .find(|it| it.is_object());
    let Some(ended) = ended else {
        let (cause, remedy) = waiting(pod, status);
        findings.unknown(SUBJECT, "it has not confined the pod yet", cause, remedy);
        return;
    };
    let code = ended["exitCode"].as_i64().unwrap_or(-1);
    if code == 0 {
        findings.ok(
            SUBJECT,
            "the pod's network is confined, and every way out was tried",
        );
        return;
    }
    let message = format!("it ended with {code}, and nothing of the pod starts");
    match explain(code) {
        Some(error) => findings.problem(
            SUBJECT,
            message,
            error.cause(),
            format!("{}; {logs}", error.remedy()),
        ),
        None if ended["reason"] == "OOMKilled" => findings.problem(
            SUBJECT,
            message,
            "it was killed for want of memory",
            format!("more memory on the node; {logs}"),
        ),
        None => findings.problem(
            SUBJECT,
            message,
            match code {
                129.. => format!("it was ended by signal {}", code - 128),
                _ => ended["message"]
                    .as_str()
                    .or(ended["reason"].as_str())
                    .unwrap_or("no cause that this exeat knows")
                    .to_owned(),
            },
            logs,
        ),
    }
}

/// The error of `exeat-init` with this exit code.
fn explain(code: i64) -> Option<InitError> {
    let none = String::new;
    [
        InitError::Usage(none()),
        InitError::System {
            doing: none(),
            source: std::io::Error::from(std::io::ErrorKind::Other),
        },
        InitError::Capability(none()),
        InitError::Backend(none()),
        InitError::Module(none()),
        InitError::Ipv6(none()),
        InitError::Foreign(none()),
        InitError::Readback(none()),
        InitError::Leak(none()),
        InitError::Locked(none()),
        InitError::Program {
            program: none(),
            message: none(),
        },
        InitError::Unproven(none()),
    ]
    .into_iter()
    .find(|error| i64::from(error.exit_code()) == code)
}

/// How the gate is. Its readiness includes its own self-test, asked by the kubelet from inside of
/// its container, where the agent can't answer for it.
pub(super) fn sidecar(pod: &Value, findings: &mut Findings) {
    const SUBJECT: &str = "gate";
    let logs = format!("kubectl logs {} -c {SIDECAR} says why", name(pod));
    let status = container(pod, SIDECAR);
    let restarts = status["restartCount"].as_u64().unwrap_or(0);
    let ended = &status["lastState"]["terminated"];
    let before = if ended.is_object() {
        format!(
            "; before, it ended with {} ({})",
            ended["exitCode"],
            ended["reason"].as_str().unwrap_or("no reason given")
        )
    } else {
        String::new()
    };
    if status["ready"] == true {
        if restarts >= RESTARTS {
            findings.warning(
                SUBJECT,
                format!("it is ready, after {restarts} restarts"),
                format!("it ended again and again{before}"),
                format!("kubectl logs {} -c {SIDECAR} --previous", name(pod)),
            );
        } else {
            findings.ok(SUBJECT, "it is ready, and its self-test passes");
        }
    } else if status["state"]["running"].is_object() {
        findings.problem(
            SUBJECT,
            "it runs and is not ready",
            format!("its self-test fails, its journal can't be written, or it is starting or stopping{before}"),
            logs,
        );
    } else if !confined(pod) {
        // What is to be said is said about the guard.
        findings.unknown(
            SUBJECT,
            "it waits for the guard",
            "nothing starts before the pod is confined",
            "see what is said about the guard",
        );
    } else {
        let (cause, _) = waiting(pod, status);
        findings.problem(
            SUBJECT,
            "it does not run: nothing leaves the pod",
            format!("{cause}{before}"),
            logs,
        );
    }
}

/// The guard has ended, and well.
fn confined(pod: &Value) -> bool {
    let status = container(pod, GUARD);
    [&status["state"], &status["lastState"]]
        .into_iter()
        .any(|state| state["terminated"]["exitCode"] == 0)
}

fn container<'a>(pod: &'a Value, name: &str) -> &'a Value {
    let list = pod["status"]["initContainerStatuses"].as_array();
    let mut list = list.into_iter().flatten();
    list.find(|it| it["name"] == name).unwrap_or(&Value::Null)
}

/// What holds a container up.
fn waiting(pod: &Value, status: &Value) -> (String, String) {
    let waits = &status["state"]["waiting"];
    let describe = format!("kubectl describe pod {}", name(pod));
    if let Some(reason) = waits["reason"].as_str() {
        let message = waits["message"].as_str().unwrap_or_default();
        let cause = format!("{reason}: {message}");
        let remedy = match reason {
            "ErrImagePull" | "ImagePullBackOff" | "ErrImageNeverPull" => {
                "see that the node can fetch Exeat's images by their digests".to_owned()
            }
            _ => describe,
        };
        return (cause.trim_end_matches([':', ' ']).to_owned(), remedy);
    }
    let list = pod["status"]["conditions"].as_array();
    let scheduled = list
        .into_iter()
        .flatten()
        .find(|it| it["type"] == "PodScheduled" && it["status"] != "True");
    match scheduled {
        Some(condition) => (
            format!(
                "no node takes the pod: {}",
                condition["message"].as_str().unwrap_or_default()
            ),
            describe,
        ),
        None => ("the node has not begun with it".to_owned(), describe),
    }
}

fn selected(
    bundle: &Bundle,
    labels: &std::collections::BTreeMap<String, String>,
    findings: &mut Findings,
) {
    const SUBJECT: &str = "policies";
    let list: Vec<String> = policies::selecting(bundle, labels)
        .map(|(name, checked)| format!("{name} ({})", policies::mode(&checked)))
        .collect();
    if list.is_empty() {
        findings.warning(
            SUBJECT,
            "none selects it: it may call nothing",
            "no podSelector of the namespace's policies matches its labels",
            "kubectl get toolpolicies -o custom-columns=NAME:.metadata.name,SELECTOR:.spec.podSelector",
        );
    } else {
        findings.ok(SUBJECT, list.join(", "));
    }
}

/// What the operator heard from the gate, under a key that only the two have.
fn lagging(pod: &Value, policies: &Read, findings: &mut Findings) {
    const SUBJECT: &str = "enforcement";
    let Look::There(list) = findings.read_aside(SUBJECT, "what the operator says of it", policies)
    else {
        return;
    };
    let prefix = format!("{}: ", name(pod));
    let behind: BTreeSet<String> = list
        .as_array()
        .into_iter()
        .flatten()
        .flat_map(|policy| policies::lagging(&policy["status"]))
        .filter_map(|text| text.strip_prefix(&prefix).map(str::to_owned))
        .collect();
    for why in behind {
        findings.problem(
            SUBJECT,
            "the operator does not count it as enforcing",
            why,
            "ask again in some seconds; kubelets take up to a minute where nudging them fails",
        );
    }
}

fn current(bundle: &Bundle, metrics: &Read, findings: &mut Findings) {
    const SUBJECT: &str = "generation";
    let Look::There(Value::String(page)) =
        findings.read_aside(SUBJECT, "which generation it has in force", metrics)
    else {
        return;
    };
    let sample = |name: &str| {
        page.lines()
            .find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok())
    };
    #[expect(clippy::cast_precision_loss, reason = "a generation counts edits")]
    let wanted = bundle.generation() as f64;
    match sample("exeat_policy_generation ") {
        Some(found) if found >= wanted => findings.ok(
            SUBJECT,
            format!("{found}, by its own word, is the current one"),
        ),
        Some(found) => findings.warning(
            SUBJECT,
            format!("{found} by its own word, and the bundle is at {wanted}"),
            "its volume has not been refreshed yet, or it refused the newer bundle",
            format!("ask again in a minute, then look at its log (-c {SIDECAR})"),
        ),
        None => findings.warning(
            SUBJECT,
            "its page of metrics says none",
            "it is of another version, or it is not the gate that answers",
            "trust the status of the policies, which the gate signs",
        ),
    }
}

/// The keys that policies call for; values are never looked at.
fn credentials(pod: &Value, bundle: &Bundle, secret: &Read, findings: &mut Findings) {
    const SUBJECT: &str = "credentials";
    let labels = policies::labels(pod);
    let mut wanted = BTreeSet::new();
    for (policy, checked) in policies::selecting(bundle, &labels) {
        wanted.extend(
            checked
                .references
                .iter()
                .map(|used| (used.key(policy), used.credential.to_string())),
        );
    }
    if wanted.is_empty() {
        findings.ok(SUBJECT, "its policies call for none");
        return;
    }
    let found = match findings.read_aside(SUBJECT, "the pod's own Secret", secret) {
        Look::There(found) => found,
        Look::Absent => &Value::Null,
        Look::Unread => return,
    };
    let empty = serde_json::Map::new();
    let data = found["data"].as_object().unwrap_or(&empty);
    let missing: Vec<&str> = wanted
        .iter()
        .filter(|(key, name)| !data.contains_key(key) && !data.contains_key(name))
        .map(|(key, _)| key.as_str())
        .collect();
    if missing.is_empty() {
        findings.ok(
            SUBJECT,
            format!("{} of {} there", wanted.len(), wanted.len()),
        );
    } else {
        findings.problem(
            SUBJECT,
            format!(
                "not there: {}; calls that need them are refused",
                missing.join(", ")
            ),
            "the source Secret or its key is not there, does not consent, or the operator is away",
            "kubectl describe toolpolicies names the Secret at fault",
        );
    }
}

/// The name of the pod's own Secret.
pub(super) fn secret_of(pod: &Value) -> Option<&str> {
    let list = pod["spec"]["volumes"].as_array();
    list.into_iter()
        .flatten()
        .find(|volume| volume["name"] == CREDENTIALS_VOLUME)?["secret"]["secretName"]
        .as_str()
}

#[cfg(test)]
mod tests;
