//! 3×3 convolutions of stride 1 in tiles of 2×2 outputs. Channels that pad a block stay 0, as in direct ones.

use std::ops::Range;

use super::activations::{add_products, fma};
use super::direct::transpose;
use super::nets::PlainGeometry;

/// Tiles that are summed at the points before they are added.
const STRIP: usize = 32;

/// The numbers at the 16 points of a tile or weight: `[point][channel]`.
type PointNumbers = Vec<Vec<f32>>;

/// Transforms all rows, then all columns of the result.
fn transform_axes<const A: usize, const B: usize>(
    from: [[f32; A]; A],
    transform: fn([f32; A]) -> [f32; B],
) -> [[f32; B]; B] {
    let rows = from.map(transform);
    let mut to = [[0.0; B]; B];
    for column in 0..B {
        let transformed = transform(rows.map(|row| row[column]));
        for (row, number) in to.iter_mut().zip(transformed) {
            row[column] = number;
        }
    }
    to
}

fn transform_input([d0, d1, d2, d3]: [f32; 4]) -> [f32; 4] {
    [d0 - d2, d1 + d2, d2 - d1, d3 - d1]
}

fn transform_input_adjoint([v0, v1, v2, v3]: [f32; 4]) -> [f32; 4] {
    [v0, (v1 - v2) - v3, (v1 + v2) - v0, v3]
}

fn transform_output([m0, m1, m2, m3]: [f32; 4]) -> [f32; 2] {
    [(m0 + m1) + m2, (m1 - m2) + m3]
}

fn transform_output_adjoint([y0, y1]: [f32; 2]) -> [f32; 4] {
    [y0, y0 + y1, y0 - y1, y1]
}

fn transform_weight([g0, g1, g2]: [f32; 3]) -> [f32; 4] {
    let t = g0 + g2;
    [g0, 0.5 * (t + g1), 0.5 * (t - g1), g2]
}

fn transform_weight_adjoint([u0, u1, u2, u3]: [f32; 4]) -> [f32; 3] {
    let s = 0.5 * (u1 + u2);
    let t = 0.5 * (u1 - u2);
    [u0 + s, t, s + u3]
}

/// The numbers of one channel at the points.
fn read_points(points: &PointNumbers, channel: usize) -> [[f32; 4]; 4] {
    [0, 1, 2, 3].map(|p| [0, 1, 2, 3].map(|q| points[4 * p + q][channel]))
}

fn write_points(points: &mut PointNumbers, channel: usize, numbers: [[f32; 4]; 4]) {
    for (p, row) in numbers.into_iter().enumerate() {
        for (q, number) in row.into_iter().enumerate() {
            points[4 * p + q][channel] = number;
        }
    }
}

/// Makes those numbers 0 that are no larger than the rounding of the points that they come from.
fn zero_below_rounding<const B: usize>(
    points: [[f32; 4]; 4],
    numbers: [[f32; B]; B],
) -> [[f32; B]; B] {
    let mut size = 0.0;
    for point in points.into_iter().flatten() {
        size = fma(point.abs(), 1.0 / 32.0, size);
    }
    let bound = size * (1.0 / 131_072.0);
    numbers.map(|row| row.map(|r| if bound > r.abs() { 0.0 } else { r }))
}

/// A tile of one image.
#[derive(Clone, Copy)]
struct PlainTile {
    image: usize,
    ty: usize,
    tx: usize,
}

impl PlainGeometry {
    /// The tiles of these images, image after image and row by row.
    fn list_tiles(&self, images: Range<usize>) -> Vec<PlainTile> {
        let mut tiles = Vec::new();
        for image in images {
            for ty in 0..self.output.height / 2 {
                for tx in 0..self.output.width / 2 {
                    tiles.push(PlainTile { image, ty, tx });
                }
            }
        }
        tiles
    }

    /// Where the input of a tile at this row and column begins in memory, if it is inside the image.
    fn find_tile_input(&self, tile: PlainTile, row: usize, column: usize) -> Option<usize> {
        let y = (2 * tile.ty + row).checked_sub(self.padding)?;
        let x = (2 * tile.tx + column).checked_sub(self.padding)?;
        if y >= self.input.height || x >= self.input.width {
            return None;
        }
        let pixel = (tile.image * self.input.height + y) * self.input.width + x;
        Some(pixel * self.input.stored)
    }

    /// Where the number of a pair of an input and an output channel is in the weight.
    fn find_weight(&self, tap: usize, pair: usize) -> usize {
        let (i, o) = (pair / self.output.channels, pair % self.output.channels);
        (tap * self.input.stored + i) * self.output.stored + o
    }

    /// Where the output of a tile at this row and column begins in memory.
    fn find_tile_output(&self, tile: PlainTile, row: usize, column: usize) -> usize {
        let (y, x) = (2 * tile.ty + row, 2 * tile.tx + column);
        ((tile.image * self.output.height + y) * self.output.width + x) * self.output.stored
    }
}

fn transform_weights(g: &PlainGeometry, w: &[f32]) -> PointNumbers {
    let size = g.input.channels * g.output.channels;
    let mut points = vec![vec![0.0; size]; 16];
    for at in 0..size {
        let kernel = [0, 1, 2].map(|ky| [0, 1, 2].map(|kx| w[g.find_weight(3 * ky + kx, at)]));
        write_points(&mut points, at, transform_axes(kernel, transform_weight));
    }
    points
}

