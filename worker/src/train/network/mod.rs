//! A network's layout: its parameters in one vector, and the plan of its layers' shapes and buffers.

pub(crate) mod direct_conv_plan;
pub(crate) mod params;
pub(crate) mod plan;
pub(crate) mod shape;
