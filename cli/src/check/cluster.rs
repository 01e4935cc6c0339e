//! The cluster: the custom resources, the webhooks, the admission policies, the operator. Pure.
//!
//! In doubt something counts as not being there.

mod webhooks;

use std::collections::BTreeMap;
use std::time::Duration;

use exeat_policy::crd;
use rustls_pki_types::UnixTime;
use serde_json::Value;

use super::certificate::{self, Trust};
use super::finding::{Finding, Findings, Look, Scope};
use super::read::Read;

/// Where the chart puts the operator.
pub(super) const OPERATOR_NAMESPACE: &str = "exeat-system";
/// Its Deployment and its Service.
pub(super) const OPERATOR: &str = "exeat-operator";
/// The Secret with its certificate.
pub(super) const CERTIFICATE: &str = "exeat-operator-tls";
/// Both webhook configurations.
pub(super) const CONFIGURATION: &str = "exeat";
/// The custom resources.
pub(super) const CRDS: [&str; 2] = ["toolpolicies.exeat.dev", "clustertoolpolicies.exeat.dev"];
/// The version of them that this program knows.
const VERSION: &str = "v1alpha1";
/// Certificates are renewed at half of their ninety days: less than this left, and nobody does.
const RENEWAL: Duration = Duration::from_hours(14 * 24);
/// What holds without the webhook, as it is installed.
const ADMISSION_POLICIES: &str = include_str!("../../../deploy/manifests/admission-policies.yaml");
/// The short of docs/INSTALL.md.
const INSTALL: &str = "helm upgrade --install exeat deploy/chart/exeat -n exeat-system \
                       --create-namespace, with the images' digests: docs/INSTALL.md";

/// What was read of the cluster.
#[derive(Debug)]
pub(super) struct Cluster {
    pub(super) crds: [Read; 2],
    pub(super) mutating: Read,
    pub(super) validating: Read,
    pub(super) policies: Read,
    pub(super) bindings: Read,
    pub(super) deployment: Read,
    pub(super) certificate: Read,
}

/// What there is to say about it. `labels` are those of the namespace that is asked about.
pub(super) fn judge(
    cluster: &Cluster,
    labels: Option<&BTreeMap<String, String>>,
    now: UnixTime,
) -> Vec<Finding> {
    let mut findings = Findings::of(Scope::Cluster);
    crds(&cluster.crds, &mut findings);
    webhooks::judge(cluster, labels, &mut findings);
    admission_policies(cluster, &mut findings);
    operator(&cluster.deployment, &mut findings);
    serving(cluster, now, &mut findings);
    findings.done()
}

fn crds(reads: &[Read; 2], findings: &mut Findings) {
    const SUBJECT: &str = "custom resources";
    const APPLY: &str = "exeat crd | kubectl apply --server-side -f -";
    let mut good = true;
    for ((read, name), ours) in reads
        .iter()
        .zip(CRDS)
        .zip([crd::tool_policy(), crd::cluster_tool_policy()])
    {
        let found = match findings.read(SUBJECT, name, read) {
            Look::There(found) => found,
            Look::Absent => {
                good = false;
                findings.problem(
                    SUBJECT,
                    format!("{name} is not there"),
                    "no policy can be written, so governed pods may call nothing",
                    APPLY,
                );
                continue;
            }
            Look::Unread => {
                good = false;
                continue;
            }
        };
        let version = |of: &Value| {
            let list = of["spec"]["versions"].as_array();
            let mut list = list.into_iter().flatten();
            list.find(|version| version["name"] == VERSION).cloned()
        };
        let (theirs, ours) = (version(found), version(&ours).unwrap_or_default());
        let served = theirs.as_ref().is_some_and(|it| it["served"] == true);
        if !served || !is(found, "Established") {
            good = false;
            findings.problem(
                SUBJECT,
                format!("{name} does not serve {VERSION}"),
                "it is of another version of Exeat, or the API server has not taken it",
                APPLY,
            );
        } else if !same(&theirs.unwrap_or_default()["schema"], &ours["schema"]) {
            good = false;
            findings.warning(
                SUBJECT,
                format!("the schema of {name} is not the one of this exeat"),
                "one is older than the other: fields may be unknown to one of them",
                format!("use the exeat of the version that is installed, or: {APPLY}"),
            );
        }
    }
    if good {
        findings.ok(SUBJECT, format!("both are there, {VERSION}"));
    }
}

fn admission_policies(cluster: &Cluster, findings: &mut Findings) {
    const SUBJECT: &str = "admission policies";
    const APPLY: &str = "kubectl apply -f deploy/manifests/admission-policies.yaml";
    let wanted: Vec<Value> = serde_saphyr::from_multiple(ADMISSION_POLICIES).unwrap_or_default();
    let mut missing = Vec::new();
    let mut changed = Vec::new();
    for (kind, read) in [
        ("ValidatingAdmissionPolicy", &cluster.policies),
        ("ValidatingAdmissionPolicyBinding", &cluster.bindings),
    ] {
        let found = match findings.read_aside(SUBJECT, &format!("what {kind} there is"), read) {
            Look::There(found) => found.as_array(),
            Look::Absent => None,
            Look::Unread => return,
        };
        for wanted in wanted.iter().filter(|it| it["kind"] == kind) {
            let name = &wanted["metadata"]["name"];
            let mut found = found.into_iter().flatten();
            match found.find(|it| it["metadata"]["name"] == *name) {
                Some(found) if covers(&found["spec"], &wanted["spec"]) => {}
                Some(_) => changed.push(format!("{kind} {name}")),
                None => missing.push(format!("{kind} {name}")),
            }
        }
    }
    if !missing.is_empty() {
        findings.warning(
            SUBJECT,
            format!("{} of them are not there", missing.len()),
            format!(
                "{}: without them only the webhook stands between a pod and the network",
                missing.join(", ")
            ),
            APPLY,
        );
    }
    if !changed.is_empty() {
        findings.warning(
            SUBJECT,
            format!("{} of them are not those of this exeat", changed.len()),
            changed.join(", "),
            APPLY,
        );
    }
    if missing.is_empty() && changed.is_empty() {
        findings.ok(SUBJECT, "they are there and bound");
    }
}

