//! Statistics against NumPy, SciPy and statsmodels, and against what they promise.
//!
//! `tests/oracles/statistics.py` makes the fixture and says how both sides draw the samples.

use std::cell::Cell;
use std::collections::BTreeMap;

use ergodic_common::ids::{CellIndex, DatasetHash, Epoch, SweepNumber};
use ergodic_common::metric::Metric;
use ergodic_common::random_streams::{RandomStream, fixed_stream};
use ergodic_common::spec::SpecSource;
use ergodic_common::spec::scheduling::Share;
use ergodic_common::spec::stopping_rule::{StoppingCriterion, StoppingRule};
use ergodic_common::trial::MetricCurve;
use ergodic_common::{Outcome, Spec, TrialKey, TrialResult};
use serde_json::Value;

use super::compare::{CompareParams, CompareQuery};
use super::effects::{EffectsParams, EffectsQuery};
use super::query::{TableParams, TableQuery, Weighting};
use super::row_source::RowSource;
use super::sample_size::compute_sample_size;
use super::table::TableEntry;
use super::trial_values::read_cell_trials;
use crate::estimators::Summary;
use crate::estimators::paired::{
    PairedDifferences, holm_correction, sign_test, wilcoxon_signed_rank,
};
use crate::estimators::sample::wilson_interval;
use crate::estimators::special::{normal_quantile, student_t_quantile};
use crate::estimators::{Sample, bootstrap};
use crate::records::{DataPin, SweepRow, SweepState, SweepTallies};
use crate::store::sqlite::SqliteStore;
use crate::store::{InsertSweep, ReadableStore as _, RestoreRows, Store as _, StoredTrial};

fn fixture() -> Value {
    serde_json::from_str(include_str!("../../../tests/oracles/statistics.json"))
        .expect("the fixture is JSON")
}

fn list<'a>(fixture: &'a Value, key: &str) -> &'a [Value] {
    let list = fixture[key].as_array().expect("a list");
    assert!(!list.is_empty(), "{key}");
    list
}

fn numbers(value: &Value) -> Vec<f64> {
    value
        .as_array()
        .expect("a list")
        .iter()
        .map(|x| x.as_f64().expect("a number"))
        .collect()
}

fn number(value: &Value) -> f64 {
    value.as_f64().expect("a number")
}

/// Within 1e-12 of the larger, or of the scale given.
fn close(found: f64, wanted: f64, scale: f64, what: &Value) {
    let allowed = 1e-12 * wanted.abs().max(scale);
    assert!(
        (found - wanted).abs() <= allowed,
        "{found:e} is not {wanted:e}: {what}"
    );
}

fn bits(name: &str) -> impl Iterator<Item = u64> + use<> {
    let start = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| {
        (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3)
    });
    (0_u64..).map(move |i| {
        let z = start.wrapping_add(i.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    })
}

fn values(name: &str, shape: &str, n: usize) -> Vec<f64> {
    let unit = bits(name)
        .take(n)
        .map(|z| (z >> 11) as f64 / (1_u64 << 53) as f64);
    let fine = f64::from(1 << 20);
    unit.map(|u| match shape {
        "uniform" => u,
        "cubed" => u * u * u,
        "coarse" => (20.0 * u).floor() / 20.0,
        _ => 1e6 + (fine * u).floor() / fine,
    })
    .collect()
}

fn sample_of(case: &Value) -> Sample {
    let shape = case["shape"].as_str().unwrap_or("offset");
    Sample::new(values(
        case["name"].as_str().expect("a name"),
        shape,
        number(&case["n"]) as usize,
    ))
}

#[test]
fn a_million_values_far_from_zero_keep_every_digit() {
    for case in list(&fixture(), "large") {
        let sample = sample_of(case);
        close(
            sample.mean().expect("values"),
            number(&case["mean"]),
            0.0,
            case,
        );

        close(
            sample.variance().expect("values"),
            number(&case["var"]),
            0.0,
            case,
        );
    }
}

#[test]
fn quantiles_of_distributions_agree_with_scipy() {
    for case in list(&fixture(), "normal") {
        let [p, z] = numbers(case)[..] else {
            panic!("{case}")
        };
        close(normal_quantile(p), z, 1e-3, case);
    }

    for case in list(&fixture(), "t") {
        let [p, degrees, t] = numbers(case)[..] else {
            panic!("{case}")
        };
        close(student_t_quantile(p, degrees), t, 0.0, case);
    }
}

#[test]
fn samples_agree_with_numpy_and_scipy() {
    for case in list(&fixture(), "summaries") {
        let sample = sample_of(case);
        let same = |found: Option<f64>, key: &str| {
            close(found.expect("defined"), number(&case[key]), 0.0, case)
        };
        same(sample.mean(), "mean");
        same(sample.std(), "std");

        same(sample.standard_error(), "se");
        same(sample.trimmed_mean(0.1), "trim10");
        same(sample.trimmed_mean(0.25), "iqm");

        for (share, wanted) in case["quantiles"].as_object().expect("an object") {
            let found = sample.quantile(share.parse().expect("a share"));
            let wanted: f64 = wanted
                .as_str()
                .and_then(|text| text.parse().ok())
                .expect("a number as text");
            assert_eq!(found, Some(wanted), "quantile {share}: {case}");
        }

        for (level, wanted) in case["ci"].as_object().expect("an object") {
            let (low, high) = sample
                .t_interval(level.parse().expect("a level"))
                .expect("two values");
            let wanted = numbers(wanted);
            close(low, wanted[0], wanted[1].abs(), case);

            close(high, wanted[1], wanted[0].abs(), case);
        }
    }
}

#[test]
fn shares_and_signs_agree_with_statsmodels_and_scipy() {
    for case in list(&fixture(), "wilson") {
        let [hits, n, level, low, high] = numbers(case)[..] else {
            panic!("{case}")
        };
        let found = wilson_interval(hits as u64, n as u64, level);
        close(found.0, low, 1.0, case);

        close(found.1, high, 1.0, case);
    }

    for case in list(&fixture(), "sign") {
        let [hits, n, p] = numbers(case)[..] else {
            panic!("{case}")
        };
        close(sign_test(hits as u64, (n - hits) as u64), p, 0.0, case);
    }
}

