//! What is added to a pod: the guard, the sidecar, and their volumes, exactly as the API server
//! stores them. Validation compares with the same values, so a pod holds these or is refused.

use serde_json::{Value, json};

use crate::names::{
    CA_VOLUME, CREDENTIALS_VOLUME, GUARD, JOURNAL_VOLUME, NO_TOKEN_VOLUME, POD_INFO_VOLUME,
    POLICY_CONFIG_MAP, POLICY_VOLUME, RUN_VOLUME, SIDECAR, SIDECAR_ID, TOKEN_FOLDER,
    UPSTREAM_CA_CONFIG_MAP, UPSTREAM_CA_VOLUME,
};
use crate::runtime::guard_capabilities;
use crate::settings::{Resources, SecretName, Settings};

/// Room for the journal that the sidecar keeps (2 GiB) and its index: a larger one would have the
/// pod evicted.
const JOURNAL_SIZE: &str = "2304Mi";

/// A certificate, and all public roots in two formats, twice while they are replaced: 1 MiB.
const CA_SIZE: &str = "4Mi";

/// A lock file.
const RUN_SIZE: &str = "1Mi";

/// Everyone in the sidecar's container may read it, and it is mounted in no other.
const SECRET_MODE: u32 = 0o444;

/// What differs from pod to pod.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape<'a> {
    pub(crate) settings: &'a Settings,
    /// None where a template is to get its credentials at admission.
    pub(crate) secret: Option<&'a SecretName>,
    /// Whether the API server mounts the service account's token where nobody else mounts anything.
    pub(crate) token: bool,
    /// Whether the pod runs in gVisor.
    pub(crate) gvisor: bool,
}

// === impl Shape ===

