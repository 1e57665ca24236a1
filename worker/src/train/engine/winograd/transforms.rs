//! The transforms of squares of blocks to and from the points, and reading and writing them.

use super::super::simd::{BLOCK, Simd16, block_at, block_at_mut};
use super::plan::{TILE_OUTPUTS, TILE_POINTS, TILE_SIDE};

/// A result counts as rounding up to this share of the sum of the absolute values at its sixteen points: four times the
/// rounding of one number. The rounding of sums of some hundred terms stays well below; of other gradients, a few in a million
/// are so small.
const ROUNDING_SHARE: f32 = 1.0 / (1 << 22) as f32;

/// The points are scaled by this before they are summed, so that the sum of finite points is finite.
const OVERFLOW_SCALE: f32 = 1.0 / 32.0;

/// Sixteen channels of every point, or of every input, of a tile.
pub(crate) type BlockSquare<S, const N: usize> = [[<S as Simd16>::Block; N]; N];

/// A transform along one axis of a square.
pub(crate) trait AxisTransform<const FROM: usize, const TO: usize> {
    /// Transforms a row of blocks.
    fn transform_axis<S: Simd16>(s: S, from: [S::Block; FROM]) -> [S::Block; TO];
}

/// Bᵀ along one axis: the inputs at the points.
pub(crate) struct InputTransform;

impl AxisTransform<TILE_SIDE, TILE_SIDE> for InputTransform {
    #[inline(always)]
    fn transform_axis<S: Simd16>(s: S, d: [S::Block; TILE_SIDE]) -> [S::Block; TILE_SIDE] {
        let mut v = d;
        v[0] = s.sub(d[0], d[2]);
        v[1] = s.add(d[1], d[2]);
        v[2] = s.sub(d[2], d[1]);
        v[3] = s.sub(d[3], d[1]);
        v
    }
}

/// B along one axis: the gradient of the inputs.
pub(crate) struct InputTransformAdjoint;

impl AxisTransform<TILE_SIDE, TILE_SIDE> for InputTransformAdjoint {
    #[inline(always)]
    fn transform_axis<S: Simd16>(s: S, v: [S::Block; TILE_SIDE]) -> [S::Block; TILE_SIDE] {
        let mut d = v;
        d[1] = s.sub(s.sub(v[1], v[2]), v[3]);
        d[2] = s.sub(s.add(v[1], v[2]), v[0]);
        d
    }
}

/// Aᵀ along one axis: outputs from the products.
pub(crate) struct OutputTransform;

impl AxisTransform<TILE_SIDE, TILE_OUTPUTS> for OutputTransform {
    #[inline(always)]
    fn transform_axis<S: Simd16>(s: S, m: [S::Block; TILE_SIDE]) -> [S::Block; TILE_OUTPUTS] {
        [
            s.add(s.add(m[0], m[1]), m[2]),
            s.add(s.sub(m[1], m[2]), m[3]),
        ]
    }
}

/// A along one axis: the gradient of the outputs at the points.
pub(crate) struct OutputTransformAdjoint;

impl AxisTransform<TILE_OUTPUTS, TILE_SIDE> for OutputTransformAdjoint {
    #[inline(always)]
    fn transform_axis<S: Simd16>(s: S, y: [S::Block; TILE_OUTPUTS]) -> [S::Block; TILE_SIDE] {
        let mut e = [y[0]; TILE_SIDE];
        e[1] = s.add(y[0], y[1]);
        e[2] = s.sub(y[0], y[1]);
        e[3] = y[1];
        e
    }
}

/// G along one axis: the weights at the points.
pub(crate) struct WeightTransform;

impl AxisTransform<3, TILE_SIDE> for WeightTransform {
    #[inline(always)]
    fn transform_axis<S: Simd16>(s: S, g: [S::Block; 3]) -> [S::Block; TILE_SIDE] {
        let mut u = [g[1]; TILE_SIDE];
        u[0] = g[0];
        let outer = s.add(g[0], g[2]);
        let half = s.splat(0.5);
        u[1] = s.mul(half, s.add(outer, g[1]));
        u[2] = s.mul(half, s.sub(outer, g[1]));
        u[3] = g[2];
        u
    }
}

