//! What the cluster's programs are told: their files of settings, as text.
//!
//! The node has to live with what a container or a small virtual machine gives: control groups of
//! either version, no right to change OOM scores, no limits of its own to enforce.

use std::fmt::Write as _;

use super::place::{NODE_V4, NODE_V6, PODS_V4, PODS_V6, Place};

/// Who speaks to the API server: the file's name, the user's, its groups.
pub(super) const IDENTITIES: [(&str, &str, &str); 5] = [
    ("admin", "admin", "system:masters"),
    ("controllers", "system:kube-controller-manager", ""),
    ("scheduler", "system:kube-scheduler", ""),
    ("kubelet", "system:node:n1", "system:nodes"),
    // The tests' tenant: may do what a namespace's owner grants it, and nothing else.
    ("tenant", "tenant", ""),
];

pub(super) fn kubeconfig(place: &Place, token: &str) -> String {
    format!(
        "apiVersion: v1
kind: Config
clusters:
- name: exeat
  cluster:
    server: https://{NODE_V4}:6443
    certificate-authority: {}/certificates/apiserver.crt
users:
- name: user
  user:
    token: {token}
contexts:
- name: exeat
  context: {{cluster: exeat, user: user}}
current-context: exeat
",
        place.state.display()
    )
}

pub(super) fn containerd(place: &Place) -> String {
    let state = place.state.display();
    format!(
        r#"version = 3
root = "{state}/containerd-root"
state = "{state}/containerd-state"
[grpc]
  address = "{state}/containerd.sock"
[plugins."io.containerd.cri.v1.images"]
  snapshotter = "overlayfs"
  [plugins."io.containerd.cri.v1.images".pinned_images]
    sandbox = "localhost/pause:1"
[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
  # So that whatever is left of a pod is found with the rest of the state.
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["{bin}"]
    conf_dir = "{state}/cni"
  [plugins."io.containerd.cri.v1.runtime".containerd]
    default_runtime_name = "runc"
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
"#,
        bin = place.bin.display()
    )
}

pub(super) fn network(place: &Place) -> String {
    format!(
        r#"{{"cniVersion": "1.0.0", "name": "exeat", "plugins": [{{
  "type": "ptp",
  "ipam": {{
    "type": "host-local", "dataDir": "{}/addresses",
    "ranges": [[{{"subnet": "{PODS_V4}"}}], [{{"subnet": "{PODS_V6}"}}]],
    "routes": [{{"dst": "0.0.0.0/0"}}, {{"dst": "::/0"}}]
  }}
}}]}}
"#,
        place.state.display()
    )
}

/// The cluster's names, and `*.upstream.test`: the node itself, where the tests' servers listen.
pub(super) fn corefile(place: &Place) -> String {
    let mut text = format!(
        ".:53 {{
  bind {NODE_V4}
  errors
  kubernetes cluster.local {{
    kubeconfig {}
  }}
}}
upstream.test:53 {{
  bind {NODE_V4}
",
        place.kubeconfig().display()
    );
    for (kind, address) in [("A", NODE_V4), ("AAAA", NODE_V6)] {
        let _infallible = writeln!(
            text,
            "  template IN {kind} {{\n    answer \"{{{{ .Name }}}} 60 IN {kind} {address}\"\n  }}"
        );
    }
    text.push_str("}\n");
    text
}

pub(super) fn kubelet(place: &Place) -> String {
    format!(
        "apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
cgroupDriver: cgroupfs
cgroupsPerQOS: false
enforceNodeAllocatable: []
failCgroupV1: false
failSwapOn: false
oomScoreAdj: 0
makeIPTablesUtilChains: false
localStorageCapacityIsolation: false
imageMinimumGCAge: 24h
authentication: {{anonymous: {{enabled: true}}, webhook: {{enabled: false}}}}
authorization: {{mode: AlwaysAllow}}
resolvConf: {state}/resolv.conf
clusterDNS: [{NODE_V4}]
clusterDomain: cluster.local
containerRuntimeEndpoint: unix://{socket}
",
        state = place.state.display(),
        socket = place.containerd().display()
    )
}

pub(super) fn proxy(place: &Place) -> String {
    format!(
        "apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
bindAddress: {NODE_V4}
clientConnection: {{kubeconfig: {}}}
conntrack: {{maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}}
clusterCIDR: {PODS_V4},{PODS_V6}
hostnameOverride: n1
",
        place.kubeconfig().display()
    )
}

/// Takes what sidecars export, and writes it down for the tests to read.
pub(super) fn collector(place: &Place) -> String {
    format!(
        "receivers:
  otlp:
    protocols:
      grpc: {{endpoint: \"{NODE_V4}:4317\"}}
      http: {{endpoint: \"{NODE_V4}:4318\"}}
exporters:
  file: {{path: {}/otel.jsonl, flush_interval: 100ms}}
service:
  telemetry: {{metrics: {{level: none}}}}
  pipelines:
    logs: {{receivers: [otlp], exporters: [file]}}
",
        place.state.display()
    )
}
