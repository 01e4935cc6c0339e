//! Any bytes as HTTP/1 requests, through the strict walk, the HTTP library, identity and normalisation.
#![no_main]

use std::cell::LazyCell;

use exeat_sidecar::agent::survive;
use libfuzzer_sys::fuzz_target;
use tokio::runtime::{Builder, Runtime};

thread_local! {
    static RUNTIME: LazyCell<Runtime> = LazyCell::new(|| {
        Builder::new_current_thread().enable_time().build().expect("a runtime")
    });
}

fuzz_target!(|bytes: &[u8]| RUNTIME.with(|runtime| runtime.block_on(survive::http_head(bytes))));
