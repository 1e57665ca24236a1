//! High availability: leader election, terms, and standbys.

pub(crate) mod leadership;
pub(crate) mod standby;
pub(crate) mod supervisor;
pub(crate) mod term;
