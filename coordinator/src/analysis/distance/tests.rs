//! Distances against SciPy, against their definitions, and against what they promise.
//!
//! `tests/oracles/analysis.py` makes the fixture.

use ergodic_common::Spec;
use ergodic_common::ids::CellIndex;
use ergodic_common::random_streams::{RandomStream, fixed_stream};
use ergodic_common::spec::SpecSource;
use proptest::prelude::*;
use serde_json::Value;

use super::agreement::Agreement;
use super::labels::{PredictedLabels, find_common_repeats};
use super::permutation::{run_permutation_test, smallest_p_value};
use super::query::{DistanceParams, DistanceQuery};
use super::split_half::SplitHalfDistances;
use crate::analysis::lookup::CellSelector;

fn fixture() -> Value {
    serde_json::from_str(include_str!("../../../../tests/oracles/analysis.json"))
        .expect("the fixture is JSON")
}

fn slices(rows: &[Vec<u8>]) -> Vec<&[u8]> {
    rows.iter().map(Vec::as_slice).collect()
}

fn labels(rows: &[Vec<u8>]) -> PredictedLabels {
    let mut labels = PredictedLabels::new(rows[0].len());
    (0..)
        .zip(rows)
        .for_each(|(repeat, row)| labels.push(repeat, row));
    labels
}

/// A sum of ℓ1 distances, by the definition.
fn l1(a: &[&[u8]], b: &[&[u8]]) -> f64 {
    let share = |rows: &[&[u8]], point: usize, class: u8| {
        rows.iter().filter(|row| row[point] == class).count() as f64 / rows.len() as f64
    };
    let of_point = |point| {
        (0..=255)
            .map(|k| (share(a, point, k) - share(b, point, k)).abs())
            .sum::<f64>()
    };

    (0..a[0].len()).map(of_point).sum::<f64>() / a[0].len() as f64
}

#[test]
fn the_permutation_test_agrees_with_scipy() {
    let fixture = fixture();
    let cases = fixture["swaps"].as_array().expect("a list");
    assert!(cases.len() > 3);

    for case in cases {
        let rows = |key: &str| -> Vec<Vec<u8>> {
            serde_json::from_value(case[key].clone()).expect("labels")
        };
        let a = rows("a");
        let b = rows("b");
        let found = run_permutation_test(
            &slices(&a),
            &slices(&b),
            99_999,
            &mut fixed_stream("swaps", 0),
        )
        .expect("repeats");
        assert!(found.exact);

        assert!(
            (found.distance - case["distance"].as_f64().expect("a number")).abs() < 1e-12,
            "{case}"
        );
        assert!(
            (found.p - case["p"].as_f64().expect("a number")).abs() < 1e-12,
            "{found:?} {case}"
        );

        let random =
            run_permutation_test(&slices(&a), &slices(&b), 99, &mut fixed_stream("swaps", 1))
                .expect("repeats");
        assert!(
            !random.exact && (random.p - found.p).abs() < 0.25,
            "{random:?} {found:?}"
        );
    }
}

proptest! {
    #[test]
    fn figures_are_what_their_definitions_say(
        (a, b) in (2_usize..8, 1_usize..70).prop_flat_map(|(n, points)| {
            let rows = || prop::collection::vec(prop::collection::vec(0_u8..5, points), n);
            (rows(), rows())
        }),
    ) {
        let (one, other) = (slices(&a), slices(&b));
        let swaps = run_permutation_test(&one, &other, 9999, &mut fixed_stream("p", 0)).expect("repeats");
        prop_assert!((swaps.distance - l1(&one, &other)).abs() < 1e-12);
        prop_assert_eq!(swaps, run_permutation_test(&other, &one, 9999, &mut fixed_stream("p", 1)).expect("repeats"));
        prop_assert!(swaps.p >= smallest_p_value(a.len(), 9999) && swaps.p <= 1.0);
        let pairs = |same: bool| (0..a.len()).flat_map(|i| (0..b.len()).map(move |j| (i, j))).filter(move |(i, j)| (i == j) == same);
        let alike = |x: &[u8], y: &[u8]| x.iter().zip(y).filter(|(x, y)| x == y).count();
        let share = |same: bool, x: &[Vec<u8>], y: &[Vec<u8>]| {
            let hits: usize = pairs(same).map(|(i, j)| alike(&x[i], &y[j])).sum();
            Some(hits as f64 / (pairs(same).count() * a[0].len()) as f64)
        };
        let (cell, beside) = (labels(&a), labels(&b));
        let agreement = Agreement::from_labels(&[&cell, &beside]);
        prop_assert_eq!(agreement.between_cells(0, 1), (share(false, &a, &b), share(true, &a, &b)));
        prop_assert_eq!((agreement.within_cell(0), agreement.within_cell(1)), (share(false, &a, &a), share(false, &b, &b)));
    }
}

