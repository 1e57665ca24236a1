//! Ranks, sets of cells that may be the best, and means under crossed streams against SciPy and statsmodels; and what infinite
//! values, ties and weights come to.
//!
//! `tests/oracles/selection.py` makes the fixture.

use std::collections::BTreeMap;

use ergodic_common::Spec;
use ergodic_common::ids::CellIndex;
use ergodic_common::metric::Metric;
use ergodic_common::random_streams::{Purpose, fixed_stream};
use ergodic_common::spec::SpecSource;
use serde_json::Value;

use super::crossed::Crossing;
use super::rank::{Ranks, TrialEnd};
use super::special::student_t_cdf;
use super::{Sample, bootstrap};
use crate::analysis::ranking::rank_rows;
use crate::estimators::rank::CellEnds;

fn fixture(key: &str) -> Vec<Value> {
    let fixture: Value =
        serde_json::from_str(include_str!("../../../tests/oracles/selection.json"))
            .expect("the fixture is JSON");
    fixture[key].as_array().expect("a list").clone()
}

fn numbers(value: &Value) -> Vec<f64> {
    serde_json::from_value(value.clone()).expect("numbers")
}

fn cells(case: &Value) -> Vec<CellEnds> {
    let values: Vec<Vec<Option<f64>>> =
        serde_json::from_value(case["values"].clone()).expect("values");
    let end = |value: &Option<f64>| value.map_or(TrialEnd::Diverged, TrialEnd::Completed);
    values
        .iter()
        .map(|cell| (0..).zip(cell.iter().map(end)).collect())
        .collect()
}

fn sweep(cells: usize) -> Spec {
    let text = format!(
        "name = \"t\"\nrepeats = 30\n[data]\ndataset = \"glyphs\"\n[model]\nkind = \"cnn4\"\n[train]\nepochs = 1\nbatch_size = 32\nlr = 0.1\n\
         [grid]\nlr = {{ linear = [0.1, 1.0], points = {cells} }}\n"
    );
    let source = SpecSource {
        file: "t".into(),
        text,
        ..SpecSource::default()
    };

    Spec::read_stored(&source).expect("a valid sweep")
}

#[test]
fn ranks_agree_with_scipy() {
    for case in fixture("ranks") {
        let cells = cells(&case);
        let found = Ranks::from_ends(&cells.iter().map(Vec::as_slice).collect::<Vec<_>>(), true)
            .unweighted_mean_ranks();
        for (found, wanted) in found.iter().zip(numbers(&case["mean_ranks"])) {
            assert!(
                (found.expect("ranked") - wanted).abs() < 1e-12,
                "{found:?} is not {wanted}"
            );
        }
    }
}

#[test]
fn ranks_of_cells_that_lack_repeats_agree_with_numpy() {
    for case in fixture("lacking") {
        let values: Vec<Vec<Option<f64>>> =
            serde_json::from_value(case["values"].clone()).expect("values");
        let has =
            |(repeat, value): (u32, &Option<f64>)| Some((repeat, TrialEnd::Completed((*value)?)));
        let cells: Vec<CellEnds> = values
            .iter()
            .map(|cell| (0..).zip(cell).filter_map(has).collect())
            .collect();
        let found = Ranks::from_ends(&cells.iter().map(Vec::as_slice).collect::<Vec<_>>(), true)
            .unweighted_mean_ranks();

        for (found, wanted) in found.iter().zip(numbers(&case["mean_ranks"])) {
            assert!(
                (found.expect("ranked") - wanted).abs() < 1e-6,
                "{found:?} is not {wanted}"
            );
        }
    }
}

