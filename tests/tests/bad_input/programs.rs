//! The other programs.

use std::{
    fs,
    process::{Command, Output},
};

use exeat_tests::{
    chaos::Said,
    governed::program,
    netns::{Namespace, Persona},
};

use super::support::{BAD_POLICIES, POLICY, told};

fn ran(program_name: &str, words: &[&str]) -> Said {
    let output: Output = Command::new(program(program_name).unwrap())
        .args(words)
        .output()
        .unwrap();
    let both = [output.stdout, output.stderr].concat();
    Said {
        status: output.status,
        text: String::from_utf8_lossy(&both).into_owned(),
    }
}

#[test]
fn run_and_check_say_what_is_wrong_with_a_policy() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("policy.yaml");
    let (path, audit) = (file.to_str().unwrap(), folder.path().join("journal.jsonl"));
    let audit = audit.to_str().unwrap();
    let case = |what: &str, words: &[&str]| {
        let run = ran(
            "exeat",
            &["run", "--policy", path, "--audit", audit, "--", "true"],
        );
        told(what, &run, 125, words);
        let check = ran("exeat", &["policy", "check", path]);
        told(what, &check, 1, words);
    };
    for (what, from, to, words) in BAD_POLICIES {
        fs::write(&file, POLICY.replacen(from, to, 1)).unwrap();
        case(what, words);
    }
    fs::write(&file, b"spec: \xff").unwrap();
    case("no text", &[path, "UTF-8"]);
    fs::remove_file(&file).unwrap();
    case("a missing policy", &[path, "No such file"]);
    fs::write(&file, POLICY).unwrap();
    for (what, more, words) in [
        (
            "a missing credential",
            vec!["--credential", "api=/nowhere/at/all"],
            &["/nowhere/at/all"][..],
        ),
        ("a credential", vec!["--credential", "api"], &["NAME=FILE"]),
        (
            "missing roots",
            vec!["--upstream-ca", "/nowhere/ca.pem"],
            &["/nowhere/ca.pem"],
        ),
        ("a bad address", vec!["--resolve", "a=b"], &["a=b"]),
        ("an unknown flag", vec!["--polcy", "x"], &["--polcy"]),
    ] {
        let mut all = vec!["run", "--policy", path, "--audit", audit];
        all.extend(more);
        all.extend(["--", "true"]);
        told(what, &ran("exeat", &all), 125, words);
    }
    let unwritable = [
        "run",
        "--policy",
        path,
        "--audit",
        "/nowhere/journal",
        "--",
        "true",
    ];
    told(
        "nowhere to write",
        &ran("exeat", &unwritable),
        125,
        &["/nowhere/journal"],
    );
}

#[test]
fn init_says_what_is_wrong() {
    let namespace = Namespace::new().unwrap();
    let init = program("exeat-init").unwrap();
    let run = |persona: Persona, path: &str, words: &[&str]| {
        let output = namespace
            .run(persona, || {
                Command::new(&init)
                    .args(words)
                    .env("PATH", path)
                    .output()
                    .unwrap()
            })
            .unwrap();
        let both = [output.stdout, output.stderr].concat();
        Said {
            status: output.status,
            text: String::from_utf8_lossy(&both).into_owned(),
        }
    };
    let path = "/usr/sbin:/usr/bin:/sbin:/bin";
    for (what, words, told_words) in [
        ("root as the gate", &["apply", "--uid", "0"][..], &["0"][..]),
        ("one port twice", &["apply", "--port", "15053"], &["15053"]),
        (
            "an unknown backend",
            &["apply", "--backend", "ebtables"],
            &["ebtables"],
        ),
        ("an unknown flag", &["apply", "--prot", "1"], &["--prot"]),
        ("no command", &[], &["apply", "verify", "clean"]),
    ] {
        told(what, &run(Persona::Root, path, words), 64, told_words);
    }
    told(
        "no capability",
        &run(Persona::Agent, path, &["apply"]),
        77,
        &["NET_ADMIN"],
    );
    // Where the programs are is not taken from the environment alone, so this is either found or told.
    let bare = run(Persona::Root, "/nonexistent", &["apply"]);
    assert!(!bare.text.contains("panicked"), "{}", bare.text);
    let nothing = run(Persona::Root, path, &["clean"]);
    assert!(nothing.status.success(), "{}", nothing.text);
    told(
        "nothing there",
        &run(Persona::Root, path, &["verify"]),
        84,
        &["hint"],
    );
}
