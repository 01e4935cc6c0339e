//! `ToolPolicy`: what an agent may do, compiled to an immutable [`Plan`].
//!
//! Pure: no I/O, no clock, no async. Text goes in at [`compile`], facts about one call go in at
//! [`Plan::decide`], and a [`Verdict`] comes out. In doubt it refuses: a policy that is not
//! understood in full does not compile, and a call that is not understood in full is denied.
//!
//! The files in the order of the flow: [`source`] and `tree` read YAML, `document` is the written
//! form, `compile` turns it into the meant form, `plan` holds that and decides, `body` reads what
//! a rule must see of a body, `expression` is CEL, [`verdict`] is the answer.

pub mod body;
pub mod bundle;
pub mod call;
pub mod check;
pub mod crd;
pub mod credential;
pub mod diagnostics;
pub mod host;
pub mod path;
pub mod plan;
pub mod reason;
pub mod source;
pub mod sources;
pub mod status;
pub mod target;
pub mod verdict;

mod canonical;
mod compile;
mod document;
mod expression;
mod limits;
mod pattern;
mod tree;

pub use body::{BodyNeed, Dialect, InferenceCall, McpBody, McpCall, McpMessage, Provider, RpcId};
pub use bundle::{Bundle, BundleError, BundleId};
pub use call::{Call, Content, Destination, HttpCall, Protocol, Scheme, Treatment};
pub use check::{Checked, CredentialUse, check};
pub use compile::compile;
pub use credential::{Credential, Inject, SecretRef};
pub use diagnostics::{Diagnostic, Diagnostics, Place};
pub use document::PolicyKind;
pub use host::{Host, HostError};
pub use path::{Path, PathError};
pub use plan::Plan;
pub use plan::explain::{Explanation, NearMiss};
pub use reason::Reason;
pub use source::Source;
pub use target::{Target, TargetError};
pub use verdict::{CaSource, Denial, Grant, Mode, UpstreamTls, Verdict};
