//! From what is stored to what a coordinator knows.

use std::sync::Arc;
use std::time::Duration;

use ergodic_common::{ErrorCode, Spec};
use ergodic_proto::status::UserError;

use super::store_error;
use crate::core::{Core, KeptMetrics, StoredRow, Sweep, SweepRow, SweepState, Timing};
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
    for mut row in readers.with_one(|reader| reader.sweeps()).map_err(store_error)? {
        let spec = Spec::read(&row.source).map_err(|e| {
            let message = format!("the stored sweep {} cannot be read by this version: {e}", row.id);
            UserError::new(ErrorCode::Version, message)
        })?;
        let (rows, damages) = sound_rows(&readers, row.number, &spec, all_of_it).map_err(store_error)?;
        if let Some(writer) = &mut writer {
            set_aside(*writer, &mut row, &damages).map_err(store_error)?;
            tracing::info!(sweep = row.id, rows = rows.len(), "sweep taken up");
        }
        let mut audits = readers.with_one(|reader| reader.audits(row.number)).map_err(store_error)?;
        // The row that one compares with may have been set aside.
        audits.retain(|audit| damages.iter().all(|damage| damage.key != audit.key));
        let mut sweep = Sweep::new(Arc::new(row), Arc::new(spec));
        sweep.remember_audits(audits.into_iter().map(|audit| (audit.key, audit.process, audit.finding)));
        core.on_sweep(sweep, rows, Duration::ZERO);
    }
    for lease in leases {
        // Leases that turn out empty are left in the store: nothing can be written under them that is not a duplicate.
        core.on_recorded_lease(lease, Duration::ZERO);
    }
    core.check().map_err(|why| {
        let message = format!("the store is damaged ({why}): go back to a copy of it, or begin a new one with --store");
        UserError::new(ErrorCode::Internal, message)
    })?;
    Ok((core, readers.with_one(|reader| reader.removals()).map_err(store_error)?))
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
    match rows.iter().find(|row| !spec.holds(row.key)) {
        Some(row) => Err(StoreError::Failed(format!("it has a row of {}, which is no trial of its sweep", row.key))),
        None => Ok((rows, damages)),
    }
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
