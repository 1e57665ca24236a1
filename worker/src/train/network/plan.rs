//! From a [`Net`] to what the kernels need: offsets, tables of pixels and taps, places of parameters.
//!
//! Activations are channels last with the channels padded to whole blocks by zeros. What lies outside an image is not
//! multiplied: output pixels at the border have fewer taps. Only images from the dataset and inputs of tiles lie inside a
//! halo of zeros. A linear layer is a 1×1 convolution of a one-pixel image with many channels.

use std::ops::Range;

use ergodic_common::net::{ActivationShape, Layer, LinearOp, MICRO_BATCH, Net};

use crate::train::engine::direct_conv::{ConvTap, PixelOffsets};
use crate::train::engine::simd::{BLOCK, round_up_to_block};
use crate::train::engine::winograd::{WinogradPlan, transpose_blocked_matrix};

/// Pixels that a chunk of images should have at least, to use weights often once they are in the cache.
const MIN_CHUNK_PIXELS: usize = 96;

/// Pixels that a part of a batch should have at least, so that adding up its sums costs little beside making them.
const MIN_PART_PIXELS: usize = 1024;

/// Most output pixels of an image for which what lies outside is left out.
const MAX_PIXELS_WITHOUT_HALO: usize = 1024;

/// Fewest images in a part.
const MIN_PART_IMAGES: usize = 4;

/// How one layer is computed.
#[derive(Debug)]
pub(crate) struct LayerPlan {
    /// Images in a chunk, a power of two. A function of the shape alone, because sums over a batch run chunk by chunk.
    pub(crate) chunk_images: usize,
    /// Images in a part of a batch, a multiple of the chunk: sums run through a part and are then added part by part,
    /// whichever thread made them. A function of the shape alone, and a divisor of the micro-batch.
    pub(crate) part_images: usize,
    /// Input of one image.
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
    /// How its map is computed.
    pub(crate) algorithm: ConvAlgorithm,
}

/// How a map is computed.
#[derive(Debug)]
pub(crate) enum ConvAlgorithm {
    /// As it is defined.
    Direct(DirectConvPlan),
    /// Tile by tile, with fewer multiplications.
    Winograd(WinogradPlan),
}

/// What the kernels need that compute a map as it is defined.
#[derive(Debug)]
pub(crate) struct DirectConvPlan {
    /// Output pixels of a chunk: where they read their inputs and are written.
    pub(crate) forward_groups: Vec<PixelGroup>,
    /// For every run of weights: the pixels of a chunk that it acts on, where they read their inputs, and where their
    /// gradient stands.
    pub(crate) weight_groups: Vec<PixelGroup>,
    /// How to compute the gradient of the input; none for the first layer.
    pub(crate) transposed: Option<TransposedConvPlan>,
}

/// Pixels of a chunk that have the same taps.
#[derive(Debug)]
pub(crate) struct PixelGroup {
    pub(crate) taps: Vec<ConvTap>,
    /// One image after the other.
    pixels: Vec<PixelOffsets>,
    pixels_per_image: usize,
}

impl PixelGroup {
    /// Those of the first images of a chunk.
    pub(crate) fn chunk_pixels(&self, images: usize) -> &[PixelOffsets] {
        &self.pixels[..images * self.pixels_per_image]
    }

    /// Of one image.
    fn new(taps: Vec<ConvTap>, pixels: Vec<PixelOffsets>) -> Self {
        Self {
            taps,
            pixels_per_image: pixels.len(),
            pixels,
        }
    }

    /// The same of a chunk of images that are so far from each other.
    fn repeat_over_images(mut self, images: usize, apart: PixelOffsets) -> Self {
        self.pixels
            .reserve_exact(self.pixels_per_image * (images - 1));

        for image in 1..images {
            for at in 0..self.pixels_per_image {
                let PixelOffsets { input, output } = self.pixels[at];
                let input = input + image * apart.input;
                let output = output + image * apart.output;
                self.pixels.push(PixelOffsets { input, output });
            }
        }

        self
    }

    /// The pixels of one image by their taps, in the order in which these first occur, for a chunk of images.
    fn group_by_taps(
        images: usize,
        apart: PixelOffsets,
        pixels: impl Iterator<Item = (Vec<ConvTap>, PixelOffsets)>,
    ) -> Vec<Self> {
        let mut groups: Vec<Self> = Vec::new();
        for (taps, pixel) in pixels {
            match groups.iter_mut().find(|group| group.taps == taps) {
                Some(group) => group.pixels.push(pixel),
                None => groups.push(Self::new(taps, vec![pixel])),
            }
        }

        groups
            .into_iter()
            .map(|group| Self::new(group.taps, group.pixels).repeat_over_images(images, apart))
            .collect()
    }
}

