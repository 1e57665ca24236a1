//! Tests of the trainer as a whole.

pub(crate) mod cases;
mod devices;
mod gradients;
mod input_pipeline;
mod linear;
mod noise;
mod ops;
mod optimizers;
mod reference;
mod starts;
mod targets;
mod torch;
mod toy;
mod trials;
