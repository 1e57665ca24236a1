//! The toy loss.

use ergodic_common::config::{Adam, AdamDecay, Length, ModelKind, Norm, Toy, TrialConfig};
use ergodic_common::metric::Metric;
use ergodic_common::random_streams::Purpose;
use ergodic_common::spec::Measure;
use ergodic_common::trial::{Outcome, TrialResult};

use super::cases;
use crate::train::Isa;

fn config(toy: Toy, steps: u64) -> TrialConfig {
    let mut config = cases::small_trial(ModelKind::Toy(toy), Norm::None);
    (config.train.length, config.train.lr, config.train.wd) = (Length::Steps(steps), 0.1, 0.01);
    config.train.momentum = 0.0;
    config
}

const METRICS: [Metric; 5] = [
    Metric::TrainLoss,
    Metric::WeightNormSq,
    Metric::GradWeightCos,
    Metric::GradNorm,
    Metric::EffectiveLr,
];

fn result(config: &TrialConfig, isa: Isa) -> TrialResult {
    cases::result(
        config,
        &Measure::with_metrics(Length::Steps(1), METRICS.to_vec()),
        isa,
    )
}

fn rows(result: &TrialResult) -> Vec<Vec<f64>> {
    result
        .curve
        .values
        .chunks(METRICS.len())
        .map(<[f64]>::to_vec)
        .collect()
}

#[test]
fn descent_is_that_of_the_formula() {
    let start = vec![0.8, -0.5, 1.1];
    let toy = Toy {
        dim: 3,
        noise: 0.0,
        start: Some(start.clone()),
    };
    let result = result(&config(toy, 200), Isa::detect_fastest());

    let mut w = start;
    for row in rows(&result) {
        let loss = |w: &[f64]| w[0] * w[0] / w.iter().map(|x| x * x).sum::<f64>();
        // The gradient by central differences: an independent derivation.
        let slope = |i: usize| {
            let at = |h: f64| {
                loss(
                    &w.iter()
                        .enumerate()
                        .map(|(j, x)| if i == j { x + h } else { *x })
                        .collect::<Vec<_>>(),
                )
            };

            (at(1e-5) - at(-1e-5)) / 2e-5
        };
        let gradient: Vec<f64> = (0..3).map(slope).collect();

        assert!(
            (row[0] - loss(&w)).abs() < 1e-9,
            "{} is not {}",
            row[0],
            loss(&w)
        );

        assert!((row[3] - gradient.iter().map(|g| g * g).sum::<f64>().sqrt()).abs() < 1e-9);
        w.iter_mut()
            .zip(&gradient)
            .for_each(|(x, g)| *x -= 0.1 * (g + 0.01 * *x));
        assert!((row[1] - w.iter().map(|x| x * x).sum::<f64>()).abs() < 1e-9);
    }
}

/// With weight decay, w shrinks until the effective learning rate is too large for it to stay where the loss is small, and is
/// thrown back: the theory's equilibrium. The loss in between is smaller than the square of any number of f32.
#[test]
fn weight_decay_has_an_equilibrium_however_small_the_loss_becomes() {
    let mut config = config(
        Toy {
            dim: 2,
            noise: 0.0,
            start: Some(vec![1.0, 2.0]),
        },
        3000,
    );
    (config.train.lr, config.train.wd) = (0.1, 0.1);

    let found = rows(&result(&config, Isa::detect_fastest()));
    let smallest = found.iter().map(|row| row[0]).fold(1.0, f64::min);
    assert!(smallest > 0.0 && smallest < 1e-90, "{smallest:e}");

    for (step, row) in found.iter().enumerate().skip(200) {
        assert!(
            (0.01..1.0).contains(&row[1]),
            "‖w‖² is {} after step {}",
            row[1],
            step + 1
        );
    }

    // Until w is thrown back for the first time: the factors by which w₁ and w₂ change, w₁ as a sign and a logarithm.
    let mut log_w1 = 0.0_f64;
    let mut w2 = 2.0_f64;

    for row in &found[..240] {
        let square = (2.0 * log_w1).exp() + w2 * w2;
        let loss = (2.0 * log_w1).exp() / square;
        assert!(
            (row[0].ln() - loss.ln()).abs() < 1e-6,
            "{:e} is not {loss:e}",
            row[0]
        );

        log_w1 += (1.0 - 0.01 - 0.2 * (1.0 - loss) / square).abs().ln();
        w2 *= 1.0 - 0.01 + 0.2 * loss / square;
    }
}

