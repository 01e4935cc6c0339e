//! How much of everything a policy may hold. The reader refuses more, and the schemas of the custom
//! resources say so to the API server, whose own checks must stay within its budget.

/// More rules than a person can answer for, in each list of one policy.
pub(crate) const MAX_RULES: usize = 2000;
/// Of hosts, ports, paths, tools, models, labels and the like in one list.
pub(crate) const MAX_ITEMS: usize = 512;
/// A Secret of a pod's own holds those of all its policies.
pub(crate) const MAX_CREDENTIALS: usize = 128;
/// A label is 63 characters (RFC 1035), and names in Kubernetes are like labels.
pub(crate) const MAX_NAME: usize = 63;
/// Names of objects, of keys of Secrets, and of files.
pub(crate) const MAX_OBJECT_NAME: usize = 253;
/// `*.` before the longest name that DNS has.
pub(crate) const MAX_HOST: usize = 255;
/// Longer URLs and patterns of paths are mistakes.
pub(crate) const MAX_URL: usize = 2048;
/// Names of tools, models, headers, parameters and users.
pub(crate) const MAX_WORD: usize = 256;
/// `mcp.tools`: what the protocol recommends.
pub(crate) const MAX_TOOL: usize = 128;
/// What stands before a secret in a header.
pub(crate) const MAX_PREFIX: usize = 64;
/// A bundle of a few certificates.
pub(crate) const MAX_PEM: usize = 64 * 1024;
