//! Any JSON as a pod: it is refused, or governed once and for all.
#![no_main]

use exeat_inject::{Image, SecretName, Settings, mutate, validate, validate_update};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(pod) = serde_json::from_slice(bytes) else {
        return;
    };
    let image = Image::parse(&format!("a@sha256:{}", "0".repeat(64))).expect("pinned");
    let settings = Settings::new(image.clone(), image);
    let _ = validate(&pod, &settings);
    let _ = validate_update(&pod, &pod);
    if let Ok(governed) = mutate(&pod, &settings, &SecretName::of_pod(1)) {
        let again = mutate(&governed.pod, &settings, &SecretName::of_pod(2)).expect("was taken once");
        assert!(again.patch.is_empty(), "a patched pod is patched again");
    }
});
