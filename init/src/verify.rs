//! Reads the rules back without touching them: same rules, same order, nobody before us.

use std::time::Instant;

use crate::apply::{candidates, keep, nft, xtables};
use crate::error::InitError;
use crate::plan::{Backend, Plan};
use crate::render;
use crate::report::{Report, digest, micros};
use crate::ruleset::{Interface, Ruleset};
use crate::survey::nft::{foreign, stamp};
use crate::survey::surroundings;

/// Compares what the kernel has with the plan. With several backends to choose from, one that
/// holds exactly the planned rules is enough.
pub fn verify(plan: &Plan, backend: Backend) -> Result<Report, InitError> {
    let started = Instant::now();
    let mut first_failure = None;
    for candidate in candidates(backend) {
        let found = match candidate {
            Backend::Nft => verify_nft(plan),
            _ => verify_xtables(plan, candidate),
        };
        match found {
            Ok((rules, frames)) => {
                return Ok(Report {
                    plan: plan.clone(),
                    backend: candidate,
                    rules,
                    frames,
                    apply_us: 0,
                    verify_us: micros(started.elapsed()),
                    proof: None,
                });
            }
            Err(error @ InitError::Foreign(_)) => return Err(error),
            Err(error) => keep(&mut first_failure, candidate, error),
        }
    }
    Err(first_failure.unwrap_or_else(|| InitError::Backend(backend.to_string())))
}

fn verify_nft(plan: &Plan) -> Result<(String, Vec<Interface>), InitError> {
    let found = nft::list(&nft::tool()?)?;
    if let Some(rule) = foreign(&found) {
        return Err(InitError::Foreign(rule));
    }
    if let Some(rule) = xtables::foreign_legacy()? {
        return Err(InitError::Foreign(rule));
    }
    let surroundings = surroundings(stamp(&found).or(Some(1)))?;
    let mut ruleset = Ruleset::new(plan, &surroundings);
    // Frames are looked at on the interfaces that were there when the rules were written, where
    // the kernel can: an interface that came later has the other chains. Where it can't, nothing
    // bears a stamp.
    if stamp(&found).is_none() {
        ruleset.frames = None;
    }
    if let Some(frames) = &mut ruleset.frames {
        let listed = |interface: &Interface| {
            found.iter().any(|chain| {
                chain.family == "netdev"
                    && chain.is_ours()
                    && chain.name == render::nft::frame_chain(interface)
            })
        };
        let some = !frames.interfaces.is_empty();
        frames.interfaces.retain(listed);
        if some && frames.interfaces.is_empty() {
            return Err(InitError::Readback(
                "no interface's frames are looked at".to_owned(),
            ));
        }
    }
    nft::compare(&ruleset, &found)?;
    let digest = digest(&render::nft::listing(&nft::without_stamp(
        plan,
        &surroundings,
    )));
    Ok((
        digest,
        ruleset
            .frames
            .map(|frames| frames.interfaces)
            .unwrap_or_default(),
    ))
}

fn verify_xtables(plan: &Plan, backend: Backend) -> Result<(String, Vec<Interface>), InitError> {
    let xtables = xtables::Xtables::find(backend)?;
    let saved = xtables.saved()?;
    if let Some(rule) = xtables::foreign(backend, &saved)? {
        return Err(InitError::Foreign(rule));
    }
    let ruleset = xtables::ruleset(plan, backend)?;
    xtables.check(&ruleset, &saved)?;
    Ok((xtables::digest_of(&ruleset), Vec::new()))
}
