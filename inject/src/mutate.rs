//! The patch: what an unmodified pod needs to be governed, and no more.
//!
//! It adds what is unset and puts our own parts as they must be. What an author set otherwise, it
//! leaves: validation then refuses it by name. The one thing taken out is the service account's
//! token that the API server mounted unasked.

use serde_json::{Map, Value, json};

use crate::capabilities;
use crate::environment;
use crate::names::{
    CA_BUNDLE_NAME, CA_FOLDER, CA_VOLUME, CREDENTIALS_VOLUME, GUARD, JOURNAL_VOLUME,
    NO_TOKEN_VOLUME, POD_INFO_VOLUME, POLICY_VOLUME, RUN_VOLUME, SIDECAR, SYSTEM_BUNDLE,
    TOKEN_FOLDER, TOKEN_VOLUME_PREFIX, UPSTREAM_CA_VOLUME, VOLUMES,
};
use crate::normal;
use crate::parts::Shape;
use crate::patch::difference;
use crate::refusal::{Refusal, Refusals};
use crate::runtime::is_gvisor;
use crate::settings::{SecretName, Settings};
use crate::walk::{array, get, list_mut, members, misshapen, object_mut, text};

/// A governed pod.
#[derive(Clone, Debug)]
pub struct Mutation {
    /// The whole pod.
    pub pod: Value,
    /// What was changed to get there, as a JSON Patch (RFC 6902); empty for a governed pod.
    pub patch: Vec<Value>,
    /// What the pod's author should know: values that were replaced.
    pub warnings: Vec<String>,
}

/// What governs `pod`, an object with `metadata` and `spec`. `secret` becomes the pod's own unless
/// the pod names a valid one already.
pub fn mutate(pod: &Value, settings: &Settings, secret: &SecretName) -> Result<Mutation, Refusals> {
    inject(pod, settings, Some(secret))
}

/// The same for a template: without a Secret's name it gets none, and its pods get theirs at
/// admission.
pub fn mutate_template(
    template: &Value,
    settings: &Settings,
    secret: Option<&SecretName>,
) -> Result<Mutation, Refusals> {
    inject(template, settings, secret)
}

fn inject(
    pod: &Value,
    settings: &Settings,
    secret: Option<&SecretName>,
) -> Result<Mutation, Refusals> {
    let refuse = |field: String| {
        Refusals(vec![Refusal::new(
            field,
            "has a shape that no pod has",
            "write it as `kubectl explain pod` says",
        )])
    };
    if let Some(field) = misshapen(pod) {
        return Err(refuse(field));
    }
    let taken = taken_names(pod, settings);
    if !taken.is_empty() {
        return Err(Refusals(taken));
    }
    let kept = named_secret(pod);
    let mut governed = pod.clone();
    let mut warnings = Vec::new();
    let spec = governed
        .get_mut("spec")
        .and_then(Value::as_object_mut)
        .ok_or_else(|| refuse("spec".into()))?;
    pod_defaults(spec);
    if spec
        .get("automountServiceAccountToken")
        .is_none_or(Value::is_null)
    {
        spec.insert("automountServiceAccountToken".into(), json!(false));
        take_token_out(spec);
    }
    if settings.name_servers.is_empty()
        && spec
            .get("dnsConfig")
            .is_some_and(|dns| !array(dns, &["nameservers"]).is_empty())
    {
        warnings.push("spec.dnsConfig.nameservers: the gate asks these too; give the operator --nameserver to have it ask others".into());
    }
    let shape = Shape {
        settings,
        secret: kept.as_ref().or(secret),
        token: token_is_mounted(pod),
        gvisor: is_gvisor(pod, settings),
    };
    for list in ["initContainers", "containers"] {
        if !spec.contains_key(list) {
            continue;
        }
        for (index, container) in list_mut(spec, list).into_iter().flatten().enumerate() {
            let ours = list == "initContainers"
                && matches!(text(container, &["name"]), Some(GUARD | SIDECAR));
            if let (false, Some(container)) = (ours, container.as_object_mut()) {
                container_defaults(container, &format!("spec.{list}[{index}]"), &mut warnings);
            }
        }
    }
    place_containers(spec, shape);
    place_volumes(spec, shape);
    let patch = difference(pod, &governed);
    Ok(Mutation {
        pod: governed,
        patch,
        warnings,
    })
}