#[test]
fn paired_comparisons_agree_with_scipy() {
    let mut exact = 0;
    let mut normal = 0;

    for case in list(&fixture(), "paired") {
        let name = case["name"].as_str().expect("a name");
        let shape = case["shape"].as_str().expect("a shape");
        let n = number(&case["n"]) as usize;
        let pull = number(&case["pull"]);
        let b = values(&format!("{name}/b"), shape, n);
        let c = values(&format!("{name}/c"), shape, n);
        let cell = |b: f64, c: f64| {
            if shape == "coarse" {
                c + 0.05
            } else {
                pull * b + (1.0 - pull) * c + 0.02
            }
        };
        let pairs: Vec<(f64, f64)> = b.iter().zip(&c).map(|(b, c)| (cell(*b, *c), *b)).collect();
        let paired = PairedDifferences::from_pairs(&pairs, 0.95);

        let same = |found: Option<f64>, key: &str| {
            close(found.expect("defined"), number(&case[key]), 0.1, case)
        };
        same(paired.difference, "difference");
        same(paired.std, "std");
        same(paired.sign_p, "sign_p");

        same(paired.wilcoxon.map(|test| test.p), "wilcoxon_p");
        same(paired.correlation, "correlation");
        same(paired.unpaired_repeats, "unpaired");
        let (low, high) = paired.interval.expect("two repeats");
        let ends = numbers(&case["ci95"]);
        close(low, ends[0], ends[1].abs(), case);

        close(high, ends[1], ends[0].abs(), case);
        let is_exact = paired.wilcoxon.expect("two repeats").exact;
        assert_eq!(is_exact, case["exact"] == true, "{case}");
        if is_exact { exact += 1 } else { normal += 1 }
    }

    assert!(exact > 5 && normal > 5);
    for case in list(&fixture(), "holm") {
        let p: Vec<Option<f64>> = numbers(&case["p"]).into_iter().map(Some).collect();
        for (found, wanted) in holm_correction(&p)
            .into_iter()
            .zip(numbers(&case["adjusted"]))
        {
            close(found.expect("a p"), wanted, 0.0, case);
        }
    }
}

#[test]
fn bootstrap_intervals_agree_with_scipy_within_what_resampling_leaves() {
    for case in list(&fixture(), "bootstrap") {
        let mut stream = fixed_stream("bootstrap against scipy", 0);
        let (low, high) =
            bootstrap::bca_interval(&sample_of(case), number(&case["level"]), &mut stream)
                .expect("values");
        for ((found, wanted), spread) in [low, high]
            .into_iter()
            .zip(numbers(&case["ends"]))
            .zip(numbers(&case["spread"]))
        {
            assert!(
                (found - wanted).abs() < 4.5 * spread,
                "{found} is not {wanted} ± {spread}: {case}"
            );
        }
    }
}

// --- what intervals and tests promise ---

/// How a law is drawn, and its mean.
type Law = (fn(&mut RandomStream) -> f64, f64);

/// Normal, exponential (skewness 2), and the square root of an exponential variable (skewness 0.6).
const LAWS: [Law; 3] = [
    (RandomStream::next_normal, 0.0),
    (exponential, 1.0),
    (|stream| exponential(stream).sqrt(), 0.886_226_925_452_758),
];

fn exponential(stream: &mut RandomStream) -> f64 {
    -(1.0 - stream.next_uniform()).ln()
}

/// Share of `rounds` in which an interval covers the mean.
fn coverage(
    law: usize,
    n: usize,
    rounds: u64,
    interval: impl Fn(&Sample, &mut RandomStream) -> Option<(f64, f64)>,
) -> f64 {
    let (draw, mean) = LAWS[law];
    let covers = |round: &u64| {
        let mut stream = fixed_stream("coverage", (law as u64 * 1000 + n as u64) << 32 | *round);
        let sample = Sample::new((0..n).map(|_| draw(&mut stream)).collect());
        interval(&sample, &mut stream).is_some_and(|(low, high)| low <= mean && mean <= high)
    };
    (0..rounds).filter(covers).count() as f64 / rounds as f64
}

#[test]
fn t_intervals_cover_what_they_say() {
    // Under the exponential law, which is far from normal, they fall short below some fifty repeats: 0.90 at 10.
    for (law, n) in [
        (0, 2),
        (0, 5),
        (0, 20),
        (0, 100),
        (2, 10),
        (2, 30),
        (2, 100),
        (1, 50),
        (1, 200),
    ] {
        let share = coverage(law, n, 8000, |sample, _| sample.t_interval(0.95));
        assert!(
            (0.93..=0.97).contains(&share),
            "law {law}, {n} values: {share}"
        );
    }

    let short = coverage(1, 10, 8000, |sample, _| sample.t_interval(0.95));
    assert!((0.87..0.93).contains(&short), "{short}");
    let wide = coverage(0, 10, 8000, |sample, _| sample.t_interval(0.99));
    assert!((0.985..=0.995).contains(&wide), "{wide}");
}

#[test]
fn bootstrap_intervals_cover_what_they_say_from_a_hundred_values_on() {
    for law in [0, 2] {
        let share = coverage(law, 100, 1000, |sample, stream| {
            bootstrap::bca_interval(sample, 0.95, stream)
        });
        assert!((0.93..=0.97).contains(&share), "law {law}: {share}");
    }

    // Of ten values they know too little.
    for (law, range) in [(0, 0.87..0.92), (1, 0.84..0.9)] {
        let share = coverage(law, 10, 1500, |sample, stream| {
            bootstrap::bca_interval(sample, 0.95, stream)
        });
        assert!(range.contains(&share), "law {law}: {share}");
    }
}

