//! `Compare` of two sweeps.

use std::sync::Arc;

use ergodic_common::ids::DatasetHash;
use ergodic_common::{ErrorCode, Spec};
use ergodic_proto::status::UserError;
use ergodic_proto::v1;
use tonic::Status;

use crate::analysis::cell_matching::ComparedSweep;
use crate::analysis::compare_sweeps::{
    SweepCompareParams, SweepCompareQuery, SweepContrast, SweepValues,
};
use crate::server::convert::to_sweep_contrast;
use crate::server::services::access::SweepApi;
use crate::server::services::snapshot::SweepSnapshot;

/// A sweep as a thread without the core needs it.
#[derive(Clone)]
struct SweepSide {
    label: String,
    spec: Arc<Spec>,
    dataset_hash: DatasetHash,
}

impl SweepSide {
    fn from_snapshot(snapshot: &SweepSnapshot) -> Self {
        Self {
            label: format!("{} ({})", snapshot.spec.name, snapshot.id),
            spec: snapshot.spec.clone(),
            dataset_hash: snapshot.data_hash.unwrap_or(DatasetHash::NONE),
        }
    }

    fn as_compared(&self) -> ComparedSweep<'_> {
        ComparedSweep {
            label: &self.label,
            spec: &self.spec,
            dataset_hash: self.dataset_hash,
        }
    }
}

fn self_comparison_error(snapshot: &SweepSnapshot) -> UserError {
    let message = format!(
        "both sweeps are {} ({}), whose cells do not differ from themselves: name another sweep, or cells of this one with --baseline",
        snapshot.spec.name, snapshot.id
    );
    UserError::new(ErrorCode::BadInput, message)
}

impl SweepApi {
    /// Compares the cells of a sweep with those of another one.
    pub(crate) async fn compare_sweeps(
        &self,
        snapshot: SweepSnapshot,
        request: v1::CompareRequest,
    ) -> Result<v1::CompareResponse, Status> {
        let baseline = self.find_snapshot(&request.baseline_sweep).await?;
        if snapshot.id == baseline.id {
            return Err(self_comparison_error(&snapshot).into());
        }
        let _permit = self
            .acquire_for_cells(&snapshot, baseline.answer_bytes())
            .await?;
        let (query, cells) = self.match_sweeps(&snapshot, &baseline, request).await?;
        let (query, rows) = self
            .contrast_sweeps(&snapshot, &baseline, query, cells)
            .await?;

        Ok(v1::CompareResponse {
            axes: snapshot.axis_names(),
            metric: query.metric().name().into_owned(),
            baseline: SweepSide::from_snapshot(&baseline).label,
            baseline_sweep: baseline.id.into(),
            unpaired_reason: query.unpaired_reason().unwrap_or_default().to_owned(),
            note: query.describe_caveats(&rows),
            rows: rows.iter().map(to_sweep_contrast).collect(),
            sweep: snapshot.id.into(),
            name: snapshot.spec.name.clone(),
            done: snapshot.done,
            trials: snapshot.trials,
            data: snapshot.data_provenance,
            numerics: snapshot.spec.numerics.clone(),
            baseline_done: Some(baseline.done),
            baseline_trials: baseline.trials,
            baseline_numerics: baseline.spec.numerics.clone(),
            baseline_data: baseline.data_provenance,
        })
    }

    /// Matches the cells and reads the values of the first sweep, both outside the runtime's threads.
    async fn match_sweeps(
        &self,
        snapshot: &SweepSnapshot,
        baseline: &SweepSnapshot,
        request: v1::CompareRequest,
    ) -> Result<(SweepCompareQuery, SweepValues), Status> {
        let sides = [snapshot, baseline].map(SweepSide::from_snapshot);
        self.read_rows(snapshot, move |rows| {
            let params = SweepCompareParams {
                match_axes: &request.match_axes,
                metric: &request.metric,
                at: &request.at,
                level: request.level,
            };
            let [here, there] = &sides;
            let query = SweepCompareQuery::new(here.as_compared(), there.as_compared(), &params)?;
            let cells = query.read_values(rows)?;
            Ok((query, cells))
        })
        .await
    }

    /// Reads the values of the baselines and compares.
    async fn contrast_sweeps(
        &self,
        snapshot: &SweepSnapshot,
        baseline: &SweepSnapshot,
        query: SweepCompareQuery,
        cells: SweepValues,
    ) -> Result<(SweepCompareQuery, Vec<SweepContrast>), Status> {
        let spec = snapshot.spec.clone();
        self.read_rows(baseline, move |rows| {
            let baselines = query.read_baseline_values(rows)?;
            let contrasts = query.compute_contrasts(&spec, &cells, &baselines)?;
            Ok((query, contrasts))
        })
        .await
    }
}
