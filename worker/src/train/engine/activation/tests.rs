use ergodic_common::config::ACTIVATIONS;

use super::*;
use crate::train::engine::simd::Kernel;
use crate::train::measure::exact_activation::{activate, slope_at};
use crate::train::{Isa, SimdProgram};

/// Applies an activation, and its slope to gradients of 1.
struct Applied<'a> {
    activation: Activation,
    numbers: &'a [[f32; BLOCK]],
    values: &'a mut Vec<[f32; BLOCK]>,
    slopes: &'a mut Vec<[f32; BLOCK]>,
}

impl SimdProgram for Applied<'_> {
    fn run_with<S: Simd16>(self, s: S) {
        s.dispatch(self);
    }
}

impl Kernel for Applied<'_> {
    #[inline(always)]
    fn run_with<S: Simd16>(self, s: S) {
        run_for_activation(s, self.activation, self);
    }
}

impl ActivatedKernel for Applied<'_> {
    #[inline(always)]
    fn run_for<S: Simd16, A: ActivationFn>(self, s: S) {
        for x in self.numbers {
            let x = s.load(x);
            let mut out = [0.0; BLOCK];
            s.store(A::value(s, x), &mut out);
            self.values.push(out);
            s.store(A::backward(s, x, s.splat(1.0)), &mut out);
            self.slopes.push(out);
        }
    }
}

/// Values and slopes at some numbers.
fn applied(activation: Activation, numbers: &[f32], isa: Isa) -> [Vec<f32>; 2] {
    let blocks: Vec<[f32; BLOCK]> = numbers
        .chunks(BLOCK)
        .map(|some| std::array::from_fn(|i| some.get(i).copied().unwrap_or_default()))
        .collect();
    let (mut values, mut slopes) = (Vec::new(), Vec::new());
    isa.run_program(Applied {
        activation,
        numbers: &blocks,
        values: &mut values,
        slopes: &mut slopes,
    });

    [values, slopes].map(|blocks| {
        let all = blocks.into_iter().flatten();
        all.take(numbers.len()).collect()
    })
}

/// Every 997th f32 that is a number, the infinite ones left out.
fn dense_numbers() -> Vec<f32> {
    let all = (0..=u32::MAX).step_by(997).map(f32::from_bits);
    all.filter(|x| x.is_finite()).collect()
}

/// The unit in the last place of an f32 of this size.
fn ulp(x: f64) -> f64 {
    let exponent = libm::ilogb(x.abs().max(f64::from(f32::MIN_POSITIVE)));
    libm::ldexp(1.0, exponent - 23)
}

/// The largest error of `found`, in ulp of what is exact, or of `least` if that is larger; and where it is.
fn largest_error(
    numbers: &[f32],
    found: &[f32],
    exact: impl Fn(f64) -> f64,
    least: f64,
) -> (f64, f32) {
    let mut worst = (0.0, f32::NAN);
    for (x, y) in numbers.iter().zip(found) {
        let exact = exact(f64::from(*x));
        let error = (f64::from(*y) - exact).abs() / ulp(exact.abs().max(least));
        if error.is_nan() || error > worst.0 {
            worst = (error, *x);
        }
    }
    worst
}

/// Bounds of the errors of value and slope in ulp. Slopes that pass through 0 cannot be that exact beside their zero, nor
/// where they are denormal: their errors are in ulp of 1/8 or more there.
const BOUNDS: [(Activation, f64, f64); 7] = [
    (Activation::Identity, 0.0, 0.0),
    (Activation::Relu, 0.0, 0.0),
    (Activation::LeakyRelu, 1.0, 1.0),
    (Activation::Tanh, 2.0, 4.0),
    (Activation::Gelu, 6.0, 7.0),
    (Activation::Silu, 3.0, 3.5),
    (Activation::Softplus, 3.0, 3.0),
];

