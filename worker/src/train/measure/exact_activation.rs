//! The functions that layers apply to each number, with two derivatives, in f64.

use std::f64::consts::{FRAC_1_SQRT_2, PI};

use ergodic_common::config::Activation;

/// The function.
pub(crate) fn activate(activation: Activation, x: f64) -> f64 {
    match activation {
        Activation::Identity => x,
        Activation::Relu => {
            if x > 0.0 {
                x
            } else {
                0.0
            }
        }
        Activation::LeakyRelu => x * slope_at(activation, x),
        Activation::Tanh => libm::tanh(x),
        Activation::Gelu => x * normal_distribution(x),
        Activation::Silu => x * sigmoid(x),
        Activation::Softplus => x.max(0.0) + libm::log1p(libm::exp(-x.abs())),
    }
}

/// The slope of an activation; at the kink of a ReLU that on the left.
pub(crate) fn slope_at(activation: Activation, x: f64) -> f64 {
    match activation {
        Activation::Identity => 1.0,
        Activation::Relu => f64::from(u8::from(x > 0.0)),
        Activation::LeakyRelu => {
            if x > 0.0 {
                1.0
            } else {
                Activation::LEAKY_SLOPE
            }
        }
        Activation::Tanh => {
            let e = libm::exp(-2.0 * x.abs());
            4.0 * e / ((1.0 + e) * (1.0 + e))
        }
        Activation::Gelu => normal_distribution(x) + x * normal_density(x),
        Activation::Silu => sigmoid(x) * (1.0 + x * sigmoid(-x)),
        Activation::Softplus => sigmoid(x),
    }
}

/// The second derivative of an activation, which is left out at a kink.
pub(crate) fn curvature_at(activation: Activation, x: f64) -> f64 {
    match activation {
        Activation::Identity | Activation::Relu | Activation::LeakyRelu => 0.0,
        Activation::Tanh => {
            let y = libm::tanh(x);
            -2.0 * y * slope_at(activation, x)
        }
        Activation::Gelu => (2.0 - x * x) * normal_density(x),
        Activation::Silu => {
            let (up, down) = (sigmoid(x), sigmoid(-x));
            up * down * (2.0 + x * (down - up))
        }
        Activation::Softplus => sigmoid(x) * sigmoid(-x),
    }
}

/// 1/(1 + e⁻ˣ)
fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + libm::exp(-x))
}

/// Φ(x)
fn normal_distribution(x: f64) -> f64 {
    0.5 * libm::erfc(-x * FRAC_1_SQRT_2)
}

/// φ(x)
fn normal_density(x: f64) -> f64 {
    libm::exp(-0.5 * x * x) / (2.0 * PI).sqrt()
}

#[cfg(test)]
mod tests {
    use ergodic_common::config::ACTIVATIONS;

    use super::*;

    #[test]
    fn slopes_and_curvatures_are_limits_of_differences() {
        const STEP: f64 = 1e-5;
        for (name, activation) in ACTIVATIONS {
            for at in -80..=80 {
                // Between the kinks.
                let x = f64::from(at) / 10.0 + 0.03;
                let difference = |f: fn(Activation, f64) -> f64| {
                    (f(activation, x + STEP) - f(activation, x - STEP)) / (2.0 * STEP)
                };
                let slope = slope_at(activation, x);
                let curvature = curvature_at(activation, x);
                assert!((difference(activate) - slope).abs() < 1e-8, "{name} {x}");
                assert!(
                    (difference(slope_at) - curvature).abs() < 1e-8,
                    "{name} {x}"
                );
            }
        }
    }
}
