//! Seals against the rows that they stand for.

use crate::core::tests::*;
use crate::records::AuditCounts;
use crate::sweep_seal::{SealBuilder, SweepSeal};

const REPEATS: u32 = 3;

/// A completed sweep of five cells in two shape classes.
fn completed() -> Sweep {
    let mut sweep = audited(SweepNumber(1), REPEATS, 0.0);
    sweep.state = SweepState::Completed;
    sweep
}

/// How a trial ended: its outcome, its value and its duration.
type Ended = (u8, f64, f64);

fn ended() -> impl Strategy<Value = Vec<Ended>> {
    let value = prop_oneof![
        5 => -1e3..1e3,
        1 => Just(f64::NAN),
        1 => Just(f64::INFINITY),
        1 => Just(-0.0),
    ];
    proptest::collection::vec((0..4_u8, value, 0.0..9.0), 5 * REPEATS as usize)
}

/// Rows of all trials, by cell and repeat.
fn rows(sweep: &Sweep, ended: &[Ended]) -> Vec<StoredRow> {
    let cells = sweep.spec.grid.iter();
    let keys = cells.flat_map(|cell| (0..REPEATS).map(move |n| TrialKey::new(cell.0, n)));
    keys.zip(ended)
        .map(|(key, (kind, value, seconds))| {
            let outcome = match kind {
                0 => Outcome::Diverged { step: 3 },
                1 => Outcome::Failed {
                    cause: format!("{key} broke"),
                },
                _ => Outcome::Completed,
            };
            MetricPositions::from_spec(&sweep.spec).build_row(
                key,
                outcome,
                |_| Some(*value),
                *seconds,
            )
        })
        .collect()
}

fn seal(sweep: &Sweep, rows: &[StoredRow]) -> Option<SweepSeal> {
    let mut builder = SealBuilder::new(&sweep.spec);
    for (row, checksum) in rows.iter().zip(1..) {
        assert!(builder.add_row(row, checksum));
    }
    builder.finish(AuditCounts::default())
}

/// All that a sweep makes of rows, in words: NaN is not equal to itself.
fn describe(sweep: &Sweep) -> String {
    let cells: Vec<String> = sweep
        .spec
        .grid
        .iter()
        .map(|cell| format!("{cell} {:?}", sweep.live_stats.cell_stats(cell)))
        .collect();
    format!(
        "{:?} {:?} {:?} {:?} {} {} {cells:#?}",
        sweep.counts,
        sweep.classes,
        sweep.last_failure,
        sweep.live_stats.best_cell(true),
        sweep.live_stats.known_cells().len(),
        sweep.total_trials(),
    )
}

proptest! {
    #[test]
    fn a_sealed_sweep_is_what_its_rows_make_of_it_and_goes_on_as_that_does(ended in ended()) {
        let mut read = completed();
        let rows = rows(&read, &ended);
        read.record_initial_rows(rows.iter().cloned());
        let mut sealed = completed();
        let seal = seal(&sealed, &rows).ok_or_else(|| TestCaseError::fail("it has all rows"))?;
        prop_assert_eq!(seal.row_sum, (1..=rows.len() as u64).sum::<u64>());
        sealed.record_seal(seal);
        prop_assert_eq!(describe(&sealed), describe(&read));

        // Failed trials run again, as after a retry.
        let failed = rows.iter().filter(|row| matches!(row.outcome, Outcome::Failed { .. }));
        for key in failed.map(|row| row.key) {
            sealed.reopen_failed_trial(key);
            read.reopen_failed_trial(key);
        }
        prop_assert_eq!(describe(&sealed), describe(&read));

        let longer = audited(SweepNumber(1), REPEATS + 2, 0.0);
        for sweep in [&mut sealed, &mut read] {
            sweep.extend_repeats(longer.record.source.clone(), longer.spec.clone());
        }
        prop_assert_eq!(describe(&sealed), describe(&read));
        let next = StoredRow { key: TrialKey::new(0, REPEATS), ..rows[0].clone() };
        for sweep in [&mut sealed, &mut read] {
            sweep.record_row(&next);
        }
        prop_assert_eq!(describe(&sealed), describe(&read));
    }

    #[test]
    fn no_seal_stands_for_fewer_rows_or_for_another_file(ended in ended(), missing in 0..5 * REPEATS as usize) {
        let sweep = completed();
        let mut rows = rows(&sweep, &ended);
        let whole = seal(&sweep, &rows).ok_or_else(|| TestCaseError::fail("it has all rows"))?;
        prop_assert!(whole.fits_spec(&sweep.spec));
        for repeats in [REPEATS - 1, REPEATS + 1] {
            prop_assert!(!whole.fits_spec(&audited(SweepNumber(1), repeats, 0.0).spec));
        }

        rows.remove(missing);
        prop_assert_eq!(seal(&sweep, &rows), None);
        let mut other = whole.clone();
        other.cells.remove(missing / REPEATS as usize);
        prop_assert!(!other.fits_spec(&sweep.spec));
        let mut other = whole.clone();
        other.cells[0].0 = other.cells[1].0;
        prop_assert!(!other.fits_spec(&sweep.spec));
        let other = SweepSeal { watched: whole.watched + 1, ..whole };
        prop_assert!(!other.fits_spec(&sweep.spec));
    }
}

#[test]
fn a_row_of_no_trial_breaks_a_seal() {
    let sweep = completed();
    let mut builder = SealBuilder::new(&sweep.spec);
    // The sixth cell is left out by the file.
    for (cell, repeat) in [(5, 0), (6, 0), (0, REPEATS)] {
        let row = MetricPositions::default().build_row(
            TrialKey::new(cell, repeat),
            Outcome::Completed,
            |_| None,
            0.0,
        );
        assert!(!builder.add_row(&row, 0), "{}", row.key);
    }
}
