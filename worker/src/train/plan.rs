//! From a [`Net`] to what the kernels need: offsets, tables of pixels and taps, places of parameters.
//!
//! Activations are channels last with the channels padded to whole blocks by zeros. What lies outside an image is not
//! multiplied: output pixels at the border have fewer taps. Only images from the dataset and inputs of tiles lie inside a
//! halo of zeros. A linear layer is a 1×1 convolution of a one-pixel image with many channels.

use std::ops::Range;

use ergodic_common::net::{ActivationShape, Layer, LinearOp, MICRO_BATCH, Net};

use super::simd::{BLOCK, padded};
use super::taps::{Pixel, Tap};
use super::tiles::{Tiled, transpose};

/// Pixels that a chunk of images should have at least, to use weights often once they are in the cache.
const CHUNK_PIXELS: usize = 96;

/// Pixels that a part of a batch should have at least, so that adding up its sums costs little beside making them.
const PART_PIXELS: usize = 1024;

/// Most output pixels of an image for which what lies outside is left out.
const SMALL: usize = 1024;

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
    /// Input of one image.
    pub(super) input: Grid,
    /// Numbers per output pixel: channels in whole blocks.
    pub(super) channels: usize,
    /// Output pixels in a row.
    pub(super) width: usize,
    /// Output pixels per image.
    pub(super) pixels: usize,
    /// Numbers of one image's activation, after pooling.
    pub(super) readable: usize,
    /// Rows of the packed weight, `[block of outputs][row][BLOCK]`.
    pub(super) rows: usize,
    /// Rows of the transposed weight.
    pub(super) transposed_rows: usize,
    /// How its map is computed.
    pub(super) way: Way,
}

/// How a map is computed.
#[derive(Debug)]
pub(super) enum Way {
    /// As it is defined.
    Direct(Direct),
    /// Tile by tile, with fewer multiplications.
    Tiled(Tiled),
}

/// What the kernels need that compute a map as it is defined.
#[derive(Debug)]
pub(super) struct Direct {
    /// Output pixels of a chunk: where they read their inputs and are written.
    pub(super) forward: Vec<Group>,
    /// For every run of weights: the pixels of a chunk that it acts on, where they read their inputs, and where their
    /// gradient stands.
    pub(super) runs: Vec<Group>,
    /// How to compute the gradient of the input; none for the first layer.
    pub(super) transposed: Option<Transposed>,
}

/// Pixels of a chunk that have the same taps.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) taps: Vec<Tap>,
    /// One image after the other.
    pixels: Vec<Pixel>,
    per_image: usize,
}

impl Group {
    /// Those of the first images of a chunk.
    pub(super) fn pixels(&self, images: usize) -> &[Pixel] {
        &self.pixels[..images * self.per_image]
    }

    /// Of one image.
    fn new(taps: Vec<Tap>, pixels: Vec<Pixel>) -> Self {
        Self { taps, per_image: pixels.len(), pixels }
    }

    /// The same of a chunk of images that are so far from each other.
    fn over(mut self, images: usize, apart: Pixel) -> Self {
        self.pixels.reserve_exact(self.per_image * (images - 1));
        for image in 1..images {
            for at in 0..self.per_image {
                let Pixel { input, output } = self.pixels[at];
                let (input, output) = (input + image * apart.input, output + image * apart.output);
                self.pixels.push(Pixel { input, output });
            }
        }
        self
    }

    /// The pixels of one image by their taps, in the order in which these first occur, for a chunk of images.
    fn all(images: usize, apart: Pixel, pixels: impl Iterator<Item = (Vec<Tap>, Pixel)>) -> Vec<Self> {
        let mut groups: Vec<Self> = Vec::new();
        for (taps, pixel) in pixels {
            match groups.iter_mut().find(|group| group.taps == taps) {
                Some(group) => group.pixels.push(pixel),
                None => groups.push(Self::new(taps, vec![pixel])),
            }
        }
        groups.into_iter().map(|group| Self::new(group.taps, group.pixels).over(images, apart)).collect()
    }
}

/// The transposed convolution that takes the gradient of a layer's output to its input.
#[derive(Debug)]
pub(super) struct Transposed {
    /// Input pixels of a chunk: where they read the gradient, and where theirs is written.
    pub(super) groups: Vec<Group>,
    /// Channels of input and output, and indices into the kernel.
    channels: (usize, usize),
    positions: usize,
}

/// An image with channels last inside a halo of zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Grid {
    /// Rows inside.
    pub(super) height: usize,
    /// Pixels in a row, inside.
    pub(super) width: usize,
    /// Numbers per pixel.
    pub(super) channels: usize,
    /// Pixels of halo on every side.
    halo: usize,
}

impl Grid {
    fn new(shape: ActivationShape, halo: usize) -> Self {
        let ActivationShape { height, width, channels } = shape;
        Self { height, width, channels, halo }
    }

    /// One pixel of so many numbers.
    pub(super) fn flat(channels: usize) -> Self {
        Self::new(ActivationShape { height: 1, width: 1, channels }, 0)
    }

    /// Numbers per image, halo included.
    pub(super) fn len(&self) -> usize {
        (self.height + 2 * self.halo) * self.row()
    }

