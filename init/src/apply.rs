//! Writes the rules. The deny is in place before anything that lets something through, and no
//! path through this file takes it away again: on any failure what is written stays.

pub(crate) mod nft;
pub(crate) mod xtables;

use std::time::Instant;

use crate::error::InitError;
use crate::plan::{Backend, Plan};
use crate::report::{Report, micros};

/// A boundary between two steps: what a kill at this point would leave.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Step {
    /// Nothing has been written.
    Surveyed,
    /// Both families are shut.
    Denied,
    /// All rules are written.
    Written,
    /// And are the ones that were planned.
    ReadBack,
}

/// Confines this namespace and reads the rules back. It does not [`crate::prove()`] them.
pub fn apply(plan: &Plan, backend: Backend) -> Result<Report, InitError> {
    apply_observed(plan, backend, &mut |_| {})
}

/// The same, telling `observe` of every step.
pub fn apply_observed(
    plan: &Plan,
    backend: Backend,
    observe: &mut dyn FnMut(Step),
) -> Result<Report, InitError> {
    let mut first_failure = None;
    for candidate in candidates(backend) {
        match apply_with(plan, candidate, observe) {
            Ok(report) => return Ok(report),
            // These say something about the namespace, not about the filter: another filter would
            // meet the same, or would only hide it.
            Err(
                error @ (InitError::Foreign(_)
                | InitError::Readback(_)
                | InitError::Locked(_)
                | InitError::Usage(_)
                | InitError::Leak(_)),
            ) => return Err(error),
            Err(error) => keep(&mut first_failure, candidate, error),
        }
    }
    Err(first_failure.unwrap_or_else(|| InitError::Backend(backend.to_string())))
}

fn apply_with(
    plan: &Plan,
    backend: Backend,
    observe: &mut dyn FnMut(Step),
) -> Result<Report, InitError> {
    let started = Instant::now();
    let written = match backend {
        Backend::Nft => nft::apply(plan, observe)?,
        _ => xtables::apply(plan, backend, observe)?,
    };
    observe(Step::ReadBack);
    Ok(Report {
        plan: plan.clone(),
        backend,
        rules: written.digest,
        frames: written.frames,
        apply_us: micros(written.took),
        verify_us: micros(started.elapsed().saturating_sub(written.took)),
        proof: None,
    })
}

/// What one backend did.
pub(crate) struct Written {
    pub(crate) digest: String,
    pub(crate) frames: Vec<crate::ruleset::Interface>,
    pub(crate) took: std::time::Duration,
}

/// Which of several filters' failures is told: the best one's. But in a kernel of gVisor's kind its own
/// rules say what is missing, and what the others miss is beside the point.
pub(crate) fn keep(told: &mut Option<InitError>, candidate: Backend, error: InitError) {
    let speaks = candidate == Backend::Gvisor
        && !matches!(error, InitError::Unsuited(_) | InitError::Backend(_));
    if told.is_none() || speaks {
        *told = Some(error);
    }
}

/// The filters to try, best first.
pub(crate) fn candidates(backend: Backend) -> Vec<Backend> {
    match backend {
        Backend::Auto => {
            let mut all = vec![Backend::Nft];
            all.extend(iptables_candidates());
            all
        }
        Backend::Iptables => iptables_candidates(),
        one => vec![one],
    }
}

/// The variant that this system calls `iptables` comes first: it is the one whose modules are
/// likely to be loaded.
fn iptables_candidates() -> Vec<Backend> {
    let version = iptables::new(false)
        .and_then(|iptables| iptables.execute("filter", "--version"))
        .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
        .unwrap_or_default();
    if version.contains("legacy") {
        vec![
            Backend::IptablesLegacy,
            Backend::IptablesNft,
            Backend::Gvisor,
        ]
    } else {
        vec![
            Backend::IptablesNft,
            Backend::IptablesLegacy,
            Backend::Gvisor,
        ]
    }
}
