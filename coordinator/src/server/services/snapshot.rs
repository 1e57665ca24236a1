//! A snapshot of a sweep's state in the core, for answering a read.

use std::sync::Arc;

use ergodic_common::Spec;
use ergodic_common::ids::{CellIndex, DatasetHash, SweepId, SweepNumber};
use ergodic_proto::v1;
use tonic::Status;

use crate::server::services::access::SweepApi;

/// The state of a sweep that an answer is based on.
#[derive(Clone)]
pub(crate) struct SweepSnapshot {
    pub(crate) number: SweepNumber,
    pub(crate) id: SweepId,
    pub(crate) spec: Arc<Spec>,
    pub(crate) done: u64,
    pub(crate) trials: u64,
    pub(crate) data_provenance: String,
    pub(crate) data_hash: Option<DatasetHash>,
}

impl SweepSnapshot {
    pub(crate) fn axis_names(&self) -> Vec<String> {
        let axes = self.spec.grid.axes().iter();
        axes.map(|axis| axis.name.clone()).collect()
    }

    pub(crate) fn axis_values(&self, cell: CellIndex) -> Vec<v1::AxisValue> {
        let values = self.spec.grid.axis_values(cell);
        values.iter().map(Into::into).collect()
    }
}

impl SweepApi {
    pub(crate) async fn find_snapshot(&self, word: &str) -> Result<SweepSnapshot, Status> {
        self.with_sweep(word, |_, sweep| SweepSnapshot {
            number: sweep.number,
            id: sweep.id.clone(),
            spec: sweep.spec.clone(),
            done: sweep.counts.done(),
            trials: sweep.total_trials(),
            data_provenance: sweep.record.data.provenance.clone(),
            data_hash: sweep.record.data.hash,
        })
        .await
    }
}
