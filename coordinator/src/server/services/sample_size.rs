//! What a precision takes: asked of a sweep after a pilot.

use ergodic_common::ErrorCode;
use ergodic_proto::status::UserError;
use ergodic_proto::v1;
use tonic::Status;

use crate::analysis::sample_size::{CellSampleSize, RemainingTrials, compute_sample_size};
use crate::analysis::table::{TableParams, TableQuery};
use crate::server::services::access::SweepApi;
use crate::server::services::results::table_error;

impl SweepApi {
    pub(crate) async fn answer_sample_size(
        &self,
        request: v1::SampleSizeRequest,
    ) -> Result<v1::SampleSizeResponse, Status> {
        let target = request.ci95;
        if !(target.is_finite() && target > 0.0) {
            let message = format!("precision: expected a number above 0, found {target}");
            return Err(UserError::new(ErrorCode::BadInput, message).into());
        }

        let found = self.find_snapshot(&request.sweep).await?;
        let query = TableQuery::new(
            &found.spec,
            &TableParams {
                metric: &request.metric,
                ..TableParams::default()
            },
        );
        let query = query.map_err(table_error)?;
        let asked = query.clone();

        let _room = self.acquire_for_cells(&found, 0).await?;
        let needs = self
            .read_rows(&found, move |rows| {
                compute_sample_size(rows, &asked, target)
            })
            .await?;

        let number = found.number;
        let slots = self
            .query_core(move |core| {
                core.sweep(number)
                    .map_or(0.0, |sweep| core.estimate_slots(sweep))
            })
            .await?;
        let missing = |missing: RemainingTrials| v1::RemainingTrials {
            trials: missing.trials,
            uncounted: missing.uncounted,
            slot_seconds: missing.slot_seconds,
            eta_seconds: (slots > 0.0).then(|| missing.slot_seconds / slots),
        };

        let row = |cell: &CellSampleSize| v1::CellSampleSize {
            values: found
                .spec
                .grid
                .axis_values(cell.cell)
                .iter()
                .map(Into::into)
                .collect(),
            rows: cell.rows,
            n: cell.n,
            std: cell.std,
            seconds: cell.seconds,
            repeats: cell.repeats,
            repeats_until_stop: cell.repeats_until_stop,
        };

        Ok(v1::SampleSizeResponse {
            sweep: found.id.clone(),
            name: found.spec.name.clone(),
            metric: query.metric().name().into_owned(),
            axes: found
                .spec
                .grid
                .axes()
                .iter()
                .map(|axis| axis.name.clone())
                .collect(),
            rows: needs.cells.iter().map(row).collect(),
            cells: found.spec.grid.cell_count(),
            sweep_repeats: found.spec.repeats,
            repeats: needs.repeats,
            remaining_equal: needs.remaining_equal.map(missing),
            remaining_until_stop: needs.remaining_until_stop.map(missing),
            slots,
            cells_without_value: needs.cells_without_value,
            has_stopping_rule: found.spec.stopping_rule.is_some(),
        })
    }
}
