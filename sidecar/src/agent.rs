//! A connection from the agent: where it was meant to go, what it speaks, and the one identity that
//! everything it says must agree with.

pub mod answer;
pub mod call;
pub mod caller;
pub mod dns;
pub mod explicit;
pub mod fields;
pub mod identify;
pub mod leaf;
pub mod names;
pub mod origin;
pub mod resets;
pub mod sniff;
pub mod stream;
pub mod strict;
pub mod survive;
pub mod terminate;
pub mod trace;
