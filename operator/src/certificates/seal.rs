//! What tells a bundle that the operator wrote from one that somebody else put there.
//!
//! The last accepted form of a policy is read back from the `ConfigMap`. Were it not sealed, whoever
//! may edit `ConfigMap`s could put a policy there and have it kept.

use aws_lc_rs::{hmac, rand};
use exeat_policy::Bundle;

use crate::hex;

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
        let bytes = hex::decode(text)?;
        Some(Self(hmac::Key::new(hmac::HMAC_SHA256, &bytes)))
    }

    /// A new key, in hexadecimal.
    pub(crate) fn draw() -> anyhow::Result<String> {
        let mut bytes = [0; 32];
        rand::fill(&mut bytes).map_err(|_| anyhow::anyhow!("the system gives no random bytes"))?;
        Ok(hex::encode(&bytes))
    }

    /// The seal of a bundle.
    pub(crate) fn of(&self, bundle: &Bundle) -> String {
        hex::encode(hmac::sign(&self.0, message(bundle).as_bytes()).as_ref())
    }

    /// Whether this is its seal.
    pub(crate) fn holds(&self, bundle: &Bundle, seal: &str) -> bool {
        hex::decode(seal)
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
