//! docs/THREATS.md names a test for each threat; a test that is gone must not be named any longer.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{fs, path::Path};

#[test]
fn every_test_that_is_named_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("../docs/THREATS.md")).unwrap();
    let mut named = 0;
    for name in text.split('`').skip(1).step_by(2) {
        let Some((file, test)) = name.split_once("::") else {
            continue;
        };
        named += 1;
        let places = [
            format!("tests/{file}.rs"),
            format!("tests/confinement/{file}.rs"),
            format!("tests/audit/{file}.rs"),
            format!("tests/gvisor/{file}.rs"),
        ];
        let sources = places.map(|place| fs::read_to_string(root.join(place)).unwrap_or_default());
        let head = format!("fn {test}(");
        assert!(sources.concat().contains(&head), "`{name}` is no test");
    }
    assert!(named > 60, "only {named} tests are named");
}
