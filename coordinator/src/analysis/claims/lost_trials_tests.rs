//! Verdicts where trials diverged, failed, or have no reference, over stored rows.

use ergodic_common::ids::{DatasetHash, SweepNumber};
use ergodic_common::quantity::claim::CLAIM_FORMS;
use ergodic_common::trial::MetricCurve;
use ergodic_common::{Outcome, TrialKey, TrialResult};

use super::judge::{ClaimVerdict, JudgedEffect};
use super::query::ClaimQuery;
use crate::analysis::RowSource;
use crate::analysis::tests::stored_results;
use crate::store::ReadableStore as _;

const REPEATS: u32 = 8;
const STEPS: u64 = 4;

/// How a trial of a cell ends, by cell and repeat, and what its losses are.
#[derive(Clone, Copy)]
enum TrialEnd {
    Completes(f64),
    Diverges,
    Fails,
}

use TrialEnd::{Completes, Diverges, Fails};

fn make_result(cell: u64, repeat: u32, end: TrialEnd) -> TrialResult {
    let (outcome, steps, level) = match end {
        Completes(level) => (Outcome::Completed, STEPS, level),
        Diverges => (Outcome::Diverged { step: 2 }, 1, 1.0),
        Fails => {
            let cause = "out of luck".to_owned();
            (Outcome::Failed { cause }, 0, 1.0)
        }
    };
    let steps: Vec<u64> = (1..=steps).collect();
    let values: Vec<f64> = steps.iter().map(|step| level / *step as f64).collect();
    TrialResult {
        metrics: values.last().copied().into_iter().collect(),
        curve: MetricCurve { steps, values },
        outcome,
        ..TrialResult::completed(TrialKey::new(cell, repeat))
    }
}

/// Judges claims about cells c = 1, 2, 4 whose trials end like this.
fn judge(claims: &str, end: impl Fn(u64, u32) -> TrialEnd) -> Vec<JudgedEffect> {
    let text = format!(
        "name = \"t\"\nrepeats = {REPEATS}\n[data]\ndataset = \"glyphs\"\ntrain = 100\ntest = 100\n[model]\nkind = \"mlp\"\nhidden = [8]\n\
         [train]\nsteps = {STEPS}\nbatch_size = 10\n[grid]\nc = [1, 2, 4]\n[derive]\nlr = \"0.1*c\"\n\
         [measure]\nevery = \"1 step\"\nmetrics = [\"train_loss\"]\nprobe = {{ points = 20 }}\n{claims}"
    );
    let folder = tempfile::tempdir().expect("a temporary directory");
    let keys = (0..3).flat_map(|cell| (0..REPEATS).map(move |repeat| (cell, repeat)));
    let results = keys.map(|(cell, repeat)| make_result(cell, repeat, end(cell, repeat)));
    let (store, spec) = stored_results(folder.path(), text, results.collect());
    let readers = store.open_readers(2).expect("readers");
    let rows = RowSource {
        spec: &spec,
        sweep: SweepNumber(1),
        readers: &readers,
        dataset_hash: DatasetHash::NONE,
    };
    let query = ClaimQuery::new(&spec, None).unwrap_or_else(|e| panic!("{e}"));
    let verdicts = query.judge(rows).expect("the store is read");
    verdicts.into_iter().map(|found| found.judged).collect()
}

/// A level that differs a little from repeat to repeat.
fn level(repeat: u32) -> f64 {
    1.0 + 0.01 * f64::from(repeat * repeat % 5)
}

fn claim(form: &str, keys: &str) -> String {
    format!("[[claim]]\nname = '{form}'\nform = '{form}'\n{keys}\n")
}

fn assert_open(judged: &JudgedEffect, note: &str, what: &str) {
    assert_eq!(
        judged.verdict,
        ClaimVerdict::NotEnough,
        "{what}: {judged:?}"
    );
    assert!(
        judged.notes.iter().any(|found| found == note),
        "{what}: {judged:?}"
    );
}

#[test]
fn no_form_is_decided_where_all_trials_of_a_cell_diverged() {
    let one = "where = 'c == 2'";
    let pair = "where = 'c == 2'\nto = 'c == 1'";
    let end = "of = 'at(train_loss, end)'";
    for control in ["", "\ncontrol = true"] {
        for (form, _) in CLAIM_FORMS {
            let keys = match form {
                "value" => format!("{one}\n{end}\nabove = 0"),
                "ratio" | "difference" => format!("{pair}\n{end}\nabove = 0"),
                "spread" => format!("{end}\nbelow = 2"),
                "collapse" => format!("{end}\nover = 'c'\nbelow = 2"),
                "slope" => format!("{end}\nagainst = 'c'\nbelow = 2"),
                "share" => format!("{one}\nof = 'at(train_loss, end) > 0'\nabove = 0.8"),
                "extreme" => format!("{one}\n{end}\nbelow = 2\nchance = 0.3"),
                "bits" => format!("{pair}\nof = 'train_loss'"),
                "labels" => format!("{pair}\nbelow = 1"),
                other => panic!("{other}: say what it claims"),
            };
            let text = claim(form, &format!("{keys}{control}"));
            let judged = judge(&text, |cell, repeat| match cell {
                1 => Diverges,
                _ => Completes(level(repeat)),
            });
            assert_eq!(judged.len(), 1, "{form}");
            let note = "no trial of a cell completed: 8 diverged";
            assert_open(&judged[0], note, &text);
        }
    }
}