/// What is called as a part of the gate and is something else: init containers with images that are
/// not ours, volumes of another kind. Ours of another version is replaced, as from a template that was
/// written before an upgrade.
fn taken_names(pod: &Value, settings: &Settings) -> Vec<Refusal> {
    let mut taken = Vec::new();
    for (index, container) in array(pod, &["spec", "initContainers"]).iter().enumerate() {
        let image = match text(container, &["name"]) {
            Some(GUARD) => &settings.init_image,
            Some(SIDECAR) => &settings.sidecar_image,
            _ => continue,
        };
        let named = text(container, &["image"]).unwrap_or_default();
        if !image.is_of_the_name_of(named) {
            let name = text(container, &["name"]).unwrap_or_default();
            taken.push(Refusal::new(
                format!("spec.initContainers[{index}].image"),
                format!("`{named}` is not the image of {name}, whose name is Exeat's"),
                format!("use another name, or {image}"),
            ));
        }
    }
    for (index, volume) in array(pod, &["spec", "volumes"]).iter().enumerate() {
        let name = text(volume, &["name"]).unwrap_or_default();
        let source = match name {
            POLICY_VOLUME | UPSTREAM_CA_VOLUME => "configMap",
            POD_INFO_VOLUME => "downwardAPI",
            CREDENTIALS_VOLUME => "secret",
            JOURNAL_VOLUME | CA_VOLUME | RUN_VOLUME | NO_TOKEN_VOLUME => "emptyDir",
            _ => continue,
        };
        if get(volume, &[source]).is_none() {
            taken.push(Refusal::new(
                format!("spec.volumes[{index}]"),
                format!("`{name}` is the name of a volume of Exeat's, which is of another kind"),
                "use another name",
            ));
        }
    }
    taken
}

/// Whether the API server gives every container a token: only where the pod says so itself.
pub(crate) fn token_is_mounted(pod: &Value) -> bool {
    get(pod, &["spec", "automountServiceAccountToken"]) == Some(&Value::Bool(true))
}

/// The Secret that the pod names already, where it may.
pub(crate) fn named_secret(pod: &Value) -> Option<SecretName> {
    array(pod, &["spec", "volumes"])
        .iter()
        .find(|volume| text(volume, &["name"]) == Some(CREDENTIALS_VOLUME))
        .and_then(|volume| text(volume, &["secret", "secretName"]))
        .and_then(|name| SecretName::parse(name).ok())
}

fn pod_defaults(spec: &mut Map<String, Value>) {
    if spec.get("enableServiceLinks").is_none_or(Value::is_null) {
        spec.insert("enableServiceLinks".into(), json!(false));
    }
    if let Some(context) = object_mut(spec, "securityContext")
        && context.get("seccompProfile").is_none_or(Value::is_null)
    {
        context.insert("seccompProfile".into(), json!({"type": "RuntimeDefault"}));
    }
}

/// The API server adds the token's volume before any webhook is asked.
fn take_token_out(spec: &mut Map<String, Value>) {
    let is_token = |volume: &Value| {
        let named = text(volume, &["name"]).filter(|name| name.starts_with(TOKEN_VOLUME_PREFIX));
        let sources = array(volume, &["projected", "sources"]);
        named
            .filter(|_| {
                sources
                    .iter()
                    .any(|source| get(source, &["serviceAccountToken"]).is_some())
            })
            .map(str::to_owned)
    };
    let tokens: Vec<String> = match spec.get("volumes").and_then(Value::as_array) {
        Some(volumes) => volumes.iter().filter_map(is_token).collect(),
        None => return,
    };
    if tokens.is_empty() {
        return;
    }
    let named = |value: &Value| {
        text(value, &["name"]).is_some_and(|name| tokens.iter().any(|token| token == name))
    };
    for list in ["initContainers", "containers"] {
        let containers = spec.get_mut(list).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            if let Some(mounts) = container
                .get_mut("volumeMounts")
                .and_then(Value::as_array_mut)
            {
                mounts.retain(|mount| {
                    !(named(mount) && text(mount, &["mountPath"]) == Some(TOKEN_FOLDER))
                });
            }
        }
    }
    // What an author mounts elsewhere too stays.
    let used = |name: &str| {
        ["initContainers", "containers"].iter().any(|list| {
            spec.get(*list).is_some_and(|containers| {
                containers
                    .as_array()
                    .into_iter()
                    .flatten()
                    .any(|container| {
                        array(container, &["volumeMounts"])
                            .iter()
                            .any(|mount| text(mount, &["name"]) == Some(name))
                    })
            })
        })
    };
    let unused: Vec<String> = tokens.iter().filter(|name| !used(name)).cloned().collect();
    if let Some(volumes) = spec.get_mut("volumes").and_then(Value::as_array_mut) {
        volumes.retain(|volume| {
            !text(volume, &["name"]).is_some_and(|name| unused.iter().any(|token| token == name))
        });
    }
}

