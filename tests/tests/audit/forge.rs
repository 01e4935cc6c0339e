//! Every forgery is found, by `exeat audit verify` and by the script that the documentation gives.

use std::fs;
use std::path::Path;
use std::process::Command;

use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use super::{audit, joined, journal, text};

/// The script of `docs/AUDIT.md`, saved.
fn script(folder: &TempDir) -> String {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/AUDIT.md");
    let page = fs::read_to_string(page).unwrap();
    let (_, rest) = page
        .split_once("```python\n")
        .expect("the page has a script");
    let (script, _) = rest.split_once("```").unwrap();
    assert!(script.lines().count() <= 25, "the script should stay short");
    let path = folder.path().join("check.py");
    fs::write(&path, script).unwrap();
    path.to_str().unwrap().to_owned()
}

/// The other one, for signatures.
fn signatures(folder: &TempDir) -> String {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/AUDIT.md");
    let page = fs::read_to_string(page).unwrap();
    let (_, rest) = page.split_once("```python signatures\n").unwrap();
    let path = folder.path().join("signatures.py");
    fs::write(&path, rest.split_once("```").unwrap().0).unwrap();
    path.to_str().unwrap().to_owned()
}

fn python(script: &str, file: &str) -> (bool, String) {
    let ran = Command::new("python3").args([script, file]).output();
    let ran = ran.expect("python3 is needed: the documented script is run as it stands");
    (ran.status.success(), text(&ran.stdout) + &text(&ran.stderr))
}

/// Gives a line the hash that its content has: what a forger would do first.
fn resealed(line: &str) -> String {
    let body = format!("{}}}", &line[..line.len() - 75]);
    let digest = Sha256::digest(body.as_bytes());
    let digest = digest
        .iter()
        .fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
    format!("{},\"hash\":\"{digest}\"}}", &body[..body.len() - 1])
}

#[tokio::test]
async fn every_forgery_is_named() {
    type Forge = fn(&[String]) -> String;
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let script = script(&folder);
    let good = at("good");
    journal(Path::new(&good), 5).await;
    let lines: Vec<_> = fs::read_to_string(&good)
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect();
    assert!(lines.len() > 15);

    let ran = audit(&["verify", &good]);
    assert!(ran.status.success(), "{}", text(&ran.stdout));
    assert!(text(&ran.stdout).starts_with(&format!("whole: {} records in 1 chain", lines.len())));
    let (whole, said) = python(&script, &good);
    assert!(whole, "{said}");
    let head = text(&ran.stdout)
        .split_once("head ")
        .unwrap()
        .1
        .trim()
        .to_owned();
    assert!(said.contains(&head), "both say the same head");

    // Each with the line where it must be found, and what is said of it.
    let forgeries: [(&str, u64, &str, Forge); 16] = [
        ("a byte", 5, "content was changed", |l| {
            with(l, 4, &l[4].replacen("example", "examplf", 1))
        }),
        ("the verdict", 5, "content was changed", |l| {
            with(l, 4, &swap(&l[4]))
        }),
        ("the verdict, with a new hash", 6, "names", |l| {
            with(l, 4, &resealed(&swap(&l[4])))
        }),
        ("the hash", 5, "content was changed", |l| {
            let (begin, end) = l[4].split_at(l[4].len() - 3);
            with(
                l,
                4,
                &format!("{begin}{}{}", i32::from(end.starts_with('0')), &end[1..]),
            )
        }),
        ("a number, with a new hash", 5, "missing", |l| {
            with(l, 4, &resealed(&l[4].replacen("\"seq\":5", "\"seq\":6", 1)))
        }),
        ("a line deleted", 5, "record 5 is missing", |l| {
            join(&[&l[..4], &l[5..]])
        }),
        ("two lines deleted", 5, "records 5 to 6 are missing", |l| {
            join(&[&l[..4], &l[6..]])
        }),
        ("the first line deleted", 1, "start is missing", |l| {
            join(&[&l[1..]])
        }),
        ("a line twice", 6, "repeated", |l| join(&[&l[..5], &l[4..]])),
        ("two lines exchanged", 5, "record 5 is missing", |l| {
            join(&[&l[..4], &[l[5].clone(), l[4].clone()], &l[6..]])
        }),
        ("a line emptied", 5, "does not end in a hash", |l| {
            with(l, 4, "")
        }),
        ("a line cut", 5, "does not end in a hash", |l| {
            with(l, 4, &l[4][..l[4].len() - 9])
        }),
        ("a line added", 5, "does not end in a hash", |l| {
            join(&[
                &l[..4],
                &["{\"event\":\"exeat.egress.decision\"}".to_owned()],
                &l[4..],
            ])
        }),
        ("the journal twice", 17, "repeated", |l| join(&[l, l])),
        ("a control character", 5, "not printable ASCII", |l| {
            with(l, 4, &l[4].replacen("GET", "G\u{1b}T", 1))
        }),
        ("the last line cut", 16, "has no end", |l| {
            let whole = join(&[l]);
            whole[..whole.len() - 5].to_owned()
        }),
    ];
    for (name, line, says, forge) in forgeries {
        // The forgeries speak of line numbers of a journal of this length.
        let lines = &lines[..16];
        let file = at("forged");
        fs::write(&file, forge(lines)).unwrap();
        let ran = audit(&["verify", &file]);
        let said = text(&ran.stdout);
        assert_eq!(ran.status.code(), Some(1), "{name}: {said}");
        assert!(
            said.contains(&format!("line {line} ")) || said.contains(&format!("line {line}:")),
            "{name}: {said}"
        );
        assert!(said.contains(says), "{name}: {said}");
        let ran = audit(&["verify", &file, "--format", "json"]);
        let verdict: serde_json::Value = serde_json::from_slice(&ran.stdout).unwrap();
        assert_eq!(verdict["whole"], false, "{name}");
        assert_eq!(verdict["broken"]["line"], line, "{name}");
        let (whole, said) = python(&script, &file);
        assert!(!whole, "the script found nothing wrong with: {name}");
        assert!(!said.contains("Traceback"), "{name}: {said}");
    }
}

