//! Any bytes as the first flight of a TLS client.
#![no_main]

use exeat_sidecar::agent::survive;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| survive::client_hello(bytes));
