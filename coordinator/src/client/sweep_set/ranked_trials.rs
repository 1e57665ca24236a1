//! Whether trials can be ranked by a metric that may be a loss, which is not the same quantity in all cells.

use std::collections::BTreeSet;

use ergodic_common::Spec;
use ergodic_common::ids::CellIndex;
use ergodic_common::metric::Metric;
use ergodic_common::spec::misleading::{
    describe_loss_quantity, describe_unranked_losses, find_mixed_losses,
};
use ergodic_common::spec_file::node::SpecValue;
use ergodic_proto::status::UserError;

use super::loss_kinds::describe_mixture;
use super::{SWEEP_AXIS, SweepSet};
use crate::client::Client;
use crate::client::query::query_sweep_file;
use crate::client::render::TrialRows;

impl SweepSet {
    /// Explains why a metric ranks none of these trials: it is another quantity in some of their cells or sweeps. `None` if it is the
    /// same in all.
    ///
    /// # Errors
    /// Nobody answers.
    pub async fn find_mixed_loss(
        &self,
        client: &mut Client,
        metric: &str,
        trials: &TrialRows,
    ) -> Result<Option<String>, UserError> {
        let Some(loss) = Metric::from_name(metric).filter(Metric::is_loss) else {
            return Ok(None);
        };

        let mut kinds: Vec<(&str, Option<String>)> = Vec::new();
        for sweep in self.iter() {
            let file = query_sweep_file(client, &sweep.id).await?;
            let cells = find_cells(trials, self.is_several().then_some(sweep.label.as_str()));
            // What this program cannot read, it cannot judge.
            let Ok(spec) = Spec::read_stored(&file.source) else {
                continue;
            };
            match &list_loss_quantities(&spec, &loss, &cells)[..] {
                [one, other, ..] => {
                    let losses = [one.clone(), other.clone()];
                    return Ok(Some(describe_unranked_losses(metric, &losses)));
                }
                one => kinds.push((sweep.label.as_str(), one.first().cloned())),
            }
        }

        let mixture = describe_mixture(metric, &kinds);
        Ok(mixture.map(|why| format!("{why}: rank by an accuracy, or show one sweep")))
    }
}

/// The cells of trials, or of those of the sweep with a label.
fn find_cells(trials: &TrialRows, label: Option<&str>) -> BTreeSet<u64> {
    let axis = trials.axes.iter().position(|axis| axis == SWEEP_AXIS);
    let rows = trials.rows.iter().filter(|row| match (label, axis) {
        (Some(label), Some(axis)) => {
            row.values.get(axis).map(SpecValue::from) == Some(SpecValue::Str(label.to_owned()))
        }
        _ => true,
    });
    let keys = rows.filter_map(|row| row.result.as_ref()?.key);
    keys.map(|key| key.cell).collect()
}

/// The quantities that a loss is in some cells, each once.
fn list_loss_quantities(spec: &Spec, loss: &Metric, cells: &BTreeSet<u64>) -> Vec<String> {
    let count = match find_mixed_losses(spec, loss) {
        Some(_) => cells.len(),
        None => 1,
    };
    let mut found: Vec<String> = Vec::new();
    for cell in cells.iter().take(count) {
        let kind = describe_loss_quantity(spec, loss, CellIndex(*cell));
        found.extend(kind.filter(|kind| !found.contains(kind)));
    }
    found
}

#[cfg(test)]
mod tests {
    use ergodic_common::spec::SpecSource;
    use ergodic_proto::v1;

    use super::*;

    #[test]
    fn losses_are_those_of_the_cells_that_are_left() {
        let source = SpecSource {
            text: "name = \"x\"\nmodel = { kind = \"mlp\" }\n[train]\nsteps = 10\nbatch_size = 8\nlr = 0.1\n\
                   [grid]\ntrain.loss = [\"mse\", \"cross-entropy\"]\n"
                .to_owned(),
            ..SpecSource::default()
        };
        let spec = Spec::read_stored(&source).expect("a valid sweep");
        let kinds = |cells: &[u64]| {
            list_loss_quantities(&spec, &Metric::TestLoss, &cells.iter().copied().collect())
        };
        assert_eq!(kinds(&[0, 1]), ["mse", "cross-entropy"]);
        assert_eq!(kinds(&[1]), ["cross-entropy"]);
    }

    #[test]
    fn cells_are_those_of_one_sweep() {
        let row = |label: &str, cell| v1::TrialRow {
            values: vec![v1::AxisValue {
                kind: Some(v1::axis_value::Kind::Text(label.to_owned())),
            }],
            result: Some(v1::TrialResult {
                key: Some(v1::TrialKey { cell, repeat: 0 }),
                ..v1::TrialResult::default()
            }),
            ..v1::TrialRow::default()
        };
        let trials = TrialRows::from_pages(vec![v1::TrialsResponse {
            axes: vec![SWEEP_AXIS.to_owned()],
            rows: vec![row("a", 0), row("b", 1), row("a", 2)],
            ..v1::TrialsResponse::default()
        }]);
        assert_eq!(find_cells(&trials, Some("a")), BTreeSet::from([0, 2]));
        assert_eq!(find_cells(&trials, None), BTreeSet::from([0, 1, 2]));
    }
}
