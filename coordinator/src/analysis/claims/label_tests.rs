//! Claims about predicted labels, against NumPy, and about pairs of trials, by hand.

use ergodic_common::TrialKey;
use ergodic_common::ids::CellIndex;
use ergodic_common::quantity::SampledCurve;
use ergodic_common::trial::Predictions;

use super::batches::split_into_batches;
use super::jobs::{ClaimJobs, TrialValue};
use super::judge::{ClaimVerdict, JudgedEffect};
use super::label_laws::LabelLaws;
use super::read::TrialCounts;
use super::references::ReferenceCurves;
use super::tests::{Experiment, assert_near, oracle};

const POINTS: u64 = 20;

/// A label of the fixture.
fn drawn_label(cell: u64, repeat: u64, point: u64, step: u64) -> u8 {
    let mixed = (cell + 1) * 7 + (repeat + 1) * (point + 3) * 13 + repeat * repeat * point * 5;
    let label = if (repeat + point + step) % (cell * 40 + 3) < 2 {
        (mixed + step) % 11
    } else if step < 100 {
        cell + point
    } else {
        point
    };
    (label % 3) as u8
}

/// The predictions of a trial of the fixture after 50 and 100 steps.
pub(super) fn drawn_predictions(cell: u64, repeat: u32) -> Predictions {
    let classes = [50, 100].map(|step| {
        let points = 0..POINTS;
        points.map(move |point| drawn_label(cell, u64::from(repeat), point, step))
    });
    Predictions {
        steps: vec![50, 100],
        classes: classes.into_iter().flatten().collect(),
    }
}

fn label_claim(keys: &str) -> String {
    format!("[[claim]]\nname = 'c'\nform = 'labels'\n{keys}\n")
}

/// Judges the fixture's predictions of all cells, without some repeats of the cell c = 1.
pub(super) fn judge_labels(seeds: &str, keys: &str, missing: &[u32]) -> Vec<JudgedEffect> {
    let experiment = Experiment::new(seeds, &label_claim(keys));
    let mut labels =
        LabelLaws::new(&experiment.spec, &experiment.expanded).expect("few predictions");
    for cell in 0..3 {
        for repeat in (0..12).filter(|repeat| cell > 0 || !missing.contains(repeat)) {
            let predictions = drawn_predictions(cell, repeat);
            labels.add_trial(TrialKey::new(cell, repeat), &predictions);
        }
    }
    let ended = vec![vec![TrialValue::Nothing; 12]; 3];
    experiment.judge_beside(&ended, TrialCounts::default(), &labels)
}

#[test]
fn distances_of_labels_are_those_of_numpy() {
    let oracle = &oracle()["labels"];
    let cells = "where = 'c == 2'\nto = 'c == 1'\nbelow = 1";
    for (key, keys) in [
        ("by_point", "at = '50 steps'"),
        ("joint", "at = '50 steps'\njoint = true"),
        ("by_point_relative", "relative_to = '50 steps'"),
        (
            "joint_relative",
            "at = 'final'\nrelative_to = '50 %'\njoint = true",
        ),
    ] {
        let found = judge_labels("", &format!("{cells}\n{keys}"), &[]);
        assert_near(&found[0], &oracle[key], key);
        assert_eq!(found[0].n, 12);
        let decides = key == "by_point" || key == "joint";
        let verdict = if decides {
            ClaimVerdict::NotEnough
        } else {
            ClaimVerdict::Agrees
        };
        assert_eq!(found[0].verdict, verdict, "{key}: {found:?}");
    }
}

#[test]
fn labels_are_compared_along_an_axis_or_with_a_reference() {
    let pairs = judge_labels("", "over = 'c'\nat = '50 steps'\nabove = 0.1", &[]);
    assert_eq!(pairs.len(), 3);
    let one = judge_labels(
        "",
        "to = 'c == 4'\nwhere = 'c == 2'\nat = '50 steps'\nabove = 0.1",
        &[],
    );
    assert_eq!(one[0].effect, pairs[2].effect);

    // Common repeats alone count.
    let fewer = judge_labels("", "over = 'c'\nat = '50 steps'\nabove = 0.1", &[3, 7]);
    let counts: Vec<u64> = fewer.iter().map(|found| found.n).collect();
    assert_eq!(counts, [10, 10, 12]);
}

#[test]
fn labels_of_crossed_streams_are_compared_between_repeats_without_a_common_level() {
    let keys = "at = '50 steps'\nwhere = 'c == 2'\nto = 'c == 1'\nbelow = 1";
    let crossed = "seeds = { crossed = { init = 3, order = 4 } }";
    let [plain, found] = ["", crossed].map(|seeds| judge_labels(seeds, keys, &[]).remove(0));
    let interval = found.interval.expect("three levels leave two");
    let effect = found.effect.expect("a distance");
    assert!(interval.0 < effect && effect < interval.1, "{found:?}");
    assert_ne!(found.effect, plain.effect);
    assert_eq!((found.n, plain.n), (12, 12));
    let joint = judge_labels(crossed, &format!("{keys}\njoint = true"), &[]);
    assert!(joint[0].interval.is_some(), "{joint:?}");
}

