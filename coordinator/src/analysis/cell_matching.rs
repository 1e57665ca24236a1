//! Which cell of one sweep corresponds to which cell of another.

use std::collections::BTreeMap;

use ergodic_common::Spec;
use ergodic_common::ids::{CellIndex, DatasetHash};
use ergodic_common::number_format::format_count;
use ergodic_common::spec_file::node::SpecValue;

use super::error::AnalysisError;
use super::lookup::find_axis;

/// One of two sweeps that are compared.
#[derive(Debug, Clone, Copy)]
pub struct ComparedSweep<'a> {
    /// How messages call the sweep.
    pub label: &'a str,
    /// The spec of the sweep.
    pub spec: &'a Spec,
    /// BLAKE3 hash of the dataset.
    pub dataset_hash: DatasetHash,
}

/// Maximum number of cells of a sweep whose cells are matched.
const MAX_MATCHED_CELLS: u64 = 100_000;

/// Pairs of cells of two sweeps. Each cell occurs once.
#[derive(Debug, Clone)]
pub(super) struct CellMatching {
    /// A cell of the first sweep and its match in the second, in the order of the first one's grid.
    pub(super) pairs: Vec<(CellIndex, CellIndex)>,
    /// Numbers of cells of either sweep without a match.
    unmatched: [u64; 2],
}

/// What makes two cells match, in bytes.
type MatchKey = Vec<u8>;

impl CellMatching {
    /// Matches cells by the values of axes, or, if none is named, cells that resolve to the same data, network and training.
    ///
    /// # Errors
    /// A sweep has no such axis or too many cells, several cells of a sweep match the same one, or none match.
    pub(super) fn find(
        sweep: ComparedSweep<'_>,
        baseline: ComparedSweep<'_>,
        axes: &[String],
    ) -> Result<Self, AnalysisError> {
        // An axis that one sweep lacks is named before cells are looked at.
        let columns = find_columns(sweep, axes)?;
        let baseline_columns = find_columns(baseline, axes)?;
        let here = index_cells(sweep, axes, &columns)?;
        let there = index_cells(baseline, axes, &baseline_columns)?;

        let mut pairs: Vec<(CellIndex, CellIndex)> = here
            .iter()
            .filter_map(|(key, cell)| there.get(key).map(|other| (*cell, *other)))
            .collect();
        pairs.sort_unstable();
        if pairs.is_empty() {
            return Err(no_match_error(sweep, baseline, axes));
        }

        Ok(Self {
            unmatched: [sweep, baseline]
                .map(|side| side.spec.grid.cell_count() - pairs.len() as u64),
            pairs,
        })
    }

    /// Says how many cells have no match; `None` if all have one.
    pub(super) fn describe_unmatched(&self, sweep: &str, baseline: &str) -> Option<String> {
        let [here, there] = self.unmatched;
        (here + there > 0).then(|| {
            format!(
                "without a match: {} of {sweep}, {} of {baseline}",
                format_count(here, "cell"),
                format_count(there, "cell")
            )
        })
    }
}

/// The positions of axes in the grid of a sweep.
fn find_columns(sweep: ComparedSweep<'_>, axes: &[String]) -> Result<Vec<usize>, AnalysisError> {
    axes.iter()
        .map(|axis| find_axis(sweep.spec.grid.axes(), axis))
        .collect::<Result<_, _>>()
        .map_err(|error| error.in_sweep(sweep.label))
}

/// The cells of a sweep by what makes them match: by their values on these columns, which are of `axes`.
fn index_cells(
    sweep: ComparedSweep<'_>,
    axes: &[String],
    columns: &[usize],
) -> Result<BTreeMap<MatchKey, CellIndex>, AnalysisError> {
    let count = sweep.spec.grid.cell_count();
    if count > MAX_MATCHED_CELLS {
        return Err(AnalysisError::Invalid(format!(
            "{}: sweeps of at most {MAX_MATCHED_CELLS} cells can be compared, this one has {count}; `ergodic export` writes its rows",
            sweep.label
        )));
    }

    let mut cells = BTreeMap::new();
    for cell in sweep.spec.grid.iter() {
        let key = match columns.is_empty() {
            true => identity_key(sweep, cell),
            false => axis_key(sweep, cell, columns),
        };
        let Some(key) = key else { continue };
        if let Some(other) = cells.insert(key, cell) {
            return Err(ambiguity_error(sweep, other, cell, axes));
        }
    }

    Ok(cells)
}

/// What a cell resolves to, its random streams left out; `None` for a cell that cannot be resolved.
fn identity_key(sweep: ComparedSweep<'_>, cell: CellIndex) -> Option<MatchKey> {
    let mut fields = sweep.spec.grid.resolve_config(cell).ok()?.identity_fields();
    fields.sort_unstable();

    let mut key = sweep.dataset_hash.to_vec();
    for (path, value) in fields {
        key.extend_from_slice(format!("{path}={value}\n").as_bytes());
    }
    Some(blake3::hash(&key).as_bytes().to_vec())
}

