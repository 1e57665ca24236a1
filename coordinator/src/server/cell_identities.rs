//! Identities of cells, which tell whether cells of two sweeps are the same. Those of stored sweeps
//! are cached, up to a limit.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ergodic_common::ids::{CellHash, CellIndex, DatasetHash, SweepNumber};
use ergodic_common::{ErrorCode, Spec};
use ergodic_proto::status::UserError;

use super::recovery::reader_threads;
use crate::core::reuse::ComparableSweep;

/// Maximum number of cached identities.
const MAX_IDENTITIES: usize = 1_000_000;

/// State that launches share.
#[derive(Debug, Default)]
pub(crate) struct LaunchState {
    /// Held from the comparison with other sweeps until the new one is stored, so that two launches
    /// of one file give one sweep.
    pub(super) launch_lock: Arc<tokio::sync::Mutex<()>>,
    /// Identities of cells of stored sweeps, by the sweeps' numbers.
    identities: Mutex<BTreeMap<SweepNumber, Arc<CellIdentities>>>,
}

/// A cell's identity by its number.
pub(super) type CellIdentities = HashMap<CellIndex, CellHash>;

impl LaunchState {
    /// The identities of these cells of a sweep, and perhaps of other cached ones.
    ///
    /// # Errors
    /// A cell cannot be resolved.
    pub(super) fn cell_identities(
        &self,
        sweep: &ComparableSweep,
        cells: &[CellIndex],
    ) -> Result<Arc<CellIdentities>, UserError> {
        let known = self
            .lock_identities()
            .get(&sweep.number)
            .cloned()
            .unwrap_or_default();
        let missing: Vec<CellIndex> = cells
            .iter()
            .copied()
            .filter(|cell| !known.contains_key(cell))
            .collect();
        if missing.is_empty() {
            return Ok(known);
        }

        let mut all = CellIdentities::clone(&known);
        all.extend(compute_identities(
            &sweep.spec,
            sweep.record.data.hash,
            &missing,
        )?);
        let all = Arc::new(all);
        self.remember_identities(sweep.number, all.clone());

        Ok(all)
    }

    /// Caches identities, and forgets those of the oldest sweeps beyond the limit.
    fn remember_identities(&self, number: SweepNumber, identities: Arc<CellIdentities>) {
        let mut known = self.lock_identities();
        known.insert(number, identities);

        while known.len() > 1
            && known.values().map(|cells| cells.len()).sum::<usize>() > MAX_IDENTITIES
        {
            known.pop_first();
        }
    }

    fn lock_identities(&self) -> MutexGuard<'_, BTreeMap<SweepNumber, Arc<CellIdentities>>> {
        self.identities
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Computes the identities of cells on several threads.
///
/// # Errors
/// A cell cannot be resolved.
pub(super) fn compute_identities(
    spec: &Spec,
    data: Option<DatasetHash>,
    cells: &[CellIndex],
) -> Result<Vec<(CellIndex, CellHash)>, UserError> {
    let data = data.unwrap_or(DatasetHash::NONE);
    let size = cells.len().div_ceil(reader_threads()).max(1);

    std::thread::scope(|scope| {
        let threads: Vec<_> = cells
            .chunks(size)
            .map(|part| scope.spawn(move || identify_cells(spec, data, part)))
            .collect();
        let mut all = Vec::with_capacity(cells.len());

        for thread in threads {
            all.extend(
                thread
                    .join()
                    .map_err(|_| UserError::new(ErrorCode::Internal, "a thread panicked"))??,
            );
        }

        Ok(all)
    })
}

fn identify_cells(
    spec: &Spec,
    data: DatasetHash,
    cells: &[CellIndex],
) -> Result<Vec<(CellIndex, CellHash)>, UserError> {
    cells
        .iter()
        .map(|cell| {
            let config = spec
                .grid
                .resolve_config(*cell)
                .map_err(|e| UserError::new(ErrorCode::BadInput, e.to_string()))?;
            Ok((*cell, spec.compute_cell_hash(&config, data)))
        })
        .collect()
}
