//! What a person sees of the trail.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use exeat_tests::governed::program;

use super::{audit, call, journal, open, text};

#[tokio::test]
async fn the_table_joins_decisions_with_their_ends() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("j");
    journal(&path, 3).await;
    let file = path.to_str().unwrap();
    let ran = audit(&["show", file]);
    assert!(ran.status.success());
    let shown = text(&ran.stdout);
    assert!(
        !shown.contains('\u{1b}'),
        "no colours where there is no terminal"
    );
    let lines: Vec<_> = shown.lines().collect();
    assert_eq!(lines.len(), 1 + 1 + 6 + 1, "{shown}");
    let allowed = lines.iter().find(|line| line.contains("/v1/0")).unwrap();
    assert!(
        allowed.contains("  allow    200     GET         api.example/v1/0?key=*"),
        "{allowed}"
    );
    assert!(allowed.ends_with("research/github.read"), "{allowed}");
    let denied = lines.iter().find(|line| line.contains("/admin")).unwrap();
    assert!(denied.ends_with("no_rule (research)"), "{denied}");

    for (arguments, rows) in [
        (vec!["--decision", "deny"], 3),
        (vec!["--decision", "allow"], 3),
        (vec!["--rule", "github.read"], 3),
        (vec!["--rule", "none"], 0),
        (vec!["--host", "*.example"], 6),
        (vec!["--host", "example"], 0),
        (vec!["--since", "1h", "--decision", "deny"], 3),
        (vec!["--since", "2999-01-01T00:00:00Z"], 0),
    ] {
        let shown = text(&audit(&[&["show", file][..], &arguments[..]].concat()).stdout);
        assert_eq!(shown.lines().count(), rows + 1, "{arguments:?}\n{shown}");
    }

    let json = text(&audit(&["show", file, "--rule", "github.read", "--format", "json"]).stdout);
    let whole = std::fs::read_to_string(&path).unwrap();
    assert_eq!(json.lines().count(), 6, "decisions and their outcomes");
    assert!(
        json.lines().all(|line| whole.contains(line)),
        "the journal's own lines"
    );

    let id = json.lines().next().unwrap().split('"').nth(7).unwrap();
    let shown = text(&audit(&["show", file, "--id", id]).stdout);
    assert_eq!(shown.lines().count(), 2, "{shown}");
    let told = text(&audit(&["explain", id, file]).stdout);
    for part in [
        "allowed: ",
        "rule: github.read",
        "path: /v1/0",
        "status: 200",
    ] {
        assert!(told.contains(part), "{told}");
    }
    assert!(!audit(&["explain", "no-such-id", file]).status.success());
}

#[tokio::test]
async fn a_broken_trail_is_shown_with_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("j");
    journal(&path, 3).await;
    let forged = std::fs::read_to_string(&path)
        .unwrap()
        .replacen("/v1/1", "/v1/9", 1);
    std::fs::write(&path, forged).unwrap();
    let ran = audit(&["show", path.to_str().unwrap()]);
    assert_eq!(ran.status.code(), Some(1));
    assert!(
        text(&ran.stderr).contains("content was changed"),
        "{}",
        text(&ran.stderr)
    );
    assert!(text(&ran.stdout).contains("/v1/9"));
}

#[tokio::test(flavor = "multi_thread")]
async fn following_shows_what_is_added() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("j");
    let ledger = open(&path);
    let mut shower = Command::new(program("exeat").unwrap())
        .args(["audit", "show", "--follow", path.to_str().unwrap()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (tell, told) = mpsc::channel();
    let out = BufReader::new(shower.stdout.take().unwrap());
    std::thread::spawn(move || {
        out.lines()
            .map_while(Result::ok)
            .try_for_each(|line| tell.send(line))
    });
    let expect = |part: &str| loop {
        let line = told
            .recv_timeout(Duration::from_secs(10))
            .unwrap_or_else(|_| panic!("no {part}"));
        if line.contains(part) {
            break line;
        }
    };
    expect("journal.opened");
    ledger.deny(&call(false, "/denied")).unwrap();
    expect("/denied");
    let receipt = ledger.decide(&call(true, "/long")).await.unwrap();
    assert!(
        expect("/long").contains("  open  "),
        "a call that runs is shown before it ends"
    );
    let guard = ledger.guard(&receipt);
    guard.status(204);
    drop(guard);
    assert!(expect(&receipt.id().to_string()).contains("  204  "));
    shower.kill().unwrap();
    shower.wait().unwrap();
}
