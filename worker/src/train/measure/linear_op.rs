//! The linear maps of layers in f64, with both adjoints, for measurements that are rare and must be
//! exact.
//!
//! The maps are computed by their definition, on channels without padding. Every number is one
//! sequential sum of fused terms, whichever instruction set the code is compiled for. Several
//! images are computed at a time, to use each loaded weight often.

use std::ops::Range;

use ergodic_common::net::{ActivationShape, Layer, LinearOp};

use crate::train::engine::simd::{Kernel, Simd16};

/// Images in a block, which share each weight that is loaded.
const IMAGE_BLOCK: usize = 4;

/// Outputs in a block, which stay in registers.
const OUTPUT_BLOCK: usize = 8;

/// The linear map of a layer.
pub(crate) struct ExactLinearOp {
    /// Channels of input and output; a linear layer's input is one pixel.
    inputs: usize,
    outputs: usize,
    /// Numbers of an image's input and output.
    input_len: usize,
    output_len: usize,
    /// The inputs that outputs read; none where the output is the input.
    taps: Vec<ExactTap>,
    is_identity: bool,
}

/// The inputs that an output pixel reads through a row of the kernel.
struct ExactTap {
    /// Offsets of the pixel in an image's output, and of the inputs that it reads.
    output_offset: usize,
    input_offset: usize,
    /// The first row of the weight, and the number of rows.
    first_weight_row: usize,
    rows: usize,
}

/// Indices into the kernel for which there is an input, of an output at `corner` along an axis of `side` inputs.
fn valid_kernel_range(corner: usize, side: usize, kernel: usize, padding: usize) -> Range<usize> {
    let first = padding.saturating_sub(corner).min(kernel);
    let end = (side + padding).saturating_sub(corner);
    first..end.clamp(first, kernel)
}

impl ExactLinearOp {
    /// The linear map of a layer.
    pub(crate) fn from_layer(layer: &Layer) -> Self {
        let (kernel, stride, padding, input) = match layer.linear_op {
            LinearOp::Conv {
                kernel,
                stride,
                padding,
            } => (kernel, stride, padding, layer.input),
            LinearOp::Identity => return Self::identity(layer.output),
            LinearOp::Linear => (
                1,
                1,
                0,
                ActivationShape {
                    height: 1,
                    width: 1,
                    channels: layer.input.len(),
                },
            ),
        };

        let inputs = input.channels;
        let outputs = layer.output.channels;
        let mut taps = Vec::new();
        for y in 0..layer.output.height {
            for x in 0..layer.output.width {
                let rows = valid_kernel_range(y * stride, input.height, kernel, padding);
                let columns = valid_kernel_range(x * stride, input.width, kernel, padding);
                for ky in rows.filter(|_| !columns.is_empty()) {
                    let down = y * stride + ky - padding;
                    let right = x * stride + columns.start - padding;
                    taps.push(ExactTap {
                        output_offset: (y * layer.output.width + x) * outputs,
                        input_offset: (down * input.width + right) * inputs,
                        first_weight_row: (ky * kernel + columns.start) * inputs,
                        rows: columns.len() * inputs,
                    });
                }
            }
        }

        Self {
            inputs,
            outputs,
            input_len: input.len(),
            output_len: layer.output.len(),
            taps,
            is_identity: false,
        }
    }

    /// The map of numbers in this shape to themselves, without a weight.
    fn identity(shape: ActivationShape) -> Self {
        Self {
            inputs: shape.channels,
            outputs: shape.channels,
            input_len: shape.len(),
            output_len: shape.len(),
            taps: Vec::new(),
            is_identity: true,
        }
    }

    /// Numbers of an image's output.
    pub(crate) fn output_len(&self) -> usize {
        self.output_len
    }

    /// Adds the map's output for some inputs.
    pub(crate) fn add_outputs<S: Simd16>(
        &self,
        s: S,
        inputs: &[f64],
        weight: &[f64],
        outputs: &mut [f64],
    ) {
        if self.is_identity {
            return add_numbers(outputs, inputs);
        }
        s.dispatch(ExactForwardKernel {
            op: self,
            inputs,
            weight,
            outputs,
        });
    }