#[test]
fn a_trial_whose_w1_no_number_holds_any_more_fails_and_says_so() {
    let mut config = config(
        Toy {
            dim: 2,
            noise: 0.0,
            start: Some(vec![1.0, 2.0]),
        },
        100_000,
    );
    (config.train.lr, config.train.wd) = (0.1, 0.001);

    let measure = Measure::with_metrics(Length::Steps(1000), METRICS.to_vec());
    let lost = cases::result(&config, &measure, Isa::detect_fastest());
    assert!(
        matches!(&lost.outcome, Outcome::Failed { cause } if cause.contains("model.noise")),
        "{:?}",
        lost.outcome
    );

    assert!(lost.steps > 1000);
    // Where w₁ is 0 from the start nothing is lost, and noise keeps it above.
    let toy = |noise, start: [f64; 2]| {
        ModelKind::Toy(Toy {
            dim: 2,
            noise,
            start: Some(start.to_vec()),
        })
    };

    for kind in [toy(0.0, [0.0, 2.0]), toy(1e-3, [1.0, 2.0])] {
        config.model.kind = kind;
        assert_eq!(
            cases::result(&config, &measure, Isa::detect_fastest()).outcome,
            Outcome::Completed
        );
    }
}

/// Every optimizer by its formula, on the gradient written out.
#[test]
fn optimizers_are_those_of_their_formulas() {
    let start = vec![0.8, -0.5, 1.1];
    let (coupled, decoupled) = (Some(AdamDecay::Coupled), Some(AdamDecay::Decoupled));
    for (momentum, nesterov, adam, clip_norm) in [
        (0.9, false, None, None),
        (0.9, true, None, None),
        (0.0, false, decoupled, None),
        (0.0, false, coupled, None),
        (0.9, true, None, Some(0.3)),
        (0.0, false, coupled, Some(0.3)),
    ] {
        let mut config = config(
            Toy {
                dim: 3,
                noise: 0.0,
                start: Some(start.clone()),
            },
            50,
        );
        (config.train.momentum, config.train.nesterov) = (momentum, nesterov);

        config.train.clip_norm = clip_norm;
        config.train.adam = adam.map(|decay| Adam {
            beta1: 0.9,
            beta2: 0.99,
            eps: 1e-3,
            decay,
        });
        let found = rows(&result(&config, Isa::detect_fastest()));

        let mut w = start.clone();
        let mut m = [0.0; 3];
        let mut v = [0.0; 3];

        for (step, row) in found.iter().enumerate() {
            let square: f64 = w.iter().map(|x| x * x).sum();
            let loss = w[0] * w[0] / square;

            let slope = |i: usize| 2.0 * w[i] * (f64::from(u8::from(i == 0)) - loss) / square;
            let slopes = [0, 1, 2].map(slope);
            let size = slopes.iter().map(|g| g * g).sum::<f64>().sqrt();
            let clip = clip_norm.map_or(1.0, |most: f64| (most / (size + 1e-6)).min(1.0));

            for i in 0..3 {
                let mut g = clip * slopes[i];
                if let Some(decay) = adam {
                    let keep = match decay {
                        AdamDecay::Coupled => 1.0,
                        AdamDecay::Decoupled => 1.0 - 0.1 * 0.01,
                    };
                    g += if keep == 1.0 { 0.01 * w[i] } else { 0.0 };
                    let t = step as i32 + 1;
                    (m[i], v[i]) = (0.9 * m[i] + 0.1 * g, 0.99 * v[i] + 0.01 * g * g);
                    let mean = m[i] / (1.0 - 0.9_f64.powi(t));
                    let size = v[i] / (1.0 - 0.99_f64.powi(t));
                    w[i] = keep * w[i] - 0.1 * mean / (size.sqrt() + 1e-3);
                } else {
                    let decayed = g + 0.01 * w[i];
                    m[i] = momentum * m[i] + decayed;
                    w[i] -= 0.1
                        * if nesterov {
                            decayed + momentum * m[i]
                        } else {
                            m[i]
                        };
                }
            }

            assert!(
                (row[0] - loss).abs() < 1e-11,
                "{momentum} {nesterov} {adam:?}: {} is not {loss}",
                row[0]
            );
        }
    }
}

