//! Optimizers: their state as Candle tensors, their update rules, and the schedule of the learning rate.

pub(crate) mod adam;
pub(crate) mod schedule;
pub(crate) mod sgd;
pub(crate) mod state;
pub(crate) mod step_gradient;
pub(crate) mod tensor;
pub(crate) mod trained_groups;
