//! Any text as a policy: it compiles or is refused with places; what compiles judges a call.
#![no_main]

use exeat_policy::{Call, Destination, Host, Protocol, Source, compile};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    match compile(&[Source::new("fuzz.yaml", text)], None, 1) {
        Ok(plan) => {
            let host = Host::parse("api.github.com").expect("a host");
            let destination = Destination { host, port: 443 };
            let protocol = Protocol::Tls;
            let _ = plan.decide(&Call { destination: &destination, protocol });
            assert!(plan.digest().starts_with("sha256:"));
        }
        Err(found) => {
            assert!(!found.is_empty(), "refused without a reason");
            assert!(!found.to_string().is_empty());
        }
    }
});