#[test]
fn wilson_intervals_cover_what_they_say_on_average_over_p() {
    for n in [5_u64, 20, 100] {
        let intervals: Vec<(f64, f64)> =
            (0..=n).map(|hits| wilson_interval(hits, n, 0.95)).collect();
        let mut average = 0.0;

        for step in 0..2000 {
            let p = (f64::from(step) + 0.5) / 2000.0;
            // The law of the number of hits, term by term.
            let mut chance = (1.0 - p).powi(n as i32);

            for (hits, (low, high)) in intervals.iter().enumerate() {
                average += if (*low..=*high).contains(&p) {
                    chance / 2000.0
                } else {
                    0.0
                };

                chance *= (n as f64 - hits as f64) / (hits as f64 + 1.0) * p / (1.0 - p);
            }
        }

        assert!((0.94..=0.97).contains(&average), "{n}: {average}");
    }
}

#[test]
fn p_values_are_uniform_or_conservative_where_there_is_nothing_to_find() {
    const ROUNDS: u64 = 8000;
    for (n, coarse) in [
        (8, false),
        (8, true),
        (30, false),
        (30, true),
        (100, false),
        (100, true),
    ] {
        let tests = |round: u64| {
            let mut stream =
                fixed_stream("null", u64::from(coarse) << 63 | (n as u64) << 32 | round);
            let mut draw = || {
                if coarse {
                    (4.0 * stream.next_normal()).round() / 20.0
                } else {
                    stream.next_normal()
                }
            };
            let differences: Vec<f64> = (0..n).map(|_| draw()).collect();
            let above = differences.iter().filter(|d| **d > 0.0).count() as u64;

            let below = differences.iter().filter(|d| **d < 0.0).count() as u64;
            (
                wilcoxon_signed_rank(&differences, &vec![1e-12; n]).p,
                sign_test(above, below),
            )
        };
        let found: Vec<(f64, f64)> = (0..ROUNDS).map(tests).collect();

        for alpha in [0.01, 0.05, 0.2, 0.5] {
            let share = |p: fn(&(f64, f64)) -> f64| {
                found.iter().filter(|t| p(t) <= alpha).count() as f64 / ROUNDS as f64
            };
            let wilcoxon = share(|t| t.0);
            let sign = share(|t| t.1);

            // Four standard deviations of what is counted, and a little for the normal approximation.
            let noise = 4.0 * (alpha * (1.0 - alpha) / ROUNDS as f64).sqrt();
            assert!(
                wilcoxon < alpha + noise + 0.003 && sign < alpha + noise,
                "{n} {coarse} {alpha}: {wilcoxon} {sign}"
            );

            // With thirty repeats, Wilcoxon's p has steps too small to see.
            assert!(
                n < 30 || wilcoxon > alpha - noise - 0.004,
                "{n} {coarse} {alpha}: {wilcoxon}"
            );
        }
    }
}

// --- rows, in however many parts they are read ---

/// A store with a sweep of six cells, of which some trials diverged, failed, or have no value; and its sweep file.
fn stored_sweep(dir: &std::path::Path) -> (SqliteStore, Spec) {
    stored(dir, "", |_, _| {})
}

/// The same with more in its file, and other values.
fn stored(
    dir: &std::path::Path,
    more: &str,
    change: impl Fn(TrialKey, &mut [f64]),
) -> (SqliteStore, Spec) {
    let text = "name = \"parts\"\nrepeats = 9\n[model]\nkind = \"empty\"\n[train]\nsteps = 3\n[grid]\nlr = [0.1, 0.2, 0.3]\n\
                wd = [0.0, 1.0]\n[measure]\nevery = \"1 step\"\nmetrics = [\"train_loss\", \"test_acc\"]\n";
    let mut stream = fixed_stream("parts", 0);
    let mut rows = Vec::new();

    for key in (0..6).flat_map(|cell| (0..9).map(move |repeat| TrialKey::new(cell, repeat))) {
        let lot = stream.next_uniform();
        let outcome = match lot {
            _ if lot < 0.1 => Outcome::Failed {
                cause: "by lot".into(),
            },
            _ if lot < 0.3 => Outcome::Diverged { step: 2 },
            _ => Outcome::Completed,
        };

        let mut values: Vec<f64> = (0..6).map(|_| stream.next_normal()).collect();
        if lot > 0.9 {
            values[5] = f64::NAN;
        }

        change(key, &mut values);
        let curve = MetricCurve {
            steps: vec![1, 2, 3],
            values: values.clone(),
        };
        let result = TrialResult {
            outcome,
            metrics: values[4..].to_vec(),
            curve,
            ..TrialResult::completed(key)
        };

        rows.push(result);
    }

    stream.shuffle(&mut rows);
    stored_results(dir, format!("{more}{text}"), rows)
}

/// A store with a sweep of this file, and these results.
pub(super) fn stored_results(
    dir: &std::path::Path,
    text: String,
    results: Vec<TrialResult>,
) -> (SqliteStore, Spec) {
    let source = SpecSource {
        file: "parts".into(),
        text,
        ..SpecSource::default()
    };
    let spec = Spec::read_stored(&source).expect("a sweep");

    let row = SweepRow {
        number: SweepNumber::UNSTORED,
        id: "parts".into(),
        source,
        data: DataPin {
            hash: None,
            train: 0,
            provenance: String::new(),
        },
        state: SweepState::Completed,
        share: Share::default(),
        launched_at: 0.0,
        launched_by: String::new(),
        tallies: SweepTallies::default(),
    };

    let rows = results
        .into_iter()
        .map(|result| StoredTrial {
            result,
            worker: "w".into(),
        })
        .collect();

    let store = SqliteStore::open(dir).expect("a store");
    let mut writer = store.open_writer(Epoch(1)).expect("a writer");
    writer
        .commit((
            InsertSweep(row),
            RestoreRows {
                sweep: SweepNumber(1),
                rows,
                attempts: Vec::new(),
            },
        ))
        .expect("committed");

    (store, spec)
}