/// Trials of two cells with the same law, which streams in common tie together at most points; a class is moved up with
/// probability `shift` in the second one.
fn cells(n: usize, points: usize, shift: f64, stream: &mut RandomStream) -> [Vec<Vec<u8>>; 2] {
    let mut both = [Vec::new(), Vec::new()];
    for _ in 0..n {
        // What the repeat's streams say of every point, and what the cell makes of it.
        let said: Vec<f64> = (0..points).map(|_| stream.next_uniform()).collect();
        for (cell, moved) in [(0, 0.0), (1, shift)] {
            let class = |said: f64, stream: &mut RandomStream| {
                let u = if stream.next_uniform() < 0.4 {
                    stream.next_uniform()
                } else {
                    said
                };
                (3.0 * u * u) as u8 + u8::from(stream.next_uniform() < moved)
            };

            both[cell].push(said.iter().map(|said| class(*said, stream)).collect());
        }
    }

    both
}

#[test]
fn p_is_uniform_where_laws_are_equal_and_small_where_they_are_not() {
    const ROUNDS: u64 = 1500;
    for (n, permutations) in [(7, 99), (24, 99)] {
        let p = |round: u64, shift: f64| {
            let mut stream = fixed_stream("uniform p", (n as u64) << 32 | round);
            let [a, b] = cells(n, 60, shift, &mut stream);
            run_permutation_test(&slices(&a), &slices(&b), permutations, &mut stream)
                .expect("repeats")
                .p
        };
        let found: Vec<f64> = (0..ROUNDS).map(|round| p(round, 0.0)).collect();

        for alpha in [0.05, 0.1, 0.25, 0.5, 0.75] {
            let share = found.iter().filter(|p| **p <= alpha).count() as f64 / ROUNDS as f64;
            let noise = 4.0 * (alpha * (1.0 - alpha) / ROUNDS as f64).sqrt();
            assert!(share < alpha + noise, "{n} {permutations} {alpha}: {share}");

            // Distances are whole numbers of trials, some of them equal, and of seven repeats there are 64 patterns.
            assert!(
                share > alpha - noise - 0.04,
                "{n} {permutations} {alpha}: {share}"
            );
        }

        let seen = (0..200).filter(|round| p(*round, 0.8) <= 0.05).count();
        assert!(seen > 140, "{n} {permutations}: {seen} of 200");
    }
}

#[test]
fn distance_and_null_are_equal_on_average_where_laws_are() {
    let mut distance = 0.0;
    let mut null = 0.0;
    let mut of_the_same = 0.0;

    for round in 0..300 {
        let mut stream = fixed_stream("null", round);
        let [a, b] = cells(10, 40, 0.0, &mut stream);
        let both = vec![slices(&a), slices(&b)];
        let halves = SplitHalfDistances::from_random_splits(&both, 4, &mut stream).expect("halves");
        distance += halves.distance_between(0, 1) / 300.0;
        null += (halves.distance_between(0, 0) + halves.distance_between(1, 1)) / 600.0;

        of_the_same += l1(&both[0][..5], &both[1][..5]) / 300.0;
    }

    assert!(
        (distance - null).abs() < 0.01 && null > 0.3,
        "{distance} {null}"
    );

    // The same repeats of both cells have the same streams: they are no null for anything.
    assert!(of_the_same < 0.8 * null, "{of_the_same} {null}");
}

