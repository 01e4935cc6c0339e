//! Out to the world, with a receipt in hand: credential, address, connection, relay.

pub mod address;
pub mod authorize;
pub mod credential;
pub mod dial;
pub mod forward;
pub mod pool;
pub mod relay;
pub mod resolve;
pub mod splice;
pub mod tls;
pub mod upgrade;
pub mod websocket;
