//! What tells a bundle that the operator wrote from one that somebody else put there.
//!
//! The last accepted form of a policy is read back from the `ConfigMap`. Were it not sealed, whoever
//! may edit `ConfigMap`s could put a policy there and have it kept.

use aws_lc_rs::{hmac, rand};
use exeat_policy::Bundle;

/// A key, and what it says about bundles.
#[derive(Clone)]
pub(crate) struct Seal(hmac::Key);

// === impl Seal ===

impl Seal {
    /// From 32 bytes in hexadecimal.
    pub(crate) fn new(text: &str) -> Option<Self> {
        if text.len() != 64 {
            return None;
        }
        let bytes = bytes(text)?;
        Some(Self(hmac::Key::new(hmac::HMAC_SHA256, &bytes)))
    }

    /// A new key, in hexadecimal.
    pub(crate) fn draw() -> anyhow::Result<String> {
        let mut bytes = [0; 32];
        rand::fill(&mut bytes).map_err(|_| anyhow::anyhow!("the system gives no random bytes"))?;
        Ok(hex(&bytes))
    }

    /// The seal of a bundle.
    pub(crate) fn of(&self, bundle: &Bundle) -> String {
        hex(hmac::sign(&self.0, message(bundle).as_bytes()).as_ref())
    }

    /// Whether this is its seal.
    pub(crate) fn holds(&self, bundle: &Bundle, seal: &str) -> bool {
        bytes(seal)
            .is_some_and(|seal| hmac::verify(&self.0, message(bundle).as_bytes(), &seal).is_ok())
    }
}

impl std::fmt::Debug for Seal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seal(…)")
    }
}

fn message(bundle: &Bundle) -> String {
    format!(
        "{}\n{}\n{}",
        bundle.namespace(),
        bundle.generation(),
        bundle.digest()
    )
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: [char; 16] = [
        '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f',
    ];
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .map(|digit| DIGITS[usize::from(digit)])
        .collect()
}

fn bytes(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) || text.len() > 128 {
        return None;
    }
    (0..text.len() / 2)
        .map(|at| u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok())
        .collect()
}