#[test]
fn cells_that_never_agree_are_two_apart_and_constant_ones_have_no_null() {
    let a = vec![vec![0, 1, 2]; 4];
    let b = vec![vec![1, 2, 0]; 4];
    let both = vec![slices(&a), slices(&b)];
    let halves = SplitHalfDistances::from_random_splits(&both, 3, &mut fixed_stream("apart", 0))
        .expect("halves");
    assert_eq!(
        (
            halves.distance_between(0, 1),
            halves.distance_between(1, 0),
            halves.distance_between(0, 0)
        ),
        (2.0, 2.0, 0.0)
    );

    let apart = run_permutation_test(&both[0], &both[1], 9999, &mut fixed_stream("apart", 0))
        .expect("repeats");
    assert_eq!((apart.distance, apart.p, apart.exact), (2.0, 0.125, true));
    let equal = run_permutation_test(&both[0], &both[0], 9999, &mut fixed_stream("apart", 0))
        .expect("repeats");
    assert_eq!((equal.distance, equal.p), (0.0, 1.0));

    assert_eq!(
        SplitHalfDistances::from_random_splits(
            &[vec![&a[0][..]], vec![&b[0][..]]],
            3,
            &mut fixed_stream("apart", 0)
        ),
        None
    );
}

#[test]
fn only_repeats_that_all_have_are_common() {
    let of = |repeats: &[u32]| {
        let mut labels = PredictedLabels::new(1);
        repeats
            .iter()
            .for_each(|repeat| labels.push(*repeat, &[*repeat as u8]));
        labels
    };
    let a = of(&[0, 2, 3, 7]);

    let b = of(&[1, 2, 7, 9]);
    let c = of(&[2, 3, 7]);
    assert_eq!(
        (
            find_common_repeats(&[&a, &b]),
            find_common_repeats(&[&a, &b, &c]),
            find_common_repeats(&[])
        ),
        (vec![2, 7], vec![2, 7], vec![])
    );

    assert_eq!(b.rows_of_repeats(&[2, 7]), [&[2][..], &[7]]);
    let agreement = Agreement::from_labels(&[&a, &b]);
    // Of sixteen pairs two are of the same repeat, and agree; no other does.
    assert_eq!(agreement.between_cells(0, 1), (Some(0.0), Some(1.0)));
    let none = PredictedLabels::new(1);
    assert_eq!(
        Agreement::from_labels(&[&a, &none]).between_cells(0, 1),
        (None, None)
    );

    assert_eq!(Agreement::from_labels(&[&none]).within_cell(0), None);
}

#[test]
fn what_would_take_too_much_is_refused() {
    let refusal = |repeats: u32, points: u32, permutations: u32| {
        let text = format!(
            "name = \"t\"\nrepeats = {repeats}\n[data]\ndataset = \"glyphs\"\n[model]\nkind = \"cnn4\"\n[train]\nsteps = 9\n\
             batch_size = 8\n[grid]\nlr = [0.1, 0.2]\n[measure]\nprobe = {{ points = {points} }}\n"
        );
        let source = SpecSource {
            file: "t".into(),
            text,
            ..SpecSource::default()
        };
        let spec = Spec::read_stored(&source).expect("a valid sweep");

        let between = [
            CellSelector::Number(CellIndex(0)),
            CellSelector::Values(vec![("lr".into(), "0.2".into())]),
        ];
        let asked = DistanceQuery::new(
            &spec,
            &DistanceParams {
                between: &between,
                at: "",
                permutations,
            },
        );

        asked
            .err()
            .map_or_else(String::new, |error| error.to_string())
    };
    assert_eq!(
        [
            refusal(500, 1000, 9999),
            refusal(1000, 1000, 99_999),
            refusal(500, 1000, 99)
        ]
        .concat(),
        ""
    );

    assert!(
        refusal(40_000, 1000, 9999)
            .contains("2 cells × 40000 repeats × 1000 points × 1 moments are too many")
    );
    assert!(refusal(30_000, 1000, 9999).contains("permutations: 9999 swaps of 30000 repeats"));
    assert!(refusal(5000, 1, 99_999).contains("ask for fewer"));

    assert!(
        refusal(500, 1, 98).contains("from 99 to 99999, found 98")
            && refusal(500, 1, 100_000).contains("from 99")
    );
}
