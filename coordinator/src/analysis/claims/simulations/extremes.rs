//! Claims about extremes, quantiles and events of mean curves, the extremes over a flat part of the curve: there, the noise of the
//! mean curve moves its extreme away from the true one.

use ergodic_common::random_streams::{RandomStream, fixed_stream};
use rayon::prelude::*;

use super::super::jobs::TrialValue;
use super::super::read::TrialCounts;
use super::super::tests::Experiment;
use super::check_cases;
use super::laws::{ALPHA, NumberLaw, SimulatedCase};

/// Claims, each with both ends of its interval: that the effect lies below and above of where it is.
const CLAIMS: [&str; 10] = [
    "least below",
    "least above",
    "largest below",
    "largest above",
    "quantile below",
    "quantile above",
    "first below",
    "first above",
    "count below",
    "count above",
];

/// Quantities of mean curves, with the true ones.
const QUANTITIES: [(&str, f64); 5] = [
    ("min(train_loss, 55..end)", 1.0),
    ("max(train_loss, 55..end)", 1.0),
    ("quantile(train_loss, 0.9, 55..end)", 1.0),
    ("first(train_loss < 2)", 30.0),
    ("count(train_loss < 2)", 1.0),
];

const SAMPLES: u32 = 20;

/// The mean of all curves: it falls in a straight line from 3, and is 1 from step 50 on.
fn true_loss(step: f64) -> f64 {
    (3.0 - 2.0 * (step - 5.0) / 45.0).max(1.0)
}

/// A curve with noise that all samples share, and noise of each.
fn draw_curve(law: NumberLaw, stream: &mut RandomStream) -> Vec<f64> {
    let shared = 0.05 * law.draw(stream);
    let samples = (1..=SAMPLES).map(|at| {
        let loss = true_loss(5.0 * f64::from(at));
        loss + shared + 0.1 * law.draw(stream)
    });
    samples.collect()
}

/// Counts the experiments in which each claim agrees wrongly, also those that say that noise moves the number if `counts_told`.
fn count_wrong_extremes(case: SimulatedCase, experiments: u32, counts_told: bool) -> Vec<u32> {
    let claims = QUANTITIES.iter().enumerate().map(|(at, (of, _))| {
        format!(
            "[[claim]]\nname = '{at}'\nper = 'mean'\nwhere = 'c == 1'\nof = '{of}'\nabove = 0\n"
        )
    });
    let repeats = format!("repeats={}", case.n);
    let experiment = Experiment::with_settings("", &claims.collect::<String>(), &[&repeats]);
    let steps: Vec<f64> = (1..=SAMPLES).map(|at| 5.0 * f64::from(at)).collect();
    let mut stream = fixed_stream("extremes of mean curves", case.n as u64);
    let mut wrong = vec![0; CLAIMS.len()];
    for _ in 0..experiments {
        let curves = (0..case.n).map(|_| TrialValue::Series {
            steps: steps.clone(),
            series: vec![draw_curve(case.law, &mut stream)],
        });
        let trials = [curves.collect::<Vec<_>>()];
        let judged = experiment.judge(&trials, TrialCounts::default());
        for (at, (judged, (_, truth))) in judged.iter().zip(QUANTITIES).enumerate() {
            let Some((low, high)) = judged.interval else {
                continue;
            };
            let is_told = judged.notes.iter().any(|note| note.contains("noise"));
            if is_told && !counts_told {
                continue;
            }
            wrong[2 * at] += u32::from(high < truth);
            wrong[2 * at + 1] += u32::from(low > truth);
        }
    }
    wrong
}

/// Checks that no more than α of what is not told, and 2 α of all, agrees wrongly.
pub(super) fn check_curves(counts: &[usize], experiments: u32) {
    check_cases(
        counts.iter().copied(),
        experiments,
        &CLAIMS,
        &|case, experiments| count_wrong_extremes(case, experiments, false),
    );

    let most = 2.0 * ALPHA;
    let error = (most * (1.0 - most) / f64::from(experiments)).sqrt();
    let cases = SimulatedCase::cross(counts.iter().copied());
    cases
        .par_iter()
        .filter(|case| case.allowed_share().is_some())
        .for_each(|case| {
            let counts = count_wrong_extremes(*case, experiments, true);
            for (claim, wrong) in CLAIMS.iter().zip(counts) {
                let wrong = f64::from(wrong) / f64::from(experiments);
                assert!(wrong <= most + 3.0 * error, "{claim}, {case:?}: {wrong}");
            }
        });
}

#[test]
fn few_claims_about_extremes_of_mean_curves_agree_at_the_margin() {
    check_curves(&[3, 12], 40);
}
