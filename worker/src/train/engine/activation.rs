//! The functions that layers apply to each number, and their slopes, on blocks.
//!
//! Only additions, multiplications, divisions, selections and one shift of bits occur, each of which rounds as IEEE 754
//! says; so all instruction sets give the same bits. The polynomials are minimax approximations, fitted in f64 to values of
//! 40 digits by iteratively reweighted least squares, coefficient after coefficient rounded to f32 and the rest
//! fitted again. The errors, in units in the last place, are measured by the tests on every 997th f32 and stand in
//! `NUMERICS.md`: at most 1.5 for tanh, 5.4 for GELU, 2.7 for SiLU and 2.5 for softplus; 6.5 for slopes.

use ergodic_common::config::Activation;

use super::simd::{BLOCK, Simd16};

/// A function on blocks, with its slope. NaN stays NaN.
pub(crate) trait ActivationFn {
    /// The function.
    fn value<S: Simd16>(s: S, y: S::Block) -> S::Block;
    /// The slope at `y`, times `gradient`.
    fn backward<S: Simd16>(s: S, y: S::Block, gradient: S::Block) -> S::Block;
}

/// A kernel that is compiled for each activation, so that its loops do not choose.
pub(crate) trait ActivatedKernel: Sized {
    /// Runs the kernel; like [`super::simd::Kernel::run_with`] it must be `#[inline(always)]`.
    fn run_for<S: Simd16, A: ActivationFn>(self, s: S);
}

/// Runs a kernel for an activation.
#[inline(always)]
pub(crate) fn run_for_activation<S: Simd16>(
    s: S,
    activation: Activation,
    kernel: impl ActivatedKernel,
) {
    match activation {
        Activation::Identity => kernel.run_for::<S, IdentityFn>(s),
        Activation::Relu => kernel.run_for::<S, ReluFn>(s),
        Activation::LeakyRelu => kernel.run_for::<S, LeakyReluFn>(s),
        Activation::Tanh => kernel.run_for::<S, TanhFn>(s),
        Activation::Gelu => kernel.run_for::<S, GeluFn>(s),
        Activation::Silu => kernel.run_for::<S, SiluFn>(s),
        Activation::Softplus => kernel.run_for::<S, SoftplusFn>(s),
    }
}

/// What turns a normalized number in a padded channel into 0, where the activation of 0 is not 0.
pub(crate) fn padding_shift(activation: Activation) -> f32 {
    match activation {
        Activation::Softplus => f32::NEG_INFINITY,
        _ => 0.0,
    }
}

struct IdentityFn;

impl ActivationFn for IdentityFn {
    #[inline(always)]
    fn value<S: Simd16>(_: S, y: S::Block) -> S::Block {
        y
    }

    #[inline(always)]
    fn backward<S: Simd16>(_: S, _: S::Block, gradient: S::Block) -> S::Block {
        gradient
    }
}

struct ReluFn;

impl ActivationFn for ReluFn {
    #[inline(always)]
    fn value<S: Simd16>(s: S, y: S::Block) -> S::Block {
        s.relu(y)
    }

    #[inline(always)]
    fn backward<S: Simd16>(s: S, y: S::Block, gradient: S::Block) -> S::Block {
        s.relu_backward(y, gradient)
    }
}

struct LeakyReluFn;

impl ActivationFn for LeakyReluFn {
    #[inline(always)]
    fn value<S: Simd16>(s: S, y: S::Block) -> S::Block {
        Self::backward(s, y, y)
    }

    #[inline(always)]
    fn backward<S: Simd16>(s: S, y: S::Block, gradient: S::Block) -> S::Block {
        let small = s.mul(s.splat(Activation::LEAKY_SLOPE as f32), gradient);
        s.select_greater(y, s.splat(0.0), gradient, small)
    }
}

struct TanhFn;