#[test]
fn values_and_slopes_are_exact_to_a_few_units_in_the_last_place() {
    let numbers = dense_numbers();
    let mut far = Vec::new();
    for (activation, of_value, of_slope) in BOUNDS {
        let [values, slopes] = applied(activation, &numbers, Isa::detect_fastest());
        let least = match activation {
            Activation::Gelu | Activation::Silu => 0.125,
            _ => 0.0,
        };
        let (error, at) = largest_error(&numbers, &values, |x| activate(activation, x), 0.0);
        let (slope_error, slope_at_x) =
            largest_error(&numbers, &slopes, |x| slope_at(activation, x), least);

        if !(error <= of_value && slope_error <= of_slope) {
            far.push((activation, error, at, slope_error, slope_at_x));
        }
    }
    assert!(far.is_empty(), "{far:?}");
}

#[test]
fn limits_zeros_and_what_is_no_number_come_out_right() {
    let inf = f32::INFINITY;
    let limits: [(Activation, [f32; 4], [f32; 3]); 7] = [
        // At −∞, −0, 0 and ∞; slopes at −∞, 0 and ∞.
        (
            Activation::Identity,
            [-inf, -0.0, 0.0, inf],
            [1.0, 1.0, 1.0],
        ),
        (Activation::Relu, [0.0, -0.0, 0.0, inf], [0.0, 0.0, 1.0]),
        (
            Activation::LeakyRelu,
            [-inf, -0.0, 0.0, inf],
            [0.01, 0.01, 1.0],
        ),
        (Activation::Tanh, [-1.0, -0.0, 0.0, 1.0], [0.0, 1.0, 0.0]),
        (Activation::Gelu, [-0.0, -0.0, 0.0, inf], [0.0, 0.5, 1.0]),
        (Activation::Silu, [-0.0, -0.0, 0.0, inf], [0.0, 0.5, 1.0]),
        (
            Activation::Softplus,
            [0.0, std::f32::consts::LN_2, std::f32::consts::LN_2, inf],
            [0.0, 0.5, 1.0],
        ),
    ];

    for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
        for (activation, expected, expected_slopes) in limits {
            let [values, slopes] = applied(activation, &[-inf, -0.0, 0.0, inf, f32::NAN], isa);
            let bits = |all: &[f32]| all.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&values[..4]), bits(&expected), "{activation:?} {isa}");
            assert_eq!(
                [slopes[0], slopes[2], slopes[3]],
                expected_slopes,
                "{activation:?} {isa}"
            );
            assert_eq!(slopes[1], slopes[2], "{activation:?} {isa}");
            assert!(values[4].is_nan(), "{activation:?} {isa}");

            for x in [f32::MAX, 1e30, 200.0] {
                let [values, slopes] = applied(activation, &[-x, x], isa);
                let near = |a: f32, b: f32| (a - b).abs() <= 2e-7 * b.abs();
                for (at, x) in [-x, x].into_iter().enumerate() {
                    let exact = activate(activation, f64::from(x)) as f32;
                    assert!(near(values[at], exact), "{activation:?}({x}) {isa}");
                    let exact = slope_at(activation, f64::from(x)) as f32;
                    assert!(near(slopes[at], exact), "{activation:?}′({x}) {isa}");
                }
            }
        }
    }
}

#[test]
fn all_instruction_sets_give_the_same_bits() {
    let numbers: Vec<f32> = (0..=u32::MAX).step_by(9973).map(f32::from_bits).collect();
    let bits = |all: Vec<f32>| -> Vec<Option<u32>> {
        all.iter()
            .map(|x| (!x.is_nan()).then_some(x.to_bits()))
            .collect()
    };

    for (name, activation) in ACTIVATIONS {
        let expected = applied(activation, &numbers, Isa::Portable).map(bits);
        for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
            assert!(
                applied(activation, &numbers, isa).map(bits) == expected,
                "{name} on {isa}"
            );
        }
    }
}