/// Cells of a sweep of two axes with two values each, and two metrics sampled after each of three steps.
const FOUR_CELLS: &str = "name = \"four\"\nrepeats = 9\n[model]\nkind = \"empty\"\n[train]\nsteps = 3\n[grid]\nlr = [0.1, 0.2]\n\
                          wd = [0.0, 1.0]\n[measure]\nevery = \"1 step\"\n";

/// A trial with two metrics that were the same all the time, and these samples.
fn steady(cell: u64, repeat: u32, values: [f64; 2], steps: &[u64]) -> TrialResult {
    let curve = MetricCurve {
        steps: steps.to_vec(),
        values: values.repeat(steps.len()),
    };
    TrialResult {
        metrics: values.to_vec(),
        curve,
        ..TrialResult::completed(TrialKey::new(cell, repeat))
    }
}

#[test]
fn figures_have_the_same_bits_whatever_the_number_of_readers() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (store, spec) = stored_sweep(dir.path());
    let by = ["lr".to_owned()];
    let stats = ["mean", "boot95", "p_diverged", "mean_all", "q05"].map(str::to_owned);
    let questions = [
        TableParams::default(),
        TableParams {
            by: &by,
            stats: &stats,
            ..TableParams::default()
        },
        TableParams {
            at: "2 steps",
            metric: "train_loss",
            stats: &stats[..1],
            ..TableParams::default()
        },
    ];
    let answers = |readers: usize| {
        let readers = store.open_readers(readers).expect("readers");
        let rows = RowSource {
            spec: &spec,
            sweep: SweepNumber(1),
            readers: &readers,
            dataset_hash: DatasetHash::NONE,
        };

        let mut answers = Vec::new();
        for question in &questions {
            let query = TableQuery::new(&spec, question).expect("a question");
            answers.push(query.compute_table(rows).expect("a table"));
            answers.push(query.compute_curves(rows).expect("curves"));
        }

        let baseline = [("lr".to_owned(), "0.1".to_owned())];
        let contrasts = ["", "2 steps"].map(|at| {
            let contest = CompareParams {
                baseline: &baseline,
                metric: "",
                at,
                level: 0.95,
            };
            CompareQuery::new(&spec, &contest)
                .and_then(|asked| asked.compute_contrasts(rows))
                .expect("contrasts")
        });

        (answers, contrasts)
    };
    let one = answers(1);
    assert_eq!(
        one.0[0]
            .iter()
            .map(|entry| entry.counts.done())
            .sum::<u64>(),
        54
    );

    assert!(
        one.0[0]
            .iter()
            .any(|entry| entry.summary.n < entry.counts.completed),
        "some have no value"
    );

    for readers in [2, 3, 7] {
        assert_eq!(answers(readers), one, "{readers} readers");
    }
}

#[test]
fn a_trial_that_diverges_later_is_one_that_lives() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (store, spec) = stored_sweep(dir.path());
    let mut stored: Vec<StoredTrial> = Vec::new();
    let mut take = |row: StoredTrial| {
        stored.push(row);
        true
    };
    store
        .open_reader()
        .expect("a reader")
        .read_trials_after(SweepNumber(1), 0, &mut take)
        .expect("rows");

    let readers = store.open_readers(1).expect("readers");
    let rows = RowSource {
        spec: &spec,
        sweep: SweepNumber(1),
        readers: &readers,
        dataset_hash: DatasetHash::NONE,
    };

    let stats = ["n", "mean", "diverged", "p_diverged", "mean_all"].map(str::to_owned);
    for (at, step) in [("1 step", 1), ("2 steps", 2), ("3 steps", 3)] {
        let query = TableQuery::new(
            &spec,
            &TableParams {
                at,
                stats: &stats,
                ..TableParams::default()
            },
        )
        .expect("a question");
        let table = query.compute_table(rows).expect("a table");

        let curves = query.compute_curves(rows).expect("curves");
        for (cell, entry) in table.iter().enumerate() {
            let of_cell = stored
                .iter()
                .filter(|row| row.result.key.cell == CellIndex(cell as u64));
            let ends = of_cell.filter(|row| !matches!(row.result.outcome, Outcome::Failed { .. }));
            let (dead, living): (Vec<_>, Vec<_>) = ends
                .partition(|row| step >= 2 && row.result.outcome == Outcome::Diverged { step: 2 });

            let value = |row: &&StoredTrial| row.result.curve.values[2 * step - 1];
            let values: Vec<f64> = living.iter().map(value).filter(|x| x.is_finite()).collect();
            let sum = values.iter().sum::<f64>();
            let n = values.len() as f64;
            let lost = dead.len() as f64;
            let wanted = [
                n,
                sum / n,
                lost,
                lost / (lost + living.len() as f64),
                (sum + 0.1 * lost) / (n + lost),
            ];

            let point = curves
                .iter()
                .find(|point| point.step == step as u64 && point.values == entry.values);
            for figures in [&entry.statistics, &point.expect("a point").statistics] {
                // Behind the share stand the ends of its interval.
                let found = [0, 1, 2, 3, 6].map(|at| figures[at].expect("defined"));
                let near = found
                    .iter()
                    .zip(&wanted)
                    .all(|(a, b)| (a - b).abs() < 1e-12);
                assert!(near, "cell {cell} after step {step}: {found:?} {wanted:?}");
            }
        }
    }

    let stranger = TableQuery::new(
        &spec,
        &TableParams {
            at: "7 steps",
            ..TableParams::default()
        },
    )
    .expect("a question");
    let why = stranger
        .compute_table(rows)
        .expect_err("no such sample")
        .to_string();

    assert!(
        why.contains("after step 7") && why.contains("nearest samples are after step 3"),
        "{why}"
    );
}

/// Of equal values; a row that may pool cells sums its squares by repeat, which rounds otherwise.
fn assert_same_summary(a: &Summary, b: &Summary) {
    let figures = |summary: &Summary| {
        let ends = summary.ci95.unzip();
        [
            summary.mean,
            summary.std,
            ends.0,
            ends.1,
            summary.min,
            summary.median,
            summary.max,
        ]
    };
    assert_eq!(a.n, b.n);
    for (x, y) in figures(a).into_iter().zip(figures(b)) {
        let same = x == y || x.zip(y).is_some_and(|(x, y)| (x - y).abs() < 1e-12);
        assert!(same, "{a:?} {b:?}");
    }
}

