//! Quantities in the place of metrics, against numbers computed by hand.

use ergodic_common::ids::{DatasetHash, SweepNumber};
use ergodic_common::trial::MetricCurve;
use ergodic_common::{Outcome, Spec, TrialKey, TrialResult};

use super::compare::{CompareParams, CompareQuery};
use super::effects::{EffectsParams, EffectsQuery};
use super::query::{TableParams, TableQuery, Weighting};
use super::row_source::RowSource;
use super::sample_size::compute_sample_size;
use super::table::TableEntry;
use super::tests::{in_pages, stored_results};
use super::variance::VarianceQuery;
use crate::store::ReadableStore as _;
use crate::store::sqlite::SqliteStore;

/// Four cells; a trial has four steps, each with a sample.
const SWEEP: &str = r#"
name    = "q"
repeats = 4
[data]
dataset = "glyphs"
train   = 100
[model]
kind   = "mlp"
hidden = [8]
[train]
steps      = 4
batch_size = 10
schedule   = [{ step = 2, lr = "x0.1" }]
[grid]
lr = [0.1, 0.2]
wd = [0.0, 0.5]
[measure]
every   = "1 step"
metrics = ["train_loss", "effective_lr"]
[quantity]
inv  = "1/effective_lr"
gain = "jump(inv, decay)"
"#;

fn loss(cell: u64, repeat: u32, step: u64) -> f64 {
    1.0 + cell as f64 + 0.25 * f64::from(repeat) + 0.5 * step as f64
}

fn rate(cell: u64, repeat: u32, step: u64) -> f64 {
    let before = (1.0 + cell as f64) / (step as f64 * (1.0 + f64::from(repeat)));
    match step > 2 {
        true => before / (10.0 + f64::from(repeat)),
        false => before,
    }
}

/// What jumps: from step 2 to step 3, by the factor of the rate and 3/2.
fn gain(repeat: u32) -> f64 {
    1.5 * (10.0 + f64::from(repeat))
}

/// The trial of the first cell that diverges at step 3, after two samples.
const DIVERGED: (u64, u32) = (0, 3);
/// The trial of the last cell that fails.
const FAILED: (u64, u32) = (3, 1);

fn trial(cell: u64, repeat: u32) -> TrialResult {
    let steps: Vec<u64> = match (cell, repeat) {
        DIVERGED => vec![1, 2],
        FAILED => Vec::new(),
        _ => vec![1, 2, 3, 4],
    };
    let sample = |step: &u64| [loss(cell, repeat, *step), rate(cell, repeat, *step)];
    let values: Vec<f64> = steps.iter().flat_map(sample).collect();
    let outcome = match (cell, repeat) {
        DIVERGED => Outcome::Diverged { step: 3 },
        FAILED => Outcome::Failed {
            cause: "out of luck".to_owned(),
        },
        _ => Outcome::Completed,
    };

    TrialResult {
        metrics: values.iter().rev().take(2).rev().copied().collect(),
        curve: MetricCurve { steps, values },
        outcome,
        ..TrialResult::completed(TrialKey::new(cell, repeat))
    }
}

/// A store with the trials of a sweep of this file.
struct StoredSweep {
    store: SqliteStore,
    spec: Spec,
    _folder: tempfile::TempDir,
}

impl StoredSweep {
    fn new(text: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let keys = (0..4).flat_map(|cell| (0..4).map(move |repeat| (cell, repeat)));
        let results = keys.map(|(cell, repeat)| trial(cell, repeat)).collect();
        let (store, spec) = stored_results(folder.path(), text.to_owned(), results);
        Self {
            store,
            spec,
            _folder: folder,
        }
    }

    fn with_rows<T>(&self, readers: usize, work: impl FnOnce(RowSource<'_>) -> T) -> T {
        let readers = self.store.open_readers(readers).expect("readers");
        work(RowSource {
            spec: &self.spec,
            sweep: SweepNumber(1),
            readers: &readers,
            dataset_hash: DatasetHash::NONE,
        })
    }

    fn query(&self, params: &TableParams<'_>) -> TableQuery {
        TableQuery::new(&self.spec, params).unwrap_or_else(|e| panic!("{e}"))
    }

    fn table(&self, params: &TableParams<'_>) -> Vec<TableEntry> {
        let query = self.query(params);
        self.with_rows(2, |rows| query.compute_table(rows).expect("a table"))
    }

    fn refusal(&self, params: &TableParams<'_>) -> String {
        match TableQuery::new(&self.spec, params) {
            Ok(_) => panic!("{params:?} is taken"),
            Err(error) => error.to_string(),
        }
    }
}

fn of(metric: &str) -> TableParams<'_> {
    TableParams {
        metric,
        ..TableParams::default()
    }
}