/// Gᵀ along one axis: the gradient of the weights.
pub(crate) struct WeightTransformAdjoint;

impl AxisTransform<TILE_SIDE, 3> for WeightTransformAdjoint {
    #[inline(always)]
    fn transform_axis<S: Simd16>(s: S, u: [S::Block; TILE_SIDE]) -> [S::Block; 3] {
        let half = s.splat(0.5);
        let sum = s.mul(half, s.add(u[1], u[2]));
        let difference = s.mul(half, s.sub(u[1], u[2]));
        [s.add(u[0], sum), difference, s.add(sum, u[3])]
    }
}

/// Transforms all rows and then all columns.
#[inline(always)]
pub(crate) fn transform_both_axes<
    S: Simd16,
    A: AxisTransform<FROM, TO>,
    const FROM: usize,
    const TO: usize,
>(
    s: S,
    square: BlockSquare<S, FROM>,
) -> BlockSquare<S, TO> {
    let mut rows = [[s.splat(0.0); TO]; FROM];
    for (row, from) in rows.iter_mut().zip(square) {
        *row = A::transform_axis(s, from);
    }

    let mut whole = [[s.splat(0.0); TO]; TO];
    for column in 0..TO {
        let mut from = [s.splat(0.0); FROM];
        for (x, row) in from.iter_mut().zip(&rows) {
            *x = row[column];
        }

        let made = A::transform_axis(s, from);
        for (row, x) in whole.iter_mut().zip(made) {
            row[column] = x;
        }
    }

    whole
}

/// Sets to 0 what is no larger than the rounding of the points that it is computed from. NaN and infinite numbers stay.
#[inline(always)]
pub(crate) fn zero_below_rounding<S: Simd16, const N: usize>(
    s: S,
    points: &BlockSquare<S, TILE_SIDE>,
    mut made: BlockSquare<S, N>,
) -> BlockSquare<S, N> {
    let mut size = s.splat(0.0);
    let part = s.splat(OVERFLOW_SCALE);

    for point in points.as_flattened() {
        size = s.fma(s.abs(*point), part, size);
    }

    let rounding = s.mul(size, s.splat(ROUNDING_SHARE / OVERFLOW_SCALE));
    for x in made.as_flattened_mut() {
        *x = s.select_greater(rounding, s.abs(*x), s.splat(0.0), *x);
    }

    made
}

/// Reads a square of blocks.
#[inline(always)]
pub(crate) fn load_square<S: Simd16, const N: usize>(
    s: S,
    data: &[f32],
    at: usize,
    row: usize,
    column: usize,
) -> BlockSquare<S, N> {
    let mut square = [[s.splat(0.0); N]; N];
    for (r, line) in square.iter_mut().enumerate() {
        for (c, x) in line.iter_mut().enumerate() {
            *x = s.load(block_at(data, at + r * row + c * column));
        }
    }
    square
}

/// Writes a square of blocks.
#[inline(always)]
pub(crate) fn store_square<S: Simd16, const N: usize>(
    s: S,
    square: BlockSquare<S, N>,
    data: &mut [f32],
    at: usize,
    row: usize,
    column: usize,
) {
    for (r, line) in square.into_iter().enumerate() {
        for (c, x) in line.into_iter().enumerate() {
            s.store(x, block_at_mut(data, at + r * row + c * column));
        }
    }
}

/// `sums += more`
#[inline(always)]
pub(crate) fn add_square<S: Simd16, const N: usize>(
    s: S,
    sums: &mut BlockSquare<S, N>,
    more: BlockSquare<S, N>,
) {
    for (sums, more) in sums.iter_mut().zip(more) {
        for (sum, more) in sums.iter_mut().zip(more) {
            *sum = s.add(*sum, more);
        }
    }
}