    /// Adds the gradient of some inputs, given that of the outputs and the transposed weight.
    pub(crate) fn add_input_gradient<S: Simd16>(
        &self,
        s: S,
        gradient: &[f64],
        transposed: &[f64],
        to: &mut [f64],
    ) {
        if self.is_identity {
            return add_numbers(to, gradient);
        }
        s.dispatch(ExactInputGradientKernel {
            op: self,
            output_gradient: gradient,
            transposed_weight: transposed,
            input_gradient: to,
        });
    }

    /// Adds the gradient of the weight, given inputs and the gradient of the outputs.
    pub(crate) fn add_weight_gradient<S: Simd16>(
        &self,
        s: S,
        inputs: &[f64],
        gradient: &[f64],
        to: &mut [f64],
    ) {
        s.dispatch(ExactWeightGradientKernel {
            op: self,
            inputs,
            output_gradient: gradient,
            weight_gradient: to,
        });
    }

    /// The weight with inputs and outputs exchanged at each position of the kernel.
    pub(crate) fn transpose_weight(&self, weight: &[f64]) -> Vec<f64> {
        let mut transposed = vec![0.0; weight.len()];
        let len = self.inputs * self.outputs;
        for (from, to) in weight
            .chunks_exact(len)
            .zip(transposed.chunks_exact_mut(len))
        {
            for (i, row) in from.chunks_exact(self.outputs).enumerate() {
                row.iter()
                    .enumerate()
                    .for_each(|(o, x)| to[o * self.inputs + i] = *x);
            }
        }

        transposed
    }
}

/// `to += more`
fn add_numbers(to: &mut [f64], more: &[f64]) {
    to.iter_mut().zip(more).for_each(|(sum, x)| *sum += x);
}

struct ExactForwardKernel<'a> {
    op: &'a ExactLinearOp,
    inputs: &'a [f64],
    weight: &'a [f64],
    outputs: &'a mut [f64],
}

impl Kernel for ExactForwardKernel<'_> {
    #[inline(always)]
    fn run_with<S: Simd16>(self, _: S) {
        let Self {
            op: map,
            inputs,
            weight,
            outputs,
        } = self;
        let mut inputs = inputs.chunks_exact(map.input_len);
        let mut outputs = outputs.chunks_exact_mut(map.output_len);
        while outputs.len() >= IMAGE_BLOCK {
            forward_images::<IMAGE_BLOCK>(
                map,
                next_images(&mut inputs),
                weight,
                next_images(&mut outputs),
            );
        }

        while outputs.len() > 0 {
            forward_images::<1>(
                map,
                next_images(&mut inputs),
                weight,
                next_images(&mut outputs),
            );
        }
    }
}

#[inline(always)]
fn forward_images<const I: usize>(
    map: &ExactLinearOp,
    inputs: [&[f64]; I],
    weight: &[f64],
    mut outputs: [&mut [f64]; I],
) {
    for tap in &map.taps {
        let window = inputs.map(|x| &x[tap.input_offset..][..tap.rows]);
        let weight = &weight[tap.first_weight_row * map.outputs..][..tap.rows * map.outputs];
        add_matrix_product(
            window,
            weight,
            outputs
                .each_mut()
                .map(|y| &mut y[tap.output_offset..][..map.outputs]),
        );
    }
}

struct ExactInputGradientKernel<'a> {
    op: &'a ExactLinearOp,
    output_gradient: &'a [f64],
    transposed_weight: &'a [f64],
    input_gradient: &'a mut [f64],
}

impl Kernel for ExactInputGradientKernel<'_> {
    #[inline(always)]
    fn run_with<S: Simd16>(self, _: S) {
        let Self {
            op: map,
            output_gradient: gradient,
            transposed_weight: transposed,
            input_gradient: to,
        } = self;
        let mut gradient = gradient.chunks_exact(map.output_len);
        let mut to = to.chunks_exact_mut(map.input_len);
        while to.len() >= IMAGE_BLOCK {
            backward_images::<IMAGE_BLOCK>(
                map,
                next_images(&mut gradient),
                transposed,
                next_images(&mut to),
            );
        }

        while to.len() > 0 {
            backward_images::<1>(
                map,
                next_images(&mut gradient),
                transposed,
                next_images(&mut to),
            );
        }
    }
}

