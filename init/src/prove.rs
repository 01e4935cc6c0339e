//! Tries to get out, as somebody without rights, and counts every success as a failure.
//!
//! The attempts are made by a thread that gives up its user, its groups and its capabilities: on
//! Linux those belong to the thread, so the rest of the process keeps what it needs. An attempt
//! that nobody answers counts as an escape, because a packet that left looks just like that.

mod attempt;
mod watch;

use std::fmt;
use std::thread;
use std::time::Instant;

use rustix::thread::{
    CapabilitySet, CapabilitySets, Gid as ThreadGid, Uid as ThreadUid, set_capabilities,
    set_no_new_privs, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};
use serde::Serialize;

use crate::error::InitError;
use crate::plan::Plan;
use crate::report::micros;
use watch::Watch;

/// Who tries: the usual «nobody», which is never exempt.
const NOBODY: u32 = 65_534;

/// All that was tried.
#[derive(Clone, Debug, Serialize)]
pub struct Proof {
    /// As whom.
    pub uid: u32,
    /// Each attempt.
    pub attempts: Vec<Attempt>,
    /// How long it all took, in microseconds.
    pub took_us: u64,
}

/// One way out, tried.
#[derive(Clone, Debug, Serialize)]
pub struct Attempt {
    /// Which.
    pub name: &'static str,
    /// What became of it.
    pub outcome: Outcome,
}

/// What became of an attempt.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "is", content = "detail")]
pub enum Outcome {
    /// The kernel said no, and what it said.
    Refused(String),
    /// There is no such socket for this user or in this kernel, and why.
    NoSocket(String),
    /// It arrived at the gate's port with its original destination.
    Captured,
    /// It got out, or nothing shows that it did not.
    Escaped(String),
}

/// Makes every attempt as an unprivileged user and fails if one of them succeeds.
pub fn prove(plan: &Plan) -> Result<Proof, InitError> {
    proven(plan, None)
}

/// The same, where the kernel drops some packets without telling who sent them: every frame is
/// watched, and silence is no escape if none of it left.
pub fn prove_watching(plan: &Plan) -> Result<Proof, InitError> {
    // While we may still open such a socket: who tries can't.
    let watch = Watch::start()?;
    proven(plan, Some(&watch))
}

fn proven(plan: &Plan, watch: Option<&Watch>) -> Result<Proof, InitError> {
    let started = Instant::now();
    let (uid, attempts) = thread::scope(|scope| {
        scope
            .spawn(|| give_up_rights(plan).map(|uid| (uid, attempt::all(plan, watch))))
            .join()
    })
    .unwrap_or_else(|_| {
        Err(InitError::Unproven(
            "the thread that tries ended early".to_owned(),
        ))
    })?;
    let escaped: Vec<String> = attempts
        .iter()
        .filter_map(|attempt| match &attempt.outcome {
            Outcome::Escaped(how) => Some(format!("{} ({how})", attempt.name)),
            _ => None,
        })
        .collect();
    if escaped.is_empty() {
        Ok(Proof {
            uid,
            attempts,
            took_us: micros(started.elapsed()),
        })
    } else {
        Err(InitError::Leak(escaped.join(", ")))
    }
}

/// Makes every attempt as whoever the calling thread is.
#[must_use]
pub fn attempts(plan: &Plan) -> Vec<Attempt> {
    attempt::all(plan, None)
}

/// Of this thread only, and for good.
fn give_up_rights(plan: &Plan) -> Result<u32, InitError> {
    let unproven = |what: &'static str| {
        move |errno: rustix::io::Errno| InitError::Unproven(format!("{what}: {errno}"))
    };
    let uid = if plan.exempt.is_some() {
        let (nobody, nogroup) = (ThreadUid::from_raw(NOBODY), ThreadGid::from_raw(NOBODY));
        set_thread_groups(&[]).map_err(unproven("giving up the groups"))?;
        set_thread_res_gid(nogroup, nogroup, nogroup).map_err(unproven("becoming group 65534"))?;
        set_thread_res_uid(nobody, nobody, nobody).map_err(unproven("becoming user 65534"))?;
        NOBODY
    } else {
        // There the user namespace may hold one user only: what differs is the capabilities.
        rustix::process::getuid().as_raw()
    };
    set_no_new_privs(true).map_err(unproven("giving up new privileges"))?;
    let none = CapabilitySet::empty();
    set_capabilities(
        None,
        CapabilitySets {
            effective: none,
            permitted: none,
            inheritable: none,
        },
    )
    .map_err(unproven("giving up the capabilities"))?;
    Ok(uid)
}

// === impl Attempt ===

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.outcome {
            Outcome::Refused(why) => write!(f, "{}: refused, {why}", self.name),
            Outcome::NoSocket(why) => write!(f, "{}: no such socket, {why}", self.name),
            Outcome::Captured => write!(f, "{}: arrived at the gate", self.name),
            Outcome::Escaped(how) => write!(f, "{}: ESCAPED, {how}", self.name),
        }
    }
}
