//! Starts the node, each part as soon as those are there that it needs.

use std::{
    fmt::Write as _,
    fs,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

use super::{
    down,
    place::{CABLE, HOST_V4, NAMESPACE, NODE_V4, NODE_V6, Place, SERVICES},
    process::{inside, kubectl, runs, start, until},
    settings,
};
use crate::{
    images,
    setup::{self, Need},
    shell::quietly,
};

/// On a machine with other work to do, each step takes its time.
const PATIENCE: Duration = Duration::from_mins(2);

/// What the machine itself has to bring, and the Debian packages that do.
const NEEDS: [Need; 6] = [
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("iptables", "iptables"),
    ("conntrack", "conntrack"),
    ("runc", "runc"),
    ("openssl", "openssl"),
];

/// What kubelet changes for the whole machine, and leaves changed.
pub(super) const MACHINE: [&str; 5] = [
    "/proc/sys/vm/overcommit_memory",
    "/proc/sys/vm/panic_on_oom",
    "/proc/sys/kernel/panic",
    "/proc/sys/kernel/panic_on_oops",
    "/proc/sys/kernel/keys/root_maxkeys",
];

pub(super) fn main(place: &Place) -> Result<()> {
    if is_up(place) {
        return Ok(());
    }
    setup::programs(&NEEDS)?;
    down::main(place)?;
    let begun = Instant::now();
    folders(place)?;
    network()?;
    identities(place)?;
    control_plane(place)?;
    node(place)?;
    sandboxes(place)?;
    until("the node", PATIENCE, || {
        Ok(kubectl(place, &["get", "node", "n1", "--no-headers"])?.contains(" Ready"))
    })?;
    eprintln!("cluster: ready after {} s", begun.elapsed().as_secs());
    Ok(())
}

/// Whether there is one already.
pub(super) fn is_up(place: &Place) -> bool {
    runs(place, "kubelet") && runs(place, "apiserver")
}

fn folders(place: &Place) -> Result<()> {
    let state = &place.state;
    // Somebody else may have made a folder of that name in a place that everybody can write to.
    fs::DirBuilder::new()
        .mode(0o711)
        .create(state)
        .with_context(|| format!("could not make {}", state.display()))?;
    for folder in ["cni", "log", "pids", "machine", "certificates"] {
        fs::create_dir(state.join(folder))?;
    }
    for path in MACHINE {
        if let Ok(value) = fs::read(path) {
            fs::write(state.join("machine").join(path.replace('/', "%")), value)?;
        }
    }
    Ok(())
}

/// A host of its own: one cable to the machine, both families inside.
fn network() -> Result<()> {
    let ip = |words: String| quietly(Command::new("ip").args(words.split(' '))).map(drop);
    ip(format!("netns add {NAMESPACE}"))?;
    ip(format!(
        "link add {CABLE} type veth peer name eth0 netns {NAMESPACE}"
    ))?;
    ip(format!("addr add {HOST_V4}/24 dev {CABLE}"))?;
    ip(format!("link set {CABLE} up"))?;
    for words in [
        "link set lo up".to_owned(),
        format!("addr add {NODE_V4}/24 dev eth0"),
        format!("addr add {NODE_V6}/64 dev eth0 nodad"),
        "link set eth0 up".to_owned(),
        format!("route add default via {HOST_V4}"),
    ] {
        ip(format!("-n {NAMESPACE} {words}"))?;
    }
    quietly(inside("sysctl").args([
        "-qw",
        "net.ipv4.ip_forward=1",
        "net.ipv6.conf.all.forwarding=1",
    ]))?;
    Ok(())
}

fn identities(place: &Place) -> Result<()> {
    let mut tokens = String::new();
    for (file, user, groups) in settings::IDENTITIES {
        let token = random()?;
        writeln!(tokens, "{token},{user},{file},\"{groups}\"")?;
        private(
            &place.state.join(format!("{file}.kubeconfig")),
            &settings::kubeconfig(place, &token),
        )?;
    }
    private(&place.state.join("tokens.csv"), &tokens)?;
    let key = place.state.join("accounts.key");
    quietly(Command::new("openssl").args(["genrsa", "-out"]).arg(&key))?;
    quietly(
        Command::new("openssl")
            .args(["rsa", "-pubout", "-in"])
            .arg(&key)
            .arg("-out")
            .arg(place.state.join("accounts.pub")),
    )?;
    certificate(place)
}

/// The API server's certificate under an authority, with the names that kubeadm's has. Its own making
/// would lack `kubernetes.default.svc.cluster.local`, the name by which pods call it; it takes what is
/// in its folder already.
fn certificate(place: &Place) -> Result<()> {
    let folder = place.state.join("certificates");
    fs::create_dir_all(&folder)?;
    let file = |name: &str| folder.join(name).display().to_string();
    let make = |words: &[&str], key: &str, out: &str| {
        let mut openssl = Command::new("openssl");
        openssl.args([
            "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30",
        ]);
        openssl.args(words);
        quietly(openssl.args(["-keyout", &file(key), "-out", &file(out)]))
    };
    make(
        &["-subj", "/CN=exeat-node-ca"],
        "authority.key",
        "authority.crt",
    )?;
    let service = SERVICES.split_once(".0.0/").map_or("", |(net, _)| net);
    let names = format!(
        "subjectAltName=DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,\
         DNS:kubernetes.default.svc.cluster.local,IP:{NODE_V4},IP:{service}.0.1,IP:127.0.0.1"
    );
    let mut words = vec!["-subj", "/CN=kube-apiserver", "-addext", &names];
    words.extend(["-addext", "basicConstraints=critical,CA:FALSE"]);
    let (authority, key) = (file("authority.crt"), file("authority.key"));
    words.extend(["-CA", &authority, "-CAkey", &key]);
    make(&words, "apiserver.key", "apiserver.crt")?;
    // The chain, which clients here also take for the root.
    let chain = [
        fs::read_to_string(file("apiserver.crt"))?,
        fs::read_to_string(&authority)?,
    ];
    fs::write(file("apiserver.crt"), chain.concat())?;
    Ok(())
}

fn control_plane(place: &Place) -> Result<()> {
    let state = place.state.display();
    launch(
        place,
        "etcd",
        "etcd",
        &format!(
            "--data-dir {state}/etcd --unsafe-no-fsync \
             --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
             --listen-peer-urls http://127.0.0.1:2380 --initial-advertise-peer-urls http://127.0.0.1:2380 \
             --initial-cluster default=http://127.0.0.1:2380"
        ),
    )?;
    launch(
        place,
        "apiserver",
        "kube-apiserver",
        &format!(
            "--etcd-servers http://127.0.0.1:2379 --cert-dir {state}/certificates \
             --bind-address {NODE_V4} --advertise-address {NODE_V4} --secure-port 6443 \
             --service-account-issuer https://kubernetes.default.svc \
             --service-account-key-file {state}/accounts.pub \
             --service-account-signing-key-file {state}/accounts.key \
             --service-cluster-ip-range {SERVICES} --token-auth-file {state}/tokens.csv \
             --authorization-mode Node,RBAC --allow-privileged --enable-aggregator-routing \
             --kubelet-preferred-address-types InternalIP"
        ),
    )?;
    until("the API server", PATIENCE, || {
        ensure!(
            runs(place, "apiserver"),
            "it ended; see {state}/log/apiserver.log"
        );
        Ok(kubectl(place, &["get", "--raw", "/readyz"])?.contains("ok"))
    })?;
    launch(
        place,
        "controllers",
        "kube-controller-manager",
        &format!(
            "--kubeconfig {state}/controllers.kubeconfig \
             --authentication-kubeconfig {state}/controllers.kubeconfig \
             --authorization-kubeconfig {state}/controllers.kubeconfig \
             --service-account-private-key-file {state}/accounts.key \
             --root-ca-file {state}/certificates/apiserver.crt --use-service-account-credentials \
             --leader-elect=false --bind-address 127.0.0.1"
        ),
    )?;
    launch(
        place,
        "scheduler",
        "kube-scheduler",
        &format!(
            "--kubeconfig {state}/scheduler.kubeconfig \
             --authentication-kubeconfig {state}/scheduler.kubeconfig \
             --authorization-kubeconfig {state}/scheduler.kubeconfig \
             --leader-elect=false --bind-address 127.0.0.1"
        ),
    )
}

fn node(place: &Place) -> Result<()> {
    let state = &place.state;
    for (file, text) in [
        ("containerd.toml", settings::containerd(place)),
        ("cni/10-exeat.conflist", settings::network(place)),
        ("Corefile", settings::corefile(place)),
        ("resolv.conf", format!("nameserver {NODE_V4}\n")),
        ("kubelet.yaml", settings::kubelet(place)),
        ("proxy.yaml", settings::proxy(place)),
        ("otelcol.yaml", settings::collector(place)),
    ] {
        fs::write(state.join(file), text)?;
    }
    let state = state.display();
    launch(
        place,
        "containerd",
        "containerd",
        &format!("-c {state}/containerd.toml"),
    )?;
    launch(
        place,
        "coredns",
        "coredns",
        &format!("-conf {state}/Corefile"),
    )?;
    until("containerd", PATIENCE, || {
        ensure!(
            runs(place, "containerd"),
            "it ended; see {state}/log/containerd.log"
        );
        quietly(&mut ctr(place, &["version"])).map(|_| true)
    })?;
    let archive = place.state.join("pause.tar");
    images::pause(&place.bin.join("pause"), &archive)?;
    let archive = archive.display().to_string();
    quietly(&mut ctr(
        place,
        &["-n", "k8s.io", "images", "import", &archive],
    ))?;
    kubelet(place)?;
    launch(
        place,
        "otelcol",
        "otelcol",
        &format!("--config {state}/otelcol.yaml"),
    )?;
    launch(
        place,
        "kube-proxy",
        "kube-proxy",
        &format!("--config {state}/proxy.yaml"),
    )
}

fn kubelet(place: &Place) -> Result<()> {
    let state = place.state.display();
    launch(
        place,
        "kubelet",
        "kubelet",
        &format!(
            "--config {state}/kubelet.yaml --kubeconfig {state}/kubelet.kubeconfig \
             --root-dir {state}/kubelet --cert-dir {state}/kubelet-certificates \
             --hostname-override n1 --node-ip {NODE_V4}"
        ),
    )
}

/// The agent-sandbox controller gives up if its resources are not known when it starts.
fn sandboxes(place: &Place) -> Result<()> {
    let folder = place.resources.join("agent-sandbox").display().to_string();
    kubectl(place, &["apply", "--server-side", "-f", &folder])?;
    kubectl(place, &["create", "namespace", "agent-sandbox-system"])?;
    kubectl(
        place,
        &[
            "wait",
            "--for=condition=Established",
            "--timeout=60s",
            "-f",
            &folder,
        ],
    )?;
    launch(
        place,
        "agent-sandbox",
        "agent-sandbox-controller",
        &format!(
            "--kubeconfig {} --extensions --enable-webhook=false \
             --manage-webhook-certs=false --leader-elect=false",
            place.kubeconfig().display()
        ),
    )
}

pub(super) fn ctr(place: &Place, words: &[&str]) -> Command {
    let mut command = Command::new(place.bin.join("ctr"));
    command.arg("-a").arg(place.containerd()).args(words);
    command
}

fn launch(place: &Place, name: &str, program: &str, words: &str) -> Result<()> {
    let words: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
    start(place, name, program, &words)
}

fn random() -> Result<String> {
    let said = quietly(Command::new("openssl").args(["rand", "-hex", "16"]))?;
    let token = said.trim().to_owned();
    if token.len() != 32 {
        bail!("openssl gave no random number");
    }
    Ok(token)
}

fn private(path: &Path, text: &str) -> Result<()> {
    fs::write(path, "")?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    fs::write(path, text).with_context(|| format!("could not write {}", path.display()))
}
