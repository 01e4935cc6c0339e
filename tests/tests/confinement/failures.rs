//! Each way in which `exeat-init` fails after it has begun: its exit status, its one line, its hint,
//! and a pod that is no more open than before.
//!
//! What the machine can be made to do by itself is real: a lock that somebody holds, a capability
//! that is not there. A kernel without a module, a filter that lies about what it wrote: these are
//! stand-ins in the place of the filter's program, in a mount namespace of their own.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Output;

use exeat_init::Backend;
use exeat_tests::netns::Persona;

use crate::support::{Confined, PROGRAM, Reach, udp};

/// Runs `exeat-init` after `prelude`, in a mount namespace where `nft`, if given, stands in for the
/// real one, which it may call by the name `$0.real`.
fn init(pod: &Confined, nft: Option<&str>, prelude: &str, words: &str) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let mut script = "set -e\n".to_owned();
    if let Some(stand_in) = nft {
        let real = std::fs::canonicalize("/usr/sbin/nft").unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::copy(real, path("nft.real")).unwrap();
        std::fs::write(
            path("nft"),
            format!("#!/bin/sh\nreal=/usr/sbin/nft.real\n{stand_in}\n"),
        )
        .unwrap();
        let executable = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(path("nft"), executable).unwrap();
        script = format!(
            "{script}mount --bind {} /usr/sbin\n",
            folder.path().display()
        );
    }
    script = format!("{script}{prelude}\n{PROGRAM} init {words}\n");
    pod.pod
        .inside
        .output("unshare", &["--mount", "sh", "-c", &script])
        .unwrap()
}

/// The exit status, and that both a person and a program are told why and what to do.
fn failed(output: &Output, code: i32, cause: &str) {
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{complaint}");
    let told: serde_json::Value = serde_json::from_str(complaint.trim()).expect(&complaint);
    assert_eq!(told["error"]["cause"], cause, "{complaint}");
    assert!(
        told["error"]["remedy"].as_str().unwrap().len() > 20,
        "{complaint}"
    );
    assert_eq!(output.stdout, b"", "nothing was achieved");
}

/// What the rules of an earlier run refused stays refused.
fn still_shut(pod: &Confined) {
    let to = "203.0.113.9:443".parse().unwrap();
    let reach = pod.pod.inside.run(Persona::Agent, || udp(to)).unwrap();
    assert!(matches!(reach, Reach::Refused(_)), "{reach:?}");
    assert_eq!(pod.capture.escapes(), []);
}

const APPLY: &str = "apply --backend nft --format json";

#[test]
fn a_kernel_without_a_module_is_status_81() {
    let pod = Confined::new(Backend::Nft);
    let lacks = "[ \"$1\" = -f ] || exec $real \"$@\"\n\
                 echo 'Error: Could not process rule: No such file or directory' >&2; exit 1";
    failed(
        &init(&pod, Some(lacks), "", APPLY),
        81,
        "missing_kernel_support",
    );
    still_shut(&pod);
}

/// A guest of Kata's, say: no filter that is tried finds its part of the kernel, and none of them is
/// then taken for enough.
#[test]
fn a_guest_without_netfilter_is_told_what_it_lacks() {
    let pod = Confined::bare();
    let lacks =
        "echo 'netlink: Error: cache initialization failed: Protocol not supported' >&2; exit 1";
    let output = init(&pod, Some(lacks), "", "apply --format json");
    failed(&output, 81, "missing_kernel_support");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(
        complaint.contains("guest's with Kata") && complaint.contains("xt_owner"),
        "{complaint}"
    );
}

/// What is enough in gVisor is not enough here: sockets may be bound to any address.
#[test]
fn rules_for_another_kernel_are_refused_and_that_is_status_90() {
    let pod = Confined::new(Backend::Nft);
    for words in [
        "apply --backend gvisor --format json",
        "verify --backend gvisor --format json",
        "clean --backend gvisor --format json",
    ] {
        failed(&init(&pod, None, "", words), 90, "unsuited_kernel");
    }
    still_shut(&pod);
}

#[test]
fn a_leak_is_status_85() {
    // It writes another verdict than the one it was given, and shows the one it was given: nothing
    // but the attempt to get out can find that.
    let lies = "if [ \"$1\" = -f ]; then\n\
                  sed 's/reject comment \"refuse udp\"/accept comment \"refuse udp\"/' | $real -f -\n\
                else\n\
                  $real \"$@\" | sed 's/accept comment \"refuse udp\"/reject comment \"refuse udp\"/'\n\
                fi";
    let pod = Confined::bare();
    let output = init(&pod, Some(lies), "", APPLY);
    failed(&output, 85, "leak");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(
        complaint.contains("multicast4 (sent)") && complaint.contains("udp6 "),
        "{complaint}"
    );
    assert_ne!(pod.capture.escapes(), [], "the leak was real");
    // The read-back alone is satisfied: the proof is what found it.
    let unproven = init(&pod, Some(lies), "", &format!("{APPLY} --no-prove"));
    assert!(unproven.status.success());
    failed(
        &init(&pod, Some(lies), "", "verify --backend nft --format json"),
        85,
        "leak",
    );
}

#[test]
fn a_lock_held_by_another_process_is_status_86() {
    let pod = Confined::new(Backend::IptablesLegacy);
    let held = "mount -t tmpfs none /run\n\
                flock /run/xtables.lock sleep 30 & holder=$!\n\
                trap 'kill $holder' EXIT\n\
                until ! flock -n /run/xtables.lock true; do sleep .05; done";
    let words = "apply --backend iptables-legacy --format json";
    let output = init(&pod, None, held, words);
    failed(&output, 86, "locked");
    still_shut(&pod);
    let free = init(&pod, None, "mount -t tmpfs none /run", words);
    assert!(
        free.status.success(),
        "{}",
        String::from_utf8_lossy(&free.stderr)
    );
}

#[test]
fn a_program_that_fails_otherwise_is_status_87() {
    let pod = Confined::new(Backend::Nft);
    for fails in [
        "[ \"$1\" = -f ] || exec $real \"$@\"\necho 'Error: syntax error, unexpected string' >&2; exit 1",
        // Not a word, and by a signal.
        "[ \"$1\" = -f ] || exec $real \"$@\"\nkill -9 $$",
        // Before it was asked to write anything.
        "echo 'Error: out of luck' >&2; exit 3",
    ] {
        failed(&init(&pod, Some(fails), "", APPLY), 87, "backend_failed");
        still_shut(&pod);
    }
}

#[test]
fn attempts_that_cannot_be_made_are_status_88() {
    for missing in ["-setuid", "-setgid"] {
        let pod = Confined::bare();
        let without = format!("exec setpriv --bounding-set {missing} {PROGRAM} init {APPLY}");
        failed(&init(&pod, None, &without, ""), 88, "unproven");
        // What the kernel itself sent while nothing was shut yet (MLD) is not meant.
        drop(pod.capture.take());
        // Not proven, and shut all the same.
        still_shut(&pod);
    }
}