impl TanhFn {
    /// tanh(x) = x + x³·P(x²) below this size.
    const SMALL: f32 = 0.6;
    const P: [f32; 5] = [
        -0.333_333_3,
        0.133_329_54,
        -0.053_877_857,
        0.021_125_5,
        -0.006_287_114,
    ];
    /// The size at which the slope is below half the smallest number.
    const LARGEST: f32 = 56.0;

    /// e^(−2|x|)·2⁶⁴.
    #[inline(always)]
    fn scaled_exp<S: Simd16>(s: S, x: S::Block) -> S::Block {
        let size = at_most(s, s.abs(x), Self::LARGEST);
        scaled_exp(s, s.mul(s.splat(-2.0), size), s.splat(0.0))
    }
}

impl ActivationFn for TanhFn {
    #[inline(always)]
    fn value<S: Simd16>(s: S, y: S::Block) -> S::Block {
        let one = s.splat(1.0);
        let e = s.mul(Self::scaled_exp(s, y), s.splat(DOWN_64));
        let size = s.div(s.sub(one, e), s.add(one, e));
        let minus = s.sub(s.splat(0.0), size);
        let large = s.select_greater(s.splat(0.0), y, minus, size);

        let square = s.mul(y, y);
        let cubic = s.mul(s.mul(y, square), polynomial(s, square, &Self::P));
        // The sum of −0 and 0 would be 0.
        let small = s.select_greater(s.abs(y), s.splat(0.0), s.add(y, cubic), y);
        s.select_greater(s.abs(y), s.splat(Self::SMALL), large, small)
    }

    /// 1 − tanh² = 4e/(1 + e)² with e = e^(−2|x|), without the cancellation.
    #[inline(always)]
    fn backward<S: Simd16>(s: S, y: S::Block, gradient: S::Block) -> S::Block {
        let scaled = Self::scaled_exp(s, y);
        let sum = s.add(s.splat(1.0), s.mul(scaled, s.splat(DOWN_64)));
        let slope = s.div(s.mul(s.splat(4.0), scaled), s.mul(sum, sum));
        s.mul(s.mul(slope, s.splat(DOWN_64)), gradient)
    }
}

struct SiluFn;

impl SiluFn {
    /// The size at which x·e⁻ˣ is below half the smallest number.
    const LARGEST: f32 = 112.0;
}

impl ActivationFn for SiluFn {
    /// x/(1 + e) or x·e/(1 + e) with e = e^(−|x|).
    #[inline(always)]
    fn value<S: Simd16>(s: S, y: S::Block) -> S::Block {
        let size = at_most(s, s.abs(y), Self::LARGEST);
        let scaled = scaled_exp(s, s.sub(s.splat(0.0), size), s.splat(0.0));
        let sum = s.add(s.splat(1.0), s.mul(scaled, s.splat(DOWN_64)));
        let bounded = at_least(s, y, -Self::LARGEST);
        let below = s.mul(s.div(s.mul(bounded, scaled), sum), s.splat(DOWN_64));
        s.select_greater(y, s.splat(0.0), s.div(y, sum), below)
    }

    /// σ·(1 + x·(1 − σ)), where σ and 1 − σ are 1/(1 + e) and e/(1 + e) or the other way round.
    #[inline(always)]
    fn backward<S: Simd16>(s: S, y: S::Block, gradient: S::Block) -> S::Block {
        let (sigmoid, rest) = sigmoid_and_rest(s, y);
        let bounded = at_most(s, at_least(s, y, -Self::LARGEST), Self::LARGEST);
        let slope = s.mul(sigmoid, s.fma(bounded, rest, s.splat(1.0)));
        s.mul(slope, gradient)
    }
}

struct SoftplusFn;

impl SoftplusFn {
    /// 2·artanh(s) = 2s + s³·P(s²) for s up to 1/3.
    const P: [f32; 5] = [
        0.666_666_7,
        0.399_992_73,
        0.286_135_58,
        0.213_817_82,
        0.247_558_28,
    ];
}