impl Shape<'_> {
    pub(crate) fn guard(self) -> Value {
        let mut mounts = vec![json!({"name": RUN_VOLUME, "mountPath": "/run"})];
        mounts.extend(self.no_token());
        json!({
            "name": GUARD,
            "image": self.settings.init_image.as_str(),
            "command": ["/exeat-init"],
            "args": ["apply"],
            "resources": resources(self.settings.init_resources),
            "volumeMounts": mounts,
            "terminationMessagePath": "/dev/termination-log",
            "terminationMessagePolicy": "FallbackToLogsOnError",
            "imagePullPolicy": self.settings.pull_policy.as_str(),
            "securityContext": {
                "capabilities": {"add": guard_capabilities(self.gvisor), "drop": ["ALL"]},
                "privileged": false,
                "runAsUser": 0,
                "runAsGroup": 0,
                "runAsNonRoot": false,
                "readOnlyRootFilesystem": true,
                "allowPrivilegeEscalation": false,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
        })
    }

    pub(crate) fn sidecar(self) -> Value {
        json!({
            "name": SIDECAR,
            "image": self.settings.sidecar_image.as_str(),
            "command": ["/exeat-sidecar"],
            "args": self.arguments(),
            "env": [
                field("EXEAT_NAMESPACE", "metadata.namespace"),
                field("EXEAT_POD", "metadata.name"),
                field("EXEAT_POD_UID", "metadata.uid"),
                field("EXEAT_SERVICE_ACCOUNT", "spec.serviceAccountName"),
            ],
            "resources": resources(self.settings.sidecar_resources),
            "restartPolicy": "Always",
            "volumeMounts": self.sidecar_mounts(),
            "livenessProbe": probe("live", 10, 6),
            "readinessProbe": probe("ready", 5, 3),
            // Two minutes, as linkerd gives its own.
            "startupProbe": probe("started", 1, 120),
            "terminationMessagePath": "/dev/termination-log",
            "terminationMessagePolicy": "FallbackToLogsOnError",
            "imagePullPolicy": self.settings.pull_policy.as_str(),
            "securityContext": {
                "capabilities": {"drop": ["ALL"]},
                "privileged": false,
                "runAsUser": SIDECAR_ID,
                "runAsGroup": SIDECAR_ID,
                "runAsNonRoot": true,
                "readOnlyRootFilesystem": true,
                "allowPrivilegeEscalation": false,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
        })
    }

    fn arguments(self) -> Vec<String> {
        let settings = self.settings;
        let mut arguments: Vec<String> = [
            "--policy-dir=/etc/exeat/policy",
            "--labels-file=/etc/exeat/podinfo/labels",
        ]
        .map(str::to_owned)
        .to_vec();
        if self.secret.is_some() {
            arguments.push("--credentials-dir=/etc/exeat/credentials".into());
        }
        arguments.extend(
            [
                "--audit=/var/lib/exeat/journal/audit.jsonl",
                "--ca-out=/var/lib/exeat/ca/ca.pem",
                "--ca-bundle-out=/var/lib/exeat/ca/bundle.pem",
                "--ca-java-out=/var/lib/exeat/ca/cacerts.jks",
                "--namespace=$(EXEAT_NAMESPACE)",
                "--pod=$(EXEAT_POD)",
                "--pod-uid=$(EXEAT_POD_UID)",
                "--service-account=$(EXEAT_SERVICE_ACCOUNT)",
                // Not started, let alone ready, where the confinement is not there.
                "--self-test",
            ]
            .map(str::to_owned),
        );
        // `$` would begin a variable of Kubernetes'.
        let plain = |text: &str| text.replace('$', "$$");
        arguments.extend(
            settings
                .otlp
                .iter()
                .map(|url| format!("--otlp={}", plain(url))),
        );
        let servers = settings.name_servers.iter();
        arguments.extend(servers.map(|server| format!("--nameserver={}", plain(server))));
        if settings.upstream_ca {
            arguments.push("--upstream-ca=/etc/exeat/upstream-ca/ca.pem".into());
        }
        let durability = settings.durability.iter();
        arguments.extend(durability.map(|level| format!("--durability={}", level.as_str())));
        arguments
    }

    fn sidecar_mounts(self) -> Vec<Value> {
        let read =
            |name: &str, path: &str| json!({"name": name, "readOnly": true, "mountPath": path});
        let mut mounts = vec![
            read(POLICY_VOLUME, "/etc/exeat/policy"),
            read(POD_INFO_VOLUME, "/etc/exeat/podinfo"),
        ];
        if self.secret.is_some() {
            mounts.push(read(CREDENTIALS_VOLUME, "/etc/exeat/credentials"));
        }
        mounts.push(json!({"name": JOURNAL_VOLUME, "mountPath": "/var/lib/exeat/journal"}));
        mounts.push(json!({"name": CA_VOLUME, "mountPath": "/var/lib/exeat/ca"}));
        if self.settings.upstream_ca {
            mounts.push(read(UPSTREAM_CA_VOLUME, "/etc/exeat/upstream-ca"));
        }
        mounts.extend(self.no_token());
        mounts
    }

    /// The gate talks to no API server: where a token would be mounted, an empty folder is.
    fn no_token(self) -> Option<Value> {
        self.token
            .then(|| json!({"name": NO_TOKEN_VOLUME, "readOnly": true, "mountPath": TOKEN_FOLDER}))
    }

    pub(crate) fn volumes(self) -> Vec<Value> {
        let mut volumes = vec![
            json!({"name": POLICY_VOLUME, "configMap": {"name": POLICY_CONFIG_MAP, "defaultMode": 420, "optional": true}}),
            json!({"name": POD_INFO_VOLUME, "downwardAPI": {
                "items": [{"path": "labels", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.labels"}}],
                "defaultMode": 420,
            }}),
        ];
        if let Some(secret) = self.secret {
            volumes.push(json!({"name": CREDENTIALS_VOLUME, "secret": {
                "secretName": secret.as_str(), "defaultMode": SECRET_MODE, "optional": true,
            }}));
        }
        volumes.push(json!({"name": JOURNAL_VOLUME, "emptyDir": {"sizeLimit": JOURNAL_SIZE}}));
        volumes.push(
            json!({"name": CA_VOLUME, "emptyDir": {"medium": "Memory", "sizeLimit": CA_SIZE}}),
        );
        volumes.push(
            json!({"name": RUN_VOLUME, "emptyDir": {"medium": "Memory", "sizeLimit": RUN_SIZE}}),
        );
        if self.settings.upstream_ca {
            volumes.push(json!({"name": UPSTREAM_CA_VOLUME, "configMap": {
                "name": UPSTREAM_CA_CONFIG_MAP, "defaultMode": 420, "optional": true,
            }}));
        }
        if self.token {
            volumes.push(json!({"name": NO_TOKEN_VOLUME, "emptyDir": {"medium": "Memory", "sizeLimit": RUN_SIZE}}));
        }
        volumes
    }
}

fn field(name: &str, path: &str) -> Value {
    json!({"name": name, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}})
}

/// By exec: an agent can answer on a dead sidecar's port, but not run in its container.
fn probe(stage: &str, period: u32, failures: u32) -> Value {
    json!({
        "exec": {"command": ["/exeat-sidecar", "healthz", "--stage", stage]},
        "timeoutSeconds": 5,
        "periodSeconds": period,
        "successThreshold": 1,
        "failureThreshold": failures,
    })
}

fn resources(resources: Resources) -> Value {
    json!({
        "limits": {"cpu": cpu(resources.cpu_limit), "memory": memory(resources.memory_limit)},
        "requests": {"cpu": cpu(resources.cpu_request), "memory": memory(resources.memory_request)},
    })
}

/// As the API server writes it: `2`, `50m`.
fn cpu(thousandths: u32) -> String {
    if thousandths.is_multiple_of(1000) {
        (thousandths / 1000).to_string()
    } else {
        format!("{thousandths}m")
    }
}

/// As the API server writes it: `1Gi`, `256Mi`.
fn memory(mebibytes: u32) -> String {
    if mebibytes.is_multiple_of(1024) {
        format!("{}Gi", mebibytes / 1024)
    } else {
        format!("{mebibytes}Mi")
    }
}
