//! Channels to a coordinator: how they are opened, with which credentials, and how requests are retried.

pub mod connect;
pub mod credentials;
pub mod leader;
pub mod replay;
pub mod retry;
pub mod transport;