/// Reads a tile's block of channels at its points.
#[inline(always)]
pub(crate) fn load_points<S: Simd16>(s: S, points: &[f32]) -> BlockSquare<S, TILE_SIDE> {
    load_square::<S, TILE_SIDE>(
        s,
        &points[..TILE_POINTS * BLOCK],
        0,
        TILE_SIDE * BLOCK,
        BLOCK,
    )
}

/// Writes a tile's block of channels at its points.
#[inline(always)]
pub(crate) fn store_points<S: Simd16>(s: S, square: BlockSquare<S, TILE_SIDE>, points: &mut [f32]) {
    store_square::<S, TILE_SIDE>(
        s,
        square,
        &mut points[..TILE_POINTS * BLOCK],
        0,
        TILE_SIDE * BLOCK,
        BLOCK,
    );
}

#[cfg(test)]
mod tests {
    use ergodic_common::random_streams::fixed_stream;

    use crate::train::engine::winograd::transforms::*;
    use crate::train::{Isa, SimdProgram};

    /// Numbers that come of the points, and what is left of them.
    struct ZeroedBlock<'a> {
        points: &'a [[f32; BLOCK]; TILE_POINTS],
        made: [f32; BLOCK],
        kept: &'a mut [f32; BLOCK],
    }

    impl SimdProgram for ZeroedBlock<'_> {
        fn run_with<S: Simd16>(self, s: S) {
            let mut points = [[s.splat(0.0); TILE_SIDE]; TILE_SIDE];
            for (block, numbers) in points.as_flattened_mut().iter_mut().zip(self.points) {
                *block = s.load(numbers);
            }

            let kept = zero_below_rounding(s, &points, [[s.load(&self.made)]]);
            s.store(kept[0][0], self.kept);
        }
    }

    /// However large the points are, up to the largest numbers: a bound that overflows would leave nothing.
    #[test]
    fn what_is_no_larger_than_four_roundings_of_the_points_is_zero_and_all_else_stays() {
        let rounding = 4.0 * f64::from(f32::EPSILON / 2.0);
        // In shares of the bound.
        let sizes = [0.0, 0.01, 0.5, 0.99, 1.01, 2.0, 100.0, 1e6];

        for (round, exponent) in (0..).zip(-40..=127) {
            let mut stream = fixed_stream("rounding", round);
            let scale = libm::pow(2.0, f64::from(exponent));
            let largest = f64::from(f32::MAX);
            let points: [[f32; BLOCK]; TILE_POINTS] = std::array::from_fn(|_| {
                std::array::from_fn(|_| {
                    (scale * stream.next_normal()).clamp(-largest, largest) as f32
                })
            });
            let bound = |lane: usize| -> f64 {
                let size = points.iter().map(|block| f64::from(block[lane].abs()));
                rounding * size.sum::<f64>()
            };
            let made: [f32; BLOCK] = std::array::from_fn(|lane| {
                let sign = if lane < sizes.len() { 1.0 } else { -1.0 };
                (sign * sizes[lane % sizes.len()] * bound(lane)) as f32
            });

            for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
                let mut kept = [1.0; BLOCK];
                isa.run_program(ZeroedBlock {
                    points: &points,
                    made,
                    kept: &mut kept,
                });
                let expected: [f32; BLOCK] = std::array::from_fn(|lane| {
                    let is_rounding = sizes[lane % sizes.len()] < 1.0;
                    if is_rounding { 0.0 } else { made[lane] }
                });
                assert_eq!(kept, expected, "{isa}, 2^{exponent}");

                let undefined = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
                isa.run_program(ZeroedBlock {
                    points: &points,
                    made: std::array::from_fn(|lane| undefined[lane % 3]),
                    kept: &mut kept,
                });
                let stay = (0..).zip(kept).all(|(lane, x): (usize, f32)| {
                    let undefined = undefined[lane % 3];
                    x == undefined || x.is_nan() && undefined.is_nan()
                });
                assert!(stay, "{isa}, 2^{exponent}: {kept:?}");
            }
        }
    }
}
