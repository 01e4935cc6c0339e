//! Every container beside ours: init, regular and ephemeral ones alike.

use serde_json::Value;

use super::pod::{is_network_device, is_sidecar_id};
use super::volumes::is_ours;
use crate::capabilities;
use crate::mutate::ca_mounts;
use crate::names::{
    GUARD, POLICY_CONFIG_MAP, RESERVED_FOLDERS, RESERVED_PREFIX, SIDECAR, SIDECAR_PORTS,
};
use crate::refusal::Refusal;
use crate::settings::Settings;
use crate::walk::{Container, array, get, members, text};

/// Judges one container. Without settings it is one that is added to a running pod.
pub(super) fn judge(
    container: Container<'_>,
    pod: &Value,
    settings: Option<&Settings>,
    refusals: &mut Vec<Refusal>,
) {
    let name = container.name();
    if name.starts_with(RESERVED_PREFIX) {
        refusals.push(Refusal::new(
            format!("{}.name", container.path()),
            format!("{name}: names that begin with {RESERVED_PREFIX} belong to Exeat"),
            "use another name",
        ));
    }
    let target = text(container.value, &["targetContainerName"]);
    if let Some(target @ (GUARD | SIDECAR)) = target {
        refusals.push(Refusal::new(
            format!("{}.targetContainerName", container.path()),
            format!("the processes of {target} may not be seen"),
            "name another container, or none",
        ));
    }
    // What is added to a running pod by hand can always say it.
    let strict = container.list == "ephemeralContainers"
        || settings.is_some_and(|settings| settings.require_run_as_user);
    user(container, pod, strict, refusals);
    rights(container, refusals);
    mounts(container, refusals);
    references(container, refusals);
    resources(container, settings, refusals);
}

fn user(container: Container<'_>, pod: &Value, strict: bool, refusals: &mut Vec<Refusal>) {
    let path = container.path();
    for field in ["runAsUser", "runAsGroup"] {
        if get(container.value, &["securityContext", field]).is_some_and(is_sidecar_id) {
            refusals.push(Refusal::new(
                format!("{path}.securityContext.{field}"),
                "64100 is the sidecar's own, which the kernel lets out",
                "use another number",
            ));
        }
    }
    let said = get(container.value, &["securityContext", "runAsUser"])
        .or_else(|| get(pod, &["spec", "securityContext", "runAsUser"]));
    if strict && said.is_none() {
        refusals.push(Refusal::new(
            format!("{path}.securityContext.runAsUser"),
            "is not set, and the image's own user could be the sidecar's",
            "say as which user it runs (for an ephemeral container: `kubectl debug --custom`)",
        ));
    }
}

fn rights(container: Container<'_>, refusals: &mut Vec<Refusal>) {
    let path = format!("{}.securityContext", container.path());
    let mut refuse = |field: &str, message: String, remedy: &str| {
        refusals.push(Refusal::new(format!("{path}.{field}"), message, remedy));
    };
    let context = |keys: &[&str]| {
        get(container.value, &["securityContext"]).and_then(|context| get(context, keys))
    };
    if context(&["privileged"]).is_some_and(|set| set != &Value::Bool(false)) {
        refuse(
            "privileged",
            "a privileged container can change the network that is confined".into(),
            "remove it or set it to false",
        );
    }
    if context(&["allowPrivilegeEscalation"]) != Some(&Value::Bool(false)) {
        refuse(
            "allowPrivilegeEscalation",
            "must be false, or a set-user-ID program could become the sidecar's user".into(),
            "set it to false",
        );
    }
    if let Some(kind) = context(&["procMount"]).filter(|kind| *kind != "Default") {
        refuse(
            "procMount",
            format!("{kind} shows the kernel's controls"),
            "remove it",
        );
    }
    if context(&["seccompProfile", "type"]).is_some_and(|kind| kind == "Unconfined") {
        refuse(
            "seccompProfile.type",
            "Unconfined opens kernel interfaces that runtimes close".into(),
            "use RuntimeDefault or a Localhost profile",
        );
    }
    for (index, added) in array(container.value, &["securityContext", "capabilities", "add"])
        .iter()
        .enumerate()
    {
        let added = added.as_str().unwrap_or_default();
        if !capabilities::is_addable(added) {
            refuse(
                &format!("capabilities.add[{index}]"),
                format!("{added} may lead past the gate"),
                "remove it",
            );
        }
    }
    let dropped = array(
        container.value,
        &["securityContext", "capabilities", "drop"],
    );
    let left = capabilities::left(dropped);
    if !left.is_empty() {
        refuse(
            "capabilities.drop",
            format!("leaves {}, which lead past the gate", left.join(", ")),
            "drop them, or ALL",
        );
    }
}

