//! Normal and Student quantiles and binomial tails, to about 1e-14, from `libm`: the same bits on every machine.

use std::f64::consts::{FRAC_1_SQRT_2, PI, SQRT_2};
use std::sync::LazyLock;

/// Probability that a standard normal variable is above `z`.
pub fn normal_upper_tail(z: f64) -> f64 {
    0.5 * libm::erfc(z * FRAC_1_SQRT_2)
}

/// Probability that a standard normal variable is below `z`.
pub fn normal_cdf(z: f64) -> f64 {
    normal_upper_tail(-z)
}

/// Standard normal quantile of `p` in (0, 1).
pub fn normal_quantile(p: f64) -> f64 {
    if p < 0.5 {
        return -normal_upper_quantile(p);
    }
    normal_upper_quantile(1.0 - p)
}

/// The z ≥ 0 with probability `tail` ≤ ½ above it: a rational guess (Hastings 1955, error below 5e-4), then Halley's
/// method, which triples the digits.
fn normal_upper_quantile(tail: f64) -> f64 {
    let t = (-2.0 * libm::log(tail)).sqrt();
    let mut z = t
        - (2.515_517 + t * (0.802_853 + t * 0.010_328))
            / (1.0 + t * (1.432_788 + t * (0.189_269 + t * 0.001_308)));

    for _ in 0..3 {
        let density = libm::exp(-0.5 * z * z) / (SQRT_2 * PI.sqrt());
        let newton = (normal_upper_tail(z) - tail) / density;
        z += newton / (1.0 - 0.5 * newton * z);
    }

    z
}

/// Quantile of Student's t with `degrees` ≥ 1 degrees of freedom, for `p` in [½, 1).
pub fn student_t_quantile(p: f64, degrees: f64) -> f64 {
    if degrees == 1.0 {
        return libm::tan(PI * (p - 0.5));
    }

    // The distribution function is concave above 0, so Newton's method climbs from the normal
    // quantile, which is below.
    let inside = p - 0.5;
    let scale = gamma_ratio(0.5 * degrees) / PI.sqrt();
    let mut t = normal_quantile(p);

    for _ in 0..100 {
        let density = scale / degrees.sqrt()
            * libm::exp(-0.5 * (degrees + 1.0) * libm::log1p(t * t / degrees));
        let step = (inside
            - scale * cosine_power_integral(libm::atan(t / degrees.sqrt()), degrees - 1.0))
            / density;
        t += step;

        if step.abs() <= 1e-15 * t.abs() {
            break;
        }
    }

    t
}

/// Probability that Student's t with `degrees` ≥ 1 degrees of freedom is below `t`; to 1e-15, not to all digits of a small tail.
pub fn student_t_cdf(t: f64, degrees: f64) -> f64 {
    let scale = gamma_ratio(0.5 * degrees) / PI.sqrt();
    let inside = scale * cosine_power_integral(libm::atan(t.abs() / degrees.sqrt()), degrees - 1.0);
    (0.5 + inside.min(0.5) * t.signum()).clamp(0.0, 1.0)
}

/// ∫ cosᵏ θ dθ from 0 to `to` < π/2: with t = √ν·tan θ, the integral of Student's density. The integrand is smooth
/// for all ν, so that one rule of 32 points reaches the last digits.
fn cosine_power_integral(to: f64, k: f64) -> f64 {
    let half = 0.5 * to;
    half * GAUSS_LEGENDRE
        .iter()
        .map(|(x, weight)| {
            let sine = libm::sin(half * (1.0 + x));
            weight * libm::exp(0.5 * k * libm::log1p(-sine * sine))
        })
        .sum::<f64>()
}

const GAUSS_POINTS: usize = 32;

/// Points and weights of the Gauss–Legendre rule on [−1, 1].
static GAUSS_LEGENDRE: LazyLock<[(f64, f64); GAUSS_POINTS]> = LazyLock::new(|| {
    let n = GAUSS_POINTS as f64;
    std::array::from_fn(|i| {
        let mut x = libm::cos(PI * (i as f64 + 0.75) / (n + 0.5));
        let mut slope = 0.0;
        for _ in 0..10 {
            let mut before = 1.0;
            let mut value = x;
            for k in 2..=GAUSS_POINTS {
                let k = k as f64;
                (before, value) = (
                    value,
                    ((2.0 * k - 1.0) * x * value - (k - 1.0) * before) / k,
                );
            }
            slope = n * (x * value - before) / (x * x - 1.0);
            x -= value / slope;
        }
        (x, 2.0 / ((1.0 - x * x) * slope * slope))
    })
});