#[test]
fn a_condition_selects_cells_before_they_are_pooled() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (store, spec) = stored_sweep(dir.path());
    let readers = store.open_readers(1).expect("readers");
    let rows = RowSource {
        spec: &spec,
        sweep: SweepNumber(1),
        readers: &readers,
        dataset_hash: DatasetHash::NONE,
    };
    let query = |by: &[String], at: &str, cell_condition: &str| {
        TableQuery::new(
            &spec,
            &TableParams {
                by,
                at,
                cell_condition,
                ..TableParams::default()
            },
        )
    };

    let by = ["lr".to_owned()];
    for at in ["", "2 steps"] {
        let pooled = query(&by, at, "wd > 0.5").expect("a question");
        let whole = query(&[], at, "").expect("a question");
        let table = pooled.compute_table(rows).expect("a table");
        let cells = whole.compute_table(rows).expect("a table");
        assert_eq!(table.len(), 3);
        for (row, cell) in table.iter().zip(cells.iter().skip(1).step_by(2)) {
            assert_same_summary(&row.summary, &cell.summary);
            assert_eq!(row.counts, cell.counts, "{at}");
        }

        let curves = pooled.compute_curves(rows).expect("curves");
        let points = whole.compute_curves(rows).expect("curves");
        let mut of_cells = points
            .iter()
            .filter(|point| point.values[1].as_f64() == Some(1.0));
        for point in &curves {
            let other = of_cells.next().expect("a point");
            assert_eq!(point.step, other.step);
            assert_same_summary(&point.summary, &other.summary);
        }
    }

    let none = query(&by, "", "lr > 5").expect("a question");
    assert_eq!(none.compute_table(rows).expect("a table"), []);
    let why = |condition: &str| {
        query(&by, "", condition)
            .expect_err("no condition on axes")
            .to_string()
    };
    assert!(
        why("lrr > 1").contains("cell_condition: the sweep has no axis 'lrr', did you mean 'lr'")
    );
    assert!(why("mean > 1").contains("--having"));
    assert!(why("lr >").contains("cell_condition: expected a condition"));
}

#[test]
fn the_interval_of_several_cells_is_one_of_repeats() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (store, spec) = stored_sweep(dir.path());
    let readers = store.open_readers(1).expect("readers");
    let rows = RowSource {
        spec: &spec,
        sweep: SweepNumber(1),
        readers: &readers,
        dataset_hash: DatasetHash::NONE,
    };

    let by = ["lr".to_owned()];
    let stats = ["n", "se", "std"].map(str::to_owned);
    let query = TableQuery::new(
        &spec,
        &TableParams {
            by: &by,
            stats: &stats,
            ..TableParams::default()
        },
    )
    .expect("a question");

    let mut values: BTreeMap<u64, BTreeMap<u32, Vec<f64>>> = BTreeMap::new();
    let mut take = |row: StoredTrial| {
        let result = row.result;
        if result.outcome == Outcome::Completed && result.metrics[1].is_finite() {
            values
                .entry(result.key.cell.0 / 2)
                .or_default()
                .entry(result.key.repeat.0)
                .or_default()
                .push(result.metrics[1]);
        }

        true
    };
    store
        .open_reader()
        .expect("a reader")
        .read_trials(SweepNumber(1), &mut take)
        .expect("rows");

    for (entry, repeats) in query
        .compute_table(rows)
        .expect("a table")
        .iter()
        .zip(values.values())
    {
        let n = repeats.values().map(Vec::len).sum::<usize>() as f64;
        let mean = repeats.values().flatten().sum::<f64>() / n;
        let squares: f64 = repeats
            .values()
            .map(|of| of.iter().map(|x| x - mean).sum::<f64>().powi(2))
            .sum();
        let count = repeats.len() as f64;
        let wanted = (count / (count - 1.0) * squares).sqrt() / n;

        assert_eq!(entry.statistics[0], Some(n));
        assert!(
            (entry.statistics[1].expect("defined") - wanted).abs() < 1e-12,
            "{:?} {wanted}",
            entry.statistics
        );

        let half = entry
            .summary
            .ci95
            .map(|(low, high)| (high - low) / 2.0)
            .expect("defined");
        assert!((half - wanted * student_t_quantile(0.975, count - 1.0)).abs() < 1e-12);
    }
}

#[test]
fn cells_without_a_sample_at_a_moment_have_no_place_and_leave_the_others_theirs() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let text = format!("{FOUR_CELLS}metrics = [\"train_loss\", \"test_acc\"]\n");
    let mut results = Vec::new();

    for (cell, repeat) in (0..4).flat_map(|cell| (0..9).map(move |repeat| (cell, repeat))) {
        // The first cell was never sampled after step 2; and of each cell a trial diverged before.
        let steps: &[u64] = if cell == 0 { &[1, 3] } else { &[1, 2, 3] };
        let mut result = steady(cell, repeat, [1.0, cell as f64 / 10.0], steps);

        if u64::from(repeat) == cell {
            result.outcome = Outcome::Diverged { step: 1 };
        }

        results.push(result);
    }

    let (store, spec) = stored_results(dir.path(), text, results);
    let readers = store.open_readers(2).expect("readers");
    let rows = RowSource {
        spec: &spec,
        sweep: SweepNumber(1),
        readers: &readers,
        dataset_hash: DatasetHash::NONE,
    };

    let query = TableQuery::new(
        &spec,
        &TableParams {
            at: "2 steps",
            ..TableParams::default()
        },
    )
    .expect("a question");
    let table = query.compute_table(rows).expect("a table");
    let places: Vec<Option<u64>> = table
        .iter()
        .map(|entry| entry.rank.map(|place| place.rank))
        .collect();
    assert_eq!(places, [None, Some(3), Some(2), Some(1)]);

    // The best one is the last of three once in nine repeats.
    let mean_rank = table[3].rank.expect("ranked").mean_rank;
    assert!((mean_rank - 11.0 / 9.0).abs() < 1e-12, "{mean_rank}");
    let trials = read_cell_trials(&query, rows).expect("trials");
    let ends: Vec<usize> = trials.values().map(|trials| trials.ends.len()).collect();
    assert_eq!(ends, [0, 9, 9, 9]);
}

