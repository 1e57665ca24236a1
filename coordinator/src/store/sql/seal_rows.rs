//! Rows of seals: read, and removed by whatever changes a sweep, its rows or its audits.

use ergodic_common::ids::SweepNumber;

use super::{SqlConnection, SqlRow, select_all};
use crate::records::OutcomeCounts;
use crate::store::checksum::seal_checksum;
use crate::store::error::StoreError;
use crate::store::seal_encoding::{decode_seal, encode_tallies};
use crate::sweep_seal::SweepSeal;

/// A seal as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SealColumns {
    /// Completed, diverged and failed trials.
    pub(super) counts: [i64; 3],
    pub(super) row_sum: i64,
    pub(super) tallies: Vec<u8>,
    pub(super) checksum: i64,
}

impl SealColumns {
    /// The columns of a seal.
    pub(super) fn from_seal(sweep: SweepNumber, seal: &SweepSeal) -> Self {
        let OutcomeCounts {
            completed,
            diverged,
            failed,
        } = seal.counts;
        let counts = [completed, diverged, failed].map(|count| count as i64);
        let row_sum = seal.row_sum as i64;
        let tallies = encode_tallies(seal);
        Self {
            checksum: seal_checksum(sweep, counts, row_sum, &tallies),
            counts,
            row_sum,
            tallies,
        }
    }

    /// Reads the columns of a row. What is no number, or no bytes, is left out, so that the checksum does not match.
    fn from_row(row: &dyn SqlRow) -> Self {
        let number = |at| row.get_int(at).unwrap_or_default();
        Self {
            counts: [number(0), number(1), number(2)],
            row_sum: number(3),
            tallies: row.get_bytes(4).unwrap_or_default().to_vec(),
            checksum: number(5),
        }
    }

    /// The seal; `None` if it is damaged.
    fn decode(&self, sweep: SweepNumber) -> Option<SweepSeal> {
        let wanted = seal_checksum(sweep, self.counts, self.row_sum, &self.tallies);
        let [completed, diverged, failed] = self.counts.map(|count| u32::try_from(count).ok());
        let counts = OutcomeCounts {
            completed: completed?.into(),
            diverged: diverged?.into(),
            failed: failed?.into(),
        };

        let seal = decode_seal(counts, self.row_sum as u64, &self.tallies)?;
        (self.checksum == wanted).then_some(seal)
    }
}

/// Reads the seal of a sweep as it is stored.
pub(super) fn read_seal_columns(
    sql: &impl SqlConnection,
    sweep: SweepNumber,
) -> Result<Option<SealColumns>, StoreError> {
    let text = "SELECT completed, diverged, failed, row_sum, tallies, checksum FROM seals WHERE sweep = $1";
    let seals = select_all(sql, text, &[sweep.into()], |row| {
        Ok(SealColumns::from_row(row))
    })?;
    Ok(seals.into_iter().next())
}

/// Reads the seal of a sweep. A damaged one is none, because the rows have everything that it has.
pub(super) fn read_seal(
    sql: &impl SqlConnection,
    sweep: SweepNumber,
) -> Result<Option<SweepSeal>, StoreError> {
    let Some(columns) = read_seal_columns(sql, sweep)? else {
        return Ok(None);
    };
    let seal = columns.decode(sweep);
    if seal.is_none() {
        tracing::error!(
            sweep = sweep.0,
            "the seal of a sweep is damaged: its rows are read instead"
        );
    }

    Ok(seal)
}

/// Removes the seal of a sweep, because the sweep, its rows or its audits change.
pub(super) fn remove_seal(sql: &impl SqlConnection, sweep: SweepNumber) -> Result<(), StoreError> {
    sql.execute_statement("DELETE FROM seals WHERE sweep = $1", &[sweep.into()])?;
    Ok(())
}
