//! Any text as a host or a URL: refused, or in its one spelling.
#![no_main]

use exeat_policy::{Host, Target};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(host) = Host::parse(text) {
        assert_eq!(Host::parse(host.as_str()).as_ref(), Ok(&host), "not a fixpoint");
        assert_eq!(Host::parse(&host.authority()).as_ref(), Ok(&host));
    }
    if let Ok(target) = Target::parse(text) {
        let url = format!("{}://{}{}", target.scheme, target.destination, target.path);
        let again = Target::parse(&url).expect("its own spelling");
        assert_eq!((again.destination, again.path), (target.destination, target.path));
    }
});
