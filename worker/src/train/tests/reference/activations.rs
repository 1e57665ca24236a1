//! Activation functions and their slopes, in f32, from operations of IEEE 754.

#[derive(Clone, Copy, PartialEq)]
pub(super) enum PlainActivation {
    Identity,
    Relu,
    LeakyRelu,
    Tanh,
    Silu,
    Softplus,
    Gelu,
}

/// 2⁻⁶⁴
const D: f32 = 1.0 / 18_446_744_073_709_551_616.0;

impl PlainActivation {
    pub(super) fn value(self, y: f32) -> f32 {
        match self {
            Self::Identity => y,
            Self::Relu => {
                if y < 0.0 {
                    0.0
                } else {
                    y
                }
            }
            Self::LeakyRelu => {
                if y > 0.0 {
                    y
                } else {
                    0.01 * y
                }
            }
            Self::Tanh => compute_tanh(y),
            Self::Silu => compute_silu(y),
            Self::Softplus => compute_softplus(y),
            Self::Gelu => compute_gelu(y),
        }
    }

    /// The slope at y, times g.
    pub(super) fn backward(self, y: f32, g: f32) -> f32 {
        match self {
            Self::Identity => g,
            Self::Relu => {
                if y > 0.0 {
                    g
                } else {
                    0.0
                }
            }
            Self::LeakyRelu => {
                if y > 0.0 {
                    g
                } else {
                    0.01 * g
                }
            }
            Self::Tanh => {
                let e = tanh_exponential(y);
                let s = 1.0 + e * D;
                let slope = (4.0 * e) / (s * s);
                (slope * D) * g
            }
            Self::Silu => {
                let (sigma, rho) = compute_sigmoid(y);
                let b = at_most(at_least(y, -112.0), 112.0);
                (sigma * fma(b, rho, 1.0)) * g
            }
            Self::Softplus => compute_sigmoid(y).0 * g,
            Self::Gelu => {
                let (e, u, p) = gelu_tail(y);
                let below = (e * fma(u, -0.398_942_3, p)) * D;
                let above = 1.0 - below;
                (if y > 0.0 { above } else { below }) * g
            }
        }
    }
}

pub(super) fn fma(a: f32, b: f32, c: f32) -> f32 {
    a.mul_add(b, c)
}

/// `sums[k] = fma(x, row[k], sums[k])` for all k.
///
/// `mul_add` is slow where the instruction may be missing. The exact product plus the sum, rounded to f64 and then to
/// f32, is the same number, unless the first rounding ends halfway between two f32, or the number is denormal.
pub(super) fn add_products(x: f32, row: &[f32], sums: &mut [f32]) {
    for (row, sums) in row.chunks(16).zip(sums.chunks_mut(16)) {
        let mut twice = [0.0; 16];
        let mut rare = false;
        for ((twice, w), sum) in twice.iter_mut().zip(row).zip(&*sums) {
            let number = f64::from(x) * f64::from(*w) + f64::from(*sum);
            *twice = number as f32;
            rare |= number.to_bits() as u32 & 0x1fff_ffff == 0x1000_0000;
            rare |= number.abs() < f64::from(f32::MIN_POSITIVE) && number != 0.0;
        }

        for ((twice, w), sum) in twice.iter().zip(row).zip(sums) {
            *sum = if rare { fma(x, *w, *sum) } else { *twice };
        }
    }
}

fn at_most(x: f32, limit: f32) -> f32 {
    if x > limit { limit } else { x }
}

fn at_least(x: f32, limit: f32) -> f32 {
    if limit > x { limit } else { x }
}

/// Horner's scheme, lowest coefficient first.
fn poly(x: f32, coefficients: &[f32]) -> f32 {
    let (last, lower) = coefficients.split_last().expect("there are coefficients");
    let mut s = *last;
    for c in lower.iter().rev() {
        s = fma(s, x, *c);
    }
    s
}

/// e^(a + rest)·2⁶⁴ for −112 ≤ a ≤ 0
fn scaled_exp(a: f32, rest: f32) -> f32 {
    let big = 12_582_912.0;
    let k = fma(a, std::f32::consts::LOG2_E, big);
    let n = k - big;
    let r = fma(n, -f32::from_bits(0x3f31_7200), a);
    let r = fma(n, -f32::from_bits(0x35bf_be8e), r) + rest;
    let p = poly(
        r,
        &[
            0.5,
            0.166_665_78,
            0.041_666_724,
            0.008_363_149,
            0.001_390_900_5,
        ],
    );
    let t = fma(r * r, p, r);
    let bits = (k.to_bits() << 23).wrapping_add((127 + 64) << 23);
    (1.0 + t) * f32::from_bits(bits)
}

fn tanh_exponential(y: f32) -> f32 {
    scaled_exp(-2.0 * at_most(y.abs(), 56.0), 0.0)
}

fn compute_tanh(y: f32) -> f32 {
    let e = tanh_exponential(y) * D;
    let size = (1.0 - e) / (1.0 + e);
    let large = if 0.0 > y { 0.0 - size } else { size };

    let q = y * y;
    let p = poly(
        q,
        &[
            -0.333_333_3,
            0.133_329_54,
            -0.053_877_857,
            0.021_125_5,
            -0.006_287_114,
        ],
    );
    let cubic = (y * q) * p;
    let small = if y.abs() > 0.0 { y + cubic } else { y };
    if y.abs() > 0.6 { large } else { small }
}

fn compute_silu(y: f32) -> f32 {
    let e = scaled_exp(0.0 - at_most(y.abs(), 112.0), 0.0);
    let s = 1.0 + e * D;
    let below = ((at_least(y, -112.0) * e) / s) * D;
    if y > 0.0 { y / s } else { below }
}

fn compute_softplus(y: f32) -> f32 {
    let e = scaled_exp(0.0 - at_most(y.abs(), 112.0), 0.0) * D;
    let u = e / (2.0 + e);
    let q = u * u;
    let p = poly(
        q,
        &[
            0.666_666_7,
            0.399_992_73,
            0.286_135_58,
            0.213_817_82,
            0.247_558_28,
        ],
    );
    let cubic = (u * q) * p;
    let log = (u + u) + cubic;
    if y > 0.0 { y + log } else { log }
}

fn compute_sigmoid(x: f32) -> (f32, f32) {
    let e = scaled_exp(0.0 - at_most(x.abs(), 112.0), 0.0) * D;
    let s = 1.0 + e;
    let (near, far) = (1.0 / s, e / s);
    if x > 0.0 { (near, far) } else { (far, near) }
}

/// E, u and p of the tail.
fn gelu_tail(y: f32) -> (f32, f32, f32) {
    let u = at_most(y.abs(), 14.6);
    let q = u * u;
    let err = fma(u, u, 0.0 - q);
    let e = scaled_exp(-0.5 * q, -0.5 * err);
    let v = 1.0 / (u + 4.0);
    let w = (u - 4.0) * v;
    let p = poly(
        w,
        &[
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
        ],
    );
    (e, u, p * v)
}

fn compute_gelu(y: f32) -> f32 {
    let (e, _, p) = gelu_tail(y);
    let t = e * p;
    let above = y * (1.0 - t * D);
    let below = (at_least(y, -14.6) * t) * D;
    if y > 0.0 { above } else { below }
}