/// The transposed convolution that takes the gradient of a layer's output to its input.
#[derive(Debug)]
pub(crate) struct TransposedConvPlan {
    /// Input pixels of a chunk: where they read the gradient, and where theirs is written.
    pub(crate) groups: Vec<PixelGroup>,
    /// Channels of input and output, and indices into the kernel.
    channels: (usize, usize),
    kernel_positions: usize,
}

/// An image with channels last inside a halo of zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HaloGrid {
    /// Rows inside.
    pub(crate) height: usize,
    /// Pixels in a row, inside.
    pub(crate) width: usize,
    /// Numbers per pixel.
    pub(crate) channels: usize,
    /// Pixels of halo on every side.
    halo: usize,
}

impl HaloGrid {
    fn new(shape: ActivationShape, halo: usize) -> Self {
        let ActivationShape {
            height,
            width,
            channels,
        } = shape;
        Self {
            height,
            width,
            channels,
            halo,
        }
    }

    /// One pixel of so many numbers.
    pub(crate) fn single_pixel(channels: usize) -> Self {
        Self::new(
            ActivationShape {
                height: 1,
                width: 1,
                channels,
            },
            0,
        )
    }

    /// Numbers per image, halo included.
    pub(crate) fn len(&self) -> usize {
        (self.height + 2 * self.halo) * self.row_len()
    }

    /// Numbers per image without the halo.
    pub(crate) fn inner_len(&self) -> usize {
        self.height * self.width * self.channels
    }

    /// Numbers in a row, halo included.
    pub(crate) fn row_len(&self) -> usize {
        (self.width + 2 * self.halo) * self.channels
    }

    /// Offset of a pixel counted from the corner of the halo.
    pub(crate) fn pixel_offset(&self, y: usize, x: usize) -> usize {
        y * self.row_len() + x * self.channels
    }

    /// Runs of numbers without halo between them, as (offset without halo, offset with halo, length).
    pub(crate) fn contiguous_runs(&self) -> impl Iterator<Item = (usize, usize, usize)> + use<> {
        let grid = *self;
        let (count, len) = if grid.halo == 0 {
            (1, grid.inner_len())
        } else {
            (grid.height, grid.width * grid.channels)
        };
        (0..count).map(move |y| (y * len, grid.pixel_offset(y + grid.halo, grid.halo), len))
    }
}

/// A layer's shape in the terms of a convolution.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ConvShape {
    pub(crate) kernel: usize,
    pub(crate) stride: usize,
    pub(crate) padding: usize,
    pub(crate) input: ActivationShape,
    pub(crate) output: ActivationShape,
}

impl ConvShape {
    /// With channels in whole blocks, but for those of images from the dataset.
    fn from_layer(layer: &Layer) -> Self {
        let channels = padded_input_channels(layer);
        let output = ActivationShape {
            channels: round_up_to_block(layer.output.channels),
            ..layer.output
        };

        match layer.linear_op {
            LinearOp::Conv {
                kernel,
                stride,
                padding,
            } => {
                let input = ActivationShape {
                    channels,
                    ..layer.input
                };
                Self {
                    kernel,
                    stride,
                    padding,
                    input,
                    output,
                }
            }
            LinearOp::Linear => {
                let channels = layer.input.height * layer.input.width * channels;
                let input = ActivationShape {
                    height: 1,
                    width: 1,
                    channels,
                };
                Self {
                    kernel: 1,
                    stride: 1,
                    padding: 0,
                    input,
                    output,
                }
            }
        }
    }

    /// The same convolution of an image with its padding, which has none.
    fn with_padded_input(self) -> Self {
        let ActivationShape {
            height,
            width,
            channels,
        } = self.input;
        let input = ActivationShape {
            height: height + 2 * self.padding,
            width: width + 2 * self.padding,
            channels,
        };

        Self {
            padding: 0,
            input,
            ..self
        }
    }

    /// Indices into the kernel, along an axis of so many inputs, for which an output pixel has an input.
    fn valid_kernel_range(&self, output: usize, inputs: usize) -> Range<usize> {
        let corner = output * self.stride;
        let first = self.padding.saturating_sub(corner).min(self.kernel);
        first
            ..(inputs + self.padding)
                .saturating_sub(corner)
                .clamp(first, self.kernel)
    }

