//! Recovery at start: from the store to the core.

use std::sync::Arc;
use std::time::Duration;

use ergodic_common::Spec;
use ergodic_common::ids::{CellsFingerprint, Epoch, SweepNumber};
use ergodic_proto::status::UserError;
use rayon::prelude::*;

use super::store_error;
use crate::core::{Core, MetricPositions, StoredRow, Sweep, Timing, UnreadableSweep};
use crate::records::{SweepRow, SweepState};
use crate::store::{
    Audit, Damage, ReadableStore, SealChange, SealSweep, SetCellsDigest, SetRowsAside,
    SetSweepState, SnapshotReaders, StoreError, StoreReader, StoreWriter, TrialRange,
};
use crate::sweep_seal::{SweepSeal, can_be_sealed};

/// Maximum number of threads that read a store at start; a single one combines their results.
const MAX_READER_THREADS: usize = 4;

/// Number of threads: that of the cores, up to [`MAX_READER_THREADS`].
pub(super) fn reader_threads() -> usize {
    std::thread::available_parallelism()
        .map_or(1, usize::from)
        .min(MAX_READER_THREADS)
}

/// Recovers the core from the store: sweeps with their rows, and leases with a fresh TTL. Also
/// returns removed sweeps that have rows left. `writer` quarantines damaged rows; without it, they
/// are skipped.
///
/// # Errors
/// The store cannot be read, or has content that no coordinator of this version wrote.
pub fn recover_core(
    store: &dyn ReadableStore,
    mut writer: Option<&mut dyn StoreWriter>,
    epoch: Epoch,
    lease_ttl: Duration,
    reads_all: bool,
) -> Result<(Core, Vec<SweepNumber>), UserError> {
    let readers = store.open_readers(reader_threads()).map_err(store_error)?;
    let (leases, next_lease) = readers
        .with_reader(|reader| reader.read_leases())
        .map_err(store_error)?;
    let mut core = Core::new(Timing { lease_ttl }, epoch, next_lease);
    let rows = readers
        .with_reader(|reader| reader.read_sweeps())
        .map_err(store_error)?;
    let readings = read_specs(&rows);
    for (row, reading) in rows.into_iter().zip(readings) {
        let number = row.number;
        let sweep = recover_sweep(&readers, reborrow(&mut writer), row, reading, reads_all)
            .map_err(store_error)?;
        let reads_rows = add_recovered_sweep(&mut core, sweep);

        if let Some(writer) = reborrow(&mut writer)
            && reads_rows
        {
            let is_leased = leases.iter().any(|lease| lease.sweep == number);
            seal_recovered_sweep(&core, writer, number, is_leased);
        }
    }

    for lease in leases {
        // Leases that turn out empty stay in the store: nothing but duplicates can be written under
        // them.
        core.on_recovered_lease(lease, Duration::ZERO);
    }

    core.set_aside_inconsistent_sweeps();
    let removals = readers
        .with_reader(|reader| reader.read_unfinished_removals())
        .map_err(store_error)?;
    Ok((core, removals))
}

/// Lends a writer, if there is one, for one call.
fn reborrow<'a>(writer: &'a mut Option<&mut dyn StoreWriter>) -> Option<&'a mut dyn StoreWriter> {
    writer
        .as_mut()
        .map(|writer| &mut **writer as &mut dyn StoreWriter)
}

/// Adds a sweep to the core; returns whether its rows were read.
fn add_recovered_sweep(core: &mut Core, sweep: RecoveredSweep) -> bool {
    match sweep {
        RecoveredSweep::Readable(sweep, rows) => {
            drop(core.on_sweep_added(*sweep, rows, Duration::ZERO));
            true
        }
        RecoveredSweep::Sealed(sweep) => {
            drop(core.on_sweep_added(*sweep, [], Duration::ZERO));
            false
        }
        RecoveredSweep::Unreadable(sweep) => {
            tracing::error!(
                sweep = sweep.record.id.as_str(),
                why = sweep.why,
                "a sweep cannot be read: it is listed, but not run"
            );
            core.on_unreadable_sweep(sweep);
            false
        }
    }
}