/// What every container beside ours needs.
fn container_defaults(container: &mut Map<String, Value>, path: &str, warnings: &mut Vec<String>) {
    if let Some(context) = object_mut(container, "securityContext") {
        if context
            .get("allowPrivilegeEscalation")
            .is_none_or(Value::is_null)
            // The API server refuses the two together; validation names `privileged`.
            && context.get("privileged") != Some(&Value::Bool(true))
        {
            context.insert("allowPrivilegeEscalation".into(), json!(false));
        }
        if let Some(set) = object_mut(context, "capabilities")
            && let Some(dropped) = list_mut(set, "drop")
        {
            capabilities::drop_needed(dropped);
        }
    }
    if let Some(variables) = list_mut(container, "env") {
        environment::set(variables, &format!("{path}.env"), warnings);
    }
    if let Some(mounts) = list_mut(container, "volumeMounts") {
        place_mounts(mounts, path, warnings);
    }
}

fn place_mounts(mounts: &mut Vec<Value>, path: &str, warnings: &mut Vec<String>) {
    for wanted in ca_mounts() {
        let place = wanted["mountPath"].as_str().unwrap_or_default().to_owned();
        let taken = mounts
            .iter()
            .filter_map(|mount| text(mount, &["mountPath"]));
        let mut covered = taken.filter(|taken| covers(taken, &place)).peekable();
        if covered.peek().is_none() {
            mounts.push(wanted);
        } else if place == SYSTEM_BUNDLE && !mounts.contains(&wanted) {
            warnings.push(format!(
                "{path}.volumeMounts: {place} is the pod's own; clients that read only it do not trust the gate"
            ));
        }
    }
}

/// Whether something mounted at `folder` is at or above `place`.
fn covers(folder: &str, place: &str) -> bool {
    let folder = folder.trim_end_matches('/');
    place
        .strip_prefix(folder)
        .is_some_and(|rest| rest.is_empty() || (rest.starts_with('/') && !folder.is_empty()))
}

/// How another container mounts the gate's certificate.
pub(crate) fn ca_mounts() -> [Value; 2] {
    [
        json!({"name": CA_VOLUME, "readOnly": true, "mountPath": CA_FOLDER}),
        json!({"name": CA_VOLUME, "readOnly": true, "mountPath": SYSTEM_BUNDLE, "subPath": CA_BUNDLE_NAME}),
    ]
}

/// Guard first, sidecar second, then the pod's own in their order.
fn place_containers(spec: &mut Map<String, Value>, shape: Shape<'_>) {
    let Some(list) = list_mut(spec, "initContainers") else {
        return;
    };
    let parts = [(GUARD, shape.guard()), (SIDECAR, shape.sidecar())];
    let right = parts.iter().enumerate().all(|(index, (_, part))| {
        list.get(index)
            .is_some_and(|found| normal::container(found) == normal::container(part))
    });
    let named = |value: &Value| matches!(text(value, &["name"]), Some(GUARD | SIDECAR));
    if right && !list.iter().skip(parts.len()).any(named) {
        return;
    }
    list.retain(|container| !named(container));
    list.splice(0..0, parts.map(|(_, part)| part));
}

fn place_volumes(spec: &mut Map<String, Value>, shape: Shape<'_>) {
    let Some(list) = list_mut(spec, "volumes") else {
        return;
    };
    let wanted = shape.volumes();
    let name = |volume: &Value| text(volume, &["name"]).map(str::to_owned);
    // Ours that this pod does not need, and those that an author shadows ours with a second time.
    let mut seen: Vec<String> = Vec::new();
    list.retain(|volume| {
        let Some(own) = name(volume).filter(|name| VOLUMES.contains(&name.as_str())) else {
            return true;
        };
        let needed = wanted
            .iter()
            .any(|volume| name(volume).as_ref() == Some(&own));
        let first = !seen.contains(&own);
        seen.push(own);
        needed && first
    });
    for volume in wanted {
        match list.iter_mut().find(|found| name(found) == name(&volume)) {
            Some(found) if normal::volume(found) == normal::volume(&volume) => {}
            Some(found) => *found = volume,
            None => list.push(volume),
        }
    }
}

/// Annotations that would change our containers, were they obeyed.
pub(crate) fn steering_annotations(pod: &Value) -> impl Iterator<Item = &String> {
    members(pod, &["metadata", "annotations"])
        .map(|(key, _)| key)
        .filter(|key| {
            key.rsplit_once('/')
                .is_some_and(|(_, name)| name == GUARD || name == SIDECAR)
        })
}