impl ActivationFn for SoftplusFn {
    /// max(x, 0) + ln(1 + e) with e = e^(−|x|), the logarithm as 2·artanh(e/(2 + e)).
    #[inline(always)]
    fn value<S: Simd16>(s: S, y: S::Block) -> S::Block {
        let size = at_most(s, s.abs(y), SiluFn::LARGEST);
        let scaled = scaled_exp(s, s.sub(s.splat(0.0), size), s.splat(0.0));
        let e = s.mul(scaled, s.splat(DOWN_64));

        let ratio = s.div(e, s.add(s.splat(2.0), e));
        let square = s.mul(ratio, ratio);
        let cubic = s.mul(s.mul(ratio, square), polynomial(s, square, &Self::P));
        let log = s.add(s.add(ratio, ratio), cubic);
        s.select_greater(y, s.splat(0.0), s.add(y, log), log)
    }

    #[inline(always)]
    fn backward<S: Simd16>(s: S, y: S::Block, gradient: S::Block) -> S::Block {
        let (sigmoid, _) = sigmoid_and_rest(s, y);
        s.mul(sigmoid, gradient)
    }
}

/// 1/(1 + e⁻ˣ), and 1 minus that.
#[inline(always)]
fn sigmoid_and_rest<S: Simd16>(s: S, x: S::Block) -> (S::Block, S::Block) {
    let zero = s.splat(0.0);
    let size = at_most(s, s.abs(x), SiluFn::LARGEST);
    let scaled = scaled_exp(s, s.sub(zero, size), zero);
    let e = s.mul(scaled, s.splat(DOWN_64));
    let sum = s.add(s.splat(1.0), e);
    let near = s.div(s.splat(1.0), sum);
    let far = s.div(e, sum);
    (
        s.select_greater(x, zero, near, far),
        s.select_greater(x, zero, far, near),
    )
}

struct GeluFn;

impl GeluFn {
    /// 1 − Φ(u) = e^(−u²/2)·P(y)/(u + 4) with y = (u − 4)/(u + 4), for u ≥ 0 up to [`Self::LARGEST`].
    const P: [f32; 10] = [
        0.755_285_14,
        -0.607_896_7,
        0.387_136_52,
        -0.186_521_26,
        0.060_407_02,
        -0.007_535_564_2,
        -0.003_525_478_8,
        0.001_582_166,
        0.000_199_220_32,
        -0.000_126_265_51,
    ];
    /// The size at which x·Φ(x) is below half the smallest number.
    const LARGEST: f32 = 14.6;
    /// 1/√(2π)
    const DENSITY_AT_0: f32 = 0.398_942_3;

    /// Returns u = |x|, bounded; e^(−u²/2)·2⁶⁴; and P(y)/(u + 4).
    #[inline(always)]
    fn tail<S: Simd16>(s: S, x: S::Block) -> (S::Block, S::Block, S::Block) {
        let size = at_most(s, s.abs(x), Self::LARGEST);
        // The rounding of u² would be multiplied by up to 100 in the exponential.
        let square = s.mul(size, size);
        let error = s.fma(size, size, s.sub(s.splat(0.0), square));
        let minus_half = s.splat(-0.5);
        let scaled = scaled_exp(s, s.mul(minus_half, square), s.mul(minus_half, error));

        let four = s.splat(4.0);
        let inverse = s.div(s.splat(1.0), s.add(size, four));
        let y = s.mul(s.sub(size, four), inverse);
        (size, scaled, s.mul(polynomial(s, y, &Self::P), inverse))
    }
}

impl ActivationFn for GeluFn {
    #[inline(always)]
    fn value<S: Simd16>(s: S, y: S::Block) -> S::Block {
        let (_, scaled, ratio) = Self::tail(s, y);
        let scaled_tail = s.mul(scaled, ratio);
        let down = s.splat(DOWN_64);
        let above = s.mul(y, s.sub(s.splat(1.0), s.mul(scaled_tail, down)));
        let bounded = at_least(s, y, -Self::LARGEST);
        let below = s.mul(s.mul(bounded, scaled_tail), down);
        s.select_greater(y, s.splat(0.0), above, below)
    }

