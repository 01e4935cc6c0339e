//! Any bytes as a DNS message: what goes back is a small response to the same question, or nothing.
#![no_main]

use std::sync::LazyLock;

use exeat_policy::{Plan, Source, compile};
use exeat_sidecar::agent::dns::answer_bytes;
use exeat_sidecar::agent::names::VirtualNames;
use libfuzzer_sys::fuzz_target;

const POLICY: &str = "apiVersion: exeat.dev/v1alpha1
kind: ToolPolicy
metadata: {name: p}
spec:
  tools:
  - name: a
    http: {hosts: [api.github.com, \"*.wild.example\"], paths: [\"/**\"]}
";

static PLAN: LazyLock<Plan> = LazyLock::new(|| {
    compile(&[Source::new("p.yaml", POLICY)], None, 1).expect("the policy above compiles")
});
static NAMES: LazyLock<VirtualNames> = LazyLock::new(VirtualNames::default);

fuzz_target!(|bytes: &[u8]| {
    if let Some(reply) = answer_bytes(&PLAN, &NAMES, bytes) {
        assert!(reply.len() <= 1232);
        assert_eq!(reply[..2], bytes[..2], "the reply to another question");
        assert!(reply[2] & 0x80 != 0, "a question in reply");
    }
});