/// A cell's values of some axes. Numbers match by value: `1` is `1.0`.
fn axis_key(sweep: ComparedSweep<'_>, cell: CellIndex, columns: &[usize]) -> Option<MatchKey> {
    let values = sweep.spec.grid.axis_values(cell);
    let mut key = String::new();

    for column in columns {
        match values.get(*column)? {
            SpecValue::Int(number) => key.push_str(&format!("{:?}\n", *number as f64)),
            SpecValue::Float(number) => key.push_str(&format!("{number:?}\n")),
            other => key.push_str(&format!("{other}\n")),
        }
    }

    Some(key.into_bytes())
}

fn ambiguity_error(
    sweep: ComparedSweep<'_>,
    first: CellIndex,
    second: CellIndex,
    axes: &[String],
) -> AnalysisError {
    let label = sweep.label;
    if axes.is_empty() {
        return AnalysisError::Invalid(format!(
            "{label}: cells {first} and {second} resolve to the same, so it is not clear which of them to compare; name axes to \
             match cells by, as in --match lr,wd"
        ));
    }

    let grid = &sweep.spec.grid;
    let values = grid
        .axis_values(first)
        .into_iter()
        .zip(grid.axis_values(second));
    let differing: Vec<&str> = grid
        .axes()
        .iter()
        .zip(values)
        .filter(|(_, (first, second))| first != second)
        .map(|(axis, _)| axis.name.as_str())
        .collect();

    AnalysisError::Invalid(format!(
        "--match {}: {label} has several cells with these values, which differ in {}; name these axes as well",
        axes.join(","),
        differing.join(", ")
    ))
}

fn no_match_error(
    sweep: ComparedSweep<'_>,
    baseline: ComparedSweep<'_>,
    axes: &[String],
) -> AnalysisError {
    let [here, there] = [sweep.label, baseline.label];
    if !axes.is_empty() {
        return AnalysisError::Unknown(format!(
            "no cell of {here} has the same {} as a cell of {there}",
            axes.join(", ")
        ));
    }

    let common: Vec<&str> = sweep
        .spec
        .grid
        .axes()
        .iter()
        .map(|axis| axis.name.as_str())
        .filter(|name| find_axis(baseline.spec.grid.axes(), name).is_ok())
        .collect();
    let remedy = if common.is_empty() {
        "and the sweeps have no axis in common".to_owned()
    } else {
        format!(
            "match them by axes that both have, as in --match {}",
            common.join(",")
        )
    };
    AnalysisError::Unknown(format!(
        "no cell of {here} resolves to the same as a cell of {there}: {remedy}"
    ))
}

#[cfg(test)]
mod tests {
    use ergodic_common::spec::SpecSource;

    use crate::analysis::cell_matching::*;

    fn spec(text: &str) -> Spec {
        let source = SpecSource {
            text: format!(
                "name = \"t\"\nrepeats = 2\nseed = 1\nmeasure = {{ metrics = [\"train_loss\"] }}\n\
                 model = {{ kind = \"toy\", dim = 4 }}\n[train]\nsteps = 10\n{text}"
            ),
            ..SpecSource::default()
        };
        Spec::read_stored(&source).expect("a sweep")
    }

    fn find(here: &Spec, there: &Spec, axes: &[&str]) -> Result<CellMatching, String> {
        let side = |label, spec| ComparedSweep {
            label,
            spec,
            dataset_hash: DatasetHash::NONE,
        };
        let axes: Vec<String> = axes.iter().map(|axis| (*axis).to_owned()).collect();
        CellMatching::find(side("a", here), side("b", there), &axes).map_err(|e| e.to_string())
    }

    fn numbers(matching: &CellMatching) -> Vec<(u64, u64)> {
        matching.pairs.iter().map(|(a, b)| (a.0, b.0)).collect()
    }

    #[test]
    fn cells_match_by_what_they_resolve_to_however_the_grid_is_written() {
        let here = spec("wd = 0.01\n[grid]\nlr = [0.1, 0.2, 0.3]\n");
        let there = spec("lr = 0.3\n[grid]\nwd = [0.5, 0.01]\n");

        let matching = find(&here, &there, &[]).expect("one cell matches");
        assert_eq!(numbers(&matching), [(2, 1)]);
        assert_eq!(
            matching.describe_unmatched("a", "b").as_deref(),
            Some("without a match: 2 cells of a, 1 cell of b")
        );
    }

    #[test]
    fn cells_match_by_axes_that_both_have() {
        let here = spec("wd = 0.01\n[grid]\nlr = [0.1, 0.2]\n");
        let there = spec("wd = 0.02\n[grid]\nlr = [0.2, 1e-1]\n");
        let refused = find(&here, &there, &[]).expect_err("no cell is the same");
        assert!(refused.contains("--match lr"), "{refused}");

        let matching = find(&here, &there, &["lr"]).expect("both match");
        assert_eq!(numbers(&matching), [(0, 1), (1, 0)]);
        assert_eq!(matching.describe_unmatched("a", "b"), None);
    }

    #[test]
    fn cells_that_axes_do_not_tell_apart_are_refused() {
        let here = spec("[grid]\nlr = [0.1, 0.2]\nwd = [0.0, 0.1]\n");
        let there = spec("wd = 0.0\n[grid]\nlr = [0.1, 0.2]\n");
        let refused = find(&here, &there, &["lr"]).expect_err("two cells have each rate");
        assert!(refused.contains("differ in wd"), "{refused}");

        let unknown = find(&here, &there, &["wd"]).expect_err("the baseline has no such axis");
        assert!(unknown.starts_with("b: "), "{unknown}");
    }
}