#[inline(always)]
fn backward_images<const I: usize>(
    map: &ExactLinearOp,
    gradient: [&[f64]; I],
    transposed: &[f64],
    mut to: [&mut [f64]; I],
) {
    for tap in &map.taps {
        let pixel_gradient = gradient.map(|g| &g[tap.output_offset..][..map.outputs]);
        for pixel in (0..tap.rows).step_by(map.inputs) {
            let weight = &transposed[(tap.first_weight_row + pixel) * map.outputs..]
                [..map.inputs * map.outputs];
            add_matrix_product(
                pixel_gradient,
                weight,
                to.each_mut()
                    .map(|x| &mut x[tap.input_offset + pixel..][..map.inputs]),
            );
        }
    }
}

struct ExactWeightGradientKernel<'a> {
    op: &'a ExactLinearOp,
    inputs: &'a [f64],
    output_gradient: &'a [f64],
    weight_gradient: &'a mut [f64],
}

impl Kernel for ExactWeightGradientKernel<'_> {
    #[inline(always)]
    fn run_with<S: Simd16>(self, _: S) {
        let Self {
            op: map,
            inputs,
            output_gradient: gradient,
            weight_gradient: to,
        } = self;
        let mut inputs = inputs.chunks_exact(map.input_len);
        let mut gradient = gradient.chunks_exact(map.output_len);
        while gradient.len() >= IMAGE_BLOCK {
            add_image_gradients::<IMAGE_BLOCK>(
                map,
                next_images(&mut inputs),
                next_images(&mut gradient),
                to,
            );
        }

        while gradient.len() > 0 {
            add_image_gradients::<1>(
                map,
                next_images(&mut inputs),
                next_images(&mut gradient),
                to,
            );
        }
    }
}

#[inline(always)]
fn add_image_gradients<const I: usize>(
    map: &ExactLinearOp,
    inputs: [&[f64]; I],
    gradient: [&[f64]; I],
    to: &mut [f64],
) {
    for tap in &map.taps {
        let window = inputs.map(|x| &x[tap.input_offset..][..tap.rows]);
        let pixel_gradient = gradient.map(|g| &g[tap.output_offset..][..map.outputs]);
        let rows = to[tap.first_weight_row * map.outputs..][..tap.rows * map.outputs]
            .chunks_exact_mut(map.outputs);
        for (r, row) in rows.enumerate() {
            for (image, pixel_gradient) in window.iter().zip(pixel_gradient) {
                let x = image[r];
                row.iter_mut()
                    .zip(pixel_gradient)
                    .for_each(|(sum, g)| *sum = x.mul_add(*g, *sum));
            }
        }
    }
}

/// Takes the next `I` images.
#[inline(always)]
fn next_images<T, const I: usize>(images: &mut impl Iterator<Item = T>) -> [T; I] {
    std::array::from_fn(|_| images.next().expect("there are as many images left"))
}

/// Adds the product of a vector per image with a matrix whose rows are as long as `sums`.
#[inline(always)]
fn add_matrix_product<const I: usize>(x: [&[f64]; I], matrix: &[f64], mut sums: [&mut [f64]; I]) {
    let width = sums[0].len();
    let whole = width / OUTPUT_BLOCK * OUTPUT_BLOCK;
    for at in (0..whole).step_by(OUTPUT_BLOCK) {
        let mut block: [[f64; OUTPUT_BLOCK]; I] =
            std::array::from_fn(|i| output_block_at(sums[i], at));

        for (r, row) in matrix.chunks_exact(width).enumerate() {
            let row = output_block_at(row, at);
            for (block, x) in block.iter_mut().zip(x) {
                let x = x[r];
                block
                    .iter_mut()
                    .zip(row)
                    .for_each(|(sum, w)| *sum = x.mul_add(w, *sum));
            }
        }

        for (sums, block) in sums.iter_mut().zip(block) {
            sums[at..at + OUTPUT_BLOCK].copy_from_slice(&block);
        }
    }

    for at in whole..width {
        for (sums, x) in sums.iter_mut().zip(x) {
            let column = matrix[at..].iter().step_by(width);
            sums[at] = x
                .iter()
                .zip(column)
                .fold(sums[at], |sum, (x, w)| x.mul_add(*w, sum));
        }
    }
}

#[inline(always)]
fn output_block_at(data: &[f64], at: usize) -> [f64; OUTPUT_BLOCK] {
    *data[at..at + OUTPUT_BLOCK]
        .first_chunk()
        .expect("the slice is as long")
}
