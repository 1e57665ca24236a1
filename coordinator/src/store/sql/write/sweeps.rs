//! Rows of sweeps: inserted and updated.

use ergodic_common::ids::{CellsFingerprint, FileHash, SweepNumber};
use ergodic_common::spec::scheduling::Share;

use crate::records::{SweepRow, SweepState};
use crate::result_batch::CommitOutcome;
use crate::store::checksum::sweep_checksum;
use crate::store::encoding::{encode_files, encode_state};
use crate::store::error::StoreError;
use crate::store::sql::param::SqlParam;
use crate::store::sql::read::find_sweep;
use crate::store::sql::seal_rows::remove_seal;
use crate::store::sql::seals::seal_completed_sweep;
use crate::store::sql::transaction::StoreTransaction;
use crate::store::sql::{SqlConnection, damaged_column, select_number};
use crate::store::writes::StoreWrite;

/// A new sweep. The output is its number.
#[derive(Debug, Clone, PartialEq)]
pub struct InsertSweep(pub SweepRow);

impl StoreWrite for InsertSweep {
    type Output = SweepNumber;

    fn apply(&self, sql: &StoreTransaction<'_>) -> Result<SweepNumber, StoreError> {
        insert_sweep(sql, &self.0)
    }

    fn named_files(&self) -> Vec<FileHash> {
        self.0.named_files().collect()
    }
}

/// A sweep's state; ending it ends its leases, and completing it seals it, in the same transaction.
#[derive(Debug, Clone, PartialEq)]
pub struct SetSweepState {
    /// Number of the sweep.
    pub sweep: SweepNumber,
    /// The state.
    pub state: SweepState,
}

impl StoreWrite for SetSweepState {
    type Output = ();

    fn apply(&self, sql: &StoreTransaction<'_>) -> Result<(), StoreError> {
        set_state(sql, self.sweep, self.state)
    }
}

/// A sweep's share of the workers.
#[derive(Debug, Clone, PartialEq)]
pub struct SetShare {
    /// Number of the sweep.
    pub sweep: SweepNumber,
    /// The share.
    pub share: Share,
}

impl StoreWrite for SetShare {
    type Output = ();

    fn apply(&self, sql: &StoreTransaction<'_>) -> Result<(), StoreError> {
        change_sweep(sql, self.sweep, |row| row.share = self.share)
    }
}

/// What the cells of a sweep resolve to, which was not known when it was stored.
#[derive(Debug, Clone, PartialEq)]
pub struct SetCellsDigest {
    /// Number of the sweep.
    pub sweep: SweepNumber,
    /// The digest.
    pub cells: CellsFingerprint,
}

impl StoreWrite for SetCellsDigest {
    type Output = ();

    fn apply(&self, sql: &StoreTransaction<'_>) -> Result<(), StoreError> {
        change_sweep(sql, self.sweep, |row| {
            row.source.cells_fingerprint = Some(self.cells);
        })
    }
}

pub(in crate::store::sql) fn insert_sweep(
    sql: &impl SqlConnection,
    row: &SweepRow,
) -> Result<SweepNumber, StoreError> {
    let settings = encode_settings(row)?;
    let text =
        "INSERT INTO sweeps (id, file, text, settings, data_hash, data_train, data_words, state, launched_at, files,
                             priority, weight, launched_by, grammar)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14) RETURNING number";
    let files = encode_files(&row.source.files);
    let values = [
        row.id.as_str().into(),
        row.source.file.as_str().into(),
        row.source.text.as_str().into(),
        settings.as_str().into(),
        SqlParam::Bytes(row.data.hash.as_ref().map(|h| h.0.as_slice())),
        row.data.train.into(),
        row.data.provenance.as_str().into(),
        encode_state(row.state).into(),
        SqlParam::Real(row.launched_at),
        SqlParam::Bytes(Some(&files)),
        i64::from(row.share.priority).into(),
        SqlParam::Real(row.share.weight),
        row.launched_by.as_str().into(),
        row.source.grammar.into(),
    ];
    let number = select_number(sql, text, &values)?
        .map(SweepNumber)
        .ok_or_else(|| damaged_column(0, "the sweep's number"))?;

    // The checksum of a sweep covers its number, which is known only now.
    update_sweep_row(
        sql,
        &SweepRow {
            number,
            ..row.clone()
        },
    )?;

    Ok(number)
}

/// Encodes settings in their stored form.
pub(in crate::store::sql) fn encode_settings(row: &SweepRow) -> Result<String, StoreError> {
    serde_json::to_string(&row.source.settings).map_err(|e| StoreError::Failed(e.to_string()))
}

/// Updates the changeable columns of a sweep's row, and its checksum.
pub(in crate::store::sql) fn update_sweep_row(
    sql: &impl SqlConnection,
    row: &SweepRow,
) -> Result<(), StoreError> {
    let text =
        "UPDATE sweeps SET state = $1, priority = $2, weight = $3, releases = $4, duplicates = $5,
                       mismatches = $6, fenced = $7, checksum = $8, cells = $9
                WHERE number = $10";
    let values = [
        encode_state(row.state).into(),
        i64::from(row.share.priority).into(),
        SqlParam::Real(row.share.weight),
        row.tallies.lost_leases.into(),
        row.tallies.duplicates.into(),
        row.tallies.mismatches.into(),
        row.tallies.fenced.into(),
        sweep_checksum(row).into(),
        SqlParam::Bytes(
            row.source
                .cells_fingerprint
                .as_ref()
                .map(|cells| cells.0.as_slice()),
        ),
        row.number.into(),
    ];

    sql.execute_statement(text, &values).map(|_| ())
}

/// Changes the row of a sweep, if it exists.
pub(in crate::store::sql) fn change_sweep(
    sql: &impl SqlConnection,
    sweep: SweepNumber,
    change: impl FnOnce(&mut SweepRow),
) -> Result<(), StoreError> {
    let Some(mut row) = find_sweep(sql, sweep)? else {
        return Ok(());
    };
    change(&mut row);
    update_sweep_row(sql, &row)
}

pub(in crate::store::sql) fn set_state(
    sql: &impl SqlConnection,
    sweep: SweepNumber,
    state: SweepState,
) -> Result<(), StoreError> {
    change_sweep(sql, sweep, |row| row.state = state)?;
    remove_seal(sql, sweep)?;
    if state == SweepState::Completed {
        seal_completed_sweep(sql, sweep)?;
    }
    if !state.is_open() {
        sql.execute_statement("DELETE FROM leases WHERE sweep = $1", &[sweep.into()])?;
    }
    Ok(())
}

/// Adds a batch to its sweep's tallies, which count everything but new rows.
pub(in crate::store::sql) fn add_to_tallies(
    sql: &impl SqlConnection,
    sweep: SweepNumber,
    outcome: &CommitOutcome,
) -> Result<(), StoreError> {
    if outcome.already_stored.is_empty() && outcome.contradicted == 0 && !outcome.fenced {
        return Ok(());
    }

    // Audited trials ran twice on purpose, so they are not counted as duplicates.
    change_sweep(sql, sweep, |row| {
        row.tallies.count_batch(
            outcome.compared_count(),
            outcome.differing_count(),
            outcome.fenced,
        );
    })
}

/// Sets a completed sweep to running, because it has trials left again.
pub(in crate::store::sql) fn reopen_completed_sweep(
    sql: &impl SqlConnection,
    sweep: SweepNumber,
) -> Result<(), StoreError> {
    remove_seal(sql, sweep)?;
    change_sweep(sql, sweep, |row| {
        if row.state == SweepState::Completed {
            row.state = SweepState::Running;
        }
    })
}
