//! The read access to a store.

use ergodic_common::TrialKey;
use ergodic_common::ids::{FileHash, LeaseId, SweepNumber};
use ergodic_common::trial::Predictions;

use crate::records::{LeaseRow, SweepRow};
use crate::store::error::{Damage, StoreError};
use crate::store::outputs::OutputReader;
use crate::store::trial_range::TrialRange;
use crate::store::types::{Attempt, Audit, EndedTrial, RowCursor, SampledTrial, StoredTrial};
use crate::sweep_seal::SweepSeal;

/// Reads committed data. A reader can move between threads, but not be shared by them.
pub trait StoreReader: OutputReader + Send {
    /// All sweeps, in the order of launch.
    ///
    /// # Errors
    /// The store cannot be read.
    fn read_sweeps(&self) -> Result<Vec<SweepRow>, StoreError>;

    /// The seal of a sweep, if it has an intact one.
    ///
    /// # Errors
    /// The store cannot be read.
    fn read_seal(&self, sweep: SweepNumber) -> Result<Option<SweepSeal>, StoreError>;

    /// Removed sweeps whose rows are not all deleted yet.
    ///
    /// # Errors
    /// The store cannot be read.
    fn read_unfinished_removals(&self) -> Result<Vec<SweepNumber>, StoreError>;

    /// Whether any trial names this file of weights.
    ///
    /// # Errors
    /// The store cannot be read.
    fn has_trial_with_weights(&self, weights: &FileHash) -> Result<bool, StoreError>;

    /// All leases in force, and the lowest number that no lease ever had.
    ///
    /// # Errors
    /// The store cannot be read.
    fn read_leases(&self) -> Result<(Vec<LeaseRow>, LeaseId), StoreError>;

    /// Calls `each` with every intact row of a sweep, with curve and predictions, in any order.
    /// Returns the damaged ones. Slow, because it reads every curve.
    ///
    /// # Errors
    /// The store cannot be read.
    fn read_intact_trials(
        &self,
        sweep: SweepNumber,
        each: &mut dyn FnMut(StoredTrial),
    ) -> Result<Vec<Damage>, StoreError>;

    /// Calls `each` with the end of every trial in a range whose row is intact, ordered by cell and
    /// repeat. Returns the damaged ones. Ignores curves and predictions.
    ///
    /// # Errors
    /// The store cannot be read.
    fn read_intact_ended_trials(
        &self,
        sweep: SweepNumber,
        part: TrialRange,
        each: &mut dyn FnMut(EndedTrial<'_>),
    ) -> Result<Vec<Damage>, StoreError>;

    /// Calls `each` with the files of weights that the rows of a sweep name, ordered by cell and
    /// repeat. Returns the rows in which the name is damaged. Reads nothing else of a row.
    ///
    /// # Errors
    /// The store cannot be read.
    fn read_weights_hashes(
        &self,
        sweep: SweepNumber,
        each: &mut dyn FnMut(TrialKey, FileHash),
    ) -> Result<Vec<Damage>, StoreError>;

    /// Calls `each` with the rows of a sweep, ordered by cell and repeat.
    ///
    /// # Errors
    /// The store cannot be read, or is damaged.
    fn read_trials(
        &self,
        sweep: SweepNumber,
        each: &mut dyn FnMut(StoredTrial) -> bool,
    ) -> Result<(), StoreError>;

    /// The cursor at the row with this number, and the cursor at the last row of the sweep.
    ///
    /// # Errors
    /// The store cannot be read.
    fn read_row_cursors(&self, sweep: SweepNumber, row: u64) -> Result<[RowCursor; 2], StoreError>;

    /// Calls `each` with the rows of a sweep that were stored after the row with this number,
    /// ordered by cell and repeat, with curves and predictions.
    ///
    /// # Errors
    /// The store cannot be read, or is damaged.
    fn read_trials_after(
        &self,
        sweep: SweepNumber,
        row: u64,
        each: &mut dyn FnMut(StoredTrial) -> bool,
    ) -> Result<(), StoreError>;

    /// Reads one row with its curve and predictions.
    ///
    /// # Errors
    /// The store cannot be read, or is damaged.
    fn read_trial(
        &self,
        sweep: SweepNumber,
        key: TrialKey,
    ) -> Result<Option<StoredTrial>, StoreError>;

    /// The attempts at a trial before it ran again, the first one first.
    ///
    /// # Errors
    /// The store cannot be read, or is damaged.
    fn read_attempts(&self, sweep: SweepNumber, key: TrialKey) -> Result<Vec<Attempt>, StoreError>;

    /// The audits of a sweep, ordered by cell and repeat.
    ///
    /// # Errors
    /// The store cannot be read.
    fn read_audits(&self, sweep: SweepNumber) -> Result<Vec<Audit>, StoreError>;

    /// The audit of a trial, if it has one.
    ///
    /// # Errors
    /// The store cannot be read.
    fn read_audit(&self, sweep: SweepNumber, key: TrialKey) -> Result<Option<Audit>, StoreError>;

    /// Calls `each` with all attempts of a sweep; those of one trial come in order.
    ///
    /// # Errors
    /// The store cannot be read, or is damaged.
    fn read_all_attempts(
        &self,
        sweep: SweepNumber,
        each: &mut dyn FnMut(TrialKey, Attempt),
    ) -> Result<(), StoreError>;

    /// Calls `each` with the end of every trial in a range, ordered by cell and repeat.
    ///
    /// # Errors
    /// The store cannot be read, or is damaged.
    fn read_ended_trials(
        &self,
        sweep: SweepNumber,
        part: TrialRange,
        each: &mut dyn FnMut(EndedTrial<'_>),
    ) -> Result<(), StoreError>;

    /// Calls `each` with the curves of the trials in a range that completed or diverged, ordered by
    /// cell and repeat.
    ///
    /// # Errors
    /// The store cannot be read, or is damaged.
    fn read_curves(
        &self,
        sweep: SweepNumber,
        part: TrialRange,
        each: &mut dyn FnMut(SampledTrial<'_>),
    ) -> Result<(), StoreError>;

    /// Calls `each` with the predictions for the probe set, trial by trial, ordered by cell and
    /// repeat.
    ///
    /// # Errors
    /// The store cannot be read, or is damaged.
    fn read_predictions(
        &self,
        sweep: SweepNumber,
        each: &mut dyn FnMut(TrialKey, Predictions) -> bool,
    ) -> Result<(), StoreError>;
}
