//! Plots with one row per cell: distributions, and differences from a baseline.

use std::collections::{BTreeSet, HashMap};

use ergodic_common::ErrorCode;
use ergodic_common::ids::SweepId;
use ergodic_common::number_format::can_round_to;
use ergodic_common::spec_file::suggest::suggest_nearest;
use ergodic_proto::status::UserError;
use ergodic_proto::v1;

use super::cell_names::{
    describe_common_values, format_axis_names, format_row_name, naming_axes, varying_axes,
};
use super::{
    Client, FigureArgs, bad_input_error, describe_losses, describe_other_axes, format_subtitle,
};
use crate::client::axis_choices::parse_axis_choices;
use crate::client::commands::compare::query_contrasts;
use crate::client::render::{
    AxisFormats, TrialCondition, check_cells_found, exact_value, format_short_number, limit_notes,
    non_empty,
};
use crate::client::sweep_set::SweepSet;
use crate::plot::differences::DifferenceRow;
use crate::plot::distribution::{self, DistributionCell};
use crate::plot::{Scene, differences};

/// Draws the distribution of final values by cell or group of cells.
pub(super) async fn draw_distribution(
    client: &mut Client,
    sweeps: &SweepSet,
    figure: &FigureArgs,
) -> Result<Scene, UserError> {
    let selection = figure.split_selection(sweeps, &figure.by)?;
    let request = figure.build_table_request(figure.by.clone(), Vec::new(), &selection.cells);
    let mut table = sweeps.query_table(client, request).await?;
    check_cells_found(&selection.cells, &table)?;
    selection
        .rows
        .apply_to_tables(std::slice::from_mut(&mut table))?;

    let axes = naming_axes(&table);
    let values =
        query_final_values(client, sweeps, &table.metric, &table.axes, &selection.cells).await?;
    let cells = build_distribution_cells(&table, &axes, values);

    let title = format!("{}: {} of every trial", table.name, table.metric);
    let mut others: Vec<String> = describe_common_values(&table, &axes).into_iter().collect();
    others.extend(describe_other_axes(client, sweeps, figure, &table).await?);
    others.extend(describe_losses(&table));
    distribution::draw_distributions(
        &table.metric,
        &format_distribution_key(&axes, &others),
        &cells,
        figure.log,
        &figure.build_plot_style(title, format_subtitle(&table, figure)),
    )
    .map_err(bad_input_error)
}

/// Builds a cell for each row of the table, with the values of its trials.
fn build_distribution_cells(
    table: &v1::TableResponse,
    axes: &[(usize, String)],
    values: Vec<(GroupedTrial, f64)>,
) -> Vec<DistributionCell> {
    let mut by_group: HashMap<Vec<String>, Vec<f64>> = HashMap::new();
    for (trial, value) in values {
        by_group.entry(trial.group).or_default().push(value);
    }

    let names = AxisFormats::from_table(table);
    let mut cells = Vec::with_capacity(table.rows.len());
    for row in &table.rows {
        let s = row.summary.unwrap_or_default();
        cells.push(DistributionCell {
            label: format_row_name(row, axes, &names),
            values: by_group.remove(&exact_values(row)).unwrap_or_default(),
            diverged: s.diverged,
            failed: s.failed,
        });
    }

    cells
}

/// Formats what the rows of a picture are, and what else there is to say of them: `lr · wd. Pooled over seed`.
fn format_distribution_key(axes: &[(usize, String)], others: &[String]) -> String {
    let rows = match axes {
        [] => "all trials".to_owned(),
        axes => format_axis_names(axes),
    };
    let others = others.iter().map(|text| text.trim_end_matches('.'));
    std::iter::once(rows.as_str())
        .chain(others)
        .collect::<Vec<_>>()
        .join(". ")
}

fn exact_values(row: &v1::TableRow) -> Vec<String> {
    row.values.iter().map(exact_value).collect()
}

/// A trial with the group of cells that it belongs to.
struct GroupedTrial {
    /// The values of the chosen axes as text.
    group: Vec<String>,
    repeat: u32,
}

/// Queries the final values of completed trials in the cells that meet a condition.
async fn query_final_values(
    client: &mut Client,
    sweeps: &SweepSet,
    metric: &str,
    axes: &[String],
    cells: &str,
) -> Result<Vec<(GroupedTrial, f64)>, UserError> {
    let pages = sweeps.query_trials(client, &[metric.to_owned()]).await?;
    let Some(first) = pages.first() else {
        return Ok(Vec::new());
    };
    let column = first.metrics.iter().position(|name| name == metric);
    let positions: Vec<usize> = axes
        .iter()
        .filter_map(|axis| first.axes.iter().position(|name| name == axis))
        .collect();
    let condition = TrialCondition::parse(cells, &first.axes)?;
    let mut values = Vec::new();
    let selected = pages
        .iter()
        .flat_map(|page| &page.rows)
        .filter(|row| condition.is_met_by(&row.values));
    for row in selected {
        if let Some((repeat, value)) = completed_value(row, column) {
            let group = positions.iter().map(|at| exact_value(&row.values[*at]));
            let group = group.collect();
            values.push((GroupedTrial { group, repeat }, value));
        }
    }

    Ok(values)
}

