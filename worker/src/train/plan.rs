//! From a [`Net`] to what the kernels need: offsets, tables of pixels and taps, places of parameters.
//!
//! Activations are channels last with the channels padded to whole blocks by zeros. An image that feeds a convolution
//! lies inside a halo of zeros, so that kernels know no borders; so does the gradient of a convolution's output. A
//! linear layer is a 1×1 convolution of a one-pixel image with many channels.

use ergodic_common::net::{Layer, MICRO_BATCH, Map, Net, Shape};

use super::simd::{BLOCK, padded};
use super::taps::{Pixel, Tap};

/// Pixels that a chunk of images should have at least, to use weights often once they are in the cache.
const CHUNK_PIXELS: usize = 96;

/// Pixels that a part of a batch should have at least, so that adding up its sums costs little beside making them.
const PART_PIXELS: usize = 1024;

/// Fewest images in a part.
const PART_IMAGES: usize = 4;

/// How one layer is computed.
#[derive(Debug)]
pub(super) struct LayerPlan {
    /// Images in a chunk, a power of two. A function of the shape alone, because sums over a batch run chunk by chunk.
    pub(super) chunk: usize,
    /// Images in a part of a batch, a multiple of the chunk: sums run through a part and are then added part by part,
    /// whichever thread made them. A function of the shape alone, and a divisor of the micro-batch.
    pub(super) part: usize,
    /// Input of one image, with its halo.
    pub(super) input: Grid,
    /// Numbers per output pixel: channels in whole blocks.
    pub(super) channels: usize,
    /// Output pixels in a row.
    pub(super) width: usize,
    /// Output pixels per image.
    pub(super) pixels: usize,
    /// Numbers of one image's activation, after pooling.
    pub(super) readable: usize,
    /// Gradient of the output of one image, with its halo.
    pub(super) gradient: Grid,
    /// Rows of the packed weight, `[block of outputs][row][BLOCK]`.
    pub(super) rows: usize,
    /// Runs of inputs of an output pixel: one per row of the kernel.
    pub(super) taps: Vec<Tap>,
    /// Where the output pixels of a chunk read their inputs and are written.
    pub(super) forward: Vec<Pixel>,
    /// Where they read their inputs, and where their gradient stands.
    pub(super) backward: Vec<Pixel>,
    /// How to compute the gradient of the input; none for the first layer.
    pub(super) transposed: Option<Transposed>,
}

/// An image with channels last inside a halo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Grid {
    /// Rows inside.
    pub(super) height: usize,
    /// Pixels in a row, inside.
    pub(super) width: usize,
    /// Numbers per pixel.
    pub(super) channels: usize,
    /// Halo above, below.
    vertical: (usize, usize),
    /// Halo left, right.
    horizontal: (usize, usize),
}

impl Grid {
    /// One pixel of so many numbers.
    pub(super) fn flat(channels: usize) -> Self {
        Self { height: 1, width: 1, channels, vertical: (0, 0), horizontal: (0, 0) }
    }

    /// Numbers per image, halo included.
    pub(super) fn len(&self) -> usize {
        (self.vertical.0 + self.height + self.vertical.1) * self.row()
    }

    /// Numbers per image without the halo.
    pub(super) fn inner_len(&self) -> usize {
        self.height * self.width * self.channels
    }

    fn row(&self) -> usize {
        (self.horizontal.0 + self.width + self.horizontal.1) * self.channels
    }

    /// Offset of a pixel counted from the corner of the halo.
    fn outer(&self, y: usize, x: usize) -> usize {
        y * self.row() + x * self.channels
    }

    /// Offset of a pixel counted from the corner of the image.
    fn inner(&self, y: usize, x: usize) -> usize {
        self.outer(y + self.vertical.0, x + self.horizontal.0)
    }

    /// Runs of numbers without halo between them, as (offset without halo, offset with halo, length).
    pub(super) fn runs(&self) -> impl Iterator<Item = (usize, usize, usize)> + use<> {
        let grid = *self;
        let whole = grid.len() == grid.inner_len();
        let (count, len) = if whole { (1, grid.inner_len()) } else { (grid.height, grid.width * grid.channels) };
        (0..count).map(move |y| (y * len, if whole { 0 } else { grid.inner(y, 0) }, len))
    }
}