/// A table of pages of so many cells.
pub(super) fn in_pages(query: &TableQuery, cells: u64, rows: RowSource<'_>) -> Vec<TableEntry> {
    let mut all = Vec::new();
    let taken = query.for_each_page_of_cells(cells, rows, &mut |page| {
        all.extend(page);
        true
    });
    taken.expect("a table");
    all
}

#[test]
fn validation_images_choose_in_the_pass_that_reads_the_values() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let text = FOUR_CELLS.replace(
        "[model]\nkind = \"empty\"",
        "[data]\ndataset = \"glyphs\"\nvalidation = 50\n[model]\nkind = \"cnn4\"",
    );
    let text = text.replace("steps = 3\n[grid]", "steps = 3\nbatch_size = 32\n[grid]");
    let text = format!("{text}metrics = [\"test_acc\", \"val_acc\"]\n");

    let trials = (0..4).flat_map(|cell| (0..9).map(move |repeat| (cell, repeat)));
    let values = |cell: u64| [cell as f64 / 10.0, 0.9 - cell as f64 / 10.0];
    let results = trials
        .map(|(cell, repeat)| steady(cell, repeat, values(cell), &[1, 2, 3]))
        .collect();
    let (store, spec) = stored_results(dir.path(), text, results);
    let readers = store.open_readers(2).expect("readers");
    let rows = RowSource {
        spec: &spec,
        sweep: SweepNumber(1),
        readers: &readers,
        dataset_hash: DatasetHash::NONE,
    };

    for at in ["", "2 steps"] {
        let query = TableQuery::new(
            &spec,
            &TableParams {
                at,
                ..TableParams::default()
            },
        )
        .expect("a question");
        let paged = |cells| in_pages(&query, cells, rows);

        for table in [
            query.compute_table(rows).expect("a table"),
            paged(1),
            paged(3),
            paged(4),
        ] {
            let found: Vec<_> = table
                .iter()
                .map(|entry| (entry.summary.mean, entry.rank.map(|p| p.rank)))
                .collect();
            let wanted = [0.0, 0.1, 0.2, 0.3]
                .map(Some)
                .into_iter()
                .zip([1, 2, 3, 4].map(Some))
                .collect::<Vec<_>>();

            assert_eq!(
                found, wanted,
                "the test value, and the place by the other one"
            );
        }
    }
}

#[test]
fn rows_of_different_losses_have_no_place_by_their_loss() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let text = FOUR_CELLS.replace(
        "[model]\nkind = \"empty\"",
        "[data]\ndataset = \"glyphs\"\n[model]\nkind = \"cnn4\"",
    );
    let text = text.replace("steps = 3\n[grid]", "steps = 3\nbatch_size = 32\n[grid]");
    let text = text.replace(
        "wd = [0.0, 1.0]",
        "\"train.loss\" = [\"cross-entropy\", \"mse\"]",
    );
    let text = format!("{text}metrics = [\"test_acc\", \"test_loss\"]\n");

    let trials = (0..4).flat_map(|cell| (0..9).map(move |repeat| (cell, repeat)));
    let results = trials
        .map(|(cell, repeat)| steady(cell, repeat, [cell as f64 / 10.0; 2], &[1, 2, 3]))
        .collect();
    let (store, spec) = stored_results(dir.path(), text, results);
    let readers = store.open_readers(2).expect("readers");
    let rows = RowSource {
        spec: &spec,
        sweep: SweepNumber(1),
        readers: &readers,
        dataset_hash: DatasetHash::NONE,
    };

    for (metric, is_ranked) in [("test_loss", false), ("test_acc", true)] {
        let query = TableQuery::new(
            &spec,
            &TableParams {
                metric,
                ..TableParams::default()
            },
        )
        .expect("a question");
        let mut entries = query.compute_table(rows).expect("a table");
        entries.extend(in_pages(&query, 1, rows));

        entries.extend(in_pages(&query, 4, rows));
        assert_eq!(
            (entries.len(), query.unranked_reason().is_none()),
            (12, is_ranked),
            "{metric}"
        );

        assert!(
            entries
                .iter()
                .all(|entry| entry.rank.is_some() == is_ranked),
            "{metric}"
        );
    }
}