    /// Runs of indices into a row of the kernel that the same outputs have inputs for.
    fn kernel_column_runs(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let conv = *self;
        let seen = move |kernel: usize, output| {
            conv.valid_kernel_range(output, conv.input.width)
                .contains(&kernel)
        };
        let alike = move |a: usize, b: usize| {
            (0..conv.output.width).all(|output| seen(a, output) == seen(b, output))
        };
        let starts = (0..conv.kernel).filter(move |k| *k == 0 || !alike(k - 1, *k));

        starts.map(move |start| {
            start
                ..(start + 1..conv.kernel)
                    .find(|k| !alike(k - 1, *k))
                    .unwrap_or(conv.kernel)
        })
    }

    /// The output pixel, along an axis of so many, that sees an input through this index into the kernel.
    fn output_index_for(&self, input: usize, kernel: usize, outputs: usize) -> Option<usize> {
        let at = (input + self.padding).checked_sub(kernel)?;
        (at % self.stride == 0 && at / self.stride < outputs).then_some(at / self.stride)
    }
}

/// Numbers per pixel of a layer's input: as in the dataset for an image, whole blocks from then on.
pub(crate) fn padded_input_channels(layer: &Layer) -> usize {
    if layer.source.is_none() {
        layer.input.channels
    } else {
        round_up_to_block(layer.input.channels)
    }
}

/// Plans of all layers.
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
        let tiled = !first && WinogradPlan::is_suitable_for(&conv);

        // Images from the dataset have few channels: long runs are worth more than what lies in the halo costs. So are
        // short tables for large images, whose halo is little.
        let halo = first || tiled || pixels > MAX_PIXELS_WITHOUT_HALO;
        let input = HaloGrid::new(conv.input, if halo { conv.padding } else { 0 });
        let algorithm = if tiled {
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

        let weight_rows = conv.kernel * conv.kernel * conv.input.channels;
        let transposed_weight_rows = conv.kernel * conv.kernel * channels;
        let activation = layer.activation_shape();
        let activation_len = activation.height * activation.width * channels;
        Self {
            chunk_images,
            part_images,
            input,
            channels,
            width,
            pixels,
            activation_len,
            weight_rows,
            transposed_weight_rows,
            algorithm,
        }
    }

    /// Numbers of one image's output.
    pub(crate) fn output_len(&self) -> usize {
        self.pixels * self.channels
    }

    /// How its tiles are computed, if it has any.
    pub(crate) fn winograd_plan(&self) -> Option<&WinogradPlan> {
        if let ConvAlgorithm::Winograd(tiled) = &self.algorithm {
            Some(tiled)
        } else {
            None
        }
    }

    /// Blocks of output channels.
    pub(crate) fn channel_blocks(&self) -> usize {
        self.channels / BLOCK
    }
}

/// All pixels, row by row.
fn pixel_coordinates(shape: ActivationShape) -> impl Iterator<Item = (usize, usize)> {
    (0..shape.height).flat_map(move |y| (0..shape.width).map(move |x| (y, x)))
}

impl DirectConvPlan {
    /// `input` is where the inputs of `conv` stand, with its padding as their halo or without.
    fn new(conv: &ConvShape, halo: bool, chunk: usize, input: &HaloGrid, first: bool) -> Self {
        let transposed =
            (!first).then(|| TransposedConvPlan::new(conv, chunk, &HaloGrid::new(conv.output, 0)));
        let conv = if halo {
            conv.with_padded_input()
        } else {
            *conv
        };
        let output = HaloGrid::new(conv.output, 0);
        let apart = PixelOffsets {
            input: input.len(),
            output: output.len(),
        };

        let forward = pixel_coordinates(conv.output)
            .map(|(y, x)| Self::output_pixel_taps(&conv, input, &output, y, x));
        let runs =
            (0..conv.kernel).flat_map(|ky| conv.kernel_column_runs().map(move |run| (ky, run)));
        let runs = runs.map(|(ky, run)| {
            Self::weight_run_pixels(&conv, input, &output, ky, run).repeat_over_images(chunk, apart)
        });
        Self {
            forward_groups: PixelGroup::group_by_taps(chunk, apart, forward),
            weight_groups: runs.collect(),
            transposed,
        }
    }

