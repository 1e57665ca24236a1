use proptest::prelude::*;

use crate::program::record::*;

fn metrics() -> Vec<DeclaredMetric> {
    let all = [
        ("loss", Direction::Min),
        ("seconds", Direction::Volatile),
        ("acc", Direction::Max),
    ];
    let all = all.map(|(name, direction)| DeclaredMetric {
        name: name.into(),
        direction,
    });
    all.to_vec()
}

fn add(record: &mut TrialRecord<'_>, line: &str) -> Result<LineEffect, String> {
    let line = NumberedLine {
        number: 7,
        bytes: line.into(),
    };
    record.add_line(&line)
}

fn record_of<'a>(metrics: &'a [DeclaredMetric], lines: &[&str]) -> TrialRecord<'a> {
    let mut record = TrialRecord::new(metrics);
    for line in lines {
        add(&mut record, line).expect("a line that is right");
    }
    record
}

/// The record that goes on from the checkpoint of a step.
fn decode(metrics: &[DeclaredMetric], step: u64, encoder: CheckpointEncoder) -> TrialRecord<'_> {
    let bytes = encoder.finish_with_hash();
    let mut decoder = CheckpointDecoder::new(&bytes).expect("nothing was changed");
    TrialRecord::decode(metrics, step, &mut decoder).expect("the same metrics")
}

