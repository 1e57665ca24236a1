//! The first page of a pull: which rows follow, and of which sweep.

use std::sync::Arc;

use ergodic_common::ids::DatasetHash;
use ergodic_common::spec::SpecSource;
use ergodic_common::{ErrorCode, Spec, TrialResult};
use ergodic_proto::convert::WireError;
use ergodic_proto::status::UserError;
use ergodic_proto::v1;

use super::columns::{DatasetColumns, ExportRow};
use super::manifest::{Manifest, ManifestCursor};
use super::reported_predictions::reported_predictions_schema;

/// The first page of a pull, without its rows.
pub(super) struct PullHead {
    pub(super) head: v1::RowsHead,
    pub(super) status: v1::SweepStatus,
    pub(super) cursor: v1::Cursor,
    pub(super) source: SpecSource,
    pub(super) spec: Arc<Spec>,
    pub(super) columns: Arc<DatasetColumns>,
}

impl PullHead {
    /// Checks the head of a pull, and reads its sweep file.
    ///
    /// # Errors
    /// Something is missing, or this program would mean other cells by the file.
    pub(super) fn from_head(head: Option<v1::RowsHead>) -> Result<Self, UserError> {
        let mut head = head.ok_or_else(|| incomplete_response("head"))?;
        let source = head
            .source
            .take()
            .ok_or_else(|| incomplete_response("source"))?;
        let source = SpecSource::try_from(source).map_err(|e| invalid_response_error(&e))?;
        let spec = Spec::read_stored(&source).map_err(|e| {
            let message = format!("the sweep cannot be read by this version: {e}");
            UserError::new(ErrorCode::Version, message)
        })?;
        if !spec.is_as_stored(&source) {
            let message = "this program would resolve the cells of the sweep to other values than those whose results are \
                           stored: use the version that launched it";
            return Err(UserError::new(ErrorCode::Version, message));
        }

        let status = head
            .status
            .clone()
            .ok_or_else(|| incomplete_response("status"))?;
        let cursor = head.cursor.ok_or_else(|| incomplete_response("cursor"))?;
        Ok(Self {
            head,
            status,
            cursor,
            source,
            columns: Arc::new(DatasetColumns::from_spec(&spec)),
            spec: Arc::new(spec),
        })
    }

    /// The hash of the dataset; zeros without one, as in the identity of cells.
    pub(super) fn data_hash(&self) -> Result<DatasetHash, UserError> {
        let Some(hash) = &self.head.data_hash else {
            return Ok(DatasetHash::NONE);
        };
        hash.clone()
            .try_into()
            .map_err(|_| incomplete_response("data_hash"))
    }

    /// Whether rows of a dataset have the columns that this program would add rows with.
    pub(super) fn continues_columns(&self, known: &Manifest) -> bool {
        // Earlier versions left out the predictions of programs.
        let has_predictions =
            self.spec.program().is_none() || known.tables.contains_key("predictions");
        has_predictions
            && known.has_columns("trials", &self.columns.trials_schema())
            && known.has_columns("curves", &self.columns.curves_schema())
    }

    /// The next manifest, without the new parts.
    pub(super) fn next_manifest(&self, known: Option<&Manifest>) -> Result<Manifest, UserError> {
        let new = Manifest::new(&self.head, &self.status, &self.source, &self.spec);
        let old = known.filter(|_| !self.head.all);
        let mut next = Manifest {
            quantities: self.columns.quantities.definitions(),
            hosts: old.map_or_else(Default::default, |old| old.hosts.clone()),
            tables: old.map_or_else(Default::default, |old| old.tables.clone()),
            complete: self.head.all_rows == self.status.trials,
            cursor: ManifestCursor::from_wire(self.cursor, self.head.all_rows),
            ..new
        };
        if self.spec.program().is_some() {
            next.add_part("predictions", &reported_predictions_schema(), None);
        }
        Ok(next)
    }
}

/// Converts a row.
///
/// # Errors
/// Something is missing or wrong in it.
pub(super) fn read_row(row: v1::TrialRow) -> Result<ExportRow, UserError> {
    let result = TrialResult::try_from(row.result.ok_or_else(|| incomplete_response("result"))?)
        .map_err(|e| invalid_response_error(&e))?;
    Ok(ExportRow {
        result,
        worker: row.worker,
    })
}

fn incomplete_response(field: &str) -> UserError {
    UserError::new(
        ErrorCode::Internal,
        format!(
            "the coordinator's answer is incomplete: the field {field} of RowsResponse is missing"
        ),
    )
}

fn invalid_response_error(error: &WireError) -> UserError {
    UserError::new(
        ErrorCode::Internal,
        format!("the coordinator's answer cannot be used: {error}"),
    )
}
