//! Any bytes as a line of a journal: judged without a panic, and none is a record that was not sealed.
#![no_main]

use exeat_sidecar::ledger::chain::{MAX_LINE, Sealed, Verifier, sealed};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut verifier = Verifier::default();
    for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        // A journal of whole lines is proven only from its first record on.
        let judged = verifier.line(line, index == 0);
        assert!(judged.is_err() || index as u64 + 1 >= verifier.records());
        let line = sealed(line);
        if let Ok(record) = Sealed::parse(&line) {
            assert!(line.len() <= MAX_LINE && line.iter().all(|byte| (0x20..0x7f).contains(byte)));
            assert!(record.seq > 0 && record.hash.len() == 64 && record.prev.len() == 64);
            let mut forged = line.clone();
            let middle = forged.len() / 2;
            forged[middle] ^= 1;
            assert!(Sealed::parse(&forged).is_err(), "a changed record passed");
        }
    }
});
