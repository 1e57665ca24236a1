//! The plan of every layer of a [`Net`]: sizes, cuts of the batch, and the tables that the kernels read.
//!
//! Activations are channels last with the channels padded to whole blocks by zeros. Pixels outside an image are not
//! multiplied: output pixels at the border have fewer taps. Only images from the dataset and inputs of tiles have a
//! halo of zeros. A linear layer is a 1×1 convolution of a one-pixel image with many channels.

use ergodic_common::net::{ActivationShape, Layer, LinearOp, MICRO_BATCH, Net};

use super::direct_conv_plan::DirectConvPlan;
use super::shape::{ConvShape, HaloGrid};
use crate::train::engine::simd::BLOCK;
use crate::train::engine::winograd::WinogradPlan;

/// Fewest pixels in a chunk of images, so that weights are used often once they are in the cache.
const MIN_CHUNK_PIXELS: usize = 96;

/// Fewest pixels in a part of a batch, so that merging its sums costs little compared with computing them.
const MIN_PART_PIXELS: usize = 1024;

/// Most output pixels of an image whose input has no halo.
const MAX_PIXELS_WITHOUT_HALO: usize = 1024;

/// Fewest images in a part.
const MIN_PART_IMAGES: usize = 4;

/// The plan of one layer.
#[derive(Debug)]
pub(crate) struct LayerPlan {
    /// Images in a chunk, a power of two. A function of the shape alone, because sums over a batch run chunk by chunk.
    pub(crate) chunk_images: usize,
    /// Images in a part of a batch, a multiple of the chunk: sums run through a part and are then added part by part,
    /// whichever thread made them. A function of the shape alone, and a divisor of the micro-batch.
    pub(crate) part_images: usize,
    /// Layout of one image's input.
    pub(crate) input: HaloGrid,
    /// Numbers per output pixel: channels in whole blocks.
    pub(crate) channels: usize,
    /// Output pixels in a row.
    pub(crate) width: usize,
    /// Output pixels per image.
    pub(crate) pixels: usize,
    /// Numbers of one image's activation, after pooling.
    pub(crate) activation_len: usize,
    /// Rows of the packed weight, `[block of outputs][row][BLOCK]`.
    pub(crate) weight_rows: usize,
    /// Rows of the transposed weight.
    pub(crate) transposed_weight_rows: usize,
    /// Algorithm of the linear map.
    pub(crate) algorithm: ConvAlgorithm,
}

/// Algorithm of a linear map.
#[derive(Debug)]
pub(crate) enum ConvAlgorithm {
    /// The definition of the convolution.
    Direct(DirectConvPlan),
    /// Winograd's algorithm: tile by tile, with fewer multiplications.
    Winograd(WinogradPlan),
    /// No map: the output is the input.
    Copy,
}

/// Plans all layers of a network.
pub(crate) fn plan_layers(net: &Net) -> Vec<LayerPlan> {
    net.layers.iter().map(LayerPlan::new).collect()
}

impl LayerPlan {
    fn new(layer: &Layer) -> Self {
        let first = layer.source.is_none();
        let conv = ConvShape::from_layer(layer);
        let ActivationShape {
            height,
            width,
            channels,
        } = conv.output;
        let pixels = height * width;
        let chunk_images = MIN_CHUNK_PIXELS.div_ceil(pixels).next_power_of_two();
        let part = MIN_PART_PIXELS.div_ceil(pixels).next_power_of_two();
        let part_images = part.clamp(MIN_PART_IMAGES.max(chunk_images), MICRO_BATCH as usize);

        let copied = layer.linear_op == LinearOp::Identity;
        let tiled = !first && !copied && WinogradPlan::is_suitable_for(&conv);
        // A halo costs multiplications and makes contiguous runs longer. It pays for images from
        // the dataset, which have few channels, and for large images, whose halo is small in
        // comparison.
        let halo = first || tiled || pixels > MAX_PIXELS_WITHOUT_HALO;
        let input = HaloGrid::new(conv.input, if halo { conv.padding } else { 0 });
        let algorithm = if copied {
            ConvAlgorithm::Copy
        } else if tiled {
            ConvAlgorithm::Winograd(WinogradPlan::new(&conv, chunk_images, &input))
        } else {
            ConvAlgorithm::Direct(DirectConvPlan::new(
                &conv,
                halo,
                chunk_images,
                &input,
                first,
            ))
        };

        let activation = layer.activation_shape();
        Self {
            chunk_images,
            part_images,
            input,
            channels,
            width,
            pixels,
            activation_len: activation.height * activation.width * channels,
            weight_rows: conv.kernel * conv.kernel * conv.input.channels,
            transposed_weight_rows: conv.kernel * conv.kernel * channels,
            algorithm,
        }
    }

    /// Numbers of one image's output.
    pub(crate) fn output_len(&self) -> usize {
        self.pixels * self.channels
    }

    /// The plan of the layer's tiles, if it is computed in tiles.
    pub(crate) fn winograd_plan(&self) -> Option<&WinogradPlan> {
        if let ConvAlgorithm::Winograd(tiled) = &self.algorithm {
            Some(tiled)
        } else {
            None
        }
    }

    /// Number of blocks of output channels.
    pub(crate) fn channel_blocks(&self) -> usize {
        self.channels / BLOCK
    }
}
