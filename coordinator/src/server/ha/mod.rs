//! High availability: leader election, terms, and what a standby answers meanwhile.

pub(crate) mod leadership;
pub(crate) mod standby;
pub(crate) mod supervisor;
pub(crate) mod term;
