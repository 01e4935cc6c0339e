//! What a gate says of itself, and whether it was the gate that said it.
//!
//! The agent shares the gate's addresses and could serve its port while the gate is down. So each
//! question carries a number used once, and the answer a code over it that needs a key which only
//! the gate and the operator have. Anything else counts as no answer.

use aws_lc_rs::{hmac, rand};
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::hex;

/// An answer is well below a kilobyte; the rest is room for problems and names.
pub(crate) const MAX_ANSWER: usize = 64 * 1024;
/// What a pod says is not repeated at any length.
const MAX_SAID: usize = 200;

/// The key that a pod's answers are made with.
#[derive(Clone)]
pub(crate) struct StatusKey(Zeroizing<[u8; 32]>);

/// A number used once, as hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Nonce(String);

/// What is expected of a gate.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Expected<'a> {
    pub(crate) uid: &'a str,
    pub(crate) digest: &'a str,
}

#[derive(Debug, Deserialize)]
struct Answer {
    nonce: String,
    pod_uid: String,
    bundle: Option<BundleSaid>,
    state: String,
    #[serde(default)]
    problem: Option<String>,
    self_test: SelfTest,
    journal: JournalSaid,
    mac: String,
}

#[derive(Debug, Deserialize)]
struct BundleSaid {
    generation: u64,
    digest: String,
}

#[derive(Debug, Deserialize)]
struct SelfTest {
    passed: bool,
    #[serde(default)]
    detail: Option<String>,
}

#[derive(Debug, Deserialize)]
struct JournalSaid {
    writable: bool,
}

// === impl StatusKey ===

impl StatusKey {
    /// A new one.
    pub(crate) fn draw() -> anyhow::Result<Self> {
        let mut bytes = Zeroizing::new([0; 32]);
        rand::fill(&mut *bytes).map_err(|_| anyhow::anyhow!("the system gives no random bytes"))?;
        Ok(Self(bytes))
    }

    pub(crate) fn from_hex(text: &str) -> Option<Self> {
        let bytes = Zeroizing::new(hex::decode(text)?);
        Some(Self(Zeroizing::new(bytes.as_slice().try_into().ok()?)))
    }

    pub(crate) fn hex(&self) -> String {
        hex::encode(&*self.0)
    }

    #[cfg(test)]
    fn sign(&self, message: &[u8]) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &*self.0);
        hex::encode(hmac::sign(&key, message).as_ref())
    }
}

impl PartialEq for StatusKey {
    fn eq(&self, other: &Self) -> bool {
        aws_lc_rs::constant_time::verify_slices_are_equal(&*self.0, &*other.0).is_ok()
    }
}

impl std::fmt::Debug for StatusKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StatusKey(…)")
    }
}

// === impl Nonce ===

impl Nonce {
    /// A new one.
    pub(crate) fn draw() -> anyhow::Result<Self> {
        let mut bytes = [0; 16];
        rand::fill(&mut bytes).map_err(|_| anyhow::anyhow!("the system gives no random bytes"))?;
        Ok(Self(hex::encode(&bytes)))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// Judges an answer. The error says why the gate does not count.
pub(crate) fn judge(
    body: &[u8],
    nonce: &Nonce,
    key: &StatusKey,
    expected: Expected<'_>,
) -> Result<(), String> {
    let text = std::str::from_utf8(body)
        .map_err(|_| "its answer is no text".to_owned())?
        .trim_end();
    let answer: Answer = serde_json::from_str(text)
        .map_err(|_| "its answer is not one that a gate gives".to_owned())?;
    verify(text, &answer.mac, key)?;
    if answer.nonce != nonce.0 {
        return Err("it repeats an old answer".to_owned());
    }
    if answer.pod_uid != expected.uid {
        return Err("it answers for another pod".to_owned());
    }
    let problem = said(answer.problem.as_deref());
    match answer.bundle {
        Some(bundle) if bundle.digest == expected.digest => {}
        Some(bundle) => {
            return Err(format!(
                "it is at generation {} ({}){problem}",
                bundle.generation,
                said(Some(&answer.state)).trim_start_matches(": ")
            ));
        }
        None => return Err(format!("it has no bundle and denies everything{problem}")),
    }
    if answer.state != "enforcing" {
        return Err(format!(
            "its state is {}{problem}",
            said(Some(&answer.state)).trim_start_matches(": ")
        ));
    }
    if !answer.self_test.passed {
        return Err(format!(
            "its self-test failed{}",
            said(answer.self_test.detail.as_deref())
        ));
    }
    if !answer.journal.writable {
        return Err("its journal can't be written, so it denies everything".to_owned());
    }
    Ok(())
}

/// The code is the last member, over the same text without it.
fn verify(text: &str, mac: &str, key: &StatusKey) -> Result<(), String> {
    let wrong = || "its answer is not signed with the pod's key: this is not the gate".to_owned();
    let tail = format!(",\"mac\":\"{mac}\"}}");
    let front = text.strip_suffix(&tail).ok_or_else(wrong)?;
    let message = format!("{front}}}");
    let mac = hex::decode(mac).ok_or_else(wrong)?;
    let key = hmac::Key::new(hmac::HMAC_SHA256, &*key.0);
    hmac::verify(&key, message.as_bytes(), &mac).map_err(|_| wrong())
}

fn said(text: Option<&str>) -> String {
    let Some(text) = text.filter(|text| !text.is_empty()) else {
        return String::new();
    };
    let clean: String = text
        .chars()
        .filter(|c| !c.is_control())
        .take(MAX_SAID)
        .collect();
    format!(": {clean}")
}

#[cfg(test)]
mod tests;
