//! Plots of mean curves.

use std::collections::HashMap;

use ergodic_common::ErrorCode;
use ergodic_proto::status::UserError;
use ergodic_proto::v1;

use super::{
    Client, FigureArgs, bad_input_error, format_axis_names, format_row_name, format_subtitle,
    query_pooled_axes, varying_axes,
};
use crate::client::query::{query_curves, query_table};
use crate::client::render::{AxisFormats, exact_value};
use crate::plot::Scene;
use crate::plot::curves::{self, CurvesPlot, MeanCurve, MeanPoint};

pub(super) async fn draw_curves(
    client: &mut Client,
    sweep: &str,
    figure: &FigureArgs,
) -> Result<Scene, UserError> {
    let mut table = query_table(
        client,
        figure.build_table_request(sweep, figure.by.clone(), Vec::new()),
    )
    .await?;
    let points = query_points(client, sweep, figure, &table).await?;
    figure
        .selection
        .apply_to_tables(std::slice::from_mut(&mut table))?;
    let title = format!("{}: {}, mean and 95 % CI", table.name, table.metric);
    let mut drawn = build_curves_plot(&table, points, figure.log);
    drawn
        .notes
        .extend(query_pooled_axes(client, sweep, figure, &table).await?);

    curves::draw_curves(
        &drawn,
        &figure.build_plot_style(title, format_subtitle(&table, figure)),
    )
    .map_err(bad_input_error)
}

/// Queries the curves of a table's rows, which are at least one.
async fn query_points(
    client: &mut Client,
    sweep: &str,
    figure: &FigureArgs,
    table: &v1::TableResponse,
) -> Result<Vec<v1::CurvePoint>, UserError> {
    let request = v1::CurvesRequest {
        sweep: sweep.to_owned(),
        metric: table.metric.clone(),
        by: figure.by.clone(),
        ..v1::CurvesRequest::default()
    };
    let found = query_curves(client, request).await?;

    if found.axes != table.axes {
        let message = "the coordinator's version is too old to pool curves: leave out --by, or update the coordinator";
        return Err(UserError::new(ErrorCode::Version, message));
    }
    if found.points.is_empty() {
        return Err(bad_input_error(explain_no_curves(table)));
    }

    Ok(found.points)
}

fn explain_no_curves(table: &v1::TableResponse) -> String {
    let mut n = 0;
    let mut diverged = 0;
    let mut failed = 0;
    for s in table.rows.iter().filter_map(|row| row.summary.as_ref()) {
        n += s.n;
        diverged += s.diverged;
        failed += s.failed;
    }

    match (n, diverged, failed) {
        (0, 0, 0) => "there is no curve yet: no trial has ended".to_owned(),
        (0, diverged, failed) => {
            format!(
                "there is no curve: of the trials that have ended, {diverged} diverged and {failed} failed"
            )
        }
        _ => "there is no curve: the sweep samples none; set `every` under [measure]".to_owned(),
    }
}

fn build_curves_plot(
    table: &v1::TableResponse,
    points: Vec<v1::CurvePoint>,
    log: bool,
) -> CurvesPlot {
    let axes = varying_axes(table);
    let names = AxisFormats::from_table(table);
    let mut points = group_points(points);

    let mut lines = Vec::new();
    let mut missing = Vec::new();
    for row in &table.rows {
        let s = row.summary.unwrap_or_default();
        let name = format_row_name(row, &axes, &names);
        match points.remove(&exact_values(&row.values)) {
            Some(points) => lines.push(MeanCurve {
                label: format!("{name}{}", format_diverged_count(&s)),
                points,
            }),
            None => missing.push((name, s)),
        }
    }

    let mut notes: Vec<String> = format_missing_curves(&missing).into_iter().collect();
    let mut drawn = lines.iter().flat_map(|line| &line.points);
    if drawn.all(|point| point.interval.is_none()) {
        notes.push("No band: no cell has two completed trials.".to_owned());
    }

    CurvesPlot {
        metric: table.metric.clone(),
        key: format_axis_names(&axes),
        lines,
        notes,
        log,
    }
}

/// Groups the points with a mean by the values of their axes.
fn group_points(points: Vec<v1::CurvePoint>) -> HashMap<Vec<String>, Vec<MeanPoint>> {
    let mut by_row: HashMap<Vec<String>, Vec<MeanPoint>> = HashMap::new();
    for point in points {
        let s = point.summary.unwrap_or_default();
        let Some(mean) = s.mean else { continue };
        by_row
            .entry(exact_values(&point.values))
            .or_default()
            .push(MeanPoint {
                step: point.step as f64,
                mean,
                interval: s.ci95_low.zip(s.ci95_high),
            });
    }

    by_row
}

fn exact_values(values: &[v1::AxisValue]) -> Vec<String> {
    values.iter().map(exact_value).collect()
}

fn format_diverged_count(s: &v1::Summary) -> String {
    let all = s.n + s.diverged + s.failed;
    if s.diverged > 0 {
        format!("  ({} of {all} div.)", s.diverged)
    } else {
        String::new()
    }
}

/// Describes which cells have no curve, and why.
fn format_missing_curves(missing: &[(String, v1::Summary)]) -> Option<String> {
    let named: Vec<String> = missing
        .iter()
        .take(6)
        .map(|(name, s)| format!("{name} ({})", explain_missing_curve(s)))
        .collect();
    let more = missing.len().saturating_sub(named.len());
    let more = if more > 0 {
        format!("; and {more} more")
    } else {
        String::new()
    };

    (!named.is_empty()).then(|| format!("Without a curve: {}{more}.", named.join("; ")))
}

fn explain_missing_curve(s: &v1::Summary) -> String {
    match (s.n + s.failed, s.diverged) {
        (0, 0) => "no result yet".to_owned(),
        (0, n) => format!("all {n} diverged"),
        _ => "no sample".to_owned(),
    }
}