#[test]
fn what_labels_cannot_show_is_not_enough_with_the_reason() {
    for (seeds, keys, missing, reason) in [
        (
            "seeds = { crossed = { init = 2, order = 6 } }",
            "",
            0..0,
            "crossed streams: a distance needs predictions of 3 levels",
        ),
        ("", "", 2..12, "predictions of 3 repeats"),
        ("", "min = 11", 2..4, "needs 11 repeats"),
        (
            "",
            "at = '50 steps'\nrelative_to = 'final'\nto = 'c == 2'\nwhere = 'c == 4'",
            0..0,
            "shows little of their spread",
        ),
    ] {
        let cells = match keys.contains("to = ") {
            true => "",
            false => "to = 'c == 1'\nwhere = 'c == 2'",
        };
        let missing: Vec<u32> = missing.collect();
        let found = judge_labels(seeds, &format!("{keys}\n{cells}\nbelow = 2"), &missing);
        assert_eq!(found[0].verdict, ClaimVerdict::NotEnough, "{found:?}");
        assert!(found[0].notes[0].contains(reason), "{reason}: {found:?}");
    }
}

/// Judges that three repeats of the cells c = 1 and 2 predict nearly alike: all labels are 0, but for that of one point, given by cell and
/// repeat.
fn judge_nearly_equal(others: &[(u64, u32, usize)]) -> JudgedEffect {
    let claim = label_claim("where = 'c == 2'\nto = 'c == 1'\nbelow = 0.002");
    let experiment = Experiment::new("", &claim);
    let mut labels =
        LabelLaws::new(&experiment.spec, &experiment.expanded).expect("few predictions");
    for cell in 0..2 {
        for repeat in 0..3 {
            let mut classes = vec![0; POINTS as usize];
            let of_trial = others
                .iter()
                .filter(|other| (other.0, other.1) == (cell, repeat));
            of_trial.for_each(|other| classes[other.2] = 1);
            let predictions = Predictions {
                steps: vec![100],
                classes,
            };
            labels.add_trial(TrialKey::new(cell, repeat), &predictions);
        }
    }
    let ended = vec![vec![TrialValue::Nothing; 3]; 2];
    let mut judged = experiment.judge_beside(&ended, TrialCounts::default(), &labels);
    judged.remove(0)
}

#[test]
fn labels_that_differ_where_no_pair_of_repeats_shows_it_decide_nothing() {
    let hidden = judge_nearly_equal(&[(0, 0, 0), (1, 1, 1)]);
    assert_eq!(hidden.verdict, ClaimVerdict::NotEnough, "{hidden:?}");
    assert!(
        hidden.notes[0].contains("nothing of its spread"),
        "{hidden:?}"
    );

    for same in [&[][..], &[(0, 0, 4), (1, 0, 4)]] {
        let judged = judge_nearly_equal(same);
        assert_eq!(judged.verdict, ClaimVerdict::Agrees, "{judged:?}");
    }
}

#[test]
fn labels_without_any_spread_need_as_many_repeats_as_show_that_few_differ() {
    let judge = |repeats: u32| {
        let claim = label_claim("where = 'c == 2'\nto = 'c == 1'\nabove = 0.002");
        let experiment = Experiment::with_settings("", &claim, &[&format!("repeats={repeats}")]);
        let mut labels =
            LabelLaws::new(&experiment.spec, &experiment.expanded).expect("few predictions");
        for cell in 0..2 {
            for repeat in 0..repeats {
                let predictions = Predictions {
                    steps: vec![100],
                    classes: vec![cell; POINTS as usize],
                };
                labels.add_trial(TrialKey::new(u64::from(cell), repeat), &predictions);
            }
        }
        let ended = vec![vec![TrialValue::Nothing; repeats as usize]; 2];
        let judged = experiment.judge_beside(&ended, TrialCounts::default(), &labels);
        judged[0].clone()
    };
    let few = judge(58);
    assert_eq!(few.verdict, ClaimVerdict::NotEnough);
    assert!(few.notes[0].contains("59 repeats would show"), "{few:?}");
    assert_eq!(judge(59).verdict, ClaimVerdict::Agrees);
}

