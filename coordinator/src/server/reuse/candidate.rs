//! A sweep that is being launched, compared with stored ones.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use ergodic_common::Spec;
use ergodic_common::ids::{CellHash, CellIndex, MeaningHash, ShapeClass};
use ergodic_common::spec::result_reuse::ResultSelection;
use ergodic_proto::status::UserError;

use crate::core::reuse::ComparableSweep;
use crate::records::{SweepRow, SweepState};
use crate::server::cell_identities::compute_identities;

/// A sweep that is being launched.
pub(super) struct LaunchCandidate {
    pub(super) row: SweepRow,
    pub(super) spec: Arc<Spec>,
    meaning: Option<MeaningHash>,
    /// Numbers of its cells by identity, computed when first needed.
    cells_by_identity: OnceLock<Result<HashMap<CellHash, CellIndex>, UserError>>,
}

impl LaunchCandidate {
    pub(super) fn new(row: SweepRow, spec: Arc<Spec>) -> Self {
        Self {
            meaning: row.source.compute_meaning_hash(),
            row,
            spec,
            cells_by_identity: OnceLock::new(),
        }
    }

    /// Whether a stored sweep is the same as this one.
    pub(super) fn is_same_as(&self, other: &ComparableSweep) -> bool {
        other.state != SweepState::Cancelled
            && has_same_extent(&self.spec, &other.spec)
            && self.meaning.is_some()
            && other.record.source.compute_meaning_hash() == self.meaning
    }

    /// Numbers of its cells by identity.
    ///
    /// # Errors
    /// A cell cannot be resolved.
    pub(super) fn cells_by_identity(&self) -> Result<&HashMap<CellHash, CellIndex>, UserError> {
        self.cells_by_identity
            .get_or_init(|| self.identify_all_cells())
            .as_ref()
            .map_err(Clone::clone)
    }

    fn identify_all_cells(&self) -> Result<HashMap<CellHash, CellIndex>, UserError> {
        let cells: Vec<CellIndex> = self.spec.grid.iter().collect();
        let identities = compute_identities(&self.spec, self.row.data.hash, &cells)?;
        Ok(identities
            .into_iter()
            .map(|(cell, hash)| (hash, cell))
            .collect())
    }

    /// For each shape class, how to extract this sweep's results from those of another one; `None`
    /// if they lack something or were sampled at other steps.
    pub(super) fn select_from_results(&self, other: &Spec) -> Vec<Option<Arc<ResultSelection>>> {
        self.spec
            .grid
            .shape_classes()
            .map(|class| self.select_for_class(class, other))
            .collect()
    }

    fn select_for_class(&self, class: ShapeClass, other: &Spec) -> Option<Arc<ResultSelection>> {
        let grid = &self.spec.grid;
        // Where samples are taken at other steps in other cells, no selection fits a class.
        if grid.class_cell_count(class) == 0 || other.grid.has_measure_expressions() {
            return None;
        }
        let cell = grid.class_cell_at(class, 0);
        if let (Some(own), Some(wanted)) = (other.program(), self.spec.program()) {
            return own.selection_for(wanted).map(Arc::new);
        }
        let config = grid.resolve_config(cell).ok()?;
        let wanted = self.spec.measure_in(cell).ok()?;
        other.measure.selection_for(&wanted, &config).map(Arc::new)
    }

    /// Index, in another sweep's results, of this sweep's deciding metric.
    pub(super) fn find_deciding_metric(&self, other: &Spec) -> Option<usize> {
        let rule = self.spec.stopping_rule.as_ref()?;
        other
            .measure
            .metrics
            .iter()
            .position(|metric| *metric == rule.metric)
    }
}

/// Compares what is cheap to compare, before the meanings.
fn has_same_extent(a: &Spec, b: &Spec) -> bool {
    a.grid.cell_count() == b.grid.cell_count()
        && (a.repeats, &a.measure, &a.name) == (b.repeats, &b.measure, &b.name)
}
