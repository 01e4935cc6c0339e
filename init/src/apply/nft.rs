//! Native nftables: look, one transaction, read back.

use std::time::Instant;

use super::{Step, Written};
use crate::error::InitError;
use crate::plan::Plan;
use crate::render::nft::{self, Existing};
use crate::report::digest;
use crate::ruleset::Ruleset;
use crate::survey::nft::{LIST, Listed, foreign, parse, stamp};
use crate::survey::surroundings;
use crate::tool::Tool;

pub(crate) fn tool() -> Result<Tool, InitError> {
    Tool::find("nft").ok_or_else(|| InitError::Backend("nft".to_owned()))
}

pub(crate) fn list(tool: &Tool) -> Result<Vec<Listed>, InitError> {
    Ok(parse(&tool.run(&LIST, None)?))
}

pub(super) fn apply(plan: &Plan, observe: &mut dyn FnMut(Step)) -> Result<Written, InitError> {
    let tool = tool()?;
    let before = list(&tool)?;
    if let Some(rule) = foreign(&before) {
        return Err(InitError::Foreign(rule));
    }
    if let Some(rule) = super::xtables::foreign_legacy()? {
        return Err(InitError::Foreign(rule));
    }
    let surroundings = surroundings(stamp(&before))?;
    let mut ruleset = Ruleset::new(plan, &surroundings);
    observe(Step::Surveyed);

    let started = Instant::now();
    if let Err(error) = write(&tool, &ruleset, &before) {
        // A kernel before 5.16 can't look at frames on their way out. It says only that something
        // is not supported, so the rest is tried without.
        if ruleset.frames.take().is_none()
            || !matches!(error, InitError::Module(_) | InitError::Program { .. })
        {
            return Err(error);
        }
        write(&tool, &ruleset, &before).map_err(|_| error)?;
    }
    let elapsed = started.elapsed();
    observe(Step::Denied);
    observe(Step::Written);

    let after = list(&tool)?;
    compare(&ruleset, &after)?;
    Ok(Written {
        digest: digest(&nft::listing(&without_stamp(plan, &surroundings))),
        frames: ruleset
            .frames
            .map(|frames| frames.interfaces)
            .unwrap_or_default(),
        took: elapsed,
    })
}

fn write(tool: &Tool, ruleset: &Ruleset, before: &[Listed]) -> Result<(), InitError> {
    let existing = if refillable(ruleset, before) {
        Existing::Refill
    } else {
        Existing::Replace
    };
    tool.run(&["-f", "-"], Some(&nft::script(ruleset, existing)))?;
    Ok(())
}

/// Whether what is there has the same chains at the same hooks, or none.
fn refillable(ruleset: &Ruleset, before: &[Listed]) -> bool {
    let wanted = expected(ruleset);
    before.iter().filter(|chain| chain.is_ours()).all(|chain| {
        wanted.iter().any(|other| {
            other.family == chain.family && other.name == chain.name && other.head == chain.head
        })
    })
}

fn expected(ruleset: &Ruleset) -> Vec<Listed> {
    let mut text = nft::listing(ruleset);
    if let Some(frames) = &ruleset.frames {
        text.push_str(&nft::frame_listing(frames));
    }
    parse(&text)
}

/// Every chain of ours, with every rule in its place, and no other.
pub(crate) fn compare(ruleset: &Ruleset, found: &[Listed]) -> Result<(), InitError> {
    let wanted = expected(ruleset);
    let ours: Vec<&Listed> = found.iter().filter(|chain| chain.is_ours()).collect();
    for chain in &wanted {
        let place = format!(
            "chain {} of table {} {}",
            chain.name, chain.family, chain.table
        );
        let Some(there) = ours
            .iter()
            .find(|other| other.family == chain.family && other.name == chain.name)
        else {
            return Err(InitError::Readback(format!("{place} is missing")));
        };
        if there.head != chain.head {
            return Err(InitError::Readback(format!(
                "{place} is not hooked in as planned: {:?}",
                there.head
            )));
        }
        for (index, rule) in chain.rules.iter().enumerate() {
            let there = there.rules.get(index).map_or("nothing", String::as_str);
            if there != rule {
                return Err(InitError::Readback(format!(
                    "{place}, rule {}: `{rule}` planned, {there} found",
                    index + 1
                )));
            }
        }
        if let Some(more) = there.rules.get(chain.rules.len()) {
            return Err(InitError::Readback(format!(
                "{place} has one rule too many: `{more}`"
            )));
        }
    }
    if let Some(stranger) = ours.iter().find(|there| {
        !wanted
            .iter()
            .any(|chain| chain.family == there.family && chain.name == there.name)
    }) {
        return Err(InitError::Readback(format!(
            "chain {} of table {} is not planned",
            stranger.name, stranger.table
        )));
    }
    Ok(())
}

/// The digest must be the same on every pod of a plan.
pub(crate) fn without_stamp(plan: &Plan, surroundings: &crate::ruleset::Surroundings) -> Ruleset {
    Ruleset::new(
        plan,
        &crate::ruleset::Surroundings {
            stamp: 0,
            ..surroundings.clone()
        },
    )
}