#[test]
fn a_row_of_several_cells_is_known_by_the_repeats_that_all_of_them_have_ended() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let text = format!("{FOUR_CELLS}metrics = [\"train_loss\", \"test_acc\"]\n");
    let value = |cell: u64, repeat: u32| cell as f64 + 0.1 * f64::from(repeat * repeat % 7);

    // Of the first row one cell lags; of the second one it has not begun.
    let has = [9, 4, 9, 0];
    let trials =
        (0..4).flat_map(|cell: u64| (0..has[cell as usize]).map(move |repeat| (cell, repeat)));
    let results = trials
        .map(|(cell, repeat)| steady(cell, repeat, [1.0, value(cell, repeat)], &[1, 2, 3]))
        .collect();
    let (store, spec) = stored_results(dir.path(), text, results);
    let readers = store.open_readers(2).expect("readers");
    let rows = RowSource {
        spec: &spec,
        sweep: SweepNumber(1),
        readers: &readers,
        dataset_hash: DatasetHash::NONE,
    };

    let by = ["lr".to_owned()];
    let query = TableQuery::new(
        &spec,
        &TableParams {
            by: &by,
            ..TableParams::default()
        },
    )
    .expect("a question");
    let table = query.compute_table(rows).expect("a table");

    let curves = query.compute_curves(rows).expect("curves");
    let all = |cell: u64, n: u32| (0..n).map(move |repeat| value(cell, repeat));
    let mean = Sample::new(all(0, 9).chain(all(1, 4)).collect())
        .mean()
        .expect("values");

    // Four repeats, of each of which the mean of both cells is one value.
    let pairs = Sample::new(
        all(0, 4)
            .zip(all(1, 4))
            .map(|(a, b)| (a + b) / 2.0)
            .collect(),
    );
    let (low, high) = pairs.t_interval(0.95).expect("four");

    let points: Vec<_> = curves.iter().filter(|point| point.step == 2).collect();
    for entry in [&table[0], points[0]] {
        let (found_low, found_high) = entry.summary.ci95.expect("an interval");
        assert!(
            (found_high - found_low - (high - low)).abs() < 1e-12,
            "{:?}",
            entry.summary
        );

        assert!((0.5 * (found_low + found_high) - mean).abs() < 1e-12 && entry.summary.n == 13);
        assert!(entry.note.contains("the 4 of 9 repeats"), "{}", entry.note);
    }

    for entry in [&table[1], points[1]] {
        assert_eq!((entry.summary.n, entry.summary.ci95), (9, None));
        assert!(
            entry
                .note
                .contains("only 0 of 9 repeats have ended in all cells of the row: no interval"),
            "{}",
            entry.note
        );
    }

    assert_eq!(
        table
            .iter()
            .map(|entry| entry.rank.map(|p| p.rank))
            .collect::<Vec<_>>(),
        [Some(1), None]
    );
}

#[test]
fn pages_together_draw_no_more_than_a_table_that_is_whole() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (_store, spec) = stored_sweep(dir.path());
    let stats = ["boot95".to_owned()];
    let query = TableQuery::new(
        &spec,
        &TableParams {
            stats: &stats,
            ..TableParams::default()
        },
    )
    .expect("a question");

    let drawn = Cell::new(0);
    let page = 600_000;

    for _ in 0..3 {
        query
            .check_bootstrap_work([page].into_iter(), &drawn)
            .expect("not too much yet");
    }

    let why = query
        .check_bootstrap_work([page].into_iter(), &drawn)
        .expect_err("too much")
        .to_string();
    assert!(why.contains("use ci95"), "{why}");

    query
        .check_bootstrap_work([page].into_iter(), &Cell::new(0))
        .expect("another question");
}

#[test]
fn what_is_infinite_stays_so_from_the_store_to_the_table() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let infinite = |key: TrialKey, values: &mut [f64]| {
        if key.cell == CellIndex(1) && key.repeat.0.is_multiple_of(2) {
            values[4] = f64::INFINITY;
        }
    };
    let (store, spec) = stored(dir.path(), "", infinite);
    let readers = store.open_readers(1).expect("readers");
    let rows = RowSource {
        spec: &spec,
        sweep: SweepNumber(1),
        readers: &readers,
        dataset_hash: DatasetHash::NONE,
    };

    let stats = ["mean", "median", "q00", "ci95"].map(str::to_owned);
    for at in ["", "3 steps"] {
        let question = TableParams {
            metric: "train_loss",
            at,
            stats: &stats,
            ..TableParams::default()
        };
        let query = TableQuery::new(&spec, &question).expect("a question");
        let table = query.compute_table(rows).expect("a table");
        assert_eq!(
            (table[1].summary.mean, table[1].summary.max),
            (Some(f64::INFINITY), Some(f64::INFINITY))
        );

        assert_eq!(
            (
                table[1].summary.n,
                table[1].statistics[3],
                table[1].statistics[0]
            ),
            (table[1].counts.completed, None, Some(f64::INFINITY))
        );

        assert!(
            table[1].statistics[2].is_some_and(f64::is_finite)
                && table[1].note.contains("infinite"),
            "{}",
            table[1].note
        );

        assert!(table[0].summary.mean.is_some_and(f64::is_finite));
    }
}

#[test]
fn cells_or_trials_count_alike_in_a_row_of_several() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (store, spec) = stored_sweep(dir.path());
    let readers = store.open_readers(1).expect("readers");
    let rows = RowSource {
        spec: &spec,
        sweep: SweepNumber(1),
        readers: &readers,
        dataset_hash: DatasetHash::NONE,
    };

    let by = ["lr".to_owned()];
    let table = |by: &[String], weighting| {
        let query = TableQuery::new(
            &spec,
            &TableParams {
                by,
                weighting,
                ..TableParams::default()
            },
        )
        .expect("a question");

        query.compute_table(rows).expect("a table")
    };
    let cells = table(&[], Weighting::Trials);

    let trials = table(&by, Weighting::Trials);
    let alike = table(&by, Weighting::Cells);
    for (row, (trials, alike)) in trials.iter().zip(&alike).enumerate() {
        let of = [0, 1].map(|cell| &cells[2 * row + cell].summary);
        let [a, b] = of.map(|summary| summary.mean.expect("a mean"));
        let [n, m] = of.map(|summary| summary.n as f64);
        assert!((trials.summary.mean.expect("a mean") - (n * a + m * b) / (n + m)).abs() < 1e-12);
        assert!((alike.summary.mean.expect("a mean") - (a + b) / 2.0).abs() < 1e-12);

        assert_eq!(
            (trials.summary.std, trials.summary.n),
            (alike.summary.std, alike.summary.n)
        );
    }

    assert!(
        trials
            .iter()
            .zip(&alike)
            .any(|(trials, alike)| trials.summary.mean != alike.summary.mean)
    );
}