/// The repeat of a completed trial, and its value in this column if that is finite.
fn completed_value(row: &v1::TrialRow, column: Option<usize>) -> Option<(u32, f64)> {
    let result = row.result.as_ref()?;
    if result.outcome() != v1::OutcomeKind::Completed {
        return None;
    }

    let value = *result.metrics.get(column?)?;
    let repeat = result.key.unwrap_or_default().repeat;
    value.is_finite().then_some((repeat, value))
}

/// Draws the differences of every cell from its baseline.
pub(super) async fn draw_pairs(
    client: &mut Client,
    sweep: &SweepId,
    figure: &FigureArgs,
) -> Result<Scene, UserError> {
    let sweeps = SweepSet::of_one(sweep.clone());
    let request = figure.build_table_request(Vec::new(), Vec::new(), "");
    let whole = sweeps.query_table(client, request).await?;
    let Some(baseline) = &figure.baseline else {
        return Err(missing_baseline_error(&whole));
    };
    let compared = query_contrasts(
        client,
        sweep,
        baseline,
        figure.metric.as_deref(),
        figure.at.as_deref(),
        CONFIDENCE_LEVEL,
    )
    .await?;
    let mut table = contrasts_as_table(&compared, &whole);
    figure
        .selection
        .apply_to_tables(std::slice::from_mut(&mut table))?;

    let differences = match &figure.at {
        Some(_) => HashMap::new(),
        None => {
            let chosen = resolve_baseline(&whole, &compared, baseline)?;
            query_repeat_differences(client, &sweeps, &compared, &chosen).await?
        }
    };

    let title = format!(
        "{}: {} against {}, repeat by repeat",
        table.name, table.metric, compared.baseline
    );
    differences::draw_differences(
        &compared.metric,
        &compared.baseline,
        &build_difference_rows(&table, &compared, &differences),
        &describe_pairs(&table, &compared, figure.at.as_deref()),
        &figure.build_plot_style(title, format_subtitle(&table, figure)),
    )
    .map_err(bad_input_error)
}

/// Notes on what the picture shows, `at` a step or at the end of each trial.
fn describe_pairs(
    table: &v1::TableResponse,
    compared: &v1::CompareResponse,
    at: Option<&str>,
) -> Vec<String> {
    let axes = naming_axes(table);
    let mut first = format!(
        "Rows: {}. Point and bar: mean difference and its 95 % CI.",
        format_axis_names(&axes)
    );
    if at.is_none() {
        first += " Dots: single repeats, each of which has the same random streams in both cells.";
    }
    first += " ▲▼: repeats above and below the baseline";
    let shown = find_shown_contrasts(table, compared);
    first += match shown.iter().any(|row| row.wilcoxon_holm.is_some()) {
        true => "; p: Wilcoxon's signed-rank test, with Holm's correction.",
        false => ".",
    };

    let mut notes = vec![first];
    notes.extend(describe_common_values(table, &axes));
    notes.extend(at.map(|at| {
        format!(
            "Single repeats are not shown, because the trials' rows hold their final values, and not those at {at}."
        )
    }));
    notes.extend(describe_contrast_notes(&shown, &compared.note));
    notes
}

/// The differences of the rows that are shown.
fn find_shown_contrasts<'a>(
    table: &v1::TableResponse,
    compared: &'a v1::CompareResponse,
) -> Vec<&'a v1::Contrast> {
    let all = compared.rows.iter();
    all.filter(|contrast| table.rows.iter().any(|row| row.values == contrast.values))
        .collect()
}

/// The notes on differences that have a mean, each once, and that on all of them. Where there is no mean, the row itself says why.
fn describe_contrast_notes(shown: &[&v1::Contrast], whole: &str) -> Vec<String> {
    let of_rows: BTreeSet<&str> = shown
        .iter()
        .filter(|row| row.difference.is_some() && !row.note.is_empty())
        .map(|row| row.note.as_str())
        .collect();
    let mut notes = limit_notes(of_rows.into_iter().map(str::to_owned).collect());
    notes.extend(non_empty(whole).map(str::to_owned));
    notes
        .iter()
        .map(|note| format!("Note: {}.", note.trim_end_matches('.')))
        .collect()
}

