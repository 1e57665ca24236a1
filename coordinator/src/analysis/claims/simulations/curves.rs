//! Claims about events of mean curves: how long a curve takes to settle.

use ergodic_common::quantity::reduce::Samples;
use ergodic_common::quantity::{Claim, TrialPooling};
use ergodic_common::random_streams::{RandomStream, fixed_stream};

use super::super::jobs::TrialValue;
use super::super::read::TrialCounts;
use super::super::tests::Experiment;
use super::laws::{NumberLaw, SimulatedCase};
use super::{check_cases, shipped_repeats};

/// Claims, each with both ends of its interval: that the effect lies below and above of where it is.
pub(super) const CLAIMS: [&str; 8] = [
    "time below",
    "time above",
    "ratio of times below",
    "ratio of times above",
    "slope of times below",
    "slope of times above",
    "spread of times below",
    "spread of times above",
];

const CLAIM_TEXTS: [&str; 4] = [
    "where = 'c == 1'\nabove = 0",
    "form = 'ratio'\nwhere = 'c == 2'\nto = 'c == 1'\nabove = 0",
    "form = 'slope'\nagainst = 'c'\nabove = 0",
    "form = 'spread'\nabove = 1.2",
];

const SAMPLES: u32 = 20;
/// Steps between samples of the first cell.
const SAMPLE_STEPS: f64 = 5.0;
/// The time that the distance of the mean curve takes to fall by e, in steps.
const DECAY: f64 = 14.5;
const TOLERANCE: f64 = 0.1;

pub(super) fn is_of_mean_curve(claim: &Claim) -> bool {
    claim.per == TrialPooling::MeanCurve
}

fn steps_of_cell(factor: f64) -> Vec<f64> {
    let samples = (1..=SAMPLES).map(f64::from);
    samples.map(|at| at * SAMPLE_STEPS * factor).collect()
}

/// The mean of all curves, over time in steps of the first cell.
fn true_curve() -> Vec<f64> {
    let steps = steps_of_cell(1.0);
    let curve = steps.iter().map(|t| 1.0 + 2.0 * libm::exp(-t / DECAY));
    curve.collect()
}

/// A curve that falls sooner or later than the mean, with noise. Its mean over the law is exactly the true curve.
fn draw_curve(law: NumberLaw, stream: &mut RandomStream, factor: f64) -> TrialValue {
    let sooner = law.draw(stream);
    let steps = steps_of_cell(1.0);
    let curve = steps.iter().zip(true_curve()).map(|(t, mean)| {
        let slope = t / DECAY * libm::exp(-t / DECAY);
        mean + 0.8 * sooner * slope + 0.03 * law.draw(stream)
    });
    TrialValue::Series {
        series: vec![curve.collect()],
        steps: steps_of_cell(factor),
    }
}

/// The time after which the mean of all curves of the first cell stays near its end. Cells take as many times longer as c says.
fn true_time() -> f64 {
    let samples = Samples {
        steps: &steps_of_cell(1.0),
        values: &true_curve(),
    };
    let end = SAMPLE_STEPS * f64::from(SAMPLES);
    let settled = samples.settle(TOLERANCE, end);
    settled.expect("the mean curve settles").between
}

pub(super) fn count_wrong_times(case: SimulatedCase, experiments: u32) -> Vec<u32> {
    let claims = CLAIM_TEXTS.iter().enumerate().map(|(at, keys)| {
        format!(
            "[[claim]]\nname = '{at}'\nper = 'mean'\nof = 'settle(train_loss, {TOLERANCE})'\n{keys}\n"
        )
    });
    let settings = [
        "train.steps='100*c'".to_owned(),
        format!("repeats={}", case.n),
    ];
    let settings = settings.each_ref().map(String::as_str);
    let experiment = Experiment::with_settings("", &claims.collect::<String>(), &settings);
    let truths = [true_time(), 2.0, 1.0, 4.0];
    let mut stream = fixed_stream("mean curves at the margin", case.n as u64);
    let mut wrong = vec![0; CLAIMS.len()];
    for _ in 0..experiments {
        let cells = [1.0, 2.0, 4.0].map(|factor| {
            let trials = (0..case.n).map(|_| draw_curve(case.law, &mut stream, factor));
            trials.collect::<Vec<_>>()
        });
        let judged = experiment.judge(&cells, TrialCounts::default());
        for (at, (judged, truth)) in judged.iter().zip(truths).enumerate() {
            let Some((low, high)) = judged.interval else {
                continue;
            };
            wrong[2 * at] += u32::from(high < truth);
            wrong[2 * at + 1] += u32::from(low > truth);
        }
    }
    wrong
}

#[test]
fn few_claims_about_mean_curves_agree_at_the_margin() {
    let counts = shipped_repeats(&is_of_mean_curve);
    assert!(!counts.is_empty(), "an experiment has such a claim");
    check_cases(counts, 40, &CLAIMS, &count_wrong_times);
}