/// Seals a completed sweep whose rows were read. One that lost its last worker before its completed state was stored is completed
/// in the store first, unless a lease is left: what comes under that is to be compared as under others.
fn seal_recovered_sweep(
    core: &Core,
    writer: &mut dyn StoreWriter,
    number: SweepNumber,
    is_leased: bool,
) {
    let Some(sweep) = core
        .sweep(number)
        .filter(|sweep| sweep.withheld.is_none() && can_be_sealed(&sweep.spec))
    else {
        return;
    };
    let id = sweep.id.as_str();
    let state = SweepState::Completed;
    let sealed = match (sweep.record.state, sweep.state) {
        (SweepState::Completed, _) => writer.commit(SealSweep(number)),
        (stored, SweepState::Completed) if stored.is_open() && !is_leased => writer
            .commit(SetSweepState {
                sweep: number,
                state,
            })
            .map(|()| SealChange::Added),
        _ => return,
    };

    match sealed {
        Ok(SealChange::Corrected) => tracing::error!(
            sweep = id,
            "the seal of the sweep was not that of its rows: it was made anew"
        ),
        Ok(SealChange::Added) => tracing::info!(sweep = id, "sweep sealed"),
        Ok(SealChange::Absent | SealChange::Confirmed) => {}
        // Without a seal, the next start reads the rows again.
        Err(error) => {
            tracing::warn!(sweep = id, %error, "a completed sweep could not be sealed");
        }
    }
}

/// Number of sweeps from which on their files are read on several threads.
const PARALLEL_FROM: usize = 16;

/// A sweep's spec and the fingerprint of its cells, or the reason why its file cannot be read.
type SpecReading = Result<(Spec, CellsFingerprint), String>;

/// Reads the files of sweeps, which takes some milliseconds for a large one.
fn read_specs(rows: &[SweepRow]) -> Vec<SpecReading> {
    if rows.len() < PARALLEL_FROM {
        rows.iter().map(read_spec).collect()
    } else {
        rows.par_iter().map(read_spec).collect()
    }
}

fn read_spec(row: &SweepRow) -> SpecReading {
    let spec = Spec::read_stored(&row.source).map_err(|error| error.to_string())?;
    let cells = spec.compute_cells_fingerprint();
    Ok((spec, cells))
}

/// A sweep that was recovered from the store.
enum RecoveredSweep {
    /// A sweep with its rows in the form for the core.
    Readable(Box<Sweep>, Vec<StoredRow>),
    /// A sweep that has recorded the seal of its rows, which were not read.
    Sealed(Box<Sweep>),
    Unreadable(UnreadableSweep),
}

/// Recovers a stored sweep. One that cannot be read, or is inconsistent, does not prevent others
/// from being served.
fn recover_sweep(
    readers: &SnapshotReaders,
    mut writer: Option<&mut dyn StoreWriter>,
    mut row: SweepRow,
    reading: SpecReading,
    reads_all: bool,
) -> Result<RecoveredSweep, StoreError> {
    let (spec, cells) = match reading {
        Ok(reading) => reading,
        Err(why) => return Ok(unreadable_sweep(row, why)),
    };
    let is_withheld = row
        .source
        .cells_fingerprint
        .is_some_and(|stored| stored != cells);

    if !is_withheld
        && !reads_all
        && let Some(seal) = find_seal(readers, &row, &spec)?
    {
        if let Some(writer) = reborrow(&mut writer) {
            record_cells_digest(writer, &mut row, cells)?;
        }
        return recover_sealed_sweep(readers, row, spec, seal);
    }

    let (mut rows, damages) = read_intact_rows(readers, row.number, &spec, reads_all)?;
    if is_withheld {
        rows.retain(|row| spec.has_trial(row.key));
        report_withheld_sweep(&row, &damages);
    } else if let Some(stray) = rows.iter().find(|row| !spec.has_trial(row.key)) {
        let why = format!(
            "the store has a row of {}, which is not a trial of the sweep",
            stray.key
        );
        return Ok(unreadable_sweep(row, why));
    } else if let Some(writer) = writer {
        set_rows_aside(writer, &mut row, &damages)?;
        record_cells_digest(writer, &mut row, cells)?;
        tracing::info!(
            sweep = row.id.as_str(),
            rows = rows.len(),
            "sweep recovered"
        );
    }

    let audits = read_fitting_audits(readers, row.number, &spec, &damages)?;
    let mut sweep = Sweep::new(Arc::new(row), Arc::new(spec));
    sweep.withheld = is_withheld.then(|| WITHHELD_REASON.to_owned());
    sweep.record_audits(
        audits
            .into_iter()
            .map(|audit| (audit.key, audit.process, audit.finding)),
    );

    Ok(RecoveredSweep::Readable(Box::new(sweep), rows))
}

