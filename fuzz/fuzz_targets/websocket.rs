//! Any bytes as WebSocket frames, from either side.
#![no_main]

use exeat_sidecar::agent::survive;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| survive::websocket(bytes));