fn operator(deployment: &Read, findings: &mut Findings) {
    const SUBJECT: &str = "operator";
    let what = format!("the Deployment {OPERATOR_NAMESPACE}/{OPERATOR}");
    let found = match findings.read(SUBJECT, &what, deployment) {
        Look::There(found) => found,
        Look::Absent => {
            findings.problem(
                SUBJECT,
                format!("{what} is not there"),
                "nobody injects, compiles policies or answers the webhooks",
                INSTALL,
            );
            return;
        }
        Look::Unread => return,
    };
    let available = found["status"]["availableReplicas"].as_u64().unwrap_or(0);
    let wanted = found["spec"]["replicas"].as_u64().unwrap_or(1);
    if available == 0 {
        findings.problem(
            SUBJECT,
            format!("none of its {wanted} replicas is available"),
            "pods of governed namespaces are refused, and changes of policies wait",
            format!(
                "kubectl -n {OPERATOR_NAMESPACE} describe pods -l app.kubernetes.io/component=operator"
            ),
        );
    } else if available < wanted {
        findings.warning(
            SUBJECT,
            format!("{available} of {wanted} replicas are available"),
            "one more failure, and pods of governed namespaces are refused",
            format!(
                "kubectl -n {OPERATOR_NAMESPACE} describe pods -l app.kubernetes.io/component=operator"
            ),
        );
    } else {
        findings.ok(SUBJECT, format!("{available} of {wanted} replicas"));
    }
}

fn serving(cluster: &Cluster, now: UnixTime, findings: &mut Findings) {
    const SUBJECT: &str = "certificate";
    const REMEDY: &str = "kubectl -n exeat-system logs -l app.kubernetes.io/component=operator";
    let Read::Found(configuration) = &cluster.mutating else {
        return;
    };
    let what = format!("the Secret {OPERATOR_NAMESPACE}/{CERTIFICATE}");
    let secret = match findings.read_aside(SUBJECT, &what, &cluster.certificate) {
        Look::There(secret) => secret,
        Look::Absent => {
            findings.problem(
                SUBJECT,
                format!("{what} is not there"),
                "the operator has not made its certificate yet: it does not run, or may not write it",
                REMEDY,
            );
            return;
        }
        Look::Unread => return,
    };
    let authority = configuration["webhooks"][0]["clientConfig"]["caBundle"].as_str();
    let chain = secret["data"]["tls.crt"].as_str();
    let name = format!("{OPERATOR}.{OPERATOR_NAMESPACE}.svc");
    let at = |time| {
        certificate::trust(
            authority.unwrap_or_default(),
            chain.unwrap_or_default(),
            &name,
            time,
        )
    };
    match (at(now), at(later(now))) {
        (Trust::Yes, Trust::Yes) => findings.ok(SUBJECT, format!("the webhooks' own, for {name}")),
        (Trust::Yes, Trust::No(why)) => findings.warning(
            SUBJECT,
            format!(
                "the webhooks' certificate has less than {} days left",
                RENEWAL.as_secs() / 86_400
            ),
            format!("it should have been renewed long ago ({why})"),
            REMEDY,
        ),
        (Trust::No(why), _) => findings.problem(
            SUBJECT,
            "the API server does not believe the webhooks: every pod is refused",
            why,
            REMEDY,
        ),
    }
}

fn later(now: UnixTime) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs()) + RENEWAL)
}

/// Whether a condition of an object is true.
pub(super) fn is(object: &Value, condition: &str) -> bool {
    let list = object["status"]["conditions"].as_array();
    list.into_iter()
        .flatten()
        .any(|it| it["type"] == condition && it["status"] == "True")
}

/// Both say the same, whatever the spelling of numbers.
fn same(a: &Value, b: &Value) -> bool {
    covers(a, b) && covers(b, a)
}

/// `found` says all that `wanted` says; the API server adds defaults.
fn covers(found: &Value, wanted: &Value) -> bool {
    match (found, wanted) {
        (Value::Object(found), Value::Object(wanted)) => wanted
            .iter()
            .all(|(key, wanted)| found.get(key).is_some_and(|found| covers(found, wanted))),
        (Value::Array(found), Value::Array(wanted)) => {
            found.len() == wanted.len() && found.iter().zip(wanted).all(|(a, b)| covers(a, b))
        }
        (Value::Number(found), Value::Number(wanted)) => found.as_f64() == wanted.as_f64(),
        _ => found == wanted,
    }
}

#[cfg(test)]
mod tests;
