//! Statistics over stored rows, recomputed from them in (cell, repeat) order, so that they never depend on the order
//! in which results arrived.

pub mod summary;
pub mod table;

pub use summary::Summary;
