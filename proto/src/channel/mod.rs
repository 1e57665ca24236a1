//! Channels to a coordinator: how they are opened, with which credentials, and how requests are retried.

pub mod connect;
pub mod retry;