/// Input pixels that see the output through the same taps. With stride 1 there is one class.
#[derive(Debug)]
pub(super) struct Class {
    /// Runs of output gradients.
    pub(super) taps: Vec<Tap>,
    /// Where the class's input pixels of one image after the other read and are written.
    pub(super) pixels: Vec<Pixel>,
    /// Its pixels per image.
    pub(super) per_image: usize,
    /// Its weights among the transposed ones, `[block of inputs][tap, output][BLOCK]`.
    pub(super) weights: std::ops::Range<usize>,
}

/// The transposed convolution that takes the gradient of a layer's output to its input.
#[derive(Debug)]
pub(super) struct Transposed {
    /// Classes of input pixels.
    pub(super) classes: Vec<Class>,
    /// Where each transposed weight stands in the packed weight.
    pub(super) source: Vec<u32>,
}

/// A layer's shape in the terms of a convolution.
struct Conv {
    kernel: usize,
    stride: usize,
    padding: usize,
    input: Shape,
    output: Shape,
}

impl Conv {
    fn of(layer: &Layer) -> Self {
        match layer.map {
            Map::Conv { kernel, stride, padding } => {
                Self { kernel, stride, padding, input: layer.input, output: layer.output }
            }
            Map::Linear => {
                let Shape { height, width, channels } = layer.input;
                let channels = height * width * channels;
                let input = Shape { height: 1, width: 1, channels };
                Self { kernel: 1, stride: 1, padding: 0, input, output: layer.output }
            }
        }
    }
}

/// Numbers per pixel of a layer's input: as in the dataset for an image, whole blocks from then on.
pub(super) fn input_channels(layer: &Layer) -> usize {
    if layer.source.is_none() { layer.input.channels } else { padded(layer.input.channels) }
}

/// Plans of all layers.
pub(super) fn plan(net: &Net) -> Vec<LayerPlan> {
    net.layers.iter().map(LayerPlan::new).collect()
}

impl LayerPlan {
    fn new(layer: &Layer) -> Self {
        let first = layer.source.is_none();
        let mut conv = Conv::of(layer);
        conv.input.channels = match layer.map {
            Map::Conv { .. } => input_channels(layer),
            Map::Linear => layer.input.height * layer.input.width * input_channels(layer),
        };
        let Shape { height, width, .. } = conv.output;
        let pixels = height * width;
        let chunk = CHUNK_PIXELS.div_ceil(pixels).next_power_of_two();
        let part = PART_PIXELS.div_ceil(pixels).next_power_of_two();
        let part = part.clamp(PART_IMAGES.max(chunk), MICRO_BATCH as usize);
        let channels = padded(conv.output.channels);
        let halo = (conv.padding, conv.padding);
        let input = Grid {
            height: conv.input.height,
            width: conv.input.width,
            channels: conv.input.channels,
            vertical: halo,
            horizontal: halo,
        };
        let gradient = Grid {
            height,
            width,
            channels,
            vertical: if first { (0, 0) } else { halo_of(&conv, conv.input.height, height) },
            horizontal: if first { (0, 0) } else { halo_of(&conv, conv.input.width, width) },
        };
        let run = conv.kernel * input.channels;
        let taps = (0..conv.kernel).map(|ky| Tap { input: input.outer(ky, 0), rows: run }).collect();
        let read = |i: usize, y: usize, x: usize| i * input.len() + input.outer(y * conv.stride, x * conv.stride);
        let forward = table(chunk, height, width, |i, y, x| Pixel {
            input: read(i, y, x),
            output: ((i * height + y) * width + x) * channels,
        });
        let backward = table(chunk, height, width, |i, y, x| Pixel {
            input: read(i, y, x),
            output: i * gradient.len() + gradient.inner(y, x),
        });
        let rows = conv.kernel * run;
        let transposed = (!first).then(|| Transposed::new(&conv, chunk, &input, &gradient));
        let activation = layer.activation();
        let readable = activation.height * activation.width * channels;
        Self {
            chunk,
            part,
            input,
            channels,
            width,
            pixels,
            readable,
            gradient,
            rows,
            taps,
            forward,
            backward,
            transposed,
        }
    }