    /// Numbers per image without the halo.
    pub(super) fn inner_len(&self) -> usize {
        self.height * self.width * self.channels
    }

    /// Numbers in a row, halo included.
    pub(super) fn row(&self) -> usize {
        (self.width + 2 * self.halo) * self.channels
    }

    /// Offset of a pixel counted from the corner of the halo.
    pub(super) fn outer(&self, y: usize, x: usize) -> usize {
        y * self.row() + x * self.channels
    }

    /// Runs of numbers without halo between them, as (offset without halo, offset with halo, length).
    pub(super) fn runs(&self) -> impl Iterator<Item = (usize, usize, usize)> + use<> {
        let grid = *self;
        let (count, len) =
            if grid.halo == 0 { (1, grid.inner_len()) } else { (grid.height, grid.width * grid.channels) };
        (0..count).map(move |y| (y * len, grid.outer(y + grid.halo, grid.halo), len))
    }
}

/// A layer's shape in the terms of a convolution.
#[derive(Debug, Clone, Copy)]
pub(super) struct Conv {
    pub(super) kernel: usize,
    pub(super) stride: usize,
    pub(super) padding: usize,
    pub(super) input: ActivationShape,
    pub(super) output: ActivationShape,
}

impl Conv {
    /// With channels in whole blocks, but for those of images from the dataset.
    fn of(layer: &Layer) -> Self {
        let channels = input_channels(layer);
        let output = ActivationShape { channels: padded(layer.output.channels), ..layer.output };
        match layer.linear_op {
            LinearOp::Conv { kernel, stride, padding } => {
                let input = ActivationShape { channels, ..layer.input };
                Self { kernel, stride, padding, input, output }
            }
            LinearOp::Linear => {
                let channels = layer.input.height * layer.input.width * channels;
                let input = ActivationShape { height: 1, width: 1, channels };
                Self { kernel: 1, stride: 1, padding: 0, input, output }
            }
        }
    }

    /// The same convolution of an image with its padding, which has none.
    fn padded(self) -> Self {
        let ActivationShape { height, width, channels } = self.input;
        let input = ActivationShape { height: height + 2 * self.padding, width: width + 2 * self.padding, channels };
        Self { padding: 0, input, ..self }
    }

    /// Indices into the kernel, along an axis of so many inputs, for which an output pixel has an input.
    fn kernel_at(&self, output: usize, inputs: usize) -> Range<usize> {
        let corner = output * self.stride;
        let first = self.padding.saturating_sub(corner).min(self.kernel);
        first..(inputs + self.padding).saturating_sub(corner).clamp(first, self.kernel)
    }

    /// Runs of indices into a row of the kernel that the same outputs have inputs for.
    fn runs(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let conv = *self;
        let seen = move |kernel: usize, output| conv.kernel_at(output, conv.input.width).contains(&kernel);
        let alike = move |a: usize, b: usize| (0..conv.output.width).all(|output| seen(a, output) == seen(b, output));
        let starts = (0..conv.kernel).filter(move |k| *k == 0 || !alike(k - 1, *k));
        starts.map(move |start| start..(start + 1..conv.kernel).find(|k| !alike(k - 1, *k)).unwrap_or(conv.kernel))
    }

    /// The output pixel, along an axis of so many, that sees an input through this index into the kernel.
    fn output_at(&self, input: usize, kernel: usize, outputs: usize) -> Option<usize> {
        let at = (input + self.padding).checked_sub(kernel)?;
        (at % self.stride == 0 && at / self.stride < outputs).then_some(at / self.stride)
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
        let conv = Conv::of(layer);
        let ActivationShape { height, width, channels } = conv.output;
        let pixels = height * width;
        let chunk = CHUNK_PIXELS.div_ceil(pixels).next_power_of_two();
        let part = PART_PIXELS.div_ceil(pixels).next_power_of_two();
        let part = part.clamp(PART_IMAGES.max(chunk), MICRO_BATCH as usize);
        let tiled = !first && Tiled::suits(&conv);
        // Images from the dataset have few channels: long runs are worth more than what lies in the halo costs. So are
        // short tables for large images, whose halo is little.
        let halo = first || tiled || pixels > SMALL;
        let input = Grid::new(conv.input, if halo { conv.padding } else { 0 });
        let way = if tiled {
            Way::Tiled(Tiled::new(&conv, chunk, &input))
        } else {
            Way::Direct(Direct::new(&conv, halo, chunk, &input, first))
        };
        let rows = conv.kernel * conv.kernel * conv.input.channels;
        let transposed_rows = conv.kernel * conv.kernel * channels;
        let activation = layer.activation_shape();
        let readable = activation.height * activation.width * channels;
        Self { chunk, part, input, channels, width, pixels, readable, rows, transposed_rows, way }
    }

    /// Numbers of one image's output.
    pub(super) fn output_len(&self) -> usize {
        self.pixels * self.channels
    }

    /// How its tiles are computed, if it has any.
    pub(super) fn tiled(&self) -> Option<&Tiled> {
        if let Way::Tiled(tiled) = &self.way { Some(tiled) } else { None }
    }

