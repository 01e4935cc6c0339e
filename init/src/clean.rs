//! Takes everything away. Nothing else in this crate does, and it is never done on a failure.

use crate::apply::{candidates, nft, xtables};
use crate::error::InitError;
use crate::plan::Backend;
use crate::render;
use crate::render::iptables::TABLES;
use crate::ruleset::Family;

/// Removes our rules from the backend, or with [`Backend::Auto`] from every backend that has any.
/// What redirects goes first and what denies last.
pub fn clean(backend: Backend) -> Result<(), InitError> {
    let several = matches!(backend, Backend::Auto | Backend::Iptables);
    for candidate in candidates(backend) {
        let cleaned = match candidate {
            Backend::Nft => clean_nft(),
            _ => clean_xtables(candidate),
        };
        match cleaned {
            Err(InitError::Backend(_) | InitError::Module(_) | InitError::Unsuited(_))
                if several => {}
            other => other?,
        }
    }
    Ok(())
}

fn clean_nft() -> Result<(), InitError> {
    let tool = nft::tool()?;
    if nft::list(&tool)?
        .iter()
        .any(crate::survey::nft::Listed::is_ours)
    {
        tool.run(&["-f", "-"], Some(&render::nft::removal()))?;
    }
    Ok(())
}

fn clean_xtables(backend: Backend) -> Result<(), InitError> {
    let xtables = xtables::Xtables::find(backend)?;
    let saved = xtables.saved()?;
    for table in TABLES.into_iter().rev() {
        xtables.restore(|family| {
            let saved = &saved[usize::from(family == Family::V6)];
            let chains = saved.our_chains(table);
            if chains.is_empty() {
                return String::new();
            }
            render::iptables::removal(table, &chains, &saved.our_jumps(table))
        })?;
    }
    Ok(())
}
