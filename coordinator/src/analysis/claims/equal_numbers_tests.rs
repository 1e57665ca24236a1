//! Verdicts on numbers that rounding alone tells apart: they have no spread.

use super::jobs::TrialValue;
use super::judge::{ClaimVerdict, JudgedEffect};
use super::read::TrialCounts;
use super::tests::{Experiment, claim};

/// Judges a claim about three cells with these numbers.
fn judge_numbers(keys: &str, cells: &[&[f64]]) -> JudgedEffect {
    let cells: Vec<Vec<f64>> = cells.iter().map(|numbers| numbers.to_vec()).collect();
    let mut judged = Experiment::new("", &claim(keys)).judge_numbers(&cells);
    assert_eq!(judged.len(), 1, "{keys}");
    judged.remove(0)
}

fn assert_exact(judged: &JudgedEffect, effect: f64, what: &str) {
    let found = judged.effect.expect("there is an effect");
    assert!((found - effect).abs() < 1e-15, "{what}: {judged:?}");
    let (low, high) = judged.interval.expect("there is an interval");
    assert_eq!((low, high), (found, found), "{what}: {judged:?}");
}

#[test]
fn equal_numbers_are_known_exactly_and_may_lie_on_an_end_of_a_region() {
    const TENTH: &[f64] = &[0.1; 6];
    for (keys, cells, effect) in [
        ("where = 'c == 1'\nwithin = [0.1, 1]", [TENTH; 3], 0.1),
        ("where = 'c == 1'\nwithin = [0, 0.1]", [TENTH; 3], 0.1),
        (
            "form = 'slope'\nagainst = 'c'\nlog = 'none'\nwithin = [-0.1, 0.1]",
            [TENTH; 3],
            0.0,
        ),
        (
            "form = 'ratio'\nto = 'c == 1'\nwhere = 'c == 2'\nwithin = [1, 3]",
            [TENTH, &[0.3; 6], TENTH],
            3.0,
        ),
        (
            "form = 'spread'\nbelow = 3.1",
            [TENTH, &[0.3; 6], &[0.2; 6]],
            3.0,
        ),
        (
            "form = 'difference'\nto = 'c == 1'\nwhere = 'c == 2'\nwithin = [0, 0.01]",
            [&[0.17, 0.18, 0.18, 0.92], &[0.18, 0.19, 0.19, 0.93], TENTH],
            0.01,
        ),
    ] {
        let judged = judge_numbers(keys, &cells);
        assert_eq!(judged.verdict, ClaimVerdict::Agrees, "{keys}: {judged:?}");
        assert_exact(&judged, effect, keys);
    }

    let outside = judge_numbers("where = 'c == 1'\nwithin = [0.1001, 1]", &[TENTH; 3]);
    assert_eq!(outside.verdict, ClaimVerdict::Disagrees, "{outside:?}");
    // A single bound is neither passed nor missed.
    let open = judge_numbers("where = 'c == 1'\nabove = 0.1", &[TENTH; 3]);
    assert_eq!(open.verdict, ClaimVerdict::NotEnough, "{open:?}");
}

#[test]
fn the_mean_of_equal_curves_is_each_of_them() {
    let text = "[[claim]]\nname = 'c'\nper = 'mean'\nwhere = 'c == 1'\nof = 'mean(train_loss)'\nwithin = [0.1, 1]\n";
    let steps: Vec<f64> = (1..=10).map(|i| f64::from(i) * 10.0).collect();
    let curve = TrialValue::Series {
        series: vec![vec![0.1; steps.len()]],
        steps,
    };
    let trials = [vec![curve; 6]];
    let judged = Experiment::new("", text).judge(&trials, TrialCounts::default());
    assert_eq!(judged[0].verdict, ClaimVerdict::Agrees, "{judged:?}");
    assert_eq!(judged[0].effect, Some(0.1));
    assert_eq!(judged[0].interval, Some((0.1, 0.1)));
}

#[test]
fn equal_accuracies_show_nothing_of_their_spread() {
    let perfect: &[f64] = &[1.0; 4];
    let (better, worse): (&[f64], &[f64]) = (&[0.457, 0.461, 0.485], &[0.456, 0.46, 0.484]);
    for (keys, cells) in [
        ("where = 'c == 1'\nabove = 0.9985", [perfect; 3]),
        (
            "form = 'difference'\nto = 'c == 1'\nwhere = 'c == 2'\nabove = 0",
            [worse, better, perfect],
        ),
        ("form = 'spread'\nbelow = 1.1", [perfect; 3]),
    ] {
        let text = claim(keys).replace("train_loss", "test_acc");
        let cells = cells.map(<[f64]>::to_vec);
        let judged = Experiment::new("", &text).judge_numbers(&cells);
        assert_eq!(judged[0].verdict, ClaimVerdict::NotEnough, "{judged:?}");
        let why = judged[0].notes.join("; ");
        assert!(why.contains("the same number of images right"), "{why}");
    }

    let text = claim("form = 'share'\nwhere = 'c == 1'\nabove = 0.2")
        .replace("at(train_loss, end)", "at(test_acc, end) > 0.99");
    let judged = Experiment::new("", &text).judge_numbers(&[perfect.to_vec()]);
    assert_eq!(judged[0].verdict, ClaimVerdict::Agrees, "{judged:?}");
}

#[test]
fn no_repeats_are_advised_where_as_many_have_ended_in_vain() {
    let experiment = Experiment::new("", &claim("where = 'c == 1'\nabove = 0\nmin = 3"));
    for (values, diverged, needed) in [
        (&[][..], 6, None),
        (&[], 1, Some(3)),
        (&[0.1, 0.2], 2, Some(6)),
        (&[0.1, 0.2], 0, Some(3)),
    ] {
        let trials: Vec<TrialValue> = values
            .iter()
            .map(|x: &f64| TrialValue::Numbers([*x; 3]))
            .collect();
        let counts = TrialCounts {
            diverged,
            ..TrialCounts::default()
        };
        let judged = experiment.judge(&[trials], counts);
        assert_eq!(judged[0].needed, needed, "{judged:?}");
    }
}
