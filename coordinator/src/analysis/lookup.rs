//! Finds axes, values, cells and moments by the names that users type.

use ergodic_common::Spec;
use ergodic_common::config::Length;
use ergodic_common::grid::axis::Axis;
use ergodic_common::ids::CellIndex;
use ergodic_common::number_format::format_shortest;
use ergodic_common::spec_file::suggest::suggest_nearest;

use crate::analysis::error::AnalysisError;

/// A cell as a user names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CellSelector {
    /// The number of the cell.
    Number(CellIndex),
    /// Values of axes that only this cell has.
    Values(Vec<(String, String)>),
}

/// Finds the one cell that a user means.
pub(super) fn find_cell(spec: &Spec, choice: &CellSelector) -> Result<CellIndex, AnalysisError> {
    let values = match choice {
        CellSelector::Number(cell) if spec.grid.has_cell(*cell) => return Ok(*cell),
        CellSelector::Number(cell) => {
            let message =
                format!("there is no cell {cell}: `ergodic trials` lists the numbers of cells");
            return Err(AnalysisError::Unknown(message));
        }
        CellSelector::Values(values) => values,
    };

    find_cell_with_values(spec, values)
}

fn find_cell_with_values(
    spec: &Spec,
    values: &[(String, String)],
) -> Result<CellIndex, AnalysisError> {
    let axes = spec.grid.axes();
    let mut wanted: Vec<(usize, u64)> = Vec::new();
    for (name, text) in values {
        let axis = find_axis(axes, name)?;
        if wanted.iter().any(|(known, _)| *known == axis) {
            let message =
                format!("the axis '{name}' is named twice, and a cell has one value of it");
            return Err(AnalysisError::Invalid(message));
        }
        wanted.push((axis, find_value(&axes[axis], text)?));
    }

    let mut found = spec.grid.iter().filter(|cell| {
        let indices = spec.grid.value_indices(*cell);
        wanted.iter().all(|(axis, index)| indices[*axis] == *index)
    });

    let named = values
        .iter()
        .map(|(name, text)| format!("{name}={text}"))
        .collect::<Vec<_>>()
        .join(",");
    match (found.next(), found.next()) {
        (Some(cell), None) => Ok(cell),
        (None, _) => Err(AnalysisError::Unknown(format!(
            "the sweep has no cell {named}"
        ))),
        (Some(one), Some(other)) => Err(AnalysisError::Invalid(format!(
            "{named} names several cells, {} and {} among them: name more axes",
            spec.grid.describe_cell(one),
            spec.grid.describe_cell(other)
        ))),
    }
}

/// Finds the index of the value that `text` means: the value that is exactly `text`, or the only
/// one that tables round to it.
pub(super) fn find_value(axis: &Axis, text: &str) -> Result<u64, AnalysisError> {
    let text = text.trim();
    match axis.matching_value_indices(text)[..] {
        [only] => Ok(only),
        [] => Err(AnalysisError::Unknown(format!(
            "the axis '{}' has no value '{text}', {}",
            axis.name,
            suggest_value(axis, text)
        ))),
        ref several => {
            let all: Vec<String> = several
                .iter()
                .take(MAX_NAMED)
                .map(|i| axis.value_at(*i).to_string())
                .collect();
            let more = several.len() - all.len();
            let more = if more > 0 {
                format!(" and {more} more")
            } else {
                String::new()
            };

            Err(AnalysisError::Invalid(format!(
                "the axis '{}' has {} values that round to '{text}': {}{more}; give one in full",
                axis.name,
                several.len(),
                all.join(", ")
            )))
        }
    }
}

/// Suggests the value that a user may have meant: the nearest number, or the word with the nearest
/// spelling.
fn suggest_value(axis: &Axis, text: &str) -> String {
    let wanted = text.parse().ok();
    if let Some(nearest) = wanted.and_then(|wanted| nearest_number(axis, wanted)) {
        return format!("the nearest is {}", format_shortest(nearest));
    }

    let words: Vec<String> = (0..axis.len().min(50))
        .map(|i| axis.value_at(i).to_string())
        .collect();
    suggest_nearest(text, words.iter().map(String::as_str))
}

/// Maximum number of candidates that a message names.
const MAX_NAMED: usize = 8;

fn nearest_number(axis: &Axis, wanted: f64) -> Option<f64> {
    let numbers = (0..axis.len()).filter_map(|i| axis.number_at(i));
    numbers.min_by(|a, b| (a - wanted).abs().total_cmp(&(b - wanted).abs()))
}

/// Refuses levels of confidence intervals outside [0.5, 1).
pub(super) fn check_level(level: f64) -> Result<(), AnalysisError> {
    if (0.5..1.0).contains(&level) {
        return Ok(());
    }

    Err(AnalysisError::Invalid(format!(
        "level: expected a percentage of at least 50 and below 100, found {}",
        level * 100.0
    )))
}

pub(super) fn find_axis(axes: &[Axis], name: &str) -> Result<usize, AnalysisError> {
    if let Some(at) = axes.iter().position(|axis| axis.name == name) {
        return Ok(at);
    }

    let suffix = format!(".{name}");
    let ends = |axis: &Axis| axis.name.ends_with(&suffix) || axis.field.as_deref() == Some(name);
    let mut found = axes.iter().enumerate().filter(|(_, axis)| ends(axis));
    match (found.next(), found.next()) {
        (Some((at, _)), None) => Ok(at),
        _ if axes.is_empty() => Err(AnalysisError::Unknown(format!(
            "there is no axis '{name}': the sweep has one cell and no axes"
        ))),
        _ => {
            let hint = suggest_nearest(name, axes.iter().map(|axis| axis.name.as_str()));
            Err(AnalysisError::Unknown(format!(
                "the sweep has no axis '{name}', {hint}"
            )))
        }
    }
}

pub(super) fn parse_moment(at: &str) -> Result<Option<Length>, AnalysisError> {
    let at = at.trim();
    if at.is_empty() || at == "final" {
        return Ok(None);
    }

    let parsed = at
        .split_once(' ')
        .and_then(|(count, unit)| match unit.trim() {
            "epoch" | "epochs" => count.parse().ok().map(Length::Epochs),
            "step" | "steps" => count.parse().ok().map(Length::Steps),
            _ => None,
        });

    parsed.map(Some).ok_or_else(|| {
        AnalysisError::Invalid(format!(
            "at: expected something like \"20 epochs\", \"500 steps\" or final, found '{at}'"
        ))
    })
}
