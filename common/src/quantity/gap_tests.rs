//! Quantities of programs, which report each metric at steps of its own.

use std::collections::BTreeMap;

use crate::Spec;
use crate::ids::CellIndex;
use crate::quantity::compile::QuantityCompiler;
use crate::quantity::{EventRounding, SampledCurve, TrialEvaluator, TrialQuantity};
use crate::spec::SpecSource;
use crate::trial::MetricCurve;
use crate::{Outcome, TrialKey, TrialResult};

const SWEEP: &str = "name = \"t\"\n[program]\ncommand = [\"x\"]\nmetrics = { loss = \"min\", acc = \"max\" }\n[grid]\nlr = [0.5]\n";
const GAP: f64 = f64::NAN;

fn sweep() -> Spec {
    let source = SpecSource {
        text: SWEEP.to_owned(),
        ..SpecSource::default()
    };
    Spec::read_new(&source).unwrap_or_else(|e| panic!("{e}"))
}

fn compile(spec: &Spec, text: &str) -> TrialQuantity {
    let claims = spec.claims.as_ref().expect("they can be read");
    claims
        .compile_trial_quantity(&spec.grid, &spec.measure.metrics, text)
        .unwrap_or_else(|e| panic!("{text}: {e}"))
}

/// A trial that reports a loss after each ten steps, and an accuracy after each twenty, but not after the last one.
fn trial(outcome: Outcome) -> TrialResult {
    let samples = [
        [8.0, GAP],
        [4.0, 0.5],
        [2.0, GAP],
        [1.0, 0.95],
        [0.5, GAP],
        [0.5, 0.8],
        [GAP, 0.7],
        [0.25, GAP],
    ];
    TrialResult {
        outcome,
        metrics: vec![0.25, 0.7],
        curve: MetricCurve {
            steps: (1..=8).map(|at| 10 * at).collect(),
            values: samples.into_iter().flatten().collect(),
        },
        ..TrialResult::completed(TrialKey::new(0, 0))
    }
}

fn end(text: &str) -> f64 {
    let spec = sweep();
    let quantity = compile(&spec, text);
    TrialEvaluator::new(&quantity, &spec.grid).evaluate_result(&trial(Outcome::Completed))
}

#[test]
fn quantities_of_a_step_or_of_the_end_have_values_at_the_end() {
    assert_eq!(end("loss*2"), 0.5);
    assert_eq!(end("loss*step"), 0.25 * 80.0);
    assert_eq!(end("loss/end"), 0.25 / 80.0);
    assert_eq!(end("acc/final"), 0.7 / 80.0);
    assert_eq!(end("end"), 80.0);
}

#[test]
fn the_value_at_the_end_is_the_last_one_that_there_is() {
    assert_eq!(end("acc*step"), 0.7 * 70.0);
    assert_eq!(end("acc/max(acc)"), 0.7 / 0.95);
    assert_eq!(end("at(acc, end)"), 0.7);
    assert!(end("at(acc, 15)").is_nan());
}

#[test]
fn what_was_not_reported_is_no_event() {
    assert_eq!(end("count(acc < 0.9)"), 2.0);
    assert_eq!(end("count(loss < 3)"), 1.0);
    assert_eq!(end("first(acc > 0.9)"), 40.0);
    assert_eq!(end("jump(acc, 45)"), 0.8 / 0.95);
    assert_eq!(end("jump(loss, 60)"), 0.25 / 0.5);
    assert!((end("mean(acc, 50 %..)") - 2.45 / 3.0).abs() < 1e-12);
    assert!((30.0..40.0).contains(&end("settle(loss, 0.5)")));
    assert!((end("slope(acc, step, 50 %..)") + 0.008).abs() < 1e-3);
}

#[test]
fn an_event_lies_after_the_last_sample_that_was_reported() {
    let spec = sweep();
    let metrics = &spec.measure.metrics;
    let mut compiler = QuantityCompiler::new(&spec.grid, metrics, BTreeMap::new());
    let root = compiler
        .compile_text("first(acc > 0.9)")
        .expect("a quantity");
    let program = compiler.into_program();
    let inputs = program.cell_inputs(&spec.grid, CellIndex(0));
    let curve = SampledCurve {
        steps: &[20.0, 30.0, 40.0],
        columns: &[vec![0.5, GAP, 0.95]],
    };
    let found = EventRounding::ALL.map(|rounding| {
        let values = program.evaluate_trial(inputs.as_ref().expect("a cell"), curve, rounding);
        values[root].as_number()
    });
    assert_eq!(found, [40.0, 20.0, 40.0]);
}

#[test]
fn the_curve_of_a_diverged_trial_has_what_no_later_sample_decides() {
    let spec = sweep();
    let curve = |text: &str| {
        let quantity = compile(&spec, text);
        let diverged = trial(Outcome::Diverged { step: 85 });
        TrialEvaluator::new(&quantity, &spec.grid).evaluate_result_curve(&diverged)
    };
    let products = curve("loss*step");
    assert_eq!(products[..3], [80.0, 80.0, 60.0]);
    assert!(products[6].is_nan() && products[7] == 20.0);
    assert!(curve("loss/end").iter().all(|x| x.is_nan()));
}