fn transform_tile_inputs(g: &PlainGeometry, x: &[f32], tile: PlainTile) -> PointNumbers {
    let mut points = vec![vec![0.0; g.input.channels]; 16];
    for i in 0..g.input.channels {
        let inputs = [0, 1, 2, 3].map(|row| {
            [0, 1, 2, 3].map(|column| {
                g.find_tile_input(tile, row, column)
                    .map_or(0.0, |start| x[start + i])
            })
        });
        write_points(&mut points, i, transform_axes(inputs, transform_input));
    }
    points
}

fn transform_tile_gradient(g: &PlainGeometry, d: &[f32], tile: PlainTile) -> PointNumbers {
    let mut points = vec![vec![0.0; g.output.channels]; 16];
    for o in 0..g.output.channels {
        let outputs =
            [0, 1].map(|row| [0, 1].map(|column| d[g.find_tile_output(tile, row, column) + o]));
        write_points(
            &mut points,
            o,
            transform_axes(outputs, transform_output_adjoint),
        );
    }
    points
}

/// z of all images; what is added comes at the end.
pub(super) fn compute_z(
    g: &PlainGeometry,
    x: &[f32],
    w: &[f32],
    added: Option<&[f32]>,
    images: usize,
) -> Vec<f32> {
    let p_out = g.output.channels;
    let u = transform_weights(g, w);
    let mut z = vec![0.0; images * g.output.numbers()];
    for tile in g.list_tiles(0..images) {
        let v = transform_tile_inputs(g, x, tile);
        let mut m = vec![vec![0.0; p_out]; 16];
        for point in 0..16 {
            for (i, input) in v[point].iter().enumerate() {
                let row = &u[point][i * p_out..][..p_out];
                add_products(*input, row, &mut m[point]);
            }
        }

        for o in 0..p_out {
            let outputs = transform_axes(read_points(&m, o), transform_output);
            for (row, numbers) in outputs.into_iter().enumerate() {
                for (column, number) in numbers.into_iter().enumerate() {
                    let at = g.find_tile_output(tile, row, column) + o;
                    z[at] = added.map_or(number, |added| number + added[at]);
                }
            }
        }
    }
    z
}

/// Adds the gradient of the input, tile after tile.
pub(super) fn add_input_gradient(
    g: &PlainGeometry,
    d: &[f32],
    w: &[f32],
    gradient: &mut [f32],
    images: usize,
) {
    let (p_in, p_out) = (g.input.channels, g.output.channels);
    let u = transform_weights(g, w);
    let by_output: PointNumbers = u.iter().map(|u| transpose(u, p_out)).collect();
    for tile in g.list_tiles(0..images) {
        let e = transform_tile_gradient(g, d, tile);
        let mut points = vec![vec![0.0; p_in]; 16];
        for point in 0..16 {
            for (o, e) in e[point].iter().enumerate() {
                let row = &by_output[point][o * p_in..][..p_in];
                add_products(*e, row, &mut points[point]);
            }
        }

        for i in 0..p_in {
            let points = read_points(&points, i);
            let inputs = transform_axes(points, transform_input_adjoint);
            let inputs = zero_below_rounding(points, inputs);
            for (row, numbers) in inputs.into_iter().enumerate() {
                for (column, number) in numbers.into_iter().enumerate() {
                    if let Some(start) = g.find_tile_input(tile, row, column) {
                        gradient[start + i] += number;
                    }
                }
            }
        }
    }
}

/// The gradient of the weight over a part of the batch, that is, these chunks of images.
pub(super) fn sum_weight_gradient(
    g: &PlainGeometry,
    x: &[f32],
    d: &[f32],
    chunks: &[Range<usize>],
) -> Vec<f32> {
    let size = g.input.channels * g.output.channels;
    let mut points = vec![vec![0.0; size]; 16];
    for chunk in chunks {
        for strip in g.list_tiles(chunk.clone()).chunks(STRIP) {
            let sums = sum_strip(g, x, d, strip);
            for (point, sums) in points.iter_mut().zip(&sums) {
                for (number, sum) in point.iter_mut().zip(sums) {
                    *number += sum;
                }
            }
        }
    }

    let mut gradient = vec![0.0; 9 * g.input.stored * g.output.stored];
    for at in 0..size {
        let points = read_points(&points, at);
        let kernel = transform_axes(points, transform_weight_adjoint);
        let kernel = zero_below_rounding(points, kernel);
        for (tap, number) in kernel.into_iter().flatten().enumerate() {
            gradient[g.find_weight(tap, at)] = number;
        }
    }
    gradient
}

fn sum_strip(g: &PlainGeometry, x: &[f32], d: &[f32], strip: &[PlainTile]) -> PointNumbers {
    let (p_in, p_out) = (g.input.channels, g.output.channels);
    let mut sums = vec![vec![0.0; p_in * p_out]; 16];
    for tile in strip {
        let v = transform_tile_inputs(g, x, *tile);
        let e = transform_tile_gradient(g, d, *tile);
        for point in 0..16 {
            for (i, input) in v[point].iter().enumerate() {
                let row = &mut sums[point][i * p_out..][..p_out];
                add_products(*input, &e[point], row);
            }
        }
    }
    sums
}
