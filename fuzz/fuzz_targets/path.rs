//! Any text as a path: refused, or in its one spelling and without dot segments.
#![no_main]

use exeat_policy::Path;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(path) = Path::parse(text) else { return };
    assert_eq!(Path::parse(path.as_str()).as_ref(), Ok(&path), "not a fixpoint");
    assert!(path.as_str().is_ascii() && !path.as_str().contains("//"));
    assert!(!path.as_str().split('/').any(|s| s == "." || s == ".."));
});