fn mean_of(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn assert_mean(entry: &TableEntry, wanted: &[f64]) {
    let mean = entry.summary.mean.expect("values");
    assert!((mean - mean_of(wanted)).abs() < 1e-12, "{entry:?}");
    assert_eq!(entry.summary.n, wanted.len() as u64, "{entry:?}");
}

/// The repeats of a cell that completed.
fn completed(cell: u64) -> Vec<u32> {
    let repeats = 0..4;
    repeats
        .filter(|repeat| ![DIVERGED, FAILED].contains(&(cell, *repeat)))
        .collect()
}

/// The values of a cell's completed trials.
fn values(cell: u64, value: impl Fn(u32) -> f64) -> Vec<f64> {
    completed(cell).into_iter().map(value).collect()
}

#[test]
fn tables_of_quantities_have_the_numbers_of_each_trial() {
    let sweep = StoredSweep::new(SWEEP);
    for (cell, entry) in (0..).zip(sweep.table(&of("gain"))) {
        assert_mean(&entry, &values(cell, gain));
        assert_eq!(entry.rank, None);
        assert_eq!(entry.counts.diverged, u64::from(cell == DIVERGED.0));
        assert_eq!(entry.counts.failed, u64::from(cell == FAILED.0));
    }
    for (cell, entry) in (0..).zip(sweep.table(&of("inv"))) {
        assert_mean(&entry, &values(cell, |r| 1.0 / rate(cell, r, 4)));
    }
    for (cell, entry) in (0..).zip(sweep.table(&of("mean(train_loss, last 25 %)/lr + wd"))) {
        let lr = [0.1, 0.1, 0.2, 0.2][cell as usize];
        let wd = [0.0, 0.5, 0.0, 0.5][cell as usize];
        let mean = |r: u32| f64::midpoint(loss(cell, r, 3), loss(cell, r, 4)) / lr + wd;
        assert_mean(&entry, &values(cell, mean));
    }

    // A window that no sample of some trials lies in.
    let entries = sweep.table(&of("at(train_loss, first(train_loss > 3.4))"));
    let late = |cell: u64, r: u32| (1..=4).find(|step| loss(cell, r, *step) > 3.4);
    let found = completed(0)
        .into_iter()
        .filter_map(|r| late(0, r).map(|s| loss(0, r, s)));
    let found: Vec<f64> = found.collect();
    assert_eq!(found.len(), 1);
    assert_mean(&entries[0], &found);
    assert_eq!(
        (entries[0].counts.completed, entries[0].counts.diverged),
        (3, 1)
    );
    let says = "2 completed trials have no value here";
    assert!(entries[0].note.contains(says), "{}", entries[0].note);
    assert!(!entries[1].note.contains("no value here"));
}

#[test]
fn a_moment_of_a_quantity_is_that_of_its_curve() {
    let sweep = StoredSweep::new(SWEEP);
    let at = |metric, at| TableParams { at, ..of(metric) };
    for (cell, entry) in (0..).zip(sweep.table(&at("inv", "2 steps"))) {
        let mut repeats = completed(cell);
        // A trial that diverged later has a value.
        repeats.extend((cell == DIVERGED.0).then_some(DIVERGED.1));
        let wanted: Vec<f64> = repeats.iter().map(|r| 1.0 / rate(cell, *r, 2)).collect();
        assert_mean(&entry, &wanted);
        assert_eq!(entry.counts.diverged, 0);
    }
    for (cell, entry) in (0..).zip(sweep.table(&at("train_loss/at(train_loss, end)", "1 step"))) {
        // What a value depends on is missing in a trial that diverged.
        assert_mean(
            &entry,
            &values(cell, |r| loss(cell, r, 1) / loss(cell, r, 4)),
        );
    }

    assert!(
        sweep
            .refusal(&at("gain", "2 steps"))
            .contains("at: 'gain' is one number per trial")
    );
    let gain = sweep.query(&of("gain"));
    let refused = gain.metric().check_has_curve().expect_err("no curve");
    assert!(
        refused
            .to_string()
            .contains("without a value at each sample"),
        "{refused}"
    );
}

#[test]
fn curves_of_quantities_have_the_values_at_each_sample() {
    let sweep = StoredSweep::new(SWEEP);
    for (metric, is_cut_off) in [("inv", false), ("inv/at(inv, 1)", true)] {
        let query = sweep.query(&of(metric));
        let curves = sweep.with_rows(2, |rows| query.compute_curves(rows).expect("curves"));
        assert_eq!(curves.len(), 16);
        let cells = (0..4).flat_map(|cell| (1..=4).map(move |step| (cell, step)));
        for ((cell, step), point) in cells.zip(curves) {
            let mut repeats = completed(cell);
            let has_sample = cell == DIVERGED.0 && step < 3 && !is_cut_off;
            repeats.extend(has_sample.then_some(DIVERGED.1));
            let value = |r: &u32| match is_cut_off {
                true => rate(cell, *r, 1) / rate(cell, *r, step),
                false => 1.0 / rate(cell, *r, step),
            };
            let wanted: Vec<f64> = repeats.iter().map(value).collect();
            assert_eq!(point.step, step);
            assert_mean(&point, &wanted);
        }
    }
}

#[test]
fn quantities_are_pooled_and_paged_as_metrics_are() {
    let sweep = StoredSweep::new(SWEEP);
    let by = ["wd".to_owned()];
    for weighting in [Weighting::Trials, Weighting::Cells] {
        let params = TableParams {
            by: &by,
            weighting,
            ..of("gain")
        };
        let entries = sweep.table(&params);
        let cells = [values(1, gain), values(3, gain)];
        let wanted = match weighting {
            Weighting::Trials => mean_of(&cells.concat()),
            Weighting::Cells => f64::midpoint(mean_of(&cells[0]), mean_of(&cells[1])),
        };
        let mean = entries[1].summary.mean.expect("values");
        assert!((mean - wanted).abs() < 1e-12, "{mean} {wanted}");
        assert_eq!(entries[1].counts.failed, 1);
    }

    for metric in ["gain", "inv", "first(inv > 5)*lr"] {
        let query = sweep.query(&of(metric));
        let one = sweep.with_rows(1, |rows| query.compute_table(rows).expect("a table"));
        for readers in [2, 5] {
            let other =
                sweep.with_rows(readers, |rows| query.compute_table(rows).expect("a table"));
            assert_eq!(one, other, "{metric}");
        }
        for cells in [1, 3] {
            let paged = sweep.with_rows(2, |rows| in_pages(&query, cells, rows));
            assert_eq!(one, paged, "{metric}");
        }
    }
}

#[test]
fn a_stored_metric_as_an_expression_is_the_metric() {
    let sweep = StoredSweep::new(SWEEP);
    let stats = ["mean", "ci99", "q05", "p_diverged"].map(str::to_owned);
    for at in ["", "2 steps"] {
        let tables = ["train_loss", "train_loss + 0", "at(train_loss, end)*1"].map(|metric| {
            let is_number = metric.starts_with("at");
            let params = TableParams {
                at: if is_number { "" } else { at },
                stats: &stats,
                ..of(metric)
            };
            let entries = sweep.table(&params).into_iter();
            // Quantities have no ranks.
            let unranked = entries.map(|entry| TableEntry {
                rank: None,
                ..entry
            });
            unranked.collect::<Vec<_>>()
        });
        assert_eq!(tables[0], tables[1], "{at}");
        if at.is_empty() {
            assert_eq!(tables[0], tables[2]);
        }
    }
}

#[test]
fn analyses_take_quantities() {
    let sweep = StoredSweep::new(SWEEP);
    let baseline = [("lr".to_owned(), "0.1".to_owned())];
    let params = CompareParams {
        baseline: &baseline,
        metric: "at(inv, end)",
        at: "",
        level: 0.95,
    };
    let query = CompareQuery::new(&sweep.spec, &params).expect("a question");
    let contrasts = sweep.with_rows(2, |rows| query.compute_contrasts(rows).expect("contrasts"));
    let inv = |cell: u64, r: u32| 1.0 / rate(cell, r, 4);
    for (contrast, cell) in contrasts.iter().zip([2, 3]) {
        let common = completed(cell)
            .into_iter()
            .filter(|r| completed(cell - 2).contains(r));
        let wanted: Vec<f64> = common.map(|r| inv(cell, r) - inv(cell - 2, r)).collect();
        let found = contrast.paired.difference.expect("a difference");
        assert!(
            (found - mean_of(&wanted)).abs() < 1e-12,
            "{found} {wanted:?}"
        );
        assert_eq!(contrast.paired.n, 3);
    }

    let params = EffectsParams {
        metric: "mean(train_loss)",
        at: "",
        level: 0.95,
        interaction: &[],
    };
    let query = EffectsQuery::new(&sweep.spec, &params).expect("a question");
    let effects = sweep.with_rows(2, |rows| query.analyze_effects(rows).expect("effects"));
    let mean = |cell: u64, r: u32| mean_of(&[1, 2, 3, 4].map(|step| loss(cell, r, step)));
    let cells = (0..4).map(|cell| mean_of(&values(cell, |r| mean(cell, r))));
    let grand = mean_of(&cells.collect::<Vec<f64>>());
    assert!(
        (effects.mean - grand).abs() < 1e-12,
        "{} {grand}",
        effects.mean
    );
    assert!(effects.best.is_empty());
    let says = |words: &str| effects.notes.iter().any(|note| note.contains(words));
    assert!(says(
        "for mean(train_loss), neither larger nor smaller values are better"
    ));

    let query = sweep.query(&of("gain"));
    let sizes = sweep.with_rows(1, |rows| {
        compute_sample_size(rows, &query, 0.5).expect("sizes")
    });
    assert_eq!((sizes.cells[0].n, sizes.cells[0].rows), (3, 4));
    // 15, 16.5 and 18.
    let std = sizes.cells[0].std.expect("three values");
    assert!((std - 1.5).abs() < 1e-12, "{std}");
}

#[test]
fn crossed_streams_of_a_quantity_are_told_apart() {
    let seeds = "repeats = 4\nseeds = { crossed = { init = 2, order = 2 } }\n";
    let text = SWEEP.replace("repeats = 4\n", seeds);
    let sweep = StoredSweep::new(&text);
    let parts = |metric: &str| {
        let query = VarianceQuery::new(&sweep.spec, metric, "", 0.95).expect("a question");
        sweep.with_rows(2, |rows| query.decompose_cells(rows).expect("components"))
    };
    assert_eq!(parts("train_loss"), parts("at(train_loss, end)"));

    let interval = |metric: &str| {
        let entry = sweep.table(&of(metric)).swap_remove(1);
        entry.summary.ci95.expect("an interval")
    };
    assert_eq!(interval("train_loss"), interval("at(train_loss, end)"));
}

#[test]
fn what_is_no_quantity_is_refused() {
    let sweep = StoredSweep::new(SWEEP);
    for (metric, wanted) in [
        (
            "gian",
            "the sweep does not measure 'gian', did you mean 'gain'?",
        ),
        ("test_acc", "the sweep does not measure 'test_acc'"),
        ("lr", "the sweep does not measure 'lr'"),
        (
            "1/efective_lr",
            "metric: there is no quantity, metric, axis or field 'efective_lr', did you mean",
        ),
        (
            "mean(test_acc)",
            "metric: mean: the sweep does not measure 'test_acc': add it to measure.metrics",
        ),
        ("inv > 3", "metric: 'inv > 3' is a condition"),
        (
            "mean(inv, 9..)",
            "metric: mean: step 9 is after the end: a trial of the cell has 4 steps",
        ),
        ("mean(inv", "metric: a parenthesis is open"),
    ] {
        let refusal = sweep.refusal(&of(metric));
        assert!(refusal.contains(wanted), "{refusal}\n{wanted}");
    }

    let stats = ["mean_all".to_owned()];
    let params = TableParams {
        stats: &stats,
        ..of("gain")
    };
    assert!(sweep.refusal(&params).contains("gain has no worst value"));

    // Quantities that this program cannot read keep no metric from being shown.
    let broken = StoredSweep::new(&SWEEP.replace("inv  = ", "1nv = "));
    assert_eq!(broken.table(&of("train_loss")).len(), 4);
    assert_eq!(broken.table(&of("1/effective_lr")).len(), 4);
    assert!(broken.refusal(&of("gain")).contains("cannot be read"));
}
