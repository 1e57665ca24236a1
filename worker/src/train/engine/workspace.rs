//! Buffers that are reused from layer to layer: transformed weights, and what each thread writes.

use super::aligned_buffer::AlignedBuffer;
use super::layer::LayerState;
use super::norm::ChannelMoments;
use super::norm_backward::GradientSums;
use super::winograd::{WinogradPlan, WinogradWorkspace};
use crate::train::network::direct_conv_plan::TransposedConvPlan;
use crate::train::network::plan::{ConvAlgorithm, LayerPlan};

/// The weights of one layer in the forms that its kernels read; large enough for every layer.
pub(crate) struct WeightScratch {
    /// The weights at the points of Winograd tiles.
    pub(crate) transformed: AlignedBuffer,
    /// The weights with inputs and outputs exchanged, for the backward pass.
    pub(crate) transposed: AlignedBuffer,
}

impl WeightScratch {
    pub(crate) fn new(layers: &[LayerState]) -> Self {
        Self {
            transformed: zeros_for_any(layers, transformed_len),
            transposed: zeros_for_any(layers, transposed_len),
        }
    }
}

/// A buffer of the largest length that any layer needs.
fn zeros_for_any(layers: &[LayerState], len: fn(&LayerPlan) -> usize) -> AlignedBuffer {
    AlignedBuffer::zeros(layers.iter().map(|l| len(&l.plan)).max().unwrap_or(0))
}

fn transformed_len(plan: &LayerPlan) -> usize {
    plan.winograd_plan().map_or(0, WinogradPlan::weight_len)
}

fn transposed_len(plan: &LayerPlan) -> usize {
    match &plan.algorithm {
        ConvAlgorithm::Copy => 0,
        ConvAlgorithm::Winograd(plan) => plan.weight_len(),
        ConvAlgorithm::Direct(plan) => plan
            .transposed
            .as_ref()
            .map_or(0, TransposedConvPlan::weight_len),
    }
}

/// The buffers of one thread.
pub(crate) struct Workspace {
    pub(crate) layers: Vec<LayerWorkspace>,
    /// Gradient of a weight over a part of the batch.
    pub(crate) weight_gradient: AlignedBuffer,
    pub(crate) winograd: WinogradWorkspace,
    pub(crate) gradient_sums: GradientSums,
    /// Σ ∂L/∂z per channel over a part of the batch.
    pub(crate) z_gradient_sums: Vec<f64>,
    /// Sums of a single image, for norms over single images.
    pub(crate) image_gradient_sums: GradientSums,
}

/// The buffers of one thread for one layer.
pub(crate) struct LayerWorkspace {
    /// Inputs of a chunk.
    pub(crate) input: AlignedBuffer,
    /// The first image of the chunk in `input`, if this pass has written it.
    pub(crate) written_chunk: Option<usize>,
    /// ∂L/∂z of a chunk.
    pub(crate) z_gradient: AlignedBuffer,
    pub(crate) moments: ChannelMoments,
}

impl Workspace {
    /// `has_parts` tells whether a batch has several parts under a plan, whose weight gradients are then added up.
    pub(crate) fn new(layers: &[LayerState], has_parts: impl Fn(&LayerPlan) -> bool) -> Self {
        let weights = layers
            .iter()
            .filter(|l| l.trained && has_parts(&l.plan))
            .map(|l| l.param_ranges.weight.len());
        let width = layers.iter().map(|l| l.plan.channels).max().unwrap_or(0);

        Self {
            weight_gradient: AlignedBuffer::zeros(weights.max().unwrap_or(0)),
            winograd: WinogradWorkspace::new(layers.iter().filter_map(|l| l.plan.winograd_plan())),
            layers: layers
                .iter()
                .map(|l| LayerWorkspace::new(&l.plan))
                .collect(),
            gradient_sums: GradientSums::new(width),
            z_gradient_sums: vec![0.0; width],
            image_gradient_sums: GradientSums::new(width),
        }
    }
}

impl LayerWorkspace {
    fn new(plan: &LayerPlan) -> Self {
        Self {
            input: AlignedBuffer::zeros(plan.chunk_images * plan.input.len()),
            written_chunk: None,
            z_gradient: AlignedBuffer::zeros(plan.chunk_images * plan.output_len()),
            moments: ChannelMoments::new(plan.channels),
        }
    }
}
