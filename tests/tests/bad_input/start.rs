//! Policies and journals that a sidecar can't start with.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    time::Duration,
};

use exeat_tests::{
    chaos::{Said, Stage},
    gate::GATE_UID,
};
use nix::unistd::chown;

use super::support::{BAD_POLICIES, CONFIGURATION, POLICY, USAGE, get, refused, told};

#[test]
fn a_sidecar_says_what_is_wrong_with_its_policy() {
    let stage = Stage::new(POLICY).unwrap();
    let file = stage.path("policy.yaml");
    let path = file.to_str().unwrap();
    let case = |what, content: &[u8], words: &[&str]| {
        fs::write(&file, content).unwrap();
        refused(
            &stage,
            what,
            &[("--policy-dir", None), ("--policy", Some(path))],
            CONFIGURATION,
            words,
        );
    };
    for (what, from, to, words) in BAD_POLICIES {
        case(what, POLICY.replacen(from, to, 1).as_bytes(), words);
    }
    case(
        "a policy that is no text",
        b"spec: \xff\xfe",
        &[path, "UTF-8"],
    );
    case(
        "a huge policy",
        " ".repeat(2 << 20).as_bytes(),
        &[path, "larger than"],
    );
    case("an empty policy", b"", &[path, "empty"]);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o000)).unwrap();
    case(
        "an unreadable policy",
        POLICY.as_bytes(),
        &[path, "ermission"],
    );
    fs::remove_file(&file).unwrap();
    let none = &[("--policy-dir", None), ("--policy", Some(path))];
    refused(
        &stage,
        "a missing policy",
        none,
        CONFIGURATION,
        &[path, "does not exist"],
    );
    let folder = stage.path("nowhere");
    let folder = folder.to_str().unwrap();
    refused(
        &stage,
        "a missing folder",
        &[("--policy-dir", Some(folder))],
        CONFIGURATION,
        &[folder, "does not exist"],
    );
    refused(
        &stage,
        "no policy at all",
        &[("--policy-dir", None)],
        USAGE,
        &["--policy-dir", "--policy"],
    );
}

#[test]
fn a_folder_with_a_bad_policy_denies_and_says_why() {
    let mut stage = Stage::new(POLICY).unwrap();
    for (what, from, to, words) in BAD_POLICIES {
        stage
            .policies
            .publish(&[("policy.yaml", &POLICY.replacen(from, to, 1))])
            .unwrap();
        denied_from_the_start(&stage, what, words);
    }
    stage
        .policies
        .publish_bytes(&[("policy.yaml", b"\xff")])
        .unwrap();
    denied_from_the_start(&stage, "no text", &["policy.yaml", "UTF-8"]);
    stage.policies.publish(&[]).unwrap();
    denied_from_the_start(&stage, "an empty folder", &["there is no policy in"]);
}

fn denied_from_the_start(stage: &Stage, what: &str, words: &[&str]) {
    let sidecar = stage.start(&[]).unwrap();
    assert_eq!(get(stage, "/c/1").status, 403, "{what}");
    let log = sidecar.log();
    for word in words {
        assert!(log.contains(word), "{what} does not say `{word}`: {log}");
    }
    assert!(stage.world.upstream().requests().is_empty());
}

#[test]
fn a_sidecar_says_what_is_wrong_with_its_journal() {
    let stage = Stage::new(POLICY).unwrap();
    let at = |name: &str| stage.path("journal").join(name);
    let case = |what, name: &str, words: &[&str]| {
        let path = at(name);
        let path = path.to_str().unwrap();
        let words: Vec<_> = words.iter().copied().chain([path]).collect();
        refused(
            &stage,
            what,
            &[("--audit", Some(path))],
            CONFIGURATION,
            &words,
        );
    };
    let own = |name: &str| chown(&at(name), Some(GATE_UID.into()), None).unwrap();
    let write = |name: &str, content: &str| {
        fs::write(at(name), content).unwrap();
        own(name);
    };
    nix::unistd::mkfifo(&at("fifo"), nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    own("fifo");
    case("a pipe", "fifo", &["not a regular file"]);
    write("target", "");
    symlink(at("target"), at("link")).unwrap();
    case("a link", "link", &["symbolic link"]);
    fs::create_dir(at("folder")).unwrap();
    case("a folder", "folder", &["regular file"]);
    write("linked", "");
    fs::hard_link(at("linked"), at("second")).unwrap();
    case("a second name", "linked", &["hard link"]);
    write("loose", "");
    fs::set_permissions(at("loose"), fs::Permissions::from_mode(0o666)).unwrap();
    case("loose rights", "loose", &["chmod 600"]);
    write("diary", "Dear diary,\n");
    case("somebody's file", "diary", &["exeat audit verify"]);
    assert_eq!(
        fs::read_to_string(at("diary")).unwrap(),
        "Dear diary,\n",
        "it was changed"
    );
    fs::write(at("roots"), "").unwrap();
    fs::set_permissions(at("roots"), fs::Permissions::from_mode(0o600)).unwrap();
    case("somebody else's file", "roots", &["write access"]);
    case(
        "a missing folder",
        "no/journal",
        &["make its directory first"],
    );
    refused(
        &stage,
        "no room",
        &[("--journal-max-bytes", Some("10"))],
        CONFIGURATION,
        &["journal", "full"],
    );

    let first = stage.start(&[]).unwrap();
    let ports = [
        "--transparent-port",
        "--explicit-port",
        "--dns-port",
        "--health-port",
    ];
    let others: Vec<_> = ports
        .iter()
        .zip(["16001", "16002", "16053", "16021"])
        .map(|(port, other)| (*port, Some(other)))
        .collect();
    refused(
        &stage,
        "two gates",
        &others,
        CONFIGURATION,
        &["in use by another gate"],
    );
    drop(first);

    for (what, options, words) in [
        ("a read-only disk", "ro", &["read-only"][..]),
        ("no disk at all", "size=4k,nr_inodes=1", &["journal"]),
    ] {
        let mut sidecar = stage.spawn_on_small_disk(options, &[]).unwrap();
        let status = sidecar.ended(Duration::from_secs(20)).unwrap();
        let said = Said {
            status,
            text: sidecar.log(),
        };
        told(what, &said, CONFIGURATION, words);
    }
}