    /// Blocks of output channels.
    pub(super) fn blocks(&self) -> usize {
        self.channels / BLOCK
    }
}

/// All pixels, row by row.
fn pixels(shape: ActivationShape) -> impl Iterator<Item = (usize, usize)> {
    (0..shape.height).flat_map(move |y| (0..shape.width).map(move |x| (y, x)))
}

impl Direct {
    /// `input` is where the inputs of `conv` stand, with its padding as their halo or without.
    fn new(conv: &Conv, halo: bool, chunk: usize, input: &Grid, first: bool) -> Self {
        let transposed = (!first).then(|| Transposed::new(conv, chunk, &Grid::new(conv.output, 0)));
        let conv = if halo { conv.padded() } else { *conv };
        let output = Grid::new(conv.output, 0);
        let apart = Pixel { input: input.len(), output: output.len() };
        let forward = pixels(conv.output).map(|(y, x)| Self::forward(&conv, input, &output, y, x));
        let runs = (0..conv.kernel).flat_map(|ky| conv.runs().map(move |run| (ky, run)));
        let runs = runs.map(|(ky, run)| Self::run(&conv, input, &output, ky, run).over(chunk, apart));
        Self { forward: Group::all(chunk, apart, forward), runs: runs.collect(), transposed }
    }

    /// The taps of an output pixel, one per row of the kernel that lies in the image.
    fn forward(conv: &Conv, input: &Grid, output: &Grid, y: usize, x: usize) -> (Vec<Tap>, Pixel) {
        let (rows, columns) = (conv.kernel_at(y, conv.input.height), conv.kernel_at(x, conv.input.width));
        let channels = conv.input.channels;
        let taps = rows.clone().filter(|_| !columns.is_empty()).map(|ky| Tap {
            input: input.outer(ky - rows.start, 0),
            rows: columns.len() * channels,
            weight: (ky * conv.kernel + columns.start) * channels,
        });
        let corner = |output: usize, kernel: usize| (output * conv.stride + kernel).saturating_sub(conv.padding);
        let corner = input.outer(corner(y, rows.start), corner(x, columns.start));
        (taps.collect(), Pixel { input: corner, output: output.outer(y, x) })
    }

    /// The output pixels of an image that a run of weights in a row of the kernel acts on.
    fn run(conv: &Conv, input: &Grid, output: &Grid, ky: usize, run: Range<usize>) -> Group {
        let (channels, kx) = (conv.input.channels, run.start);
        let tap = Tap { input: 0, rows: run.len() * channels, weight: (ky * conv.kernel + kx) * channels };
        let at = |output: usize, kernel: usize| output * conv.stride + kernel - conv.padding;
        let rows = (0..conv.output.height).filter(|y| conv.kernel_at(*y, conv.input.height).contains(&ky));
        let columns: Vec<usize> =
            (0..conv.output.width).filter(|x| conv.kernel_at(*x, conv.input.width).contains(&kx)).collect();
        let pixels = rows.flat_map(|y| columns.iter().map(move |x| (y, *x)));
        let pixels =
            pixels.map(|(y, x)| Pixel { input: input.outer(at(y, ky), at(x, kx)), output: output.outer(y, x) });
        Group::new(vec![tap], pixels.collect())
    }
}

impl Transposed {
    /// `gradient` is where that of the output stands.
    fn new(conv: &Conv, chunk: usize, gradient: &Grid) -> Self {
        let input = Grid::new(conv.input, 0);
        let apart = Pixel { input: gradient.len(), output: input.len() };
        let groups = pixels(conv.input).map(|(y, x)| {
            let mut taps = Vec::new();
            for (at, (ky, kx)) in
                pixels(ActivationShape { height: conv.kernel, width: conv.kernel, channels: 1 }).enumerate()
            {
                let y = conv.output_at(y, ky, conv.output.height);
                let x = conv.output_at(x, kx, conv.output.width);
                if let (Some(y), Some(x)) = (y, x) {
                    let rows = conv.output.channels;
                    taps.push(Tap { input: gradient.outer(y, x), rows, weight: at * rows });
                }
            }
            let first = taps.iter().map(|tap| tap.input).min().unwrap_or(0);
            taps.iter_mut().for_each(|tap| tap.input -= first);
            (taps, Pixel { input: first, output: input.outer(y, x) })
        });
        let channels = (conv.input.channels, conv.output.channels);
        Self { groups: Group::all(chunk, apart, groups), channels, positions: conv.kernel * conv.kernel }
    }

    /// Numbers of the transposed weight.
    pub(super) fn weights(&self) -> usize {
        self.positions * self.channels.0 * self.channels.1
    }

    /// The packed weight as `[block of inputs][kernel row, kernel column, output][BLOCK]`.
    pub(super) fn transpose(&self, weights: &[f32], to: &mut [f32]) {
        let (inputs, outputs) = self.channels;
        for position in 0..self.positions {
            let (from, to) = (&weights[position * inputs * BLOCK..], &mut to[position * outputs * BLOCK..]);
            transpose(self.channels, from, self.positions * inputs, to, self.positions * outputs);
        }
    }
}