/// The smallest p of any values is that of differences that all have one sign.
#[test]
fn that_repeats_are_too_few_is_said_where_no_difference_could_be_significant() {
    let text = format!("{FOUR_CELLS}metrics = [\"train_loss\", \"test_acc\"]\n");
    let baseline = [("lr", "0.1"), ("wd", "0.0")].map(|(axis, value)| (axis.into(), value.into()));
    let contest = CompareParams {
        baseline: &baseline,
        metric: "test_acc",
        at: "",
        level: 0.95,
    };
    let mut counts = [0, 0];

    for repeats in 2..=9 {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let trials = (0..4).flat_map(|cell| (0..repeats).map(move |repeat| (cell, repeat)));
        let results = trials
            .map(|(cell, repeat)| {
                let value = cell as f64 * (1.0 + f64::from(repeat));
                steady(cell, repeat, [1.0, value], &[1, 2, 3])
            })
            .collect();
        let (store, spec) = stored_results(dir.path(), text.clone(), results);
        let readers = store.open_readers(1).expect("readers");
        let rows = RowSource {
            spec: &spec,
            sweep: SweepNumber(1),
            readers: &readers,
            dataset_hash: DatasetHash::NONE,
        };

        let comparison = CompareQuery::new(&spec, &contest).expect("a comparison");
        let contrasts = comparison.compute_contrasts(rows).expect("contrasts");
        let smallest = contrasts
            .iter()
            .filter_map(|contrast| contrast.sign_holm)
            .fold(1.0, f64::min);
        let said = comparison.describe_caveats(&contrasts);
        assert_eq!(
            said.is_empty(),
            smallest <= 0.05,
            "{repeats} repeats, p = {smallest}: {said}"
        );

        counts[usize::from(said.is_empty())] += 1;
        if !said.is_empty() {
            // 3·2·2⁻⁷ is 0.047.
            let start = format!("with {repeats} repeats and 3 cells,");
            assert!(said.starts_with(&start), "{said}");
            assert!(said.contains("at least 7 repeats"), "{said}");
        }
    }

    assert_eq!(counts, [5, 3]);
}

#[test]
fn where_repeats_end_by_precision_it_is_said_which_intervals_are_widened() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (store, mut spec) = stored(dir.path(), "", |_, _| {});
    let rule = StoppingCriterion::Precision { ci95: 0.1 };
    spec.stopping_rule = Some(StoppingRule {
        min_repeats: 2,
        min_is_explicit: true,
        metric: Metric::TestAcc,
        criterion: rule,
    });

    let readers = store.open_readers(1).expect("readers");
    let rows = RowSource {
        spec: &spec,
        sweep: SweepNumber(1),
        readers: &readers,
        dataset_hash: DatasetHash::NONE,
    };
    let note = |stats: &[&str]| {
        let stats: Vec<String> = stats.iter().map(|name| (*name).to_owned()).collect();
        let query = TableQuery::new(
            &spec,
            &TableParams {
                stats: &stats,
                ..TableParams::default()
            },
        )
        .expect("a question");

        query.compute_table(rows).expect("a table")[0].note.clone()
    };

    for (stats, words) in [
        (&[] as &[&str], "looked known: ci95 is Student's at 98 %"),
        (
            &["ci80", "ci99"],
            "looked known: ci80 is Student's at 92 %, ci99 is Student's at 99.6 %",
        ),
        (&["boot95"], "looked known: boot95 is not widened"),
    ] {
        assert!(note(stats).contains(words), "{stats:?}: {}", note(stats));
    }

    let baseline = [("lr".to_owned(), "0.1".to_owned())];
    let contest = CompareParams {
        baseline: &baseline,
        metric: "",
        at: "",
        level: 0.95,
    };
    let comparison = CompareQuery::new(&spec, &contest).expect("a comparison");
    let contrasts = comparison.compute_contrasts(rows).expect("contrasts");
    assert!(
        comparison
            .describe_caveats(&contrasts)
            .contains("these intervals are not widened")
    );

    let asked = EffectsParams {
        metric: "",
        at: "",
        level: 0.95,
        interaction: &[],
    };
    let effects = EffectsQuery::new(&spec, &asked)
        .and_then(|asked| asked.analyze_effects(rows))
        .expect("effects");

    assert!(
        effects
            .notes
            .iter()
            .any(|note| note.contains("these intervals are not widened")),
        "{:?}",
        effects.notes
    );
}

#[test]
fn under_crossed_and_fixed_streams_tables_say_on_what_terms_intervals_hold() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let crossed = "seeds = { crossed = { init = 3, order = 3 }, fixed = [\"head\"] }\n";
    let (store, spec) = stored(dir.path(), crossed, |_, _| {});
    let readers = store.open_readers(1).expect("readers");
    let rows = RowSource {
        spec: &spec,
        sweep: SweepNumber(1),
        readers: &readers,
        dataset_hash: DatasetHash::NONE,
    };

    let stats = ["ci95", "boot95", "p_diverged"].map(str::to_owned);
    let query = TableQuery::new(
        &spec,
        &TableParams {
            stats: &stats,
            ..TableParams::default()
        },
    )
    .expect("a question");
    let entry = &query.compute_table(rows).expect("a table")[0];
    assert!(
        entry.statistics[0].is_some() && entry.statistics[4].is_some(),
        "{entry:?}"
    );

    assert_eq!([2, 3, 5, 6].map(|at| entry.statistics[at]), [None; 4]);
    for words in [
        "given the fixed head",
        "no boot, use ci",
        "no interval of p_diverged",
    ] {
        assert!(entry.note.contains(words), "{}", entry.note);
    }

    let baseline = [("lr".to_owned(), "0.1".to_owned())];
    let contest = CompareParams {
        baseline: &baseline,
        metric: "",
        at: "",
        level: 0.95,
    };
    let contrasts = CompareQuery::new(&spec, &contest)
        .and_then(|asked| asked.compute_contrasts(rows))
        .expect("contrasts");
    let first = &contrasts[0];
    assert_eq!(
        (
            first.paired.sign_p,
            first.paired.wilcoxon,
            first.sign_holm,
            first.paired.saved_repeats()
        ),
        (None, None, None, None)
    );

    assert!(
        first.paired.n > 1 && first.note.contains("no sign test, no Wilcoxon"),
        "{}",
        first.note
    );
    let query = TableQuery::new(&spec, &TableParams::default()).expect("a question");
    let why = compute_sample_size(rows, &query, 0.1)
        .expect_err("more repeats would not do")
        .to_string();

    assert!(why.contains("crosses random streams"), "{why}");
}
