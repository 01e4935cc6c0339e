//! What a gate says about itself, in a form that the agent beside it can't forge.

/// The file of the pod's own Secret that holds the key which answers are signed with.
pub const KEY_FILE: &str = "status-key";
