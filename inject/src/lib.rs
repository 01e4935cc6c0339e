//! What is added to a governed pod, and what such a pod may not have.
//!
//! Pure: JSON values in and out; no client, no I/O, no clock, and randomness is passed in. Admission
//! and `exeat inject` use the same functions, so a manifest that one takes the other takes too.
//! In doubt a pod is refused, with the field at fault and what to do.

mod capabilities;
pub mod clients;
mod environment;
mod mutate;
pub mod names;
mod normal;
mod parts;
mod patch;
pub mod powers;
mod refusal;
mod remove;
mod runtime;
mod settings;
mod validate;
mod walk;
pub mod workload;

pub use capabilities::{ADDABLE, DROPPED};
pub use mutate::{Mutation, mutate, mutate_template};
pub use patch::difference;
pub use refusal::{Refusal, Refusals};
pub use remove::remove;
pub use settings::{BadSetting, Durability, Image, PullPolicy, Resources, SecretName, Settings};
pub use validate::{is_injected, validate, validate_ephemeral, validate_template, validate_update};
