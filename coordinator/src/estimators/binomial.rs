//! Binomial probabilities, and the exact interval of a share.

/// Probability that `k` or more of `n` trials succeed, each with probability `p`.
pub fn upper_tail(k: u64, n: u64, p: f64) -> f64 {
    match k {
        0 => 1.0,
        k if k > n => 0.0,
        _ => incomplete_beta(k as f64, (n - k + 1) as f64, p.clamp(0.0, 1.0)),
    }
}

/// Probability that `k` or fewer of `n` trials succeed, each with probability `p`.
pub fn lower_tail(k: u64, n: u64, p: f64) -> f64 {
    if k >= n {
        return 1.0;
    }
    incomplete_beta((n - k) as f64, (k + 1) as f64, 1.0 - p.clamp(0.0, 1.0))
}

/// The exact interval of a share (Clopper and Pearson 1934), which misses the true share above and below with probability
/// `alpha` each at most. [0, 1] for no trials.
pub fn clopper_pearson(k: u64, n: u64, alpha: f64) -> (f64, f64) {
    let low = if k == 0 {
        0.0
    } else {
        find_root(|p| upper_tail(k, n, p) - alpha)
    };
    let high = if k >= n {
        1.0
    } else {
        find_root(|p| alpha - lower_tail(k, n, p))
    };
    (low, high)
}

/// The root in [0, 1] of a function that grows, by bisection.
fn find_root(grows: impl Fn(f64) -> f64) -> f64 {
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..200 {
        let middle = 0.5 * (low + high);
        if grows(middle) < 0.0 {
            low = middle;
        } else {
            high = middle;
        }
    }
    0.5 * (low + high)
}

/// The regularised incomplete beta function I_x(a, b), for a, b > 0: a continued fraction, by Lentz's method.
fn incomplete_beta(a: f64, b: f64, x: f64) -> f64 {
    if x <= 0.0 || x >= 1.0 {
        return f64::from(u8::from(x >= 1.0));
    }
    // The fraction converges fast on one side of the mean, so the other side is found by symmetry.
    if x > (a + 1.0) / (a + b + 2.0) {
        return 1.0 - incomplete_beta(b, a, 1.0 - x);
    }

    let front = libm::lgamma(a + b) - libm::lgamma(a) - libm::lgamma(b)
        + a * libm::log(x)
        + b * libm::log1p(-x);
    (libm::exp(front) / a * beta_fraction(a, b, x)).clamp(0.0, 1.0)
}

/// Replaces a denominator that is all but 0.
fn away_from_0(value: f64) -> f64 {
    const TINY: f64 = 1e-300;
    if value.abs() < TINY { TINY } else { value }
}

fn beta_fraction(a: f64, b: f64, x: f64) -> f64 {
    let mut c = 1.0;
    let mut d = 1.0 / away_from_0(1.0 - (a + b) * x / (a + 1.0));
    let mut fraction = d;

    for m in 1..100_000 {
        let m = f64::from(m);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        let mut change = 1.0;
        for term in [even, odd] {
            d = 1.0 / away_from_0(1.0 + term * d);
            c = away_from_0(1.0 + term / c);
            change = d * c;
            fraction *= change;
        }
        if (change - 1.0).abs() < 1e-16 {
            break;
        }
    }

    fraction
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tails_are_sums_of_terms() {
        // Three of four: 4 p³(1 − p) + p⁴.
        let p: f64 = 0.3;
        let exact = 4.0 * p.powi(3) * (1.0 - p) + p.powi(4);
        assert!((upper_tail(3, 4, p) - exact).abs() < 1e-14);
        assert!((lower_tail(2, 4, p) - (1.0 - exact)).abs() < 1e-14);
        assert_eq!((upper_tail(0, 4, p), lower_tail(4, 4, p)), (1.0, 1.0));
        assert_eq!((lower_tail(0, 4, 0.0), lower_tail(3, 4, 1.0)), (1.0, 0.0));
    }

    #[test]
    fn fifty_nine_trials_without_one_show_five_percent() {
        let (low, high) = clopper_pearson(0, 59, 0.05);
        assert_eq!(low, 0.0);
        assert!(
            high <= 0.05 && clopper_pearson(0, 58, 0.05).1 > 0.05,
            "{high}"
        );
        assert_eq!(clopper_pearson(7, 7, 0.05).1, 1.0);
        assert!((clopper_pearson(7, 7, 0.05).0 - 0.05_f64.powf(1.0 / 7.0)).abs() < 1e-12);
    }
}
