//! Pictures of one row per cell: distributions, and differences from a baseline.

use std::collections::HashMap;

use ergodic_common::ErrorCode;
use ergodic_common::number_format::can_round_to;
use ergodic_common::spec_file::error::suggest_nearest;
use ergodic_proto::status::UserError;
use ergodic_proto::v1;

use super::{
    Client, PlotOptions, bad_input_error, format_axis_names, format_row_name, format_subtitle,
    query_pooled_axes, varying_axes,
};
use crate::client::commands::compare::{parse_axis_choices, query_contrasts};
use crate::client::query::{query_table, query_trials};
use crate::client::render::{AxisFormats, exact_value, format_short_number};
use crate::plot::differences::DifferenceRow;
use crate::plot::distribution::{self, DistributionCell};
use crate::plot::{Scene, differences};

/// Final values by cell or group of cells.
pub(super) async fn draw_distribution(
    client: &mut Client,
    sweep: &str,
    options: &PlotOptions,
) -> Result<Scene, UserError> {
    let mut table = query_table(
        client,
        options.build_table_request(sweep, options.by.clone(), Vec::new()),
    )
    .await?;
    options
        .selection
        .apply_to_tables(std::slice::from_mut(&mut table))?;

    let mut values: HashMap<Vec<String>, Vec<f64>> = HashMap::new();
    for (row, value) in query_final_values(client, sweep, &table.metric, &table.axes).await? {
        values.entry(row.group).or_default().push(value);
    }

    let axes = varying_axes(&table);
    let names = AxisFormats::from_table(&table);
    let cell = |row: &v1::TableRow| {
        let s = row.summary.unwrap_or_default();
        let group: Vec<String> = row.values.iter().map(exact_value).collect();
        let values = values.remove(&group).unwrap_or_default();
        DistributionCell {
            label: format_row_name(row, &axes, &names),
            values,
            diverged: s.diverged,
            failed: s.failed,
        }
    };
    let cells: Vec<DistributionCell> = table.rows.iter().map(cell).collect();

    let title = format!("{}: {} of every trial", table.name, table.metric);
    let pooled = query_pooled_axes(client, sweep, options, &table)
        .await?
        .map_or_else(String::new, |text| format!(". {text}"));
    let key = if axes.is_empty() {
        "all trials".to_owned()
    } else {
        format_axis_names(&axes)
    };
    let key = format!("{key}{}", pooled.trim_end_matches('.'));

    distribution::draw_distributions(
        &table.metric,
        &key,
        &cells,
        options.log,
        &options.build_plot_style(title, format_subtitle(&table, options)),
    )
    .map_err(bad_input_error)
}

/// A trial among others.
struct GroupedTrial {
    /// Its values of the axes asked for, in words.
    group: Vec<String>,
    repeat: u32,
}

/// The final values of completed trials.
async fn query_final_values(
    client: &mut Client,
    sweep: &str,
    metric: &str,
    axes: &[String],
) -> Result<Vec<(GroupedTrial, f64)>, UserError> {
    let pages = query_trials(client, sweep).await?;
    let Some(first) = pages.first() else {
        return Ok(Vec::new());
    };
    let column = first.metrics.iter().position(|name| name == metric);
    let places: Vec<usize> = axes
        .iter()
        .filter_map(|axis| first.axes.iter().position(|name| name == axis))
        .collect();
    let value = |row: &v1::TrialRow| {
        let result = row
            .result
            .as_ref()
            .filter(|result| result.outcome() == v1::OutcomeKind::Completed)?;
        let value = result
            .metrics
            .get(column?)
            .copied()
            .filter(|x| x.is_finite())?;

        let group = places
            .iter()
            .map(|at| exact_value(&row.values[*at]))
            .collect();
        Some((
            GroupedTrial {
                group,
                repeat: result.key.unwrap_or_default().repeat,
            },
            value,
        ))
    };

    Ok(pages
        .iter()
        .flat_map(|page| &page.rows)
        .filter_map(value)
        .collect())
}

