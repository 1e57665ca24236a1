//! The plan of a convolution by its definition: the taps that every pixel reads, forward and
//! transposed.

use std::ops::Range;

use super::shape::{ConvShape, HaloGrid, pixel_coordinates};
use crate::train::engine::direct_conv::{ConvTap, PixelOffsets};
use crate::train::engine::simd::BLOCK;
use crate::train::engine::winograd::transpose_blocked_matrix;

/// The tables of the kernels that compute a convolution by its definition.
#[derive(Debug)]
pub(crate) struct DirectConvPlan {
    /// Output pixels of a chunk: offsets of their inputs and of their results.
    pub(crate) forward_groups: Vec<PixelGroup>,
    /// Runs of weights: the pixels of a chunk that it acts on, with the offsets of their inputs and of their
    /// gradient.
    pub(crate) weight_groups: Vec<PixelGroup>,
    /// The convolution that computes the gradient of the input; none for the first layer.
    pub(crate) transposed: Option<TransposedConvPlan>,
}

/// Pixels of a chunk that have the same taps.
#[derive(Debug)]
pub(crate) struct PixelGroup {
    pub(crate) taps: Vec<ConvTap>,
    /// Offsets, one image after the other.
    pixels: Vec<PixelOffsets>,
    pixels_per_image: usize,
}

impl PixelGroup {
    /// The pixels of the first `images` images of a chunk.
    pub(crate) fn chunk_pixels(&self, images: usize) -> &[PixelOffsets] {
        &self.pixels[..images * self.pixels_per_image]
    }

    /// A group of one image.
    fn new(taps: Vec<ConvTap>, pixels: Vec<PixelOffsets>) -> Self {
        Self {
            taps,
            pixels_per_image: pixels.len(),
            pixels,
        }
    }

    /// The group for a chunk of images whose inputs and outputs are `apart` numbers from each other.
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
    /// Input pixels of a chunk: offsets of the output gradient that they read, and of their own gradient.
    pub(crate) groups: Vec<PixelGroup>,
    /// Channels of input and output, and indices into the kernel.
    channels: (usize, usize),
    kernel_positions: usize,
}

impl DirectConvPlan {
    /// The plan for a chunk of images. `input` is the layout of the inputs, with the padding as their halo if `halo`.
    pub(crate) fn new(
        conv: &ConvShape,
        halo: bool,
        chunk: usize,
        input: &HaloGrid,
        first: bool,
    ) -> Self {
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

        let row = (y * conv.stride + rows.start).saturating_sub(conv.padding);
        let column = (x * conv.stride + columns.start).saturating_sub(conv.padding);
        let offsets = PixelOffsets {
            input: input.pixel_offset(row, column),
            output: output.pixel_offset(y, x),
        };
        (taps.collect(), offsets)
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

        let rows = (0..conv.output.height)
            .filter(|y| conv.valid_kernel_range(*y, conv.input.height).contains(&ky));
        let columns: Vec<usize> = (0..conv.output.width)
            .filter(|x| conv.valid_kernel_range(*x, conv.input.width).contains(&kx))
            .collect();
        let pixels = rows.flat_map(|y| columns.iter().map(move |x| (y, *x)));
        let pixels = pixels.map(|(y, x)| PixelOffsets {
            input: input.pixel_offset(
                y * conv.stride + ky - conv.padding,
                x * conv.stride + kx - conv.padding,
            ),
            output: output.pixel_offset(y, x),
        });

        PixelGroup::new(vec![tap], pixels.collect())
    }
}

impl TransposedConvPlan {
    /// The plan for a chunk of `chunk` images, whose output gradient is laid out as `gradient`.
    fn new(conv: &ConvShape, chunk: usize, gradient: &HaloGrid) -> Self {
        let input = HaloGrid::new(conv.input, 0);
        let apart = PixelOffsets {
            input: gradient.len(),
            output: input.len(),
        };
        let pixels = pixel_coordinates(conv.input)
            .map(|(y, x)| Self::input_pixel_taps(conv, gradient, &input, y, x));

        Self {
            groups: PixelGroup::group_by_taps(chunk, apart, pixels),
            channels: (conv.input.channels, conv.output.channels),
            kernel_positions: conv.kernel * conv.kernel,
        }
    }

    /// The taps of an input pixel, one per output pixel that has read it.
    fn input_pixel_taps(
        conv: &ConvShape,
        gradient: &HaloGrid,
        input: &HaloGrid,
        y: usize,
        x: usize,
    ) -> (Vec<ConvTap>, PixelOffsets) {
        let rows = conv.output.channels;
        let mut taps = Vec::new();
        for ky in 0..conv.kernel {
            for kx in 0..conv.kernel {
                let out_y = conv.output_index_for(y, ky, conv.output.height);
                let out_x = conv.output_index_for(x, kx, conv.output.width);
                if let (Some(out_y), Some(out_x)) = (out_y, out_x) {
                    taps.push(ConvTap {
                        input_offset: gradient.pixel_offset(out_y, out_x),
                        rows,
                        first_weight_row: (ky * conv.kernel + kx) * rows,
                    });
                }
            }
        }

        let first = taps.iter().map(|tap| tap.input_offset).min().unwrap_or(0);
        taps.iter_mut().for_each(|tap| tap.input_offset -= first);
        let offsets = PixelOffsets {
            input: first,
            output: input.pixel_offset(y, x),
        };
        (taps, offsets)
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
