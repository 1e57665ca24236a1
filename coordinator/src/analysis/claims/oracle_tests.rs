//! Reducers, spreads, resampled mean curves and crossed labels, against NumPy and SciPy.
//!
//! `tests/oracles/claims.py` makes the fixture and says how both sides draw curves and resamples.

use ergodic_common::ids::CellIndex;
use ergodic_common::quantity::SampledCurve;
use serde_json::Value;

use super::batches::split_into_batches;
use super::design::RepeatDraws;
use super::jobs::{ClaimJobs, TrialValue};
use super::label_laws::LabelLaws;
use super::label_tests::judge_labels;
use super::read::TrialCounts;
use super::references::ReferenceCurves;
use super::tests::{Experiment, assert_near, claim, drawn, oracle};

/// The steps of the samples of a curve.
fn sampled_steps() -> Vec<f64> {
    (1..=20).map(|at| 5.0 * f64::from(at)).collect()
}

/// A curve of the fixture.
fn drawn_curve(repeat: u32) -> Vec<f64> {
    let samples = (1..=20).map(|at| {
        let u = f64::from(1 + repeat) * 2.0_f64.sqrt() + f64::from(at) * 3.0_f64.sqrt();
        let noise = (u.fract() * 1_048_576.0).round() / 1_048_576.0;
        (3.0 - f64::from(at) / 5.0).max(1.0) + noise / 4.0
    });
    samples.collect()
}

/// How often each repeat is drawn in the resamples of the fixture.
fn draw_resamples(repeats: u64, count: u64) -> RepeatDraws {
    let mut state = 1_u64;
    let counts = (0..count).map(|_| {
        let mut times = vec![0; repeats as usize];
        for _ in 0..repeats {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            times[((state >> 33) % repeats) as usize] += 1;
        }
        times
    });
    RepeatDraws::from_counts(counts.collect())
}

fn claim_of(of: &str, keys: &str) -> String {
    format!("[[claim]]\nname = 'c'\nof = '{of}'\nwhere = 'c == 1'\nabove = 0\n{keys}\n")
}

fn numbers_of(value: &Value) -> Vec<f64> {
    let numbers = value.as_array().expect("a list").iter();
    numbers.map(|x| x.as_f64().expect("a number")).collect()
}

#[test]
fn reducers_are_those_of_numpy() {
    let oracle = oracle();
    for (of, wanted) in oracle["reducers"].as_object().expect("a table") {
        let experiment = Experiment::new("", &claim_of(of, ""));
        let batch = &split_into_batches(&experiment.expanded, 12)[0];
        let jobs = ClaimJobs::new(&experiment.spec, &experiment.expanded, batch);
        let evaluation = jobs
            .open_cell(CellIndex(0))
            .expect("the sweep has the cell");
        for (repeat, wanted) in (0..).zip(wanted.as_array().expect("a list")) {
            let columns = [drawn_curve(repeat)];
            let curve = SampledCurve {
                steps: &sampled_steps(),
                columns: &columns,
            };
            let references = ReferenceCurves::default();
            let cell = (CellIndex(0), &evaluation);
            let values = jobs.evaluate_trial(cell, repeat, curve, &references);
            let TrialValue::Numbers(found) = values[0] else {
                panic!("{of}: {values:?}");
            };
            for (x, wanted) in found.into_iter().zip(numbers_of(wanted)) {
                assert!((x / wanted - 1.0).abs() < 1e-10, "{of}: {x} for {wanted}");
            }
        }
    }
}

#[test]
fn numbers_of_mean_curves_and_their_resampled_intervals_are_those_of_scipy() {
    let oracle = oracle();
    for case in oracle["mean_curves"].as_array().expect("a list") {
        let [repeats, resamples] =
            ["repeats", "resamples"].map(|key| case[key].as_u64().expect("a count"));
        let draws = draw_resamples(repeats, resamples);
        let curves = (0..repeats as u32).map(|repeat| TrialValue::Series {
            steps: sampled_steps(),
            series: vec![drawn_curve(repeat)],
        });
        let trials = [curves.collect::<Vec<_>>()];
        for (of, wanted) in case["numbers"].as_object().expect("a table") {
            let experiment = Experiment::new("", &claim_of(of, "per = 'mean'"));
            let labels = LabelLaws::new(&experiment.spec, &experiment.expanded);
            let labels = labels.expect("few predictions");
            let counts = TrialCounts::default();
            let judged = experiment.judge_resampled(&trials, counts, (&labels, &draws));
            assert_near(&judged[0], wanted, &format!("{of} of {repeats}"));
        }
    }
}

#[test]
fn spreads_and_collapses_are_those_of_numpy() {
    let oracle = oracle();
    for case in oracle["forms"].as_array().expect("a list") {
        let n = case["n"].as_u64().expect("a count") as u32;
        for keys in [
            "form = 'spread'\nbelow = 2",
            "form = 'collapse'\nover = 'c'\nabove = 2",
        ] {
            let found = Experiment::new("", &claim(keys)).judge_numbers(&drawn(3, n));
            assert_near(&found[0], &case["spread"], &format!("{keys} of {n}"));
        }
    }
}

#[test]
fn distances_of_labels_over_crossed_streams_are_those_of_numpy() {
    let oracle = &oracle()["crossed_labels"];
    let seeds = "seeds = { crossed = { init = 3, order = 4 } }";
    for (key, keys) in [("by_point", ""), ("joint", "joint = true")] {
        let keys = format!("at = '50 steps'\nwhere = 'c == 2'\nto = 'c == 1'\nbelow = 1\n{keys}");
        let found = judge_labels(seeds, &keys, &[]);
        assert_near(&found[0], &oracle[key], key);
    }
}
