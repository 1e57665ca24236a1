//! Shapes in memory: images inside a halo of zeros, and layers in the terms of a convolution.

use std::ops::Range;

use ergodic_common::net::{ActivationShape, Layer, LinearOp};

use crate::train::engine::simd::round_up_to_block;

/// An image with channels last inside a halo of zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HaloGrid {
    /// Rows, without the halo.
    pub(crate) height: usize,
    /// Pixels in a row, without the halo.
    pub(crate) width: usize,
    /// Numbers per pixel.
    pub(crate) channels: usize,
    /// Pixels of halo on every side.
    halo: usize,
}

impl HaloGrid {
    pub(crate) fn new(shape: ActivationShape, halo: usize) -> Self {
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

    /// A grid of one pixel with `channels` numbers.
    pub(crate) fn single_pixel(channels: usize) -> Self {
        let shape = ActivationShape {
            height: 1,
            width: 1,
            channels,
        };
        Self::new(shape, 0)
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
    /// The shape of a layer, with channels padded to whole blocks except for images from the dataset.
    pub(crate) fn from_layer(layer: &Layer) -> Self {
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
            LinearOp::Identity => {
                let input = ActivationShape {
                    channels,
                    ..layer.input
                };
                Self {
                    kernel: 1,
                    stride: 1,
                    padding: 0,
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

    /// The same convolution without padding, of an input that contains the padding.
    pub(crate) fn with_padded_input(self) -> Self {
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

    /// Indices into the kernel, along an axis of `inputs` inputs, for which an output pixel has an input.
    pub(crate) fn valid_kernel_range(&self, output: usize, inputs: usize) -> Range<usize> {
        let corner = output * self.stride;
        let first = self.padding.saturating_sub(corner).min(self.kernel);
        let end = (inputs + self.padding).saturating_sub(corner);
        first..end.clamp(first, self.kernel)
    }

    /// Runs of indices into a row of the kernel that the same outputs have inputs for.
    pub(crate) fn kernel_column_runs(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let conv = *self;
        (0..conv.kernel)
            .filter(move |k| conv.starts_run(*k))
            .map(move |start| {
                let end = (start + 1..conv.kernel).find(|k| conv.starts_run(*k));
                start..end.unwrap_or(conv.kernel)
            })
    }

    /// Whether a column of the kernel has inputs for other outputs than the column before.
    fn starts_run(&self, column: usize) -> bool {
        column == 0 || !self.have_same_outputs(column - 1, column)
    }

    /// Whether two columns of the kernel have inputs for the same outputs of a row.
    fn have_same_outputs(&self, a: usize, b: usize) -> bool {
        (0..self.output.width).all(|output| {
            let columns = self.valid_kernel_range(output, self.input.width);
            columns.contains(&a) == columns.contains(&b)
        })
    }

    /// The output pixel, along an axis of `outputs`, that reads an input through this index into the kernel.
    pub(crate) fn output_index_for(
        &self,
        input: usize,
        kernel: usize,
        outputs: usize,
    ) -> Option<usize> {
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

/// Coordinates of all pixels, row by row.
pub(crate) fn pixel_coordinates(shape: ActivationShape) -> impl Iterator<Item = (usize, usize)> {
    (0..shape.height).flat_map(move |y| (0..shape.width).map(move |x| (y, x)))
}
