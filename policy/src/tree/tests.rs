//! What YAML is taken, and where things are found in it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;

fn faults(text: &str) -> Diagnostics {
    let file = File::new(&Source::new("test.yaml", text));
    file.documents();
    file.found()
}

#[test]
fn refuses_what_reads_two_ways() {
    assert!(faults("a: 1\na: 2\n").to_string().contains("keep one"));
    assert!(!faults("a: !foo 1\n").is_empty());
    assert!(!faults("x: &x {a: 1}\ny: {<<: *x}\n").is_empty());
    assert!(!faults("a: [\n").is_empty());
    assert!(faults("a: 1\n").is_empty());
}

#[test]
fn bounds_size_depth_and_aliases() {
    assert!(!faults(&format!("a: {}", "x".repeat(1024 * 1024))).is_empty());
    assert!(!faults(&format!("{}1{}", "[".repeat(64), "]".repeat(64))).is_empty());
    let mut bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n".to_owned();
    for i in 1..9 {
        let item = format!("*a{},", i - 1).repeat(9);
        bomb = format!("{bomb}a{i}: &a{i} [{}]\n", item.trim_end_matches(','));
    }
    assert!(!faults(&bomb).is_empty());
}

#[test]
fn knows_places() {
    let text = "a:\n  b: |\n    one ==\n      two\n  c: 'it''s'\n";
    let file = File::new(&Source::new("test.yaml", text));
    let documents = file.documents();
    let Kind::Map(top) = &documents[0].kind else {
        panic!()
    };
    let Kind::Map(inner) = &top[0].1.kind else {
        panic!()
    };
    let (_, b) = &inner[0];
    let Kind::Text(value) = &b.kind else { panic!() };
    let at = value.find("two").unwrap();
    let span = file.within(b, value, &(at..at + 3));
    assert_eq!(&text[span.bytes], "two");
    let (_, c) = &inner[1];
    let Kind::Text(value) = &c.kind else { panic!() };
    let at = value.find('s').unwrap();
    assert_eq!(&text[file.within(c, value, &(at..at + 1)).bytes], "s");
}
