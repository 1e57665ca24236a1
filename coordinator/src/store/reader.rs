//! What can be read from a store.

use ergodic_common::TrialKey;
use ergodic_common::trial::Predictions;

use crate::records::{LeaseRow, SweepRow};
use crate::store::error::{Damage, StoreError};
use crate::store::trial_range::TrialRange;
use crate::store::types::{Attempt, Audit, EndedTrial, RowCursor, SampledTrial, StoredTrial};

/// Looks at what was committed. A thread may take it over, and several may not have it at once.
pub trait StoreReader: Send {
    /// All sweeps in the order of launch.
    ///
    /// # Errors
    /// The store cannot be read.
    fn read_sweeps(&self) -> Result<Vec<SweepRow>, StoreError>;

    /// Removed sweeps whose rows are not all cleared.
    ///
    /// # Errors
    /// The store cannot be read.
    fn read_unfinished_removals(&self) -> Result<Vec<i64>, StoreError>;

    /// Whether a trial names this file of weights.
    ///
    /// # Errors
    /// The store cannot be read.
    fn has_trial_with_weights(&self, weights: &[u8; 32]) -> Result<bool, StoreError>;

    /// All leases in force, and the smallest number no lease ever had.
    ///
    /// # Errors
    /// The store cannot be read.
    fn read_leases(&self) -> Result<(Vec<LeaseRow>, u64), StoreError>;

    /// Hands out the rows of a sweep that are as they were stored, with curves and predictions, in any order; those that are not.
    /// Slow: reads every curve.
    ///
    /// # Errors
    /// The store cannot be read.
    fn read_intact_trials(
        &self,
        sweep: i64,
        each: &mut dyn FnMut(StoredTrial),
    ) -> Result<Vec<Damage>, StoreError>;

    /// Hands out how a part of a sweep's trials ended, in the order (cell, repeat), of those whose rows are as they were stored;
    /// those whose are not. Curves and predictions are not looked at.
    ///
    /// # Errors
    /// The store cannot be read.
    fn read_intact_ended_trials(
        &self,
        sweep: i64,
        part: TrialRange,
        each: &mut dyn FnMut(EndedTrial<'_>),
    ) -> Result<Vec<Damage>, StoreError>;

    /// Hands out which files of weights the rows of a sweep name, in the order (cell, repeat); the rows of which that
    /// is not known. Nothing else of a row is read.
    ///
    /// # Errors
    /// The store cannot be read.
    fn read_weights_hashes(
        &self,
        sweep: i64,
        each: &mut dyn FnMut(TrialKey, [u8; 32]),
    ) -> Result<Vec<Damage>, StoreError>;

    /// Hands out the rows of a sweep in the order (cell, repeat).
    ///
    /// # Errors
    /// The store cannot be read, or is damaged.
    fn read_trials(
        &self,
        sweep: i64,
        each: &mut dyn FnMut(StoredTrial) -> bool,
    ) -> Result<(), StoreError>;

    /// The position of the row of this number, and that of the last row of a sweep.
    ///
    /// # Errors
    /// The store cannot be read.
    fn read_row_cursors(&self, sweep: i64, row: u64) -> Result<[RowCursor; 2], StoreError>;

    /// Hands out the rows of a sweep that were stored after the one of this number, in the order (cell, repeat), with curves and
    /// predictions.
    ///
    /// # Errors
    /// The store cannot be read, or is damaged.
    fn read_trials_after(
        &self,
        sweep: i64,
        row: u64,
        each: &mut dyn FnMut(StoredTrial) -> bool,
    ) -> Result<(), StoreError>;

    /// One row, with its curve and predictions.
    ///
    /// # Errors
    /// The store cannot be read, or is damaged.
    fn read_trial(&self, sweep: i64, key: TrialKey) -> Result<Option<StoredTrial>, StoreError>;

    /// What became of a trial before it was run again, the first attempt first.
    ///
    /// # Errors
    /// The store cannot be read, or is damaged.
    fn read_attempts(&self, sweep: i64, key: TrialKey) -> Result<Vec<Attempt>, StoreError>;

    /// The audits of a sweep in the order (cell, repeat).
    ///
    /// # Errors
    /// The store cannot be read.
    fn read_audits(&self, sweep: i64) -> Result<Vec<Audit>, StoreError>;

    /// The audit of one trial, if it has one.
    ///
    /// # Errors
    /// The store cannot be read.
    fn read_audit(&self, sweep: i64, key: TrialKey) -> Result<Option<Audit>, StoreError>;

    /// Hands out all attempts of a sweep, those of a trial in their order.
    ///
    /// # Errors
    /// The store cannot be read, or is damaged.
    fn read_all_attempts(
        &self,
        sweep: i64,
        each: &mut dyn FnMut(TrialKey, Attempt),
    ) -> Result<(), StoreError>;

    /// Hands out how a part of a sweep's trials ended, in the order (cell, repeat).
    ///
    /// # Errors
    /// The store cannot be read, or is damaged.
    fn read_ended_trials(
        &self,
        sweep: i64,
        part: TrialRange,
        each: &mut dyn FnMut(EndedTrial<'_>),
    ) -> Result<(), StoreError>;

    /// Hands out the curves of a part of a sweep's trials, in the order (cell, repeat), of those that completed, and of those that
    /// diverged as far as they came.
    ///
    /// # Errors
    /// The store cannot be read, or is damaged.
    fn read_curves(
        &self,
        sweep: i64,
        part: TrialRange,
        each: &mut dyn FnMut(SampledTrial<'_>),
    ) -> Result<(), StoreError>;

    /// Hands out what was predicted for the probe set, trial by trial in the order (cell, repeat).
    ///
    /// # Errors
    /// The store cannot be read, or is damaged.
    fn read_predictions(
        &self,
        sweep: i64,
        each: &mut dyn FnMut(TrialKey, Predictions) -> bool,
    ) -> Result<(), StoreError>;
}
