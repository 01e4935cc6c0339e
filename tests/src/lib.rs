//! What the cross-part tests share: servers to call, networks to be confined in, clients to run.

pub mod backend;
pub mod governed;
pub mod upstream;