fn build_difference_rows(
    table: &v1::TableResponse,
    compared: &v1::CompareResponse,
    differences: &HashMap<Vec<String>, Vec<f64>>,
) -> Vec<DifferenceRow> {
    let axes = naming_axes(table);
    let names = AxisFormats::from_table(table);

    let mut rows = Vec::new();
    for row in &table.rows {
        let mut contrasts = compared.rows.iter();
        let Some(contrast) = contrasts.find(|contrast| contrast.values == row.values) else {
            continue;
        };
        rows.push(DifferenceRow {
            label: format_row_name(row, &axes, &names),
            differences: differences
                .get(&exact_values(row))
                .cloned()
                .unwrap_or_default(),
            mean: contrast.difference,
            interval: contrast.low.zip(contrast.high),
            remark: format_contrast_remark(contrast),
        });
    }

    rows
}

/// Level of the intervals, as a share.
const CONFIDENCE_LEVEL: f64 = 0.95;

fn missing_baseline_error(whole: &v1::TableResponse) -> UserError {
    let words = AxisFormats::from_table(whole);
    let axes: Vec<String> = varying_axes(whole)
        .iter()
        .map(|(at, name)| format!("{name} ({})", list_axis_values(whole, &words, *at)))
        .collect();

    bad_input_error(format!(
        "--kind pairs: expected a baseline, as in --baseline lr=0.1; axes of this sweep: {}",
        axes.join("; ")
    ))
}

/// Lists the first six values of an axis.
fn list_axis_values(whole: &v1::TableResponse, words: &AxisFormats, at: usize) -> String {
    let mut seen: Vec<String> = Vec::new();
    for row in &whole.rows {
        let text = words.format_value(at, &row.values[at]);
        if !seen.contains(&text) && seen.len() < 6 {
            seen.push(text);
        }
    }

    seen.join(", ")
}

/// Converts the comparison's cells to rows of a table, sorted by mean difference, so that rows can
/// be selected.
fn contrasts_as_table(
    compared: &v1::CompareResponse,
    whole: &v1::TableResponse,
) -> v1::TableResponse {
    let row = |contrast: &v1::Contrast| v1::TableRow {
        values: contrast.values.clone(),
        summary: Some(v1::Summary {
            n: contrast.n,
            mean: contrast.difference,
            std: contrast.std,
            ci95_low: contrast.low,
            ci95_high: contrast.high,
            ..v1::Summary::default()
        }),
        ..v1::TableRow::default()
    };

    v1::TableResponse {
        axes: compared.axes.clone(),
        metric: compared.metric.clone(),
        done: compared.done,
        trials: compared.trials,
        rows: compared.rows.iter().map(row).collect(),
        columns: Vec::new(),
        ..whole.clone()
    }
}

fn format_contrast_remark(contrast: &v1::Contrast) -> String {
    match (contrast.difference, contrast.wilcoxon_holm) {
        (None, _) => contrast
            .note
            .split(';')
            .next()
            .unwrap_or_default()
            .to_owned(),
        (_, None) => format!(
            "n = {}  ▲ {}  ▼ {}",
            contrast.n, contrast.above, contrast.below
        ),
        (_, p) => {
            format!(
                "n = {}  ▲ {}  ▼ {}  p = {}",
                contrast.n,
                contrast.above,
                contrast.below,
                format_short_number(p)
            )
        }
    }
}

/// Queries the differences from the baseline by repeat, for every cell.
async fn query_repeat_differences(
    client: &mut Client,
    sweeps: &SweepSet,
    compared: &v1::CompareResponse,
    chosen: &[(usize, String)],
) -> Result<HashMap<Vec<String>, Vec<f64>>, UserError> {
    let mut values: HashMap<(Vec<String>, u32), f64> = HashMap::new();
    for (row, value) in
        query_final_values(client, sweeps, &compared.metric, &compared.axes, "").await?
    {
        values.insert((row.group, row.repeat), value);
    }

    let mut differences: HashMap<Vec<String>, Vec<(u32, f64)>> = HashMap::new();
    for ((group, repeat), value) in &values {
        let mut other = group.clone();
        chosen
            .iter()
            .for_each(|(at, word)| other[*at].clone_from(word));

        if let Some(base) = values.get(&(other, *repeat)) {
            differences
                .entry(group.clone())
                .or_default()
                .push((*repeat, value - base));
        }
    }

    Ok(differences
        .into_iter()
        .map(|(group, differences)| (group, sort_by_repeat(differences)))
        .collect())
}

