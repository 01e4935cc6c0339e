//! Ends what `up` started, in an order that lets each part clean up behind itself, and then removes
//! what is left. Nothing happens where nothing is up.

use std::{
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use super::{
    place::{CABLE, NAMESPACE, Place, netns},
    process::{self, end, runs},
    up::{MACHINE, ctr},
};
use crate::shell::quietly;

/// What makes pods, so that deleted ones stay away.
const OWNERS: &str = "sandboxclaims,sandboxwarmpools,sandboxes,deployments,daemonsets,\
                      statefulsets,cronjobs,jobs,pods";

/// How long containers may take to be gone.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) fn main(place: &Place) -> Result<()> {
    if !place.state.exists() {
        return interfaces();
    }
    if runs(place, "apiserver") && runs(place, "kubelet") {
        // Admission may be what stands in the way of ending pods.
        let _best_effort = delete(
            place,
            "mutatingwebhookconfigurations,validatingwebhookconfigurations",
        );
        let _best_effort = delete(place, OWNERS);
    }
    // Whoever starts containers first, whoever holds them next.
    for name in ["agent-sandbox", "controllers", "scheduler", "kubelet"] {
        end(place, name);
    }
    containers(place);
    for (name, _) in process::all(place).unwrap_or_default() {
        end(place, &name);
    }
    shims(place);
    mounts(&place.state);
    interfaces()?;
    machine(place);
    fs::remove_dir_all(&place.state)
        .with_context(|| format!("could not remove {}", place.state.display()))
}

fn delete(place: &Place, kinds: &str) -> Result<()> {
    quietly(
        Command::new("timeout")
            .arg("20")
            .arg("nsenter")
            .arg(format!("--net={}", netns()))
            .arg(place.bin.join("kubectl"))
            .arg("--kubeconfig")
            .arg(place.kubeconfig())
            .args(["delete", kinds, "--all-namespaces", "--all", "--now"]),
    )
    .map(drop)
}

/// Those of our containerd, which nobody else uses.
fn containers(place: &Place) {
    let listed = |what: &str| {
        quietly(&mut ctr(place, &["-n", "k8s.io", what, "ls", "-q"])).unwrap_or_default()
    };
    let begun = Instant::now();
    while runs(place, "containerd") && begun.elapsed() < PATIENCE {
        let left = listed("containers");
        if left.trim().is_empty() {
            break;
        }
        for container in left.lines() {
            let _gone = quietly(&mut ctr(
                place,
                &["-n", "k8s.io", "tasks", "rm", "-f", container],
            ));
            let _gone = quietly(&mut ctr(
                place,
                &["-n", "k8s.io", "containers", "rm", container],
            ));
        }
    }
}

/// A shim outlives its containerd; those of ours name its socket.
fn shims(place: &Place) {
    let socket = place.containerd().display().to_string();
    let Ok(entries) = fs::read_dir("/proc") else {
        return;
    };
    for entry in entries.flatten() {
        let pid = entry.file_name().to_string_lossy().into_owned();
        let words = fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
        if words.split('\0').any(|word| word == socket)
            && words.contains("containerd-shim")
            && pid.bytes().all(|byte| byte.is_ascii_digit())
        {
            let _gone = quietly(Command::new("kill").args(["-KILL", &pid]));
        }
    }
}

fn mounts(state: &Path) {
    let text = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mut inside: Vec<&str> = text
        .lines()
        .filter_map(|line| line.split(' ').nth(1))
        .filter(|point| Path::new(point).starts_with(state))
        .collect();
    // The deepest first.
    inside.sort_unstable();
    for point in inside.into_iter().rev() {
        let _gone = quietly(Command::new("umount").args(["-l", point]));
    }
}

fn interfaces() -> Result<()> {
    if Path::new(&netns()).exists() {
        // A pod's end of a cable goes with the pod; the node's goes with the namespace.
        quietly(Command::new("ip").args(["netns", "del", NAMESPACE]))?;
    }
    if Path::new("/sys/class/net").join(CABLE).exists() {
        // It goes with the namespace too, but not at once.
        let _gone = quietly(Command::new("ip").args(["link", "del", CABLE]));
    }
    Ok(())
}

/// Gives the machine back what kubelet took.
fn machine(place: &Place) {
    for path in MACHINE {
        let saved = place.state.join("machine").join(path.replace('/', "%"));
        if let Ok(value) = fs::read(saved) {
            let _read_only = fs::write(path, value);
        }
    }
}
