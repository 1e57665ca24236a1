//! Channels to a coordinator: opening, credentials and retries.

pub mod connect;
pub mod credentials;
pub mod leader;
pub mod replay;
pub mod retry;
pub mod transport;