    /// Φ(x) + x·φ(x), or 1 minus that of −x.
    #[inline(always)]
    fn backward<S: Simd16>(s: S, y: S::Block, gradient: S::Block) -> S::Block {
        let (size, scaled, ratio) = Self::tail(s, y);
        let minus_density = s.splat(-Self::DENSITY_AT_0);
        let below = s.mul(
            s.mul(scaled, s.fma(size, minus_density, ratio)),
            s.splat(DOWN_64),
        );
        let above = s.sub(s.splat(1.0), below);
        s.mul(s.select_greater(y, s.splat(0.0), above, below), gradient)
    }
}

/// 2⁻⁶⁴
const DOWN_64: f32 = 1.0 / (1_u128 << 64) as f32;

/// Adding this number leaves a number rounded to an integer, in the lowest bits.
const ROUNDER: f32 = 12_582_912.0;

const LOG2_E: f32 = std::f32::consts::LOG2_E;

/// ln 2 in two parts; the first has 16 bits, so that its multiples are exact.
const LN_2: [f32; 2] = [0.693_145_75, 1.428_606_8e-6];

/// e^x = 1 + x + x²·P(x) for |x| ≤ ½ ln 2.
const EXP_P: [f32; 5] = [
    0.5,
    0.166_665_78,
    0.041_666_724,
    0.008_363_149,
    0.001_390_900_5,
];

/// e^(a + rest)·2⁶⁴ for a from −112 to 0 and a rest that is small beside it. Scaled so, it is exact to its last bits where the
/// exponential itself is a denormal number or 0.
#[inline(always)]
fn scaled_exp<S: Simd16>(s: S, a: S::Block, rest: S::Block) -> S::Block {
    let rounder = s.splat(ROUNDER);
    let rounded = s.fma(a, s.splat(LOG2_E), rounder);
    let n = s.sub(rounded, rounder);
    let r = s.fma(n, s.splat(-LN_2[0]), a);
    let r = s.add(s.fma(n, s.splat(-LN_2[1]), r), rest);

    let tail = s.fma(s.mul(r, r), polynomial(s, r, &EXP_P), r);
    s.mul(s.add(s.splat(1.0), tail), scaled_power_of_2(s, rounded))
}

/// 2^(n + 64) for the integer n in the lowest bits of n + [`ROUNDER`].
#[inline(always)]
fn scaled_power_of_2<S: Simd16>(s: S, rounded: S::Block) -> S::Block {
    const EXPONENT_OF_64: u32 = (127 + 64) << 23;
    let mut lanes = [0.0; BLOCK];
    s.store(rounded, &mut lanes);
    for lane in &mut lanes {
        *lane = f32::from_bits((lane.to_bits() << 23).wrapping_add(EXPONENT_OF_64));
    }
    s.load(&lanes)
}

/// The polynomial in x with these coefficients, that of x⁰ first.
#[inline(always)]
fn polynomial<S: Simd16, const N: usize>(s: S, x: S::Block, coefficients: &[f32; N]) -> S::Block {
    let mut sum = s.splat(coefficients[N - 1]);
    for at in (0..N - 1).rev() {
        sum = s.fma(sum, x, s.splat(coefficients[at]));
    }
    sum
}

/// The smaller of x and a limit; NaN stays NaN.
#[inline(always)]
fn at_most<S: Simd16>(s: S, x: S::Block, limit: f32) -> S::Block {
    let limit = s.splat(limit);
    s.select_greater(x, limit, limit, x)
}

/// The larger of x and a limit; NaN stays NaN.
#[inline(always)]
fn at_least<S: Simd16>(s: S, x: S::Block, limit: f32) -> S::Block {
    let limit = s.splat(limit);
    s.select_greater(limit, x, limit, x)
}

#[cfg(test)]
mod tests;
