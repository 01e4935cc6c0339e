//! The guard and the gate of a pod, by what the kubelet says of their containers. Pure.

use exeat_init::error::InitError;
use exeat_inject::names::{GUARD, SIDECAR};
use serde_json::Value;

use super::name;
use crate::check::finding::Findings;

/// How often a gate may start again in its life before that is worth a word.
const RESTARTS: u64 = 3;

/// How the guard ended.
pub(in crate::check) fn guard(pod: &Value, findings: &mut Findings) {
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
pub(in crate::check) fn sidecar(pod: &Value, findings: &mut Findings) {
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

/// The gate runs, and so answers.
pub(in crate::check) fn serves(pod: &Value) -> bool {
    container(pod, SIDECAR)["state"]["running"].is_object()
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
