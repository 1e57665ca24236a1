//! The core's responses to events, one file per kind of event.

pub(crate) mod crashes;
mod leases;
pub(crate) mod results;
pub(crate) mod tick;
mod user;
mod workers;

pub use results::Admission;
pub use workers::{JoiningWorker, SessionEnd};