/// A chain written anew from one record on, with right hashes: only a signature shows it.
#[tokio::test]
async fn a_journal_that_was_written_anew_is_found_by_its_signatures() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (chain, script) = (script(&folder), signatures(&folder));
    journal(Path::new(&at("good")), 3).await;
    journal(Path::new(&at("other")), 3).await;
    let said = text(&audit(&["verify", &at("good")]).stdout);
    assert!(said.contains("signature"), "{said}");
    let good = fs::read_to_string(at("good")).unwrap();
    let (whole, said) = python(&script, &at("good"));
    assert!(whole && !said.contains("record 0"), "{said}");
    let key = |name: &str| {
        let text = fs::read_to_string(at(name)).unwrap();
        let (_, rest) = text.split_once("\"public_key\":\"").unwrap();
        rest[..64].to_owned()
    };
    let by = |key: &str| {
        audit(&["verify", "--key", key, &at("good")])
            .status
            .success()
    };
    assert!(by(&key("good")));
    assert!(!by(&key("other")), "another gate's key");

    let mut hash = String::new();
    let mut anew: Vec<String> = Vec::new();
    for (index, line) in good.lines().enumerate() {
        let mut line = line.to_owned();
        if index == 4 {
            line = line.replacen("example", "examplf", 1);
        }
        if index > 4 {
            let prev = line.rfind("\"prev\":\"").unwrap() + 8;
            line.replace_range(prev..prev + 64, &hash);
        }
        if index >= 4 {
            line = resealed(&line);
        }
        hash = line[line.len() - 66..line.len() - 2].to_owned();
        anew.push(line);
    }
    fs::write(at("anew"), join(&[&anew])).unwrap();
    assert!(python(&chain, &at("anew")).0, "the chain alone is whole");
    assert!(!python(&script, &at("anew")).0);
    let ran = audit(&["verify", &at("anew")]);
    assert_eq!(ran.status.code(), Some(1));
    let said = text(&ran.stdout);
    assert!(
        said.contains("not among the records just before it"),
        "{said}"
    );
}

#[tokio::test]
async fn a_cut_end_is_found_by_a_known_head() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("j");
    journal(&path, 2).await;
    let file = path.to_str().unwrap();
    let said = text(&audit(&["verify", file]).stdout);
    let head = said.split_once("head ").unwrap().1.trim().to_owned();
    assert!(audit(&["verify", file, "--head", &head]).status.success());
    let whole = fs::read_to_string(&path).unwrap();
    let last = whole.trim_end().rfind('\n').unwrap();
    fs::write(&path, &whole[..=last]).unwrap();
    assert!(
        audit(&["verify", file]).status.success(),
        "the chain alone can't show a clean cut"
    );
    let ran = audit(&["verify", file, "--head", &head]);
    assert_eq!(ran.status.code(), Some(1));
    assert!(
        text(&ran.stdout).contains("cut at its end"),
        "{}",
        text(&ran.stdout)
    );
}

#[tokio::test]
async fn files_continue_one_another_or_begin_anew() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    journal(Path::new(&at("a")), 2).await;
    journal(Path::new(&at("b")), 2).await;
    let whole = fs::read_to_string(at("a")).unwrap();
    let middle = whole.match_indices('\n').nth(2).unwrap().0 + 1;
    fs::write(at("a1"), &whole[..middle]).unwrap();
    fs::write(at("a2"), &whole[middle..]).unwrap();
    fs::write(at("none"), "").unwrap();
    for (files, chains) in [
        (vec!["a1", "a2"], Some(1)),
        (vec!["a", "b"], Some(2)),
        (vec!["a1", "a2", "b"], Some(2)),
        (vec!["a2"], None),
        (vec!["a2", "a1"], None),
        (vec!["b", "a2"], None),
        (vec!["a1", "none", "a2"], None),
    ] {
        let files: Vec<_> = files.into_iter().map(at).collect();
        let mut arguments = vec!["verify"];
        arguments.extend(files.iter().map(String::as_str));
        let ran = audit(&arguments);
        let said = text(&ran.stdout);
        assert_eq!(ran.status.success(), chains.is_some(), "{files:?}: {said}");
        if let Some(chains) = chains {
            assert!(said.contains(&format!("in {chains} chain")), "{said}");
        }
    }
    let ran = audit(&["verify", &at("absent")]);
    assert!(!ran.status.success() && text(&ran.stderr).contains("can't read"));
}

fn with(lines: &[String], at: usize, line: &str) -> String {
    join(&[&lines[..at], &[line.to_owned()], &lines[at + 1..]])
}

fn join(parts: &[&[String]]) -> String {
    joined(parts.concat().iter().map(String::as_str))
}

/// What a forger would want most.
fn swap(line: &str) -> String {
    if line.contains("\"decision\":\"allow\"") {
        line.replacen("\"decision\":\"allow\"", "\"decision\":\"deny\"", 1)
    } else {
        line.replacen("\"decision\":\"deny\"", "\"decision\":\"allow\"", 1)
    }
}
