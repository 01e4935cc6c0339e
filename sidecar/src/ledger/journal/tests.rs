#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::super::record::DecisionId;
use super::*;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::time::SystemTime;

fn fill(path: &Path, records: usize) -> Chain {
    let (mut journal, _) = Journal::open(path).unwrap();
    for _ in 0..records {
        let mut chain = journal.chain();
        let mut batch = Vec::new();
        chain.seal(
            &mut batch,
            "e",
            DecisionId::new(),
            SystemTime::now(),
            b"\"x\":1",
        );
        journal.append(&batch, chain).unwrap();
    }
    journal.chain()
}

#[test]
fn a_journal_is_continued_where_it_stood() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("j");
    let chain = fill(&path, 3);
    assert_eq!(
        std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let (journal, torn) = Journal::open(&path).unwrap();
    assert_eq!(journal.chain(), chain);
    assert!(torn.is_none());
}

#[test]
fn a_tail_torn_at_any_byte_is_cut_and_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("j");
    let before = fill(&path, 2);
    let whole = std::fs::read(&path).unwrap();
    fill(&path, 1);
    let full = std::fs::read(&path).unwrap();
    for cut in whole.len() + 1..full.len() {
        std::fs::write(&path, &full[..cut]).unwrap();
        let (journal, torn) = Journal::open(&path).unwrap();
        assert_eq!(journal.chain(), before, "cut at {cut}");
        assert_eq!(torn.unwrap().bytes, (cut - whole.len()) as u64);
        drop(journal);
        assert_eq!(std::fs::read(&path).unwrap(), whole);
    }
}

#[test]
fn the_first_record_torn_leaves_an_empty_journal() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("j");
    fill(&path, 1);
    let full = std::fs::read(&path).unwrap();
    for cut in [1, 5, 9, 10, 11, full.len() - 1] {
        std::fs::write(&path, &full[..cut]).unwrap();
        let (journal, torn) = Journal::open(&path).unwrap();
        assert_eq!(journal.chain(), Chain::genesis(), "cut at {cut}");
        assert!(torn.is_some());
    }
}

#[test]
fn zeros_that_power_loss_left_are_cut() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("j");
    let chain = fill(&path, 2);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes.extend_from_slice(&vec![0; 70_000]);
    std::fs::write(&path, bytes).unwrap();
    let (journal, torn) = Journal::open(&path).unwrap();
    assert_eq!(journal.chain(), chain);
    assert_eq!(torn.unwrap().bytes, 70_000);
}

#[test]
fn an_end_that_was_changed_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("j");
    fill(&path, 2);
    let good = std::fs::read(&path).unwrap();
    let at = good.len() - 200;
    for (name, bytes) in [
        ("changed", {
            let mut b = good.clone();
            b[at] ^= 1;
            b
        }),
        ("changed, then torn", {
            let mut b = good.clone();
            b[at] ^= 1;
            b.extend_from_slice(b"{\"ev");
            b
        }),
        ("line added", [&good[..], b"hello\n"].concat()),
        ("another file", b"root:x:0:0\n".repeat(3)),
        ("another file without newline", b"precious".to_vec()),
    ] {
        std::fs::write(&path, &bytes).unwrap();
        let error = Journal::open(&path).unwrap_err();
        assert!(
            matches!(error, JournalError::Broken { .. }),
            "{name}: {error}"
        );
        assert_eq!(std::fs::read(&path).unwrap(), bytes, "{name}");
    }
}

#[test]
fn what_is_no_file_of_its_own_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fill(&at("j"), 1);
    symlink(at("j"), at("link")).unwrap();
    assert!(
        Journal::open(&at("link"))
            .unwrap_err()
            .to_string()
            .contains("symbolic link")
    );
    std::fs::hard_link(at("j"), at("hard")).unwrap();
    assert!(matches!(
        Journal::open(&at("j")).unwrap_err(),
        JournalError::Linked(_)
    ));
    std::fs::remove_file(at("hard")).unwrap();
    nix::unistd::mkfifo(&at("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(matches!(
        Journal::open(&at("fifo")).unwrap_err(),
        JournalError::NotAFile(_)
    ));
    assert!(matches!(
        Journal::open(Path::new("/dev/null")).unwrap_err(),
        JournalError::NotAFile(_)
    ));
    assert!(Journal::open(dir.path()).is_err());
    assert!(
        Journal::open(&at("no/such/dir"))
            .unwrap_err()
            .to_string()
            .contains("make its directory")
    );
    std::fs::set_permissions(at("j"), std::fs::Permissions::from_mode(0o620)).unwrap();
    assert!(matches!(
        Journal::open(&at("j")).unwrap_err(),
        JournalError::Loose(_)
    ));
}

#[test]
fn two_gates_never_share_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("j");
    let (held, _) = Journal::open(&path).unwrap();
    assert!(matches!(
        Journal::open(&path).unwrap_err(),
        JournalError::InUse(_)
    ));
    drop(held);
    Journal::open(&path).unwrap();
}
