//! What programs printed, by attempt, as it is stored.

use ergodic_common::TrialKey;
use ergodic_common::ids::SweepNumber;
use ergodic_common::program::output::PackedOutput;

use crate::store::error::StoreError;

/// What a program printed in an attempt at a trial.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredOutput {
    /// The key of the trial.
    pub key: TrialKey,
    /// Number of the attempt, from 0. The row's attempt follows the earlier ones.
    pub attempt: u32,
    /// The last of what it printed.
    pub output: PackedOutput,
}

/// Reads what programs printed.
pub trait OutputReader {
    /// What a program printed in an attempt, counted from 0; `None` if that is nothing, or nothing is known of it.
    ///
    /// # Errors
    /// The store cannot be read, or the output is damaged.
    fn read_output(
        &self,
        sweep: SweepNumber,
        key: TrialKey,
        attempt: u32,
    ) -> Result<Option<PackedOutput>, StoreError>;

    /// Calls `each` with all that is stored of a sweep, ordered by cell, repeat and attempt. What is damaged is left out, and logged.
    ///
    /// # Errors
    /// The store cannot be read.
    fn read_outputs(
        &self,
        sweep: SweepNumber,
        each: &mut dyn FnMut(StoredOutput),
    ) -> Result<(), StoreError>;
}
