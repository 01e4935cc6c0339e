//! What was done, for a person and for a program.

use std::fmt;
use std::time::Duration;

use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::plan::{Backend, Plan};
use crate::prove::Proof;
use crate::ruleset::Interface;

/// The state of a confined namespace.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What was asked for.
    pub plan: Plan,
    /// Which packet filter holds the rules.
    pub backend: Backend,
    /// SHA-256 of the rules as they were read back; the stamp is not part of it.
    pub rules: String,
    /// Interfaces whose frames are looked at, so that packet sockets are stopped as well. Empty
    /// where the kernel or the backend can't.
    pub frames: Vec<Interface>,
    /// How long the rules took to be written, in microseconds.
    pub apply_us: u64,
    /// How long it took to look around before and to read back after, in microseconds.
    pub verify_us: u64,
    /// What was tried, if it was.
    pub proof: Option<Proof>,
}

// === impl Report ===

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.plan.exempt {
            Some(uid) => writeln!(f, "confined: only uid {uid} may send, TCP and UDP")?,
            None => writeln!(f, "confined: nobody may send, the gate is outside")?,
        }
        writeln!(f, "backend: {}", self.backend)?;
        writeln!(f, "rules: {}", self.rules)?;
        let names: Vec<&str> = self
            .frames
            .iter()
            .map(|interface| interface.name.as_str())
            .collect();
        if names.is_empty() {
            writeln!(
                f,
                "frames: not looked at, packet sockets are stopped by their missing capability"
            )?;
        } else {
            writeln!(f, "frames: {}", names.join(" "))?;
        }
        if self.apply_us > 0 {
            writeln!(f, "applied in {}", milliseconds(self.apply_us))?;
        }
        writeln!(f, "read back in {}", milliseconds(self.verify_us))?;
        if let Some(proof) = &self.proof {
            writeln!(
                f,
                "proven in {}: {} attempts as uid {}, none got out",
                milliseconds(proof.took_us),
                proof.attempts.len(),
                proof.uid
            )?;
        }
        Ok(())
    }
}

/// The name of a rule set: what is hashed is what must be in the kernel.
pub(crate) fn digest(listing: &str) -> String {
    use std::fmt::Write as _;
    let mut text = String::from("sha256:");
    for byte in Sha256::digest(listing.as_bytes()) {
        // Writing to a String can't fail.
        let _always_written = write!(text, "{byte:02x}");
    }
    text
}

pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn milliseconds(micros: u64) -> String {
    format!("{}.{} ms", micros / 1000, micros % 1000 / 100)
}