fn sort_by_repeat(mut differences: Vec<(u32, f64)>) -> Vec<f64> {
    differences.sort_by_key(|(repeat, _)| *repeat);
    differences
        .into_iter()
        .map(|(_, difference)| difference)
        .collect()
}

/// Resolves the axes that the baseline names to their positions in the comparison, and its values
/// to the texts in the whole sweep's table.
fn resolve_baseline(
    whole: &v1::TableResponse,
    compared: &v1::CompareResponse,
    baseline: &str,
) -> Result<Vec<(usize, String)>, UserError> {
    let mut chosen = Vec::new();
    for choice in parse_axis_choices("--baseline", baseline)? {
        let at = find_axis(&compared.axes, &choice.axis);
        let in_whole = find_axis(&whole.axes, &choice.axis);
        let Some((at, in_whole)) = at.zip(in_whole) else {
            let hint = suggest_nearest(&choice.axis, compared.axes.iter().map(String::as_str));
            return Err(UserError::new(
                ErrorCode::NotFound,
                format!("the sweep has no axis '{}', {hint}", choice.axis),
            ));
        };

        let values = whole.rows.iter().map(|row| &row.values[in_whole]);
        chosen.push((at, match_axis_value(values, &choice.value)));
    }

    Ok(chosen)
}

/// The position of the axis with this name, or else of the first one whose path ends in it, as `lr`
/// in `train.lr`.
fn find_axis(axes: &[String], name: &str) -> Option<usize> {
    let suffix = format!(".{name}");
    axes.iter()
        .position(|axis| axis == name)
        .or_else(|| axes.iter().position(|axis| axis.ends_with(&suffix)))
}

/// The value that is exactly this, or else the one that rounds to it.
fn match_axis_value<'a>(
    values: impl Iterator<Item = &'a v1::AxisValue> + Clone,
    text: &str,
) -> String {
    let wanted: Option<f64> = text.parse().ok();
    let same = values.clone().find(|value| {
        (wanted.is_some() && axis_number(value) == wanted) || exact_value(value) == text
    });
    let found = same.or_else(|| values.clone().find(|value| is_rounded_to(value, wanted)));

    found.map_or_else(|| text.to_owned(), exact_value)
}

fn is_rounded_to(value: &v1::AxisValue, wanted: Option<f64>) -> bool {
    axis_number(value)
        .zip(wanted)
        .is_some_and(|(x, wanted)| can_round_to(x, wanted))
}

fn axis_number(value: &v1::AxisValue) -> Option<f64> {
    match value.kind {
        Some(v1::axis_value::Kind::Number(x)) => Some(x),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use crate::client::plot::rows::*;

    fn number(x: f64) -> v1::AxisValue {
        v1::AxisValue {
            kind: Some(v1::axis_value::Kind::Number(x)),
        }
    }

    fn contrast(note: f64, wilcoxon: Option<f64>, caveat: &str) -> v1::Contrast {
        v1::Contrast {
            values: vec![number(note)],
            difference: Some(0.1),
            wilcoxon_holm: wilcoxon,
            note: caveat.to_owned(),
            ..v1::Contrast::default()
        }
    }

    fn notes(rows: Vec<v1::Contrast>) -> String {
        let compared = v1::CompareResponse {
            axes: vec!["note".to_owned()],
            rows,
            ..v1::CompareResponse::default()
        };
        let table = contrasts_as_table(&compared, &v1::TableResponse::default());
        describe_pairs(&table, &compared, None).join(" ")
    }

    #[test]
    fn a_single_comparison_says_what_its_row_is() {
        let said = notes(vec![contrast(2.0, Some(0.25), "")]);
        assert!(said.starts_with("Rows: note. Point and bar"), "{said}");
        assert!(
            said.contains("p: Wilcoxon's") && !said.contains("Note:"),
            "{said}"
        );
    }

    #[test]
    fn caveats_of_differences_are_told_and_tests_that_there_are_not_left_out() {
        let crossed = "crossed streams: no Wilcoxon";
        let rows = vec![contrast(2.0, None, crossed), contrast(3.0, None, crossed)];
        let said = notes(rows);
        assert!(!said.contains("Wilcoxon's"), "{said}");
        assert!(
            said.ends_with("Note: crossed streams: no Wilcoxon."),
            "{said}"
        );
    }

    #[test]
    fn the_key_of_distributions_says_what_else_holds_for_the_rows() {
        let others = ["All cells here have wd = 0.".to_owned()];
        let key = |axes: &[(usize, String)]| format_distribution_key(axes, &others);
        assert_eq!(
            key(&[(0, "lr".to_owned())]),
            "lr. All cells here have wd = 0"
        );
        assert_eq!(format_distribution_key(&[], &[]), "all trials");
    }
}