/// A number from 0 to 9, as if drawn at random for a trial's prediction at a step.
fn random_digit(cell: u64, repeat: u32, point: u64, step: u64) -> u64 {
    let number = ((cell * 100 + u64::from(repeat)) * 100 + point) * 1000 + step;
    let hash = blake3::hash(&number.to_le_bytes());
    u64::from(hash.as_bytes()[0]) % 10
}

#[test]
fn a_distance_is_relative_to_none_that_may_be_zero() {
    let claim = label_claim(
        "where = 'c == 2'\nto = 'c == 1'\nat = '100 steps'\nrelative_to = '50 steps'\nabove = 2",
    );
    // The labels of both cells are drawn alike after 50 steps, or not.
    for (apart_by, reason) in [(0, Some("is not shown to be above 0")), (4, None)] {
        let experiment = Experiment::new("", &claim);
        let mut labels =
            LabelLaws::new(&experiment.spec, &experiment.expanded).expect("few predictions");
        for cell in 0..2 {
            for repeat in 0..12 {
                let label = |step: u64, ones: u64| {
                    let point = move |point| random_digit(cell, repeat, point, step) < ones;
                    (0..POINTS).map(move |at| u8::from(point(at)))
                };
                let predictions = Predictions {
                    steps: vec![50, 100],
                    classes: label(50, 3 + apart_by * cell)
                        .chain(label(100, 1 + 8 * cell))
                        .collect(),
                };
                labels.add_trial(TrialKey::new(cell, repeat), &predictions);
            }
        }

        let ended = vec![vec![TrialValue::Nothing; 12]; 2];
        let judged = experiment.judge_beside(&ended, TrialCounts::default(), &labels);
        match reason {
            Some(reason) => {
                assert_eq!(judged[0].verdict, ClaimVerdict::NotEnough, "{judged:?}");
                assert!(judged[0].notes[0].contains(reason), "{judged:?}");
            }
            None => assert_eq!(judged[0].verdict, ClaimVerdict::Agrees, "{judged:?}"),
        }
    }
}

#[test]
fn trials_are_joined_with_those_of_the_reference_step_by_step() {
    let claims = "[[claim]]\nname = 'a'\nof = 'slope(ln(abs(train_loss - other(train_loss))), step, 20..70)'\n\
                  where = 'c == 2'\nto = 'c == 1'\nabove = 0.01\n\
                  [[claim]]\nname = 'b'\nof = 'at(train_loss, end)'\nwhere = 'c == 2'\nabove = 0\n\
                  [[claim]]\nname = 'c'\nform = 'share'\nof = 'other(mean(train_loss, ..20)) > other(lr)'\n\
                  where = 'c == 2'\nto = 'c == 4'\nabove = 0\n";
    let experiment = Experiment::new("", claims);
    let batch = &split_into_batches(&experiment.expanded, 12)[0];
    let jobs = ClaimJobs::new(&experiment.spec, &experiment.expanded, batch);
    assert_eq!(jobs.reference_cells(), [CellIndex(0), CellIndex(2)]);

    // The trial has no sample at step 30, and the reference has one at step 35, which is far off.
    let steps: Vec<f64> = [10, 20, 40, 50, 60, 70, 100].map(f64::from).to_vec();
    let own: Vec<f64> = steps.iter().map(|step| 3.0 + (0.02 * step).exp()).collect();
    let other_steps: Vec<f64> = [10, 20, 30, 35, 40, 50, 60, 70, 100]
        .map(f64::from)
        .to_vec();
    let levels = other_steps
        .iter()
        .map(|step| if *step == 35.0 { 99.0 } else { 3.0 });
    let references = ReferenceCurves::from_curves(&[
        (TrialKey::new(0, 5), other_steps.clone(), levels.collect()),
        (
            TrialKey::new(2, 5),
            vec![10.0, 15.0, 20.0],
            vec![0.5, 7.0, 0.25],
        ),
    ]);

    let columns = [own.clone()];
    let curve = SampledCurve {
        steps: &steps,
        columns: &columns,
    };
    let cell = CellIndex(1);
    let evaluation = jobs.open_cell(cell).expect("the sweep has the cell");
    let numbers = |repeat: u32| {
        let values = jobs.evaluate_trial((cell, &evaluation), repeat, curve, &references);
        let numbers = values.into_iter().map(|value| match value {
            TrialValue::Numbers([x, ..]) => Some(x),
            _ => None,
        });
        numbers.collect::<Vec<_>>()
    };
    let found = numbers(5);
    assert!(
        found[0].is_some_and(|slope| (slope - 0.02).abs() < 1e-12),
        "{found:?}"
    );
    assert_eq!(found[1], own.last().copied());
    // At the steps that both have, the mean is 0.375, and lr = 0.4 there.
    assert_eq!(found[2], Some(0.0));

    // No trial of the reference has this repeat.
    assert_eq!(numbers(6), [None, own.last().copied(), None]);
}