/// Γ(x + ½)/Γ(x): by Stirling's series from 16 on, below by the recurrence. A difference of two logarithms of Γ would
/// lose digits as x grows.
fn gamma_ratio(x: f64) -> f64 {
    let mut x = x;
    let mut factor = 1.0;

    while x < 16.0 {
        factor *= x / (x + 0.5);
        x += 1.0;
    }

    let y = x + 0.5;
    factor
        * x.sqrt()
        * libm::exp(x * libm::log1p(0.5 / x) - 0.5 + stirling_remainder(y) - stirling_remainder(x))
}

/// ln Γ(x) − ((x − ½)·ln x − x + ½·ln 2π), for x ≥ 16.
fn stirling_remainder(x: f64) -> f64 {
    let s = 1.0 / (x * x);
    (1.0 / 12.0
        - s * (1.0 / 360.0
            - s * (1.0 / 1260.0 - s * (1.0 / 1680.0 - s * (1.0 / 1188.0 - s * 691.0 / 360_360.0)))))
        / x
}

/// Quantile of the χ² distribution with any number of degrees of freedom above 0, 0 < p < 1.
pub fn chi_squared_quantile(p: f64, degrees: f64) -> f64 {
    let shape = 0.5 * degrees;
    let mut high = shape.max(1.0);
    while lower_regularized_gamma(shape, high) < p && high < 1e300 {
        high *= 2.0;
    }

    let mut low = 0.0;
    // Bisects until the ends are adjacent floats: the function is monotone, but its slope may
    // vanish at 0, where Newton's method would fail.
    loop {
        let middle = 0.5 * (low + high);
        if middle <= low || middle >= high {
            return 2.0 * high;
        }

        if lower_regularized_gamma(shape, middle) < p {
            low = middle
        } else {
            high = middle
        }
    }
}

/// The regularized incomplete gamma function P(a, x), x > 0: by its series below a + 1, by its continued fraction (Lentz's
/// method) above.
fn lower_regularized_gamma(a: f64, x: f64) -> f64 {
    let front = libm::exp(a * libm::log(x) - x - libm::lgamma(a));
    if x < a + 1.0 {
        let mut term = 1.0 / a;
        let mut sum = 1.0 / a;
        let mut k = a;

        while term > sum * f64::EPSILON {
            k += 1.0;
            term *= x / k;
            sum += term;
        }

        return front * sum;
    }

    let mut b = x + 1.0 - a;
    let mut c = f64::MAX;
    let mut d = 1.0 / b;
    let mut fraction = d;

    for i in 1..100_000 {
        let step = -f64::from(i) * (f64::from(i) - a);
        b += 2.0;
        d = 1.0 / (step * d + b);
        c = b + step / c;
        fraction *= d * c;

        if (d * c - 1.0).abs() < f64::EPSILON {
            break;
        }
    }

    1.0 - front * fraction
}

/// Probability of at most `k` heads among `n` throws of a fair coin. Terms are taken relative to the middle one and
/// divided by the sum of all, so that nothing overflows.
pub fn fair_binomial_cdf(k: u64, n: u64) -> f64 {
    let middle = n / 2;
    let mut term = 1.0_f64;
    let mut all = 0.0;
    let mut tail = 0.0;

    for heads in (0..=middle).rev() {
        // By symmetry every term counts twice, except the middle one of an even n.
        all += if 2 * heads == n { term } else { 2.0 * term };
        if heads <= k {
            tail += term;
        }

        term *= heads as f64 / (n - heads + 1) as f64;
        if term == 0.0 {
            break;
        }
    }

    if k >= n {
        1.0
    } else if k > middle {
        1.0 - fair_binomial_cdf(n - k - 1, n)
    } else {
        tail / all
    }
}

#[cfg(test)]
mod tests {
    use crate::estimators::special::*;

    #[test]
    fn closed_forms() {
        assert!(normal_quantile(0.5).abs() < 1e-15);
        assert!((normal_quantile(0.975) - 1.959_963_984_540_054).abs() < 1e-14);
        assert!((normal_quantile(1e-9) + normal_quantile(1.0 - 1e-9)).abs() < 1e-6);

        // With two degrees of freedom, t = (2p − 1)·√(2/(4p(1 − p))).
        for p in [0.6_f64, 0.9, 0.995] {
            let exact = (2.0 * p - 1.0) * (2.0 / (4.0 * p * (1.0 - p))).sqrt();
            assert!(
                (student_t_quantile(p, 2.0) / exact - 1.0).abs() < 1e-13,
                "{p}"
            );
        }

        assert_eq!(
            (
                fair_binomial_cdf(0, 3),
                fair_binomial_cdf(1, 3),
                fair_binomial_cdf(2, 3),
                fair_binomial_cdf(3, 3)
            ),
            (0.125, 0.5, 0.875, 1.0)
        );

        assert_eq!(fair_binomial_cdf(2, 4), 11.0 / 16.0);
    }
}