/// Every cell against its baseline.
pub(super) async fn draw_pairs(
    client: &mut Client,
    sweep: &str,
    options: &PlotOptions,
) -> Result<Scene, UserError> {
    let whole = query_table(
        client,
        options.build_table_request(sweep, Vec::new(), Vec::new()),
    )
    .await?;
    let Some(baseline) = &options.baseline else {
        return Err(missing_baseline_error(&whole));
    };
    let compared = query_contrasts(
        client,
        sweep,
        baseline,
        options.metric.as_deref(),
        options.at.as_deref(),
        CONFIDENCE_LEVEL,
    )
    .await?;
    let mut table = contrasts_as_table(&compared, &whole);
    options
        .selection
        .apply_to_tables(std::slice::from_mut(&mut table))?;

    let mut notes = vec![format!(
        "Rows: {}. Point and bar: mean difference and its 95 % CI.",
        format_axis_names(&varying_axes(&table))
    )];
    let differences = match &options.at {
        Some(at) => {
            notes.push(format!("Single repeats are not shown, since the trials' rows hold their ends, and not {at}."));
            HashMap::new()
        }
        None => {
            notes[0] +=
                " Dots: single repeats, each of which has the same random streams in both cells.";
            let chosen = resolve_baseline(&whole, &compared, baseline)?;
            query_repeat_differences(client, sweep, &compared, &chosen).await?
        }
    };

    notes[0] += " ▲▼: repeats above and below the baseline; p: Wilcoxon's signed-rank test, with Holm's correction.";
    let axes = varying_axes(&table);
    let names = AxisFormats::from_table(&table);
    let pair = |row: &v1::TableRow| {
        let contrast = compared
            .rows
            .iter()
            .find(|contrast| contrast.values == row.values)?;
        let group: Vec<String> = row.values.iter().map(exact_value).collect();
        Some(DifferenceRow {
            label: format_row_name(row, &axes, &names),
            differences: differences.get(&group).cloned().unwrap_or_default(),
            mean: contrast.difference,
            interval: contrast.low.zip(contrast.high),
            remark: format_contrast_remark(contrast),
        })
    };
    let shown: Vec<DifferenceRow> = table.rows.iter().filter_map(pair).collect();

    let title = format!(
        "{}: {} against {}, repeat by repeat",
        table.name, table.metric, compared.baseline
    );
    differences::draw_differences(
        &compared.metric,
        &compared.baseline,
        &shown,
        &notes,
        &options.build_plot_style(title, format_subtitle(&table, options)),
    )
    .map_err(bad_input_error)
}

/// Level of the intervals.
const CONFIDENCE_LEVEL: f64 = 0.95;

fn missing_baseline_error(whole: &v1::TableResponse) -> UserError {
    let words = AxisFormats::from_table(whole);
    let values = |at: usize| {
        let mut seen: Vec<String> = Vec::new();
        for row in &whole.rows {
            let text = words.format_value(at, &row.values[at]);
            if !seen.contains(&text) && seen.len() < 6 {
                seen.push(text);
            }
        }

        seen.join(", ")
    };
    let axes: Vec<String> = varying_axes(whole)
        .iter()
        .map(|(at, name)| format!("{name} ({})", values(*at)))
        .collect();

    bad_input_error(format!(
        "--kind pairs: say against what, as in --baseline lr=0.1; axes of this sweep: {}",
        axes.join("; ")
    ))
}

/// The comparison's cells as rows of a table, so that they can be chosen and sorted as such: by mean difference.
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

/// Cell minus baseline by repeat, for every cell compared.
async fn query_repeat_differences(
    client: &mut Client,
    sweep: &str,
    compared: &v1::CompareResponse,
    chosen: &[(usize, String)],
) -> Result<HashMap<Vec<String>, Vec<f64>>, UserError> {
    let mut values: HashMap<(Vec<String>, u32), f64> = HashMap::new();
    for (row, value) in query_final_values(client, sweep, &compared.metric, &compared.axes).await? {
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

    let in_order = |(group, mut all): (Vec<String>, Vec<(u32, f64)>)| {
        all.sort_by_key(|(repeat, _)| *repeat);
        (
            group,
            all.into_iter().map(|(_, difference)| difference).collect(),
        )
    };
    Ok(differences.into_iter().map(in_order).collect())
}

/// The places of the axes that the baseline names, with its values as rows have them in words: those that the coordinator has
/// taken them for, which are in the table of the whole sweep.
fn resolve_baseline(
    whole: &v1::TableResponse,
    compared: &v1::CompareResponse,
    baseline: &str,
) -> Result<Vec<(usize, String)>, UserError> {
    let resolve = |choice: v1::AxisChoice| {
        let suffix = format!(".{}", choice.axis);
        let place = |axes: &[String]| {
            let exact = axes.iter().position(|axis| *axis == choice.axis);
            exact.or_else(|| axes.iter().position(|axis| axis.ends_with(&suffix)))
        };
        let (Some(at), Some(in_whole)) = (place(&compared.axes), place(&whole.axes)) else {
            let hint = suggest_nearest(&choice.axis, compared.axes.iter().map(String::as_str));
            return Err(UserError::new(
                ErrorCode::NotFound,
                format!("the sweep has no axis '{}', {hint}", choice.axis),
            ));
        };

        Ok((
            at,
            match_axis_value(
                whole.rows.iter().map(|row| &row.values[in_whole]),
                &choice.value,
            ),
        ))
    };

    parse_axis_choices("--baseline", baseline)?
        .into_iter()
        .map(resolve)
        .collect()
}

/// The value that is exactly this, or else the one that is rounded to it.
fn match_axis_value<'a>(
    values: impl Iterator<Item = &'a v1::AxisValue> + Clone,
    text: &str,
) -> String {
    let number = |value: &v1::AxisValue| match value.kind {
        Some(v1::axis_value::Kind::Number(x)) => Some(x),
        _ => None,
    };
    let wanted: Option<f64> = text.parse().ok();
    let same = |value: &&v1::AxisValue| {
        (wanted.is_some() && number(value) == wanted) || exact_value(value) == text
    };

    let rounded = |value: &&v1::AxisValue| {
        number(value)
            .zip(wanted)
            .is_some_and(|(x, wanted)| can_round_to(x, wanted))
    };
    let found = values
        .clone()
        .find(same)
        .or_else(|| values.clone().find(rounded));

    found.map_or_else(|| text.to_owned(), exact_value)
}