fn mounts(container: Container<'_>, refusals: &mut Vec<Refusal>) {
    let allowed = ca_mounts();
    for list in ["volumeMounts", "volumeDevices"] {
        for (index, mount) in array(container.value, &[list]).iter().enumerate() {
            let path = format!("{}.{list}[{index}]", container.path());
            if list == "volumeMounts" && allowed.contains(&said(mount)) {
                continue;
            }
            let name = text(mount, &["name"]).unwrap_or_default();
            if name.starts_with(RESERVED_PREFIX) {
                refusals.push(Refusal::new(
                    format!("{path}.name"),
                    format!("{name} is for the gate only"),
                    "remove it; the certificate is mounted by admission, to be read",
                ));
            }
            let place = text(mount, &["mountPath"])
                .or_else(|| text(mount, &["devicePath"]))
                .unwrap_or_default();
            if is_reserved(place) {
                refusals.push(Refusal::new(
                    format!("{path}.mountPath"),
                    format!("{place} is where the gate's own files are"),
                    "mount it elsewhere",
                ));
            }
        }
    }
}

/// Without what says no more than its absence.
fn said(mount: &Value) -> Value {
    let mut mount = mount.clone();
    if let Some(map) = mount.as_object_mut() {
        map.retain(|key, value| {
            !(value.is_null() || (key == "recursiveReadOnly" && value == "Disabled"))
        });
        if map
            .get("mountPropagation")
            .is_some_and(|kind| kind == "None")
        {
            map.remove("mountPropagation");
        }
    }
    mount
}

/// Whether a path, `.` and `..` taken as they are meant, is in one of our folders.
fn is_reserved(path: &str) -> bool {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    let path = format!("/{}/", parts.join("/"));
    RESERVED_FOLDERS
        .iter()
        .any(|folder| path.starts_with(&format!("{folder}/")))
}

/// Variables from what only the sidecar may read.
fn references(container: Container<'_>, refusals: &mut Vec<Refusal>) {
    let mut judge = |path: String, secret: Option<&str>, map: Option<&str>| {
        let ours = secret.filter(|name| is_ours(name));
        if let Some(name) = ours.or(map.filter(|name| *name == POLICY_CONFIG_MAP)) {
            refusals.push(Refusal::new(
                path,
                format!("{name} is for the gate only"),
                "remove it",
            ));
        }
    };
    for (index, variable) in array(container.value, &["env"]).iter().enumerate() {
        judge(
            format!("{}.env[{index}].valueFrom", container.path()),
            text(variable, &["valueFrom", "secretKeyRef", "name"]),
            text(variable, &["valueFrom", "configMapKeyRef", "name"]),
        );
    }
    for (index, source) in array(container.value, &["envFrom"]).iter().enumerate() {
        judge(
            format!("{}.envFrom[{index}]", container.path()),
            text(source, &["secretRef", "name"]),
            text(source, &["configMapRef", "name"]),
        );
    }
}

fn resources(container: Container<'_>, settings: Option<&Settings>, refusals: &mut Vec<Refusal>) {
    let path = container.path();
    for (index, port) in array(container.value, &["ports"]).iter().enumerate() {
        for field in ["containerPort", "hostPort"] {
            let number = get(port, &[field]).and_then(Value::as_i64);
            if let Some(number) = number.filter(|number| SIDECAR_PORTS.contains(number)) {
                refusals.push(Refusal::new(
                    format!("{path}.ports[{index}].{field}"),
                    format!("{number} is the sidecar's"),
                    "use another port",
                ));
            }
        }
    }
    for kind in ["limits", "requests"] {
        for (name, _) in members(container.value, &["resources", kind]) {
            if is_network_device(name) {
                refusals.push(Refusal::new(
                    format!("{path}.resources.{kind}[{name}]"),
                    "is a network device that passes by the kernel",
                    "remove it",
                ));
            }
        }
    }
    let claims = array(container.value, &["resources", "claims"]);
    if !settings.is_some_and(|settings| settings.resource_claims) && !claims.is_empty() {
        refusals.push(Refusal::new(
            format!("{path}.resources.claims"),
            "a claim can hand it a network device that passes by the kernel",
            "remove it, or have the operator allow claims",
        ));
    }
}