#[test]
fn no_form_is_decided_where_all_trials_of_the_reference_diverged() {
    let distance = "mean(abs(train_loss - other(train_loss)))";
    let cells = "where = 'c == 2'\nto = 'c == 1'";
    for control in ["", "\ncontrol = true"] {
        for (form, keys) in [
            ("value", format!("of = '{distance}'\nbelow = 1")),
            ("share", format!("of = '{distance} < 1'\nabove = 0.8")),
            (
                "extreme",
                format!("of = '{distance}'\nbelow = 1\nchance = 0.3"),
            ),
        ] {
            let text = claim(form, &format!("{cells}\n{keys}{control}"));
            let judged = judge(&text, |cell, repeat| match (cell, repeat) {
                (0, 7) => Fails,
                (0, _) => Diverges,
                _ => Completes(level(repeat)),
            });
            let note = "no trial of the reference completed: 7 diverged, 1 failed";
            assert_open(&judged[0], note, &text);
        }
    }
}

#[test]
fn a_trial_that_diverged_or_whose_reference_did_lies_outside_and_is_told() {
    let distance = "mean(abs(train_loss - other(train_loss)))";
    let cells = "where = 'c == 2'\nto = 'c == 1'";
    let text = claim("extreme", &format!("{cells}\nof = '{distance}'\nbelow = 9"))
        + &claim(
            "share",
            &format!("{cells}\nof = '{distance} < 9'\nabove = 0.1"),
        )
        + &claim("value", &format!("{cells}\nof = '{distance}'\nbelow = 9"));
    // Of repeat 1, both diverged.
    let judged = judge(&text, |cell, repeat| match (cell, repeat) {
        (1, 0 | 1) | (0, 1 | 2) => Diverges,
        (0, 3) => Fails,
        _ => Completes(level(repeat) + cell as f64 * level(repeat + 1)),
    });
    let losses = [
        "2 diverged",
        "1 failed",
        "1 whose reference diverged",
        "1 without a reference",
    ];
    for found in &judged {
        let told = losses
            .iter()
            .filter(|loss| found.notes.iter().any(|note| note == *loss));
        let wanted = [
            "2 diverged",
            "1 whose reference diverged",
            "1 without a reference",
        ];
        assert_eq!(told.copied().collect::<Vec<_>>(), wanted, "{found:?}");
    }

    let [extreme, share, value] = &judged[..] else {
        panic!("{judged:?}");
    };
    assert_eq!((extreme.effect, extreme.n), (Some(3.0 / 7.0), 7));
    assert!(extreme.notes.contains(&"3 of 7 trials outside".to_owned()));
    assert_eq!((share.effect, share.n), (Some(4.0 / 7.0), 7));
    assert_eq!((value.verdict, value.n), (ClaimVerdict::Agrees, 4));
}

#[test]
fn bits_agree_only_if_each_repeat_that_ended_can_be_compared() {
    use ClaimVerdict::{Agrees, Disagrees, NotEnough};
    let judge_bits = |keys: &str, ends: [TrialEnd; 2]| {
        let text = claim(
            "bits",
            &format!("of = 'train_loss'\nwhere = 'c == 2'\nto = 'c == 1'\n{keys}"),
        );
        let judged = judge(&text, |cell, repeat| match (cell, repeat) {
            (cell @ (0 | 1), 7) => ends[cell as usize],
            (1, _) if keys.contains("control") => Completes(3.0),
            _ => Completes(level(repeat)),
        });
        judged[0].clone()
    };
    for (keys, ends, verdict) in [
        ("", [Completes(5.0), Completes(5.0)], Agrees),
        ("", [Completes(5.0), Fails], NotEnough),
        ("", [Diverges, Diverges], NotEnough),
        ("", [Completes(5.0), Completes(6.0)], Disagrees),
        ("control = true", [Completes(5.0), Completes(6.0)], Agrees),
        (
            "control = true",
            [Completes(5.0), Completes(5.0)],
            Disagrees,
        ),
        ("control = true", [Completes(5.0), Fails], NotEnough),
        ("control = true", [Completes(5.0), Diverges], Agrees),
    ] {
        let judged = judge_bits(keys, ends);
        assert_eq!(judged.verdict, verdict, "{keys}: {judged:?}");
        if verdict == NotEnough {
            assert_open(&judged, "not every repeat can be compared", keys);
        }
    }

    // One that differs contradicts, whatever else happened.
    let text = claim("bits", "of = 'train_loss'\nwhere = 'c == 2'\nto = 'c == 1'");
    let judged = judge(&text, |cell, repeat| match (cell, repeat) {
        (1, 7) => Diverges,
        (1, 6) => Completes(9.0),
        _ => Completes(level(repeat)),
    });
    assert_eq!(judged[0].verdict, Disagrees, "{judged:?}");
}

#[test]
fn what_no_sample_has_is_equal_to_nothing() {
    let cells = "where = 'c == 2'\nto = 'c == 1'";
    for control in ["", "\ncontrol = true"] {
        let text = claim(
            "bits",
            &format!("of = 'ln(0 - train_loss)'\n{cells}{control}"),
        );
        let judged = judge(&text, |_, repeat| Completes(level(repeat)));
        assert_open(&judged[0], "no repeat can be compared", &text);
        assert!(
            judged[0]
                .notes
                .contains(&"16 without the number".to_owned())
        );
    }
}
