//! Every example, and the demo, run as a reader would run them: what they promise must be in what
//! they print.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
};

use exeat_tests::governed::{fetched, program};

/// The examples listen on one address, so they run one after another.
static TURN: Mutex<()> = Mutex::new(());

fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

/// Runs to the end, with a bare environment; gives all that was printed.
fn run(command: &mut Command) -> String {
    let programs = program("exeat").unwrap().parent().unwrap().to_owned();
    let output = Command::new("timeout")
        .args(["--kill-after=5", "150"])
        .arg(command.get_program())
        .args(command.get_args())
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", std::env::var_os("HOME").unwrap_or_default())
        .env("LANG", "C.UTF-8")
        .env("EXEAT_PROGRAMS", programs)
        .env("EXEAT_PYTHON", fetched("python/bin/python").unwrap())
        .current_dir(root())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let said = text(&output.stdout) + "\n" + &text(&output.stderr);
    assert!(output.status.success(), "{}: {said}", output.status);
    said
}

fn example(name: &str) -> String {
    run(&mut Command::new(
        root().join("examples").join(name).join("run"),
    ))
}

fn assert_all(said: &str, promised: &[&str]) {
    for promise in promised {
        assert!(said.contains(promise), "`{promise}` is missing in: {said}");
    }
}

#[test]
fn curl() {
    let _turn = turn();
    let said = example("curl");
    assert_all(
        &said,
        &[
            "\"signed_in\":true",
            "egress_denied",
            "exeat: denied",
            "-- the trail",
        ],
    );
    assert!(!said.contains("example-secret"), "{said}");
}

#[test]
fn openai() {
    let _turn = turn();
    let said = example("openai");
    assert_all(
        &said,
        &[
            "The gate let this answer through.",
            "denied: ",
            "gpt-9-huge",
        ],
    );
    assert!(!said.contains("example-secret"), "{said}");
}

#[test]
fn mcp() {
    let _turn = turn();
    let said = example("mcp");
    assert_all(
        &said,
        &["read_note, send_note", "under the mat", "denied: "],
    );
    assert!(!said.contains("sent monday"), "{said}");
}

#[test]
fn demo() {
    let said = run(Command::new(program("xtask").unwrap()).args(["demo", "--built"]));
    assert_all(
        &said,
        &[
            "\"signed_in\":true",
            "A gate in the only way out",
            "The gate let this answer through.",
            "delete_tickets, search_tickets",
            "  6. the secrets themselves",
            "arrived 0 times, the customer list 0 times",
        ],
    );
    assert_eq!(said.matches("stopped in ").count(), 6, "{said}");
    assert!(!said.contains("GOT OUT"), "{said}");
    assert!(!said.contains("demo-secret-"), "{said}");
    let journal = fs::read_to_string(root().join(".cache/demo/journal.jsonl")).unwrap();
    assert!(
        !journal.contains("demo-secret-"),
        "a secret is in the trail"
    );
}

#[test]
fn every_example_is_listed_and_tested() {
    let readme = fs::read_to_string(root().join("examples/README.md")).unwrap();
    let this = include_str!("examples.rs");
    for entry in fs::read_dir(root().join("examples")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            let name = path.file_name().unwrap().to_str().unwrap();
            assert!(
                readme.contains(&format!("[{name}]({name})")),
                "{name} is not listed"
            );
            assert!(
                this.contains(&format!("\nfn {name}()")),
                "{name} has no test"
            );
            assert!(path.join("README.md").exists(), "{name} has no README");
        }
    }
}
