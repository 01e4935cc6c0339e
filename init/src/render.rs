//! Writes a rule set down in the words of a packet filter. Pure: the same rules, the same text.
//!
//! Each rendering writes a rule exactly as its filter prints it back, because that is how it is
//! verified. A third filter (one without connection tracking) would be a third file here.

pub mod iptables;
pub mod nft;

#[cfg(test)]
mod tests;
