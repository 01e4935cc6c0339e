//! What the cross-part tests share: servers to call, networks to be confined in, clients to run.

pub mod backend;
pub mod chaos;
pub mod gate;
pub mod governed;
pub mod netns;
pub mod otlp;
pub mod sink;
pub mod upstream;