/// Reads the audits of a sweep whose rows are intact: an audited row may have been quarantined, or a damaged audit may name no trial
/// of the sweep.
fn read_fitting_audits(
    readers: &SnapshotReaders,
    number: SweepNumber,
    spec: &Spec,
    damages: &[Damage],
) -> Result<Vec<Audit>, StoreError> {
    let mut audits = readers.with_reader(|reader| reader.read_audits(number))?;
    audits.retain(|audit| {
        spec.has_trial(audit.key) && damages.iter().all(|damage| damage.key != audit.key)
    });
    Ok(audits)
}

/// Reads the seal of a completed sweep, if it may stand for the rows.
fn find_seal(
    readers: &SnapshotReaders,
    row: &SweepRow,
    spec: &Spec,
) -> Result<Option<SweepSeal>, StoreError> {
    if row.state != SweepState::Completed {
        return Ok(None);
    }
    let seal = readers.with_reader(|reader| reader.read_seal(row.number))?;
    Ok(seal.filter(|seal| seal.fits_spec(spec)))
}

/// Recovers a sweep from its seal. Its audits are read only if some are due.
fn recover_sealed_sweep(
    readers: &SnapshotReaders,
    row: SweepRow,
    spec: Spec,
    seal: SweepSeal,
) -> Result<RecoveredSweep, StoreError> {
    let audits = match seal.audits.remaining() {
        0 => Vec::new(),
        _ => readers.with_reader(|reader| reader.read_audits(row.number))?,
    };
    tracing::info!(
        sweep = row.id.as_str(),
        rows = seal.counts.done(),
        "sweep recovered from its seal"
    );

    let mut sweep = Sweep::new(Arc::new(row), Arc::new(spec));
    sweep.record_seal(seal);
    sweep.record_audits(
        audits
            .into_iter()
            .map(|audit| (audit.key, audit.process, audit.finding)),
    );

    Ok(RecoveredSweep::Sealed(Box::new(sweep)))
}

fn unreadable_sweep(row: SweepRow, why: String) -> RecoveredSweep {
    RecoveredSweep::Unreadable(UnreadableSweep {
        record: Arc::new(row),
        why,
    })
}

fn report_withheld_sweep(row: &SweepRow, damages: &[Damage]) {
    tracing::error!(
        sweep = row.id.as_str(),
        "the sweep is read-only: {WITHHELD_REASON}"
    );
    for Damage { key, what, why, .. } in damages {
        tracing::error!(sweep = row.id.as_str(), trial = %key, "the {what} of a trial is damaged ({why}) and left as it is");
    }
}

/// The reason why a sweep is only shown.
const WITHHELD_REASON: &str = "this program would resolve its cells to other values than those whose results are stored, so \
                           results may be shown beside the wrong values; the version that launched it continues it";

/// Stores the fingerprint of a sweep's cells, if no earlier program did.
fn record_cells_digest(
    writer: &mut dyn StoreWriter,
    row: &mut SweepRow,
    cells: CellsFingerprint,
) -> Result<(), StoreError> {
    if row.source.cells_fingerprint.is_none() {
        writer.commit(SetCellsDigest {
            sweep: row.number,
            cells,
        })?;
        row.source.cells_fingerprint = Some(cells);
    }
    Ok(())
}