#[test]
fn gradient_and_noise_are_at_right_angles_to_w_and_scale_with_its_inverse() {
    let noisy = Toy {
        dim: 50,
        noise: 0.3,
        start: None,
    };
    let a = result(&config(noisy.clone(), 100), Isa::detect_fastest());
    assert!(
        rows(&a).iter().all(|row| row[2].abs() < 1e-6),
        "{:?}",
        rows(&a)[0]
    );

    let mut scaled = config(noisy, 100);
    (scaled.model.init_scale, scaled.train.lr, scaled.train.wd) = (2.0, 0.4, 0.0025);
    let b = result(&scaled, Isa::detect_fastest());
    for (a, b) in rows(&a).iter().zip(rows(&b)) {
        assert_eq!(
            (a[0], a[1] * 4.0, a[3] / 2.0, a[4]),
            (b[0], b[1], b[3], b[4]),
            "powers of two are exact"
        );
    }

    let still = result(
        &config(
            Toy {
                dim: 50,
                noise: 0.0,
                start: None,
            },
            100,
        ),
        Isa::detect_fastest(),
    );

    assert_ne!(still.digest, a.digest);
}

/// However small or large w is, where its square is 0 or infinite to any number.
#[test]
fn the_loss_does_not_depend_on_the_size_of_w() {
    let power = |exponent: i32| libm::pow(2.0, f64::from(exponent));
    for noise in [0.0, 0.3] {
        let losses = |exponent: i32, lr: f64| -> Vec<f64> {
            let start = None;
            let dim = 50;
            let mut config = config(Toy { dim, noise, start }, 20);
            config.model.init_scale = power(exponent);
            (config.train.lr, config.train.wd) = (lr, 0.0);
            let result = result(&config, Isa::detect_fastest());
            rows(&result).iter().map(|row| row[0]).collect()
        };

        // Powers of two are exact.
        let descending = losses(0, 0.125);
        assert_eq!(descending.len(), 20);
        for exponent in [-500, -100, 100, 500] {
            let scaled = losses(exponent, 0.125 * power(2 * exponent));
            assert_eq!(scaled, descending, "2^{exponent}");
        }

        let still = losses(0, 0.0);
        for exponent in [-900, 900] {
            assert_eq!(losses(exponent, 0.0), still, "2^{exponent}");
        }
    }
}

#[test]
fn a_point_that_is_drawn_has_all_digits() {
    let toy = Toy {
        dim: 50,
        noise: 0.0,
        start: None,
    };
    let mut still = config(toy, 1);
    (still.train.lr, still.train.wd, still.model.init_scale) = (0.0, 0.0, 1.5);
    let found = rows(&result(&still, Isa::detect_fastest()))[0][1];

    let mut stream = cases::streams(0).open_stream(Purpose::Init, b"w");
    let drawn = (0..50).map(|_| 1.5 * stream.next_normal());
    let expected: f64 = drawn.map(|x| x * x).sum();
    assert!(
        (found / expected - 1.0).abs() < 1e-14,
        "{found} is not {expected}"
    );
}

#[test]
fn bits_do_not_depend_on_the_instruction_set_and_nothing_is_undefined_but_by_name() {
    let toy = Toy {
        dim: 19,
        noise: 0.1,
        start: None,
    };
    let results: Vec<TrialResult> = Isa::ALL
        .into_iter()
        .filter(|isa| isa.is_available())
        .map(|isa| result(&config(toy.clone(), 50), isa))
        .collect();
    assert!(
        results
            .iter()
            .all(|r| r.digest == results[0].digest && r.curve == results[0].curve)
    );

    assert!(results[0].metrics.iter().all(|x| x.is_finite()));
    let mut wild = config(toy, 50);
    wild.train.lr = 1e38;
    assert!(matches!(
        result(&wild, Isa::detect_fastest()).outcome,
        Outcome::Diverged { .. }
    ));
}