fn bits(values: &[f64]) -> Vec<u64> {
    values.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn lines_of_a_step_are_one_row_and_the_last_number_of_each_metric_is_final() {
    let metrics = metrics();
    let record = record_of(
        &metrics,
        &[
            r#"{"step": 1, "loss": 0.5}"#,
            r#"{"step": 1, "acc": 0.1, "seconds": NaN}"#,
            "",
            r#"{"step": 2, "loss": 0.25}"#,
            r#"{"step": 3}"#,
        ],
    );
    let nan = f64::NAN;
    assert_eq!(record.curve.steps, [1, 2]);
    assert_eq!(
        bits(&record.curve.values),
        bits(&[0.5, nan, 0.1, 0.25, nan, nan])
    );
    assert_eq!(bits(&record.final_metrics()), bits(&[0.25, nan, 0.1]));
    assert_eq!((record.last_step(), record.missing_metrics()), (3, vec![]));

    let none = TrialRecord::new(&metrics);
    assert_eq!(none.missing_metrics(), ["loss", "seconds", "acc"]);
    assert!(none.final_metrics().iter().all(|x| x.is_nan()));
}

#[test]
fn a_directed_metric_that_is_not_finite_is_divergence_and_never_a_number() {
    let metrics = metrics();
    for said in [
        r#"{"step": 4, "acc": 0.2, "loss": -Infinity}"#,
        r#"{"step": 4, "loss": null}"#,
        r#"{"diverged": 4}"#,
    ] {
        let mut record = record_of(&metrics, &[r#"{"step": 1, "loss": 0.5}"#]);
        assert_eq!(add(&mut record, said), Ok(LineEffect::Diverged));
        assert_eq!(
            add(&mut record, "what follows does not count"),
            Ok(LineEffect::Diverged)
        );
        assert_eq!((record.diverged_at(), record.last_step()), (Some(4), 4));
        assert!(record.final_metrics().iter().all(|x| x.is_nan()));
        assert_eq!(record.curve.steps, [1]);
    }
}

#[test]
fn wrong_lines_fail_with_the_line() {
    let metrics = metrics();
    for (line, why) in [
        (
            r#"{"step": 6, "los": 1}"#,
            "'los' is no declared metric: add it to the metrics of the sweep file, or report one of loss, seconds, acc",
        ),
        (r#"{"step": 4, "loss": 1}"#, "step 4 comes after step 5"),
        (r#"{"diverged": 4}"#, "step 4 comes after step 5"),
        (
            r#"{"step": 5, "predictions": [1]}"#,
            "there are predictions for step 5 already",
        ),
        (
            r#"{"step": 6, "predictions": [1, 2, 3]}"#,
            "there are 3 predictions, but 2 earlier",
        ),
        ("nonsense", "it is no JSON"),
    ] {
        let mut record = record_of(&metrics, &[r#"{"step": 5, "predictions": [1, 2]}"#]);
        let said = add(&mut record, line).expect_err("a wrong line");
        assert!(
            said.starts_with("line 7 of the metrics is wrong: "),
            "{said}"
        );
        assert!(said.contains(why) && said.ends_with(line), "{said}");
    }

    let mut record = TrialRecord::new(&metrics);
    let long = format!("{}\n", "x".repeat(10_000));
    let said = add(&mut record, &long).expect_err("a wrong line");
    assert!(said.chars().count() < 400 && !said.contains('\n'), "{said}");
}

#[test]
fn curves_and_predictions_are_bounded() {
    let metrics = metrics();
    let mut record = TrialRecord::new(&metrics);
    for step in 0..MAX_CURVE_NUMBERS as u64 / 4 {
        let line = format!("{{\"step\": {step}, \"loss\": 1}}");
        assert_eq!(add(&mut record, &line), Ok(LineEffect::None));
    }
    let line = format!("{{\"step\": {MAX_CURVE_NUMBERS}, \"loss\": 1}}");
    let said = add(&mut record, &line).expect_err("one too many");
    assert!(
        said.contains("50001 steps with 3 metrics are too many"),
        "{said}"
    );

    let mut record = TrialRecord::new(&metrics);
    let classes = vec!["1"; 10_000].join(",");
    for step in 0..MAX_PREDICTIONS / 10_000 {
        let line = format!("{{\"step\": {step}, \"predictions\": [{classes}]}}");
        assert_eq!(add(&mut record, &line), Ok(LineEffect::None));
    }
    let line = format!("{{\"step\": 1000, \"predictions\": [{classes}]}}");
    let said = add(&mut record, &line).expect_err("one too many");
    assert!(said.contains("more than 1000000 predictions"), "{said}");

    let mut record = TrialRecord::new(&metrics);
    let said = add(&mut record, "{\"step\": 1, \"predictions\": []}").expect_err("no class");
    assert!(said.contains("its list of predictions is empty"), "{said}");

    let mut record = TrialRecord::new(&metrics);
    for step in 0..MAX_PREDICTION_STEPS {
        let line = format!("{{\"step\": {step}, \"predictions\": [1]}}");
        assert_eq!(add(&mut record, &line), Ok(LineEffect::None));
    }
    let line = format!("{{\"step\": {MAX_PREDICTION_STEPS}, \"predictions\": [1]}}");
    let said = add(&mut record, &line).expect_err("one too many");
    assert!(said.contains("at more than 100000 steps"), "{said}");
}

#[test]
fn the_digest_knows_all_but_what_is_volatile() {
    let metrics = metrics();
    let lines = [
        r#"{"step": 1, "loss": 0.5, "acc": 0.1, "seconds": 3}"#,
        r#"{"step": 2, "seconds": 4}"#,
        r#"{"step": 3, "predictions": [1, 2]}"#,
    ];
    let digest = |lines: &[&str]| record_of(&metrics, lines).compute_digest();
    let known = digest(&lines);

    let volatile = [lines[0].replace("\"seconds\": 3", "\"seconds\": NaN")];
    assert_eq!(known, digest(&[&volatile[0], lines[2]]));
    let mut other_order = metrics.clone();
    other_order.reverse();
    assert_eq!(known, record_of(&other_order, &lines).compute_digest());

    for other in [
        [
            r#"{"step": 1, "loss": 0.5000000000000001, "acc": 0.1}"#,
            lines[2],
        ],
        [r#"{"step": 2, "loss": 0.5, "acc": 0.1}"#, lines[2]],
        [r#"{"step": 1, "loss": 0.5}"#, lines[2]],
        [lines[0], r#"{"step": 3, "predictions": [1, 3]}"#],
        [lines[0], r#"{"step": 4, "predictions": [1, 2]}"#],
    ] {
        assert_ne!(known, digest(&other), "{other:?}");
    }
}

#[test]
fn a_record_goes_on_where_it_was_at_a_step() {
    let metrics = metrics();
    let lines = [
        r#"{"step": 1, "loss": 0.5, "predictions": [1, 2]}"#,
        r#"{"step": 2, "loss": 0.25, "seconds": 4}"#,
        r#"{"step": 3, "acc": 1, "predictions": [3, 4]}"#,
    ];
    let whole = record_of(&metrics, &lines);
    let mut encoder = CheckpointEncoder::default();
    whole.encode_until(2, &mut encoder);
    let mut record = decode(&metrics, 2, encoder);

    assert_eq!(
        (record.last_step(), &record.curve.steps[..]),
        (2, &[1, 2][..])
    );
    assert_eq!(record.predictions.classes, [1, 2]);
    assert_eq!(add(&mut record, lines[2]), Ok(LineEffect::None));
    assert_eq!(record.compute_digest(), whole.compute_digest());
}

proptest! {
    #[test]
    fn whatever_a_program_writes_steps_ascend_and_rows_are_whole(
        lines in prop::collection::vec((0_u64..20, prop::option::of(any::<f64>()), 0_usize..3), 0..50),
    ) {
        let metrics = metrics();
        let mut record = TrialRecord::new(&metrics);
        for (step, x, column) in lines {
            let x = x.map_or("null".into(), |x| format!("{x:?}").replace("inf", "Infinity"));
            let _ = add(&mut record, &format!("{{\"step\": {step}, \"{}\": {x}}}", metrics[column].name));
        }
        prop_assert!(record.curve.steps.is_sorted_by(|a, b| a < b));
        prop_assert_eq!(record.curve.values.len(), record.curve.steps.len() * metrics.len());
        let directed = record.curve.values.iter().all(|x| !x.is_infinite());
        prop_assert!(directed);
    }
}

#[test]
fn a_checkpoint_after_the_last_report_is_no_report() {
    let metrics = metrics();
    let whole = record_of(&metrics, &[r#"{"step": 1, "loss": 0.5}"#]);
    let mut encoder = CheckpointEncoder::default();
    whole.encode_until(2, &mut encoder);
    assert_eq!(decode(&metrics, 2, encoder).last_step(), 1);
}

#[test]
fn a_checkpoint_of_an_earlier_step_cuts_what_was_reported_since() {
    let metrics = metrics();
    let until = [
        r#"{"step": 490, "loss": 0.5, "predictions": [1, 2]}"#,
        r#"{"step": 500, "loss": 0.4}"#,
    ];
    let since = [
        r#"{"step": 505, "acc": 0.1}"#,
        r#"{"step": 510, "loss": 0.3, "predictions": [3, 4]}"#,
    ];
    let mut whole = record_of(&metrics, &[until, since].concat());
    let said = add(&mut whole, r#"{"checkpoint": 500}"#);
    assert_eq!(said, Ok(LineEffect::Checkpoint(500)));
    assert_eq!(whole.last_step(), 510);

    let mut encoder = CheckpointEncoder::default();
    whole.encode_until(500, &mut encoder);
    let mut resumed = decode(&metrics, 500, encoder);
    assert_eq!(
        (resumed.last_step(), &resumed.curve.steps[..]),
        (500, &[490, 500][..])
    );
    assert_eq!(resumed.missing_metrics(), ["seconds", "acc"]);

    let last = r#"{"step": 520, "loss": 0.2, "acc": 0.2, "seconds": 1}"#;
    for line in since.into_iter().chain([last]) {
        assert_eq!(add(&mut resumed, line), Ok(LineEffect::None));
    }
    assert_eq!(add(&mut whole, last), Ok(LineEffect::None));
    assert_eq!(resumed.compute_digest(), whole.compute_digest());
    assert_eq!(bits(&resumed.curve.values), bits(&whole.curve.values));
    assert_eq!(resumed.missing_metrics(), whole.missing_metrics());
}

#[test]
fn what_a_checkpoint_stands_for_is_not_reported_after_it() {
    let metrics = metrics();
    let mut begun = record_of(&metrics, &[r#"{"step": 510, "loss": 0.5}"#]);
    assert_eq!(
        add(&mut begun, r#"{"checkpoint": 600}"#),
        Ok(LineEffect::Checkpoint(600))
    );
    let mut encoder = CheckpointEncoder::default();
    begun.encode_until(600, &mut encoder);
    // Whoever goes on from the checkpoint is told the same.
    for record in [begun, decode(&metrics, 600, encoder)] {
        for (line, why) in [
            (
                r#"{"step": 550, "loss": 1}"#,
                "step 550 comes after the checkpoint of step 600",
            ),
            (
                r#"{"step": 600, "acc": 1}"#,
                "report it before this checkpoint",
            ),
            (
                r#"{"step": 600, "predictions": [1]}"#,
                "report it before this checkpoint",
            ),
            (
                r#"{"checkpoint": 550}"#,
                "the checkpoint of step 550 comes after that of step 600: report checkpoints in ascending order",
            ),
        ] {
            let said = add(&mut record.clone(), line).expect_err("a wrong line");
            assert!(said.contains(why) && said.ends_with(line), "{said}");
        }
        for (line, effect) in [
            (r#"{"step": 601, "loss": 1}"#, LineEffect::None),
            (r#"{"checkpoint": 600}"#, LineEffect::Checkpoint(600)),
            // How a trial ends counts more than where it was noticed.
            (r#"{"step": 600, "loss": NaN}"#, LineEffect::Diverged),
            (r#"{"diverged": 600}"#, LineEffect::Diverged),
        ] {
            assert_eq!(add(&mut record.clone(), line), Ok(effect), "{line}");
        }
    }
}
