//! Convolutions and linear layers, as one sequential sum per number.
//!
//! Channels that pad a block are stored, as zeros, and not computed: they show only beside numbers that are not finite.

use std::ops::Range;

use super::activations::add_products;
use super::nets::PlainGeometry;

impl PlainGeometry {
    /// The pixel that an output pixel reads at a tap, or nothing outside the image.
    fn find_input_pixel(&self, output: (usize, usize), tap: (usize, usize)) -> Option<usize> {
        let y = (output.0 * self.stride + tap.0).checked_sub(self.padding)?;
        let x = (output.1 * self.stride + tap.1).checked_sub(self.padding)?;
        (y < self.input.height && x < self.input.width).then_some(y * self.input.width + x)
    }

    /// The pixel that reads an input pixel at a tap, if there is one.
    fn find_output_pixel(&self, input: (usize, usize), tap: (usize, usize)) -> Option<usize> {
        let y = (input.0 + self.padding).checked_sub(tap.0)?;
        let x = (input.1 + self.padding).checked_sub(tap.1)?;
        if !y.is_multiple_of(self.stride) || !x.is_multiple_of(self.stride) {
            return None;
        }
        let (y, x) = (y / self.stride, x / self.stride);
        (y < self.output.height && x < self.output.width).then_some(y * self.output.width + x)
    }

    /// Kernel rows and columns, row by row, with their number.
    fn taps(&self) -> impl Iterator<Item = (usize, (usize, usize))> {
        let kernel = self.kernel;
        (0..kernel * kernel).map(move |tap| (tap, (tap / kernel, tap % kernel)))
    }

    /// Output pixels, row by row, with their number.
    fn output_pixels(&self) -> impl Iterator<Item = (usize, (usize, usize))> {
        let width = self.output.width;
        (0..self.output.pixels()).map(move |pixel| (pixel, (pixel / width, pixel % width)))
    }

    /// The numbers of an image's pixel in the input, or the halo's zeros.
    fn read_input<'a>(
        &self,
        (x, halo): (&'a [f32], &'a [f32]),
        image: usize,
        pixel: Option<usize>,
    ) -> Option<&'a [f32]> {
        let stored = self.input.stored;
        match pixel {
            Some(pixel) => {
                let start = image * self.input.numbers() + pixel * stored;
                Some(&x[start..start + self.input.channels])
            }
            None => self.halo.then_some(halo),
        }
    }
}

/// z of all images; it begins with what is added.
pub(super) fn compute_z(
    g: &PlainGeometry,
    x: &[f32],
    w: &[f32],
    mut z: Vec<f32>,
    images: usize,
) -> Vec<f32> {
    let (p_in, p_out) = (g.input.stored, g.output.stored);
    let halo = vec![0.0; g.input.channels];
    for image in 0..images {
        for (pixel, place) in g.output_pixels() {
            let start = (image * g.output.pixels() + pixel) * p_out;
            let sums = &mut z[start..start + g.output.channels];
            for (tap, at) in g.taps() {
                let pixel = g.find_input_pixel(place, at);
                let Some(inputs) = g.read_input((x, &halo), image, pixel) else {
                    continue;
                };
                for (i, input) in inputs.iter().enumerate() {
                    let row = &w[(tap * p_in + i) * p_out..][..g.output.channels];
                    add_products(*input, row, sums);
                }
            }
        }
    }
    z
}

/// Columns as rows.
pub(super) fn transpose(numbers: &[f32], columns: usize) -> Vec<f32> {
    let mut transposed = Vec::new();
    for column in 0..columns {
        transposed.extend(numbers.iter().skip(column).step_by(columns));
    }
    transposed
}

/// Adds to the gradient of the input what comes through this layer.
pub(super) fn add_input_gradient(
    g: &PlainGeometry,
    d: &[f32],
    w: &[f32],
    gradient: &mut [f32],
    images: usize,
) {
    let (p_in, p_out) = (g.input.stored, g.output.stored);
    let by_output = transpose(w, p_out);
    let rows = g.kernel * g.kernel * p_in;
    for image in 0..images {
        for pixel in 0..g.input.pixels() {
            let place = (pixel / g.input.width, pixel % g.input.width);
            let start = image * g.input.numbers() + pixel * p_in;
            for (tap, at) in g.taps() {
                let Some(output) = g.find_output_pixel(place, at) else {
                    continue;
                };
                let d = &d[(image * g.output.pixels() + output) * p_out..][..g.output.channels];
                let sums = &mut gradient[start..][..g.input.channels];
                for (o, d) in d.iter().enumerate() {
                    let row = &by_output[o * rows + tap * p_in..][..g.input.channels];
                    add_products(*d, row, sums);
                }
            }
        }
    }
}

/// The gradient of the weight, summed over the images of a chunk.
pub(super) fn sum_weight_gradient(
    g: &PlainGeometry,
    x: &[f32],
    d: &[f32],
    chunk: Range<usize>,
) -> Vec<f32> {
    let (p_in, p_out) = (g.input.stored, g.output.stored);
    let halo = vec![0.0; g.input.channels];
    let mut sums = vec![0.0; g.kernel * g.kernel * p_in * p_out];
    for image in chunk {
        for (pixel, place) in g.output_pixels() {
            let d = &d[(image * g.output.pixels() + pixel) * p_out..][..g.output.channels];
            for (tap, at) in g.taps() {
                let pixel = g.find_input_pixel(place, at);
                let Some(inputs) = g.read_input((x, &halo), image, pixel) else {
                    continue;
                };
                for (i, input) in inputs.iter().enumerate() {
                    let row = &mut sums[(tap * p_in + i) * p_out..][..g.output.channels];
                    add_products(*input, d, row);
                }
            }
        }
    }
    sums
}
