//! docs/THREATS.md names a test for each threat; a test that is gone must not be named any longer.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{fs, path::Path};

/// Test programs whose modules are named alone.
const PROGRAMS: [&str; 4] = ["confinement", "audit", "cluster", "gvisor"];

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
        let mut places = vec![root.join(format!("tests/{file}.rs"))];
        // A module of another program, or any of this one's.
        places.extend(PROGRAMS.map(|program| root.join(format!("tests/{program}/{file}.rs"))));
        let modules = fs::read_dir(root.join("tests").join(file));
        let modules = modules.into_iter().flatten().flatten();
        places.extend(modules.map(|entry| entry.path()));
        let sources: String = places
            .iter()
            .filter_map(|place| fs::read_to_string(place).ok())
            .collect();
        let head = format!("fn {test}(");
        assert!(sources.contains(&head), "`{name}` is no test");
    }
    assert!(named > 60, "only {named} tests are named");
}
