//! Checks that nothing is asked of targets that only labels have.

use crate::config::TrialConfig;
use crate::grid::Grid;
use crate::ids::CellIndex;
use crate::metric::Metric;
use crate::spec::{Measure, Spec, SpecSource};
use crate::spec_file::error::{Origin, SpecError};
use crate::spec_file::node::SpecTable;

impl Measure {
    /// The measure of a cell, whose default metrics are those that images with targets have.
    pub(super) fn with_metrics_of_targets(
        self,
        document: &SpecTable,
        (grid, cell): (&Grid, CellIndex),
    ) -> Result<Self, SpecError> {
        let are_named = document.get_at_path("measure.metrics").is_some();
        if are_named || !grid.has_targets() || !has_targets(&grid.resolve_config(cell)?) {
            return Ok(self);
        }
        Ok(Self {
            metrics: vec![Metric::TrainLoss, Metric::TestLoss],
            ..self
        })
    }
}

fn has_targets(config: &TrialConfig) -> bool {
    config.model.kind.needs_images() && config.data.dataset.has_targets()
}

impl Spec {
    /// Checks that what is measured and kept does not need classes where images have targets.
    pub(super) fn check_targets(&self, source: &SpecSource) -> Result<(), SpecError> {
        if !self.grid.has_targets() || !self.grid.class_configs().iter().any(has_targets) {
            return Ok(());
        }

        let metrics = &self.measure.metrics;
        let undefined = metrics
            .iter()
            .find_map(Metric::explain_undefined_for_targets);
        let (path, message) = match (undefined, &self.measure.probe) {
            (Some(why), _) => ("measure.metrics", why),
            (None, Some(_)) => (
                "measure.probe",
                "predictions are classes, and images have targets ('y_train' is F32): remove it, and measure test_loss".to_owned(),
            ),
            (None, None) => return Ok(()),
        };
        let document = source.read_document()?;
        let node = document.get_at_path(path);
        let origin = node.map_or(Origin::Default, |node| node.origin.clone());
        Err(SpecError::new(origin, path, message))
    }
}
