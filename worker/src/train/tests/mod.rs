//! Tests of the trainer as a whole.

pub(super) mod cases;
mod devices;
mod gradients;
mod linear;
mod meetings;
mod ops;
mod torch;
mod toy;
mod trials;