    /// Numbers of one image's output.
    pub(super) fn output_len(&self) -> usize {
        self.pixels * self.channels
    }

    /// Blocks of output channels.
    pub(super) fn blocks(&self) -> usize {
        self.channels / BLOCK
    }
}

fn table(images: usize, height: usize, width: usize, at: impl Fn(usize, usize, usize) -> Pixel) -> Vec<Pixel> {
    let mut pixels = Vec::with_capacity(images * height * width);
    for i in 0..images {
        for y in 0..height {
            pixels.extend((0..width).map(|x| at(i, y, x)));
        }
    }
    pixels
}

/// Along one axis: the taps (index into the kernel, shift from i to the output pixel) of the inputs at
/// `stride · i + class`, and how many of these there are.
fn axis_class(conv: &Conv, class: usize, inputs: usize) -> (Vec<(usize, isize)>, usize) {
    let stride = conv.stride as isize;
    let shift = |k: usize| (class + conv.padding) as isize - k as isize;
    let taps = (0..conv.kernel).filter(|k| shift(*k).rem_euclid(stride) == 0);
    let count = inputs.saturating_sub(class).div_ceil(conv.stride);
    (taps.map(|k| (k, shift(k).div_euclid(stride))).collect(), count)
}

/// The halo along one axis that lets every input pixel read all of its taps.
fn halo_of(conv: &Conv, inputs: usize, outputs: usize) -> (usize, usize) {
    let mut halo = (0, 0);
    for class in 0..conv.stride {
        let (taps, count) = axis_class(conv, class, inputs);
        for (_, shift) in taps {
            halo.0 = halo.0.max(-shift);
            halo.1 = halo.1.max(count as isize + shift - outputs as isize);
        }
    }
    (halo.0 as usize, halo.1 as usize)
}

impl Transposed {
    fn new(conv: &Conv, chunk: usize, input: &Grid, gradient: &Grid) -> Self {
        let mut transposed = Self { classes: Vec::new(), source: Vec::new() };
        for cy in 0..conv.stride {
            for cx in 0..conv.stride {
                transposed.push(conv, chunk, input, gradient, (cy, cx));
            }
        }
        transposed
    }

    fn push(&mut self, conv: &Conv, chunk: usize, input: &Grid, gradient: &Grid, (cy, cx): (usize, usize)) {
        let (rows, height) = axis_class(conv, cy, input.height);
        let (columns, width) = axis_class(conv, cx, input.width);
        let mut taps = Vec::new();
        let mut kernel = Vec::new();
        for (ky, dy) in &rows {
            for (kx, dx) in &columns {
                let y = gradient.vertical.0.strict_add_signed(*dy);
                let x = gradient.horizontal.0.strict_add_signed(*dx);
                taps.push(Tap { input: gradient.outer(y, x), rows: conv.output.channels });
                kernel.push((ky * conv.kernel + kx) * input.channels);
            }
        }
        let pixels = table(chunk, height, width, |i, y, x| Pixel {
            input: i * gradient.len() + gradient.outer(y, x),
            output: ((i * input.height + y * conv.stride + cy) * input.width + x * conv.stride + cx) * input.channels,
        });
        let start = self.source.len();
        let packed_rows = conv.kernel * conv.kernel * input.channels;
        for first in (0..input.channels).step_by(BLOCK) {
            for row in &kernel {
                for out in 0..conv.output.channels {
                    let column = (out / BLOCK * packed_rows + row + first) * BLOCK + out % BLOCK;
                    self.source.extend((0..BLOCK).map(|lane| (column + lane * BLOCK) as u32));
                }
            }
        }
        let weights = start..self.source.len();
        self.classes.push(Class { taps, pixels, per_image: height * width, weights });
    }
}
