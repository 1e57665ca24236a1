//! Networks on Candle's stock operations: the engine of devices that the trainer's own engine does not know, and the
//! reference for tests.

pub(crate) mod engine;
pub(crate) mod net;
#[cfg(test)]
pub(crate) mod reference;
