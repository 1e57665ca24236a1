//! Optimizers: their state as Candle tensors, their update rules, and the schedule of the learning rate.

pub(crate) mod adamw;
pub(crate) mod schedule;
pub(crate) mod sgd;
pub(crate) mod state;
pub(crate) mod tensor;
