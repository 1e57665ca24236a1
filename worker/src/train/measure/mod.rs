//! Measurements of a trial in training: metrics, gradient noise, curvature, predictions for the
//! probe set.

pub(crate) mod exact_activation;
pub(crate) mod gradient_noise;
pub(crate) mod gradient_stats;
pub(crate) mod hessian;
pub(crate) mod linear_op;
pub(crate) mod metrics;
pub(crate) mod norms;
mod parts;
pub(crate) mod probe_set;