/// Reads a sweep's rows in the form for the core, and finds the damaged ones.
pub(super) fn read_intact_rows(
    readers: &SnapshotReaders,
    sweep: SweepNumber,
    spec: &Spec,
    reads_all: bool,
) -> Result<(Vec<StoredRow>, Vec<Damage>), StoreError> {
    let positions = MetricPositions::from_spec(spec);
    let mut rows = Vec::new();
    if reads_all {
        let damages = readers.with_reader(|reader| {
            reader.read_intact_trials(sweep, &mut |trial| {
                rows.push(positions.build_row_from_result(&trial.result));
            })
        })?;
        return Ok((rows, damages));
    }

    let ranges = readers.split_trials(spec.grid.cell_number_bound(), spec.repeats);
    let parts = readers.map_ranges(&ranges, |reader, range| {
        read_intact_range(reader, sweep, range, &positions)
    })?;

    let mut damages = Vec::new();
    for (more_rows, more_damages) in parts {
        rows.extend(more_rows);
        damages.extend(more_damages);
    }

    Ok((rows, damages))
}

fn read_intact_range(
    reader: &dyn StoreReader,
    sweep: SweepNumber,
    range: TrialRange,
    positions: &MetricPositions,
) -> Result<(Vec<StoredRow>, Vec<Damage>), StoreError> {
    let mut rows = Vec::new();
    let damages = reader.read_intact_ended_trials(sweep, range, &mut |ended| {
        rows.push(positions.build_row(
            ended.key,
            ended.outcome,
            |at| ended.metrics.get(at),
            ended.seconds,
        ));
    })?;

    Ok((rows, damages))
}

/// Quarantines damaged rows, whose trials run again: they are pure functions and give the same
/// rows.
fn set_rows_aside(
    writer: &mut dyn StoreWriter,
    row: &mut SweepRow,
    damages: &[Damage],
) -> Result<(), StoreError> {
    if damages.is_empty() {
        return Ok(());
    }

    for Damage { key, what, why, .. } in damages {
        tracing::error!(sweep = row.id.as_str(), trial = %key, "the {what} of a trial is damaged ({why}): it is set aside, and the \
                                        trial is run again");
    }

    writer.commit(SetRowsAside {
        sweep: row.number,
        keys: damages.iter().map(|damage| damage.key).collect(),
    })?;

    if row.state == SweepState::Completed {
        row.state = SweepState::Running;
    }

    Ok(())
}

#[cfg(test)]
mod tests {
    use ergodic_common::spec::SpecSource;
    use ergodic_common::spec::scheduling::Share;
    use ergodic_common::{TrialKey, TrialResult};

    use crate::records::{DataPin, SweepTallies};
    use crate::server::recovery::*;
    use crate::store::sqlite::SqliteStore;
    use crate::store::{InsertSweep, RestoreRows, Store as _, StoredTrial};

    /// A running sweep of this file, whose cells an earlier program had found to be these.
    fn sweep_row(
        id: String,
        text: String,
        cells_fingerprint: Option<CellsFingerprint>,
    ) -> SweepRow {
        let source = SpecSource {
            file: "f".into(),
            text,
            cells_fingerprint,
            ..SpecSource::default()
        };

        SweepRow {
            number: SweepNumber::UNSTORED,
            id: id.into(),
            source,
            data: DataPin::default(),
            state: SweepState::Running,
            share: Share::default(),
            launched_at: 0.0,
            launched_by: String::new(),
            tallies: SweepTallies::default(),
        }
    }

