//! The policies of a namespace and the bundle that the operator made of them. Pure.

use std::collections::BTreeMap;
use std::io::Read as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use exeat_inject::names::POLICY_CONFIG_MAP;
use exeat_policy::bundle::{self, Bundle};
use exeat_policy::{Checked, Mode, check};
use flate2::read::GzDecoder;
use serde_json::Value;

use super::finding::{Findings, Look};
use super::read::Read;

/// Of a status's list of lagging pods; the operator itself lists no more.
const MAX_LAGGING: usize = 10;

/// The bundle in the ConfigMap, or why there is none in it.
pub(super) fn unpack(config_map: &Value) -> Result<Bundle, String> {
    let text = config_map["binaryData"][bundle::FILE_NAME]
        .as_str()
        .ok_or_else(|| format!("it has no `{}`", bundle::FILE_NAME))?;
    let packed = STANDARD
        .decode(text)
        .map_err(|error| format!("its data is not base64: {error}"))?;
    let limit = bundle::MAX_BYTES as u64 + 1;
    let mut bytes = Vec::new();
    GzDecoder::new(packed.as_slice())
        .take(limit)
        .read_to_end(&mut bytes)
        .map_err(|error| format!("it can't be unpacked: {error}"))?;
    let bundle = Bundle::read(&bytes).map_err(|error| error.to_string())?;
    let namespace = &config_map["metadata"]["namespace"];
    if *namespace != bundle.namespace() {
        return Err(format!("it is the bundle of `{}`", bundle.namespace()));
    }
    Ok(bundle)
}

/// The bundle, where it could be read and is one.
pub(super) fn bundle(
    config_map: &Read,
    policies: Option<usize>,
    findings: &mut Findings,
) -> Option<Bundle> {
    const SUBJECT: &str = "bundle";
    const LOGS: &str = "kubectl -n exeat-system logs -l app.kubernetes.io/component=operator";
    let what = format!("the ConfigMap `{POLICY_CONFIG_MAP}`");
    match findings.read_aside(SUBJECT, &what, config_map) {
        Look::There(map) => match unpack(map) {
            Ok(bundle) => {
                findings.ok(
                    SUBJECT,
                    format!(
                        "generation {}, {}, {}",
                        bundle.generation(),
                        counted(bundle.policies().len(), "policy", "policies"),
                        counted(bundle.guardrails().len(), "guardrail", "guardrails")
                    ),
                );
                return Some(bundle);
            }
            Err(why) => findings.problem(
                SUBJECT,
                format!("{what} holds no bundle: gates keep what they had, new ones deny all"),
                why,
                format!(
                    "kubectl delete configmap {POLICY_CONFIG_MAP}; the operator writes it anew"
                ),
            ),
        },
        Look::Absent if policies.is_some_and(|count| count > 0) => findings.problem(
            SUBJECT,
            format!("{what} is not there: the policies are enforced nowhere"),
            "the operator does not run, or may not write it",
            LOGS,
        ),
        Look::Absent if policies.is_none() => findings.warning(
            SUBJECT,
            format!("{what} is not there, so nothing is allowed"),
            "there is no policy, or the operator does not run",
            LOGS,
        ),
        Look::Unread => {}
        Look::Absent => findings.ok(SUBJECT, "none, as there is no policy"),
    }
    None
}

/// What the operator says of one policy.
pub(super) fn status(policy: &Value, findings: &mut Findings) {
    const SUBJECT: &str = "policy";
    let name = policy["metadata"]["name"].as_str().unwrap_or_default();
    let status = &policy["status"];
    if status["observedGeneration"] != policy["metadata"]["generation"] {
        findings.unknown(
            SUBJECT,
            format!("{name}: the operator has not judged what is written now"),
            "it was changed a moment ago, or the operator does not run",
            "ask again in some seconds; then look at the operator's log",
        );
        return;
    }
    let condition = |kind: &str| {
        let list = status["conditions"].as_array();
        list.into_iter().flatten().find(|it| it["type"] == kind)
    };
    let word = |of: Option<&Value>, field: &str| {
        of.and_then(|it| it[field].as_str())
            .unwrap_or_default()
            .to_owned()
    };
    let accepted = condition("Accepted");
    if word(accepted, "status") != "True" {
        findings.problem(
            SUBJECT,
            format!("{name}: is not accepted ({})", word(accepted, "reason")),
            word(accepted, "message"),
            "mend the policy, or the Secret that it names; `exeat policy check` judges a file",
        );
        return;
    }
    let enforced = condition("Enforced");
    match word(enforced, "status").as_str() {
        "True" => {
            let pods = status["enforced"].as_str().unwrap_or("all");
            if policy["spec"]["mode"] == "Shadow" {
                findings.warning(
                    SUBJECT,
                    format!("{name}: watched by {pods} pods, enforced by none"),
                    "its mode is Shadow: what it would refuse passes",
                    "set `mode: Enforce` when its records are as wished",
                );
            } else {
                findings.ok(SUBJECT, format!("{name}: enforced by {pods} pods"));
            }
        }
        "Unknown" => findings.ok(SUBJECT, format!("{name}: selects no pod")),
        _ => findings.problem(
            SUBJECT,
            format!("{name}: {}", word(enforced, "message")),
            lagging(status).join("; "),
            "`exeat check POD` looks into one of them",
        ),
    }
}

/// `pod: reason` of each pod that lags.
pub(super) fn lagging(status: &Value) -> Vec<String> {
    let list = status["lagging"].as_array();
    list.into_iter()
        .flatten()
        .take(MAX_LAGGING)
        .map(|it| {
            let word = |field: &str| it[field].as_str().unwrap_or_default();
            format!("{}: {}", word("pod"), word("reason"))
        })
        .collect()
}

/// Policies and guardrails of a bundle that are for a pod with these labels.
pub(super) fn selecting<'a>(
    bundle: &'a Bundle,
    labels: &'a BTreeMap<String, String>,
) -> impl Iterator<Item = (&'a str, Checked)> {
    let both = bundle.policies().iter().chain(bundle.guardrails());
    both.filter_map(|object| {
        let checked = check(&bundle::source(object)).ok()?;
        let name = object["metadata"]["name"].as_str()?;
        checked.selects_pod(labels).then_some((name, checked))
    })
}

fn counted(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// As people say it.
pub(super) fn mode(checked: &Checked) -> &'static str {
    match checked.mode {
        Mode::Enforce => "enforced",
        Mode::Shadow => "watched only",
    }
}

/// Labels of an object.
pub(super) fn labels(object: &Value) -> BTreeMap<String, String> {
    let map = object["metadata"]["labels"].as_object();
    map.into_iter()
        .flatten()
        .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
        .collect()
}
