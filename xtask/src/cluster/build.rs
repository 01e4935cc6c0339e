//! Builds the cluster's programs from the Go modules that `tests/cluster/go` pins.
//!
//! A program is built again when its module's file changes; an interrupted build is no finished one.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use super::place::Place;
use crate::{
    setup::step,
    shell::{find, quietly, root, run},
};

/// A module, what is built from it, and what the linker is told.
type Module = (&'static str, &'static [&'static str], &'static str);

const MODULES: &[Module] = &[
    ("etcd", &["go.etcd.io/etcd/server/v3"], ""),
    (
        "kubernetes",
        &[
            "k8s.io/kubernetes/cmd/kube-apiserver",
            "k8s.io/kubernetes/cmd/kube-controller-manager",
            "k8s.io/kubernetes/cmd/kube-scheduler",
            "k8s.io/kubernetes/cmd/kube-proxy",
            "k8s.io/kubernetes/cmd/kubelet",
            "k8s.io/kubernetes/cmd/kubectl",
        ],
        "-X k8s.io/component-base/version.gitVersion=v1.36.3 \
         -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=36",
    ),
    (
        "containerd",
        &[
            "github.com/containerd/containerd/v2/cmd/containerd",
            "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
            "github.com/containerd/containerd/v2/cmd/ctr",
            "github.com/containernetworking/plugins/plugins/main/ptp",
            "github.com/containernetworking/plugins/plugins/main/loopback",
            "github.com/containernetworking/plugins/plugins/ipam/host-local",
        ],
        "-X github.com/containerd/containerd/v2/version.Version=2.4.2",
    ),
    ("coredns", &["github.com/coredns/coredns"], ""),
    (
        "agent-sandbox",
        &["sigs.k8s.io/agent-sandbox/cmd/agent-sandbox-controller"],
        "",
    ),
    ("gvisor", &["gvisor.dev/gvisor/runsc"], ""),
    ("helm", &["helm.sh/helm/v4/cmd/helm"], ""),
    ("pause", &["."], ""),
];

/// The oldest Go whose compiler builds them all.
const GO: (u32, u32) = (1, 26);

/// Builds what is missing or made from other modules than are pinned now.
pub(crate) fn main() -> Result<()> {
    let place = Place::new();
    fs::create_dir_all(&place.bin)?;
    for (module, packages, linker) in MODULES {
        let folder = source(module);
        step(
            &format!("cluster-{module}"),
            &[&folder.join("go.mod")],
            || {
                compiler()?;
                eprintln!(
                    "cluster: building {module} (all take 22 processor minutes, the first time)"
                );
                go(&folder, &place.bin, packages, linker)
            },
        )?;
    }
    collector(&place)?;
    resources(&place)
}

fn source(module: &str) -> PathBuf {
    root().join("tests/cluster/go").join(module)
}

fn go(folder: &Path, bin: &Path, packages: &[&str], linker: &str) -> Result<()> {
    // The name of a command is its path's last part; of `…/v3`, that would be a version.
    let etcd = packages.iter().any(|package| package.ends_with("/v3"));
    let out = if etcd { bin.join("etcd") } else { bin.join("") };
    run(Command::new("go")
        .args(["build", "-trimpath", "-ldflags"])
        .arg(format!("-s -w {linker}"))
        .arg("-o")
        .arg(out)
        .args(packages)
        .env("CGO_ENABLED", "0")
        .current_dir(folder))
}

/// The collector's own builder writes a program of the wanted parts, and compiles it.
fn collector(place: &Place) -> Result<()> {
    let (module, recipe) = (
        source("collector"),
        source("collector").join("builder.yaml"),
    );
    step(
        "cluster-collector",
        &[&module.join("go.mod"), &recipe],
        || {
            compiler()?;
            eprintln!("cluster: building the OpenTelemetry Collector");
            let builder = ["go.opentelemetry.io/collector/cmd/builder"];
            go(&module, &place.bin, &builder, "")?;
            let work = tempfile::tempdir()?;
            quietly(
                Command::new(place.bin.join("builder"))
                    .arg("--config")
                    .arg(&recipe)
                    .env("CGO_ENABLED", "0")
                    .current_dir(work.path()),
            )?;
            let built = work.path().join("otelcol-build/otelcol");
            fs::copy(&built, place.bin.join("otelcol"))
                .with_context(|| format!("the builder left no {}", built.display()))?;
            Ok(())
        },
    )
}

/// The CRDs that the agent-sandbox modules come with.
fn resources(place: &Place) -> Result<()> {
    let module = source("agent-sandbox");
    step("cluster-resources", &[&module.join("go.mod")], || {
        compiler()?;
        let list = ["list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/agent-sandbox"];
        let folder = quietly(Command::new("go").args(list).current_dir(&module))?;
        let (from, to) = (
            Path::new(folder.trim()).join("k8s/crds"),
            place.resources.join("agent-sandbox"),
        );
        fs::create_dir_all(&to)?;
        for entry in
            fs::read_dir(&from).with_context(|| format!("the module has no {}", from.display()))?
        {
            let entry = entry?;
            fs::write(to.join(entry.file_name()), fs::read(entry.path())?)?;
        }
        Ok(())
    })
}

fn compiler() -> Result<()> {
    let Some(_) = find("go") else {
        bail!(
            "the cluster's programs are Go's\nhint: install Go {}.{} or newer",
            GO.0,
            GO.1
        );
    };
    let said = quietly(Command::new("go").args(["env", "GOVERSION"]))?;
    let mut numbers = said
        .trim()
        .trim_start_matches("go")
        .split('.')
        .filter_map(|number| number.parse::<u32>().ok());
    let had = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if had < GO {
        bail!(
            "the cluster's programs need Go {}.{}, this is {}\n\
             hint: `cargo xtask test --without cluster` leaves them out",
            GO.0,
            GO.1,
            said.trim()
        );
    }
    Ok(())
}