#[test]
fn cells_that_may_be_the_best_agree_with_scipy() {
    for case in fixture("sets") {
        let cells = cells(&case);
        let rows: Vec<Vec<CellIndex>> = (0..cells.len() as u64)
            .map(|cell| vec![CellIndex(cell)])
            .collect();
        let spec = sweep(cells.len());
        let places = rank_rows(
            &spec,
            &Metric::TestAcc,
            &(0..)
                .map(CellIndex)
                .zip(cells)
                .collect::<BTreeMap<CellIndex, CellEnds>>(),
            &rows,
        );

        let stays: Vec<bool> = serde_json::from_value(case["stays"].clone()).expect("flags");
        assert_eq!(
            places
                .iter()
                .map(|p| p.expect("a place").may_be_best)
                .collect::<Vec<_>>(),
            stays
        );

        assert_eq!(
            places[case["best"].as_u64().expect("a cell") as usize].map(|place| place.rank),
            Some(1)
        );
    }
}

#[test]
fn students_distribution_agrees_with_scipy() {
    for case in fixture("student") {
        let [t, degrees, p] = numbers(&case)[..] else {
            panic!("{case}")
        };
        assert!(
            (student_t_cdf(t, degrees) - p).abs() < 1e-13,
            "{case}: {}",
            student_t_cdf(t, degrees)
        );
    }
}

#[test]
fn means_under_crossed_streams_agree_with_statsmodels() {
    for case in fixture("crossed") {
        let values = numbers(&case["values"]);
        let ends = numbers(&case["ends"]);
        let sizes: Vec<usize> = serde_json::from_value(case["sizes"].clone()).expect("sizes");
        let repeats: Vec<u32> = (0..values.len() as u32).collect();
        let sample = Sample::from_crossed(values, &repeats, &Crossing::new(&sizes));
        let (low, high) = sample.t_interval(0.95).expect("complete");

        let variance = sample.standard_error().expect("complete").powi(2);
        let wanted = case["variance"].as_f64().expect("a number");
        assert!(
            (variance - wanted).abs() < 1e-9 * wanted,
            "{variance} is not {wanted}"
        );

        assert!(
            (low - ends[0]).abs() < 1e-9 && (high - ends[1]).abs() < 1e-9,
            "{low} … {high} is not {ends:?}"
        );
    }
}

#[test]
fn resamples_of_the_same_mean_are_equal_whatever_rounding_says() {
    // Ties and two values: intervals move and stretch with the values.
    let unit = |values: &[f64], shift: f64, scale: f64| {
        let moved = Sample::new(values.iter().map(|x| shift + scale * x).collect());
        let (low, high) = bootstrap::bca_interval(&moved, 0.95, &mut fixed_stream("ties", 0))
            .expect("an interval");
        [(low - shift) / scale, (high - shift) / scale]
    };

    let coarse: Vec<f64> = (0..12).map(|i| f64::from(i % 4) / 20.0).collect();
    for values in [&[0.1, 0.3][..], &[0.0, 1.0], &coarse] {
        let wanted = unit(values, 0.0, 1.0);
        for (shift, scale) in [
            (0.7, 1.0),
            (0.93, 1e-3),
            (-3.3, 0.1),
            (1e3, 1.0 / 3.0),
            (0.1, 0.7),
        ] {
            let found = unit(values, shift, scale);
            let near = found
                .iter()
                .zip(&wanted)
                .all(|(found, wanted)| (found - wanted).abs() < 1e-8);
            assert!(
                near,
                "{values:?} by {scale} and {shift}: {found:?} is not {wanted:?}"
            );
        }
    }
}

#[test]
fn crossed_streams_have_no_resamples() {
    let mut spec = sweep(2);
    spec.seeds.crossed = vec![(Purpose::Init, 2), (Purpose::Order, 2)];
    let crossing = Crossing::from_spec(&spec).expect("it crosses");
    let sample = Sample::from_crossed(vec![1.0, 2.0, 3.0, 5.0], &[0, 1, 2, 3], &crossing);
    assert_eq!(
        bootstrap::bca_interval(&sample, 0.95, &mut fixed_stream("crossed", 0)),
        None
    );

    assert!(sample.t_interval(0.95).is_some());
}
