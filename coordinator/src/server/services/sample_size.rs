//! `Needs`: the number of repeats for a precision, estimated from a pilot.

use ergodic_common::ErrorCode;
use ergodic_common::ids::SweepNumber;
use ergodic_proto::status::UserError;
use ergodic_proto::v1;
use tonic::Status;

use crate::analysis::sample_size::{CellSampleSize, RemainingTrials, compute_sample_size};
use crate::analysis::{TableParams, TableQuery};
use crate::server::services::access::SweepApi;
use crate::server::services::row_readers::table_error;
use crate::server::services::snapshot::SweepSnapshot;

impl SweepApi {
    /// The body of `Needs`.
    pub(crate) async fn answer_sample_size(
        &self,
        request: v1::SampleSizeRequest,
    ) -> Result<v1::SampleSizeResponse, Status> {
        let target = request.ci95;
        check_target(target)?;

        let snapshot = self.find_snapshot(&request.sweep).await?;
        let params = TableParams {
            metric: &request.metric,
            ..TableParams::default()
        };
        let query = TableQuery::new(&snapshot.spec, &params).map_err(table_error)?;
        let metric = query.metric().name().into_owned();

        let _permit = self.acquire_for_cells(&snapshot, 0).await?;
        let needs = self
            .read_rows(&snapshot, move |rows| {
                compute_sample_size(rows, &query, target)
            })
            .await?;
        let slots = self.estimate_slots(snapshot.number).await?;

        let rows = needs.cells.iter();
        Ok(v1::SampleSizeResponse {
            sweep: snapshot.id.to_string(),
            name: snapshot.spec.name.clone(),
            metric,
            axes: snapshot.axis_names(),
            rows: rows.map(|cell| to_sample_size(&snapshot, cell)).collect(),
            cells: snapshot.spec.grid.cell_count(),
            sweep_repeats: snapshot.spec.repeats,
            repeats: needs.repeats,
            remaining_equal: needs
                .remaining_equal
                .map(|trials| to_remaining(trials, slots)),
            remaining_until_stop: needs
                .remaining_until_stop
                .map(|trials| to_remaining(trials, slots)),
            slots,
            cells_without_value: needs.cells_without_value,
            has_stopping_rule: snapshot.spec.stopping_rule.is_some(),
        })
    }

    /// Number of slots that a sweep can expect; 0 if it was removed.
    async fn estimate_slots(&self, number: SweepNumber) -> Result<f64, Status> {
        self.query_core(move |core| {
            core.sweep(number)
                .map_or(0.0, |sweep| core.estimate_slots(sweep))
        })
        .await
    }
}

fn check_target(target: f64) -> Result<(), UserError> {
    if target.is_finite() && target > 0.0 {
        return Ok(());
    }

    let message = format!("precision: expected a number above 0, found {target}");
    Err(UserError::new(ErrorCode::BadInput, message))
}

fn to_sample_size(snapshot: &SweepSnapshot, cell: &CellSampleSize) -> v1::CellSampleSize {
    v1::CellSampleSize {
        values: snapshot.axis_values(cell.cell),
        rows: cell.rows,
        n: cell.n,
        std: cell.std,
        seconds: cell.seconds,
        repeats: cell.repeats,
        repeats_until_stop: cell.repeats_until_stop,
    }
}

fn to_remaining(remaining: RemainingTrials, slots: f64) -> v1::RemainingTrials {
    v1::RemainingTrials {
        trials: remaining.trials,
        uncounted: remaining.uncounted,
        slot_seconds: remaining.slot_seconds,
        eta_seconds: (slots > 0.0).then(|| remaining.slot_seconds / slots),
    }
}