    /// The taps of an output pixel, one per row of the kernel that lies in the image.
    fn output_pixel_taps(
        conv: &ConvShape,
        input: &HaloGrid,
        output: &HaloGrid,
        y: usize,
        x: usize,
    ) -> (Vec<ConvTap>, PixelOffsets) {
        let rows = conv.valid_kernel_range(y, conv.input.height);
        let columns = conv.valid_kernel_range(x, conv.input.width);
        let channels = conv.input.channels;
        let taps = rows
            .clone()
            .filter(|_| !columns.is_empty())
            .map(|ky| ConvTap {
                input_offset: input.pixel_offset(ky - rows.start, 0),
                rows: columns.len() * channels,
                first_weight_row: (ky * conv.kernel + columns.start) * channels,
            });

        let corner = |output: usize, kernel: usize| {
            (output * conv.stride + kernel).saturating_sub(conv.padding)
        };
        let corner = input.pixel_offset(corner(y, rows.start), corner(x, columns.start));
        (
            taps.collect(),
            PixelOffsets {
                input: corner,
                output: output.pixel_offset(y, x),
            },
        )
    }

    /// The output pixels of an image that a run of weights in a row of the kernel acts on.
    fn weight_run_pixels(
        conv: &ConvShape,
        input: &HaloGrid,
        output: &HaloGrid,
        ky: usize,
        run: Range<usize>,
    ) -> PixelGroup {
        let channels = conv.input.channels;
        let kx = run.start;
        let tap = ConvTap {
            input_offset: 0,
            rows: run.len() * channels,
            first_weight_row: (ky * conv.kernel + kx) * channels,
        };

        let at = |output: usize, kernel: usize| output * conv.stride + kernel - conv.padding;
        let rows = (0..conv.output.height)
            .filter(|y| conv.valid_kernel_range(*y, conv.input.height).contains(&ky));
        let columns: Vec<usize> = (0..conv.output.width)
            .filter(|x| conv.valid_kernel_range(*x, conv.input.width).contains(&kx))
            .collect();
        let pixels = rows.flat_map(|y| columns.iter().map(move |x| (y, *x)));
        let pixels = pixels.map(|(y, x)| PixelOffsets {
            input: input.pixel_offset(at(y, ky), at(x, kx)),
            output: output.pixel_offset(y, x),
        });

        PixelGroup::new(vec![tap], pixels.collect())
    }
}

impl TransposedConvPlan {
    /// `gradient` is where that of the output stands.
    fn new(conv: &ConvShape, chunk: usize, gradient: &HaloGrid) -> Self {
        let input = HaloGrid::new(conv.input, 0);
        let apart = PixelOffsets {
            input: gradient.len(),
            output: input.len(),
        };
        let groups = pixel_coordinates(conv.input).map(|(y, x)| {
            let mut taps = Vec::new();
            for (at, (ky, kx)) in pixel_coordinates(ActivationShape {
                height: conv.kernel,
                width: conv.kernel,
                channels: 1,
            })
            .enumerate()
            {
                let y = conv.output_index_for(y, ky, conv.output.height);
                let x = conv.output_index_for(x, kx, conv.output.width);
                if let (Some(y), Some(x)) = (y, x) {
                    let rows = conv.output.channels;
                    taps.push(ConvTap {
                        input_offset: gradient.pixel_offset(y, x),
                        rows,
                        first_weight_row: at * rows,
                    });
                }
            }

            let first = taps.iter().map(|tap| tap.input_offset).min().unwrap_or(0);
            taps.iter_mut().for_each(|tap| tap.input_offset -= first);
            (
                taps,
                PixelOffsets {
                    input: first,
                    output: input.pixel_offset(y, x),
                },
            )
        });

        let channels = (conv.input.channels, conv.output.channels);
        Self {
            groups: PixelGroup::group_by_taps(chunk, apart, groups),
            channels,
            kernel_positions: conv.kernel * conv.kernel,
        }
    }

    /// Numbers of the transposed weight.
    pub(crate) fn weight_len(&self) -> usize {
        self.kernel_positions * self.channels.0 * self.channels.1
    }

    /// The packed weight as `[block of inputs][kernel row, kernel column, output][BLOCK]`.
    pub(crate) fn transpose_weights(&self, weights: &[f32], to: &mut [f32]) {
        let (inputs, outputs) = self.channels;
        for position in 0..self.kernel_positions {
            let from = &weights[position * inputs * BLOCK..];
            let to = &mut to[position * outputs * BLOCK..];
            transpose_blocked_matrix(
                self.channels,
                from,
                self.kernel_positions * inputs,
                to,
                self.kernel_positions * outputs,
            );
        }
    }
}