    #[test]
    fn a_sweep_with_a_row_of_a_trial_that_it_does_not_have_is_set_aside_and_says_which() {
        let text = "repeats = 2\n[model]\nkind = \"empty\"\n[train]\nsteps = 1\n[measure]\nmetrics = [\"test_acc\"]\n\
                    [grid]\nlr = [0.1, 0.2, 0.3]\n[where]\nkeep = \"lr != 0.2\"\n";
        // Rows of a cell beyond the last, of one that is left out, of a repeat too many, and of none such.
        let strays = [Some((3, 0)), Some((1, 1)), Some((2, 2)), None];
        for reads_all in [false, true] {
            let dir = tempfile::tempdir().expect("a temporary directory");
            let store = SqliteStore::open(dir.path()).expect("opened");
            let mut writer = store.open_writer(Epoch(1)).expect("a writer");
            for (sweep, stray) in (1..).zip(strays) {
                let row = sweep_row(
                    format!("sweep{sweep}"),
                    format!("name = \"s{sweep}\"\n{text}"),
                    None,
                );
                let rows = [(0, 0), (2, 1)].into_iter().chain(stray);
                let rows = rows.map(|(cell, repeat)| StoredTrial {
                    result: TrialResult {
                        metrics: vec![0.5],
                        ..TrialResult::completed(TrialKey::new(cell, repeat))
                    },
                    worker: "w".into(),
                });
                let rows = RestoreRows {
                    sweep: SweepNumber(sweep),
                    rows: rows.collect(),
                    attempts: Vec::new(),
                };
                writer.commit((InsertSweep(row), rows)).expect("stored");
            }

            let lease_ttl = Duration::from_secs(1);
            let (core, _) = recover_core(
                &store,
                Some(writer.as_mut()),
                Epoch(1),
                lease_ttl,
                reads_all,
            )
            .expect("taken up");
            let reasons: Vec<(&str, &str)> = core
                .unreadable_sweeps()
                .map(|sweep| (&sweep.record.id[..], &sweep.why[..]))
                .collect();
            let expected = (1..).zip(strays).filter_map(|(sweep, stray)| {
                let (cell, repeat) = stray?;
                let why = format!(
                    "the store has a row of {cell}/{repeat}, which is not a trial of the sweep"
                );
                Some((format!("sweep{sweep}"), why))
            });
            let expected: Vec<(String, String)> = expected.collect();
            let expected: Vec<(&str, &str)> = expected
                .iter()
                .map(|(id, why)| (&id[..], &why[..]))
                .collect();
            assert_eq!(reasons, expected);

            let served: Vec<(&str, u64)> = core
                .sweeps()
                .map(|sweep| (&sweep.id[..], sweep.counts.completed))
                .collect();
            assert_eq!(served, [("sweep4", 2)]);
        }
    }

    #[test]
    fn each_of_many_sweeps_is_what_its_own_file_means() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let store = SqliteStore::open(dir.path()).expect("opened");
        let mut writer = store.open_writer(Epoch(1)).expect("a writer");
        let many = 3 * PARALLEL_FROM;
        for at in 0..many {
            let text = match at {
                5 => "future = 1\n".to_owned(),
                at => format!(
                    "name = \"s{at}\"\nrepeats = {}\n[model]\nkind = \"empty\"\n[train]\nsteps = 1\n[measure]\n\
                     metrics = [\"test_acc\"]\n",
                    at + 1
                ),
            };

            let cells = (at == 7).then_some(CellsFingerprint([9; 32]));
            let row = sweep_row(format!("sweep{at}"), text, cells);
            writer.commit(InsertSweep(row)).expect("stored");
        }

        let (core, _) = recover_core(
            &store,
            Some(writer.as_mut()),
            Epoch(1),
            Duration::from_secs(1),
            false,
        )
        .expect("taken up");
        let unreadable: Vec<&str> = core
            .unreadable_sweeps()
            .map(|sweep| &sweep.record.id[..])
            .collect();
        assert_eq!(
            (core.sweeps().count(), unreadable),
            (many - 1, vec!["sweep5"])
        );

        for sweep in core.sweeps() {
            let at = sweep.spec.repeats - 1;
            assert_eq!(
                (sweep.id.as_str(), sweep.withheld.is_some()),
                (format!("sweep{at}").as_str(), at == 7)
            );
        }
    }
}
