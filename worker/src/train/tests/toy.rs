//! The toy loss.

use ergodic_common::config::{Length, ModelKind, Norm, Toy, TrialConfig};
use ergodic_common::metric::Metric;
use ergodic_common::spec::Measure;
use ergodic_common::trial::{Outcome, TrialResult};

use super::cases;
use crate::train::Isa;

fn config(toy: Toy, steps: u64) -> TrialConfig {
    let mut config = cases::of(ModelKind::Toy(toy), Norm::None);
    (config.train.length, config.train.lr, config.train.wd) = (Length::Steps(steps), 0.1, 0.01);
    config.train.momentum = 0.0;
    config
}

const METRICS: [Metric; 5] =
    [Metric::TrainLoss, Metric::WeightNormSq, Metric::GradWeightCos, Metric::GradNorm, Metric::EffectiveLr];

fn result(config: &TrialConfig, isa: Isa) -> TrialResult {
    cases::result(config, &Measure::sampling(Length::Steps(1), METRICS.to_vec()), isa)
}

fn rows(result: &TrialResult) -> Vec<Vec<f64>> {
    result.curve.values.chunks(METRICS.len()).map(<[f64]>::to_vec).collect()
}

#[test]
fn descent_is_that_of_the_formula() {
    let start = vec![0.8, -0.5, 1.1];
    let toy = Toy { dim: 3, noise: 0.0, start: Some(start.clone()) };
    let result = result(&config(toy, 200), Isa::detect());
    let mut w: Vec<f64> = start.iter().map(|x| f64::from(*x as f32)).collect();
    for row in rows(&result) {
        let loss = |w: &[f64]| w[0] * w[0] / w.iter().map(|x| x * x).sum::<f64>();
        // The gradient by central differences: an independent derivation.
        let slope = |i: usize| {
            let at =
                |h: f64| loss(&w.iter().enumerate().map(|(j, x)| if i == j { x + h } else { *x }).collect::<Vec<_>>());
            (at(1e-5) - at(-1e-5)) / 2e-5
        };
        let gradient: Vec<f64> = (0..3).map(slope).collect();
        assert!((row[0] - loss(&w)).abs() < 1e-5, "{} is not {}", row[0], loss(&w));
        assert!((row[3] - gradient.iter().map(|g| g * g).sum::<f64>().sqrt()).abs() < 1e-5);
        w.iter_mut().zip(&gradient).for_each(|(x, g)| *x -= 0.1 * (g + 0.01 * *x));
        assert!((row[1] - w.iter().map(|x| x * x).sum::<f64>()).abs() < 1e-4);
    }
}

#[test]
fn gradient_and_noise_are_at_right_angles_to_w_and_scale_with_its_inverse() {
    let noisy = Toy { dim: 50, noise: 0.3, start: None };
    let a = result(&config(noisy.clone(), 100), Isa::detect());
    assert!(rows(&a).iter().all(|row| row[2].abs() < 1e-6), "{:?}", rows(&a)[0]);
    let mut scaled = config(noisy, 100);
    (scaled.model.init_scale, scaled.train.lr, scaled.train.wd) = (2.0, 0.4, 0.0025);
    let b = result(&scaled, Isa::detect());
    for (a, b) in rows(&a).iter().zip(rows(&b)) {
        assert_eq!((a[0], a[1] * 4.0, a[3] / 2.0, a[4]), (b[0], b[1], b[3], b[4]), "powers of two are exact");
    }
    let still = result(&config(Toy { dim: 50, noise: 0.0, start: None }, 100), Isa::detect());
    assert_ne!(still.digest, a.digest);
}

#[test]
fn bits_do_not_depend_on_the_instruction_set_and_nothing_is_undefined_but_by_name() {
    let toy = Toy { dim: 19, noise: 0.1, start: None };
    let results: Vec<TrialResult> =
        Isa::ALL.into_iter().filter(|isa| isa.available()).map(|isa| result(&config(toy.clone(), 50), isa)).collect();
    assert!(results.iter().all(|r| r.digest == results[0].digest && r.curve == results[0].curve));
    assert!(results[0].metrics.iter().all(|x| x.is_finite()));
    let mut wild = config(toy, 50);
    wild.train.lr = 1e38;
    assert!(matches!(result(&wild, Isa::detect()).outcome, Outcome::Diverged { .. }));
}
