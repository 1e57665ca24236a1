//! From what is stored to what a coordinator knows.

use std::sync::Arc;
use std::time::Duration;

use ergodic_common::Spec;
use ergodic_proto::status::UserError;

use super::store_error;
use crate::core::{Core, KeptMetrics, StoredRow, Sweep, SweepRow, SweepState, Timing, Unreadable};
use crate::store::{Damage, Readers, Store, StoreError, Write, Writer};

/// Threads that read a store for a start, at most: what they find is put together by one.
const THREADS: usize = 4;

/// As many as there are cores.
pub(super) fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(THREADS)
}

/// The core as the store knows it: sweeps with their rows, and leases with a fresh time to live. And sweeps that were
/// removed, and have rows left. Rows that are damaged are set aside by `writer`, or passed over without one.
///
/// # Errors
/// The store cannot be read, or holds what no coordinator of this version wrote.
pub fn recover(
    store: &dyn Store,
    mut writer: Option<&mut dyn Writer>,
    epoch: u64,
    lease_ttl: Duration,
    all_of_it: bool,
) -> Result<(Core, Vec<i64>), UserError> {
    let readers = store.readers(threads()).map_err(store_error)?;
    let (leases, next_lease) = readers.with_one(|reader| reader.leases()).map_err(store_error)?;
    let mut core = Core::new(Timing { lease_ttl }, epoch, next_lease);
    for row in readers.with_one(|reader| reader.sweeps()).map_err(store_error)? {
        let writer = writer.as_mut().map(|writer| &mut **writer as &mut dyn Writer);
        match take_up(&readers, writer, row, all_of_it).map_err(store_error)? {
            Found::Sweep(sweep, rows) => drop(core.on_sweep(*sweep, rows, Duration::ZERO)),
            Found::Unreadable(sweep) => {
                tracing::error!(
                    sweep = sweep.record.id,
                    why = sweep.why,
                    "a sweep cannot be read: it is listed and left alone"
                );
                core.on_unreadable(sweep);
            }
        }
    }
    for lease in leases {
        // Leases that turn out empty are left in the store: nothing can be written under them that is not a duplicate.
        core.on_recorded_lease(lease, Duration::ZERO);
    }
    core.set_aside_senseless();
    Ok((core, readers.with_one(|reader| reader.removals()).map_err(store_error)?))
}

/// A sweep of the store.
enum Found {
    /// With what the core keeps of its rows.
    Sweep(Box<Sweep>, Vec<StoredRow>),
    Unreadable(Unreadable),
}

/// What becomes of a sweep that is stored. One that cannot be read, or makes no sense, keeps no other one from being served.
fn take_up(
    readers: &Readers,
    mut writer: Option<&mut dyn Writer>,
    mut row: SweepRow,
    all_of_it: bool,
) -> Result<Found, StoreError> {
    let spec = match Spec::read(&row.source) {
        Ok(spec) => spec,
        Err(error) => return Ok(Found::Unreadable(Unreadable { record: Arc::new(row), why: error.to_string() })),
    };
    let withheld = (!spec.is_as_stored(&row.source)).then(|| OTHER_CELLS.to_owned());
    let (mut rows, damages) = sound_rows(readers, row.number, &spec, all_of_it)?;
    match (&withheld, rows.iter().find(|row| !spec.holds(row.key))) {
        (_, None) => {}
        (Some(_), _) => rows.retain(|row| spec.holds(row.key)),
        (None, Some(stray)) => {
            let why = format!("the store has a row of {}, which is no trial of the sweep", stray.key);
            return Ok(Found::Unreadable(Unreadable { record: Arc::new(row), why }));
        }
    }
    if let Some(writer) = writer.as_mut().filter(|_| withheld.is_none()) {
        set_aside(*writer, &mut row, &damages)?;
        note_cells(*writer, &mut row, &spec)?;
        tracing::info!(sweep = row.id, rows = rows.len(), "sweep taken up");
    }
    if withheld.is_some() {
        tracing::error!(sweep = row.id, "the sweep is only shown: {OTHER_CELLS}");
        for Damage { key, what, why, .. } in &damages {
            tracing::error!(sweep = row.id, trial = %key, "its {what} is damaged ({why}), and left as it is");
        }
    }
    let mut audits = readers.with_one(|reader| reader.audits(row.number))?;
    // The row that one compares with may have been set aside, or be of no trial.
    audits.retain(|audit| spec.holds(audit.key) && damages.iter().all(|damage| damage.key != audit.key));
    let mut sweep = Sweep::new(Arc::new(row), Arc::new(spec));
    sweep.withheld = withheld;
    sweep.remember_audits(audits.into_iter().map(|audit| (audit.key, audit.process, audit.finding)));
    Ok(Found::Sweep(Box::new(sweep), rows))
}

/// Why a sweep is only shown.
const OTHER_CELLS: &str = "by this program its cells would be others than those whose results are stored, so that what it shows \
                           may stand beside the wrong values; the version that launched it carries it on";

/// What the cells of a sweep resolve to is written down by the first program that takes it up after they were not.
fn note_cells(writer: &mut dyn Writer, row: &mut SweepRow, spec: &Spec) -> Result<(), StoreError> {
    if row.source.cells.is_none() {
        let cells = spec.print();
        writer.commit(&[&Write::Cells(row.number, cells)])?;
        row.source.cells = Some(cells);
    }
    Ok(())
}

/// What the core keeps of a sweep's rows, and which of them are damaged.
pub(super) fn sound_rows(
    readers: &Readers,
    sweep: i64,
    spec: &Spec,
    all_of_it: bool,
) -> Result<(Vec<StoredRow>, Vec<Damage>), StoreError> {
    let kept = KeptMetrics::of(spec);
    let (mut rows, mut damages) = (Vec::new(), Vec::new());
    if all_of_it {
        damages = readers
            .with_one(|reader| reader.sound_trials(sweep, &mut |trial| rows.push(kept.row_of(&trial.result))))?;
    } else {
        let parts = readers.each(&readers.parts(spec.grid.numbers(), spec.repeats), |reader, part| {
            let mut rows = Vec::new();
            let damages = reader.sound_ends(sweep, part, &mut |ended| {
                rows.push(kept.row(ended.key, ended.outcome, |at| ended.metrics.get(at), ended.seconds));
            })?;
            Ok::<_, StoreError>((rows, damages))
        });
        for (more_rows, more_damages) in parts? {
            rows.extend(more_rows);
            damages.extend(more_damages);
        }
    }
    Ok((rows, damages))
}

/// Trials are pure functions: those whose rows are damaged are run again.
fn set_aside(writer: &mut dyn Writer, row: &mut SweepRow, damages: &[Damage]) -> Result<(), StoreError> {
    if damages.is_empty() {
        return Ok(());
    }
    for Damage { key, what, why, .. } in damages {
        tracing::error!(sweep = row.id, trial = %key, "its {what} is damaged ({why}): set aside, to be run again");
    }
    writer.commit(&[&Write::SetAside(row.number, damages.iter().map(|damage| damage.key).collect())])?;
    if row.state == SweepState::Completed {
        row.state = SweepState::Running;
    }
    Ok(())
}
