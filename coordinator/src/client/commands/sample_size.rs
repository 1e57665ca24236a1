//! `ergodic sample-size ID METRIC=HALF_WIDTH`: estimates from a pilot how many repeats give every
//! cell that precision.

use clap::Args;
use ergodic_common::number_format::{format_count, format_shortest, format_significant};
use ergodic_common::spec::MAX_TRIALS;
use ergodic_proto::status::UserError;
use ergodic_proto::v1;
use serde_json::{Value, json};

use crate::app::{CommandOutcome, print_output};
use crate::client::args::SweepTarget;
use crate::client::render::{
    AxisFormats, TableData, TextColumn, TextFormat, json_number, json_value, render_described_rows,
    render_table_data,
};
use crate::client::status_text::format_duration;

/// `ergodic sample-size`
#[derive(Debug, Args)]
#[command(mut_arg("id", |id| id.index(1).help(ID_HELP)))]
pub struct SampleSizeArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub sweep: SweepTarget,
    /// Metric and half-width of the 95 % confidence interval of its mean in every cell, as in test_acc=±0.001
    #[arg(index = 2, value_name = "METRIC=±WIDTH", value_parser = parse_precision)]
    pub precision: (String, f64),
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    pub format: TextFormat,
}

const ID_HELP: &str =
    "A sweep with some results: its id, a unique prefix of it, or \"latest\", your last one";

/// Reads a metric and a half-width, as in `test_acc=±0.001`.
fn parse_precision(text: &str) -> Result<(String, f64), String> {
    let (metric, width) = text.rsplit_once('=').unwrap_or_default();
    match width.trim().trim_start_matches('±').trim().parse::<f64>() {
        Ok(width) if width.is_finite() && width > 0.0 => Ok((metric.trim().to_owned(), width)),
        _ => Err("expected a metric and a number above 0, as in test_acc=0.001".into()),
    }
}

/// Estimates the repeats that a precision takes and prints them.
///
/// # Errors
/// There is no such sweep or metric, or nobody answers.
pub async fn run_sample_size(args: SampleSizeArgs) -> Result<CommandOutcome, UserError> {
    let (mut client, id) = args.sweep.connect().await?;
    let (metric, ci95) = args.precision;
    let request = v1::SampleSizeRequest {
        sweep: id.into(),
        metric,
        ci95,
    };
    let needs = client
        .call(async |client| client.sweeps.needs(request).await)
        .await?;

    print_output(match args.format {
        TextFormat::Json => render_json_sample_size(&needs, ci95),
        format => render_table_data(&build_sample_size_data(&needs), format, |_| {
            render_human_sample_size(&needs, ci95)
        }),
    })
}

const COLUMNS: [&str; 6] = ["rows", "n", "std", "seconds", "repeats", "until"];

fn build_sample_size_data(needs: &v1::SampleSizeResponse) -> TableData {
    let axes = needs.axes.iter().cloned();
    TableData {
        columns: axes.chain(COLUMNS.map(str::to_owned)).collect(),
        rows: needs.rows.iter().map(build_cell_row).collect(),
        key_columns: needs.axes.len(),
    }
}

fn build_cell_row(cell: &v1::CellSampleSize) -> Vec<Value> {
    let figures = [
        json!(cell.rows),
        json!(cell.n),
        json_number(cell.std),
        json_number(Some(cell.seconds)),
        json!(cell.repeats),
        json!(cell.repeats_until_stop),
    ];
    cell.values.iter().map(json_value).chain(figures).collect()
}

fn render_json_sample_size(needs: &v1::SampleSizeResponse, ci95: f64) -> String {
    let object = json!({
        "sweep": needs.sweep,
        "metric": needs.metric,
        "ci95": ci95,
        "cells": needs.cells,
        "repeats_now": needs.sweep_repeats,
        "repeats": needs.repeats,
        "same": needs.remaining_equal.as_ref().map(remaining_to_json),
        "until": needs.remaining_until_stop.as_ref().map(remaining_to_json),
        "cells_without_values": needs.cells_without_value,
        "slots": needs.slots,
        "rows": build_sample_size_data(needs).to_json_objects(),
    });

    format!("{object}\n")
}

fn remaining_to_json(missing: &v1::RemainingTrials) -> Value {
    json!({
        "trials": missing.trials,
        "in_cells_without_values": missing.uncounted,
        "core_seconds": missing.slot_seconds,
        "eta_seconds": json_number(missing.eta_seconds),
    })
}

fn render_human_sample_size(needs: &v1::SampleSizeResponse, ci95: f64) -> String {
    let v1::SampleSizeResponse {
        sweep,
        name,
        metric,
        ..
    } = needs;
    let ci95 = format_shortest(ci95);
    let mut out = format!(
        "{name} ({sweep}): what it takes to know {metric} to ± {ci95} with 95 % confidence\n"
    );

    out += &render_human_cells(needs);
    out += &describe_equal_repeats(needs);

    if let Some(missing) = &needs.remaining_until_stop {
        let until = format!("[repeats] until = {{ metric = \"{metric}\", ci95 = {ci95} }}");
        out += &format!(
            "each cell until it is known, by {until}: {}\n",
            format_missing_work(missing)
        );
    }

    out += &format_cells_without_values(needs);
    let unseen = needs.cells - needs.rows.len() as u64;
    if unseen > 0 {
        let [have, they, are] = match unseen {
            1 => ["has", "it", "is"],
            _ => ["have", "they", "are"],
        };
        out += &format!(
            "{} {have} no results yet: {they} {are} assumed to be like the others\n",
            format_count(unseen, "cell")
        );
    }

    out
}

fn render_human_cells(needs: &v1::SampleSizeResponse) -> String {
    let words = AxisFormats::from_rows(
        needs.axes.len(),
        needs.rows.iter().map(|cell| cell.values.as_slice()),
    );
    let axes = needs.axes.iter().cloned();
    let figures = [("n", 210), ("std", 220), ("repeats", 250), ("until", 240)];
    let columns = axes
        .map(|axis| TextColumn::label(axis, 230))
        .chain(figures.map(|(name, importance)| TextColumn::figure(name, importance)))
        .collect();

    let mut rows = Vec::new();
    for cell in &needs.rows {
        let figures = [
            json!(cell.n),
            json_number(cell.std),
            json!(cell.repeats),
            json!(cell.repeats_until_stop),
        ];
        let values = words.format_row(&cell.values).map(Value::String);
        rows.push(values.chain(figures).collect());
    }

    render_described_rows(columns, &rows)
}

/// Describes the work if all cells get the same number of repeats.
fn describe_equal_repeats(needs: &v1::SampleSizeResponse) -> String {
    match (needs.repeats, &needs.remaining_equal) {
        (Some(repeats), Some(missing)) if missing.trials == 0 => {
            format!("the same repeats for all cells: {repeats} are enough, and all are done\n")
        }
        (Some(repeats), Some(missing)) => {
            let work = format_missing_work(missing);
            let command = suggest_command(needs, repeats);
            format!("the same repeats for all cells: {repeats}, {work}{command}\n")
        }
        _ if needs
            .rows
            .iter()
            .any(|cell| cell.std.is_some() && cell.repeats.is_none()) =>
        {
            format!(
                "more than {MAX_TRIALS} repeats of a cell would be needed: ask for less precision\n"
            )
        }
        _ => "not known yet: every cell needs two trials with a value\n".into(),
    }
}

/// The command that runs this number of repeats per cell; empty if the sweep has them.
fn suggest_command(needs: &v1::SampleSizeResponse, repeats: u64) -> String {
    let more = repeats > u64::from(needs.sweep_repeats);
    match (more, needs.has_stopping_rule) {
        (true, false) => format!(": `ergodic extend {} --repeats {repeats}`", needs.sweep),
        (_, true) => format!(": launch its file with repeats = {repeats}"),
        (false, false) => String::new(),
    }
}

/// A sentence about cells that more repeats cannot help; empty if there are none.
fn format_cells_without_values(needs: &v1::SampleSizeResponse) -> String {
    if needs.cells_without_value == 0 {
        return String::new();
    }

    let mut out = format!(
        "without any value, because all their trials diverged or failed: {}, which ",
        format_count(needs.cells_without_value, "cell")
    );
    out += &match &needs.remaining_equal {
        Some(same) if same.trials > 0 => {
            format!(
                "are repeated like the others: {} of the {} are theirs",
                same.uncounted,
                format_count(same.trials, "trial")
            )
        }
        _ => "do not count".to_owned(),
    };

    if needs.remaining_until_stop.is_some() {
        out += "; `until` would repeat them up to its maximum, which is not counted";
    }

    out + "\n"
}

/// Formats `400 more trials, 2.2 core-hours, 17m 0s with the joined workers`.
fn format_missing_work(missing: &v1::RemainingTrials) -> String {
    let hours = missing.slot_seconds / 3600.0;
    let cores = if hours < 0.1 {
        format!(
            "{} core-seconds",
            format_significant(missing.slot_seconds, 3)
        )
    } else {
        format!("{} core-hours", format_significant(hours, 3))
    };

    let eta = match missing.eta_seconds {
        Some(seconds) => format!("{} with the joined workers", format_duration(seconds)),
        None => "no joined worker can run them".into(),
    };
    let trials = format_count(missing.trials, "more trial");
    format!("{trials}, {cores}, {eta}")
}

#[cfg(test)]
mod tests {
    use crate::client::commands::sample_size::*;

    #[test]
    fn the_command_runs_as_many_trials_as_are_told() {
        let missing = |trials, untold| {
            Some(v1::RemainingTrials {
                trials,
                uncounted: untold,
                ..Default::default()
            })
        };
        let mut needs = v1::SampleSizeResponse {
            sweep: "abc".into(),
            cells: 2,
            sweep_repeats: 2,
            repeats: Some(18),
            remaining_equal: missing(32, 16),
            remaining_until_stop: missing(18, 0),
            cells_without_value: 1,
            rows: vec![v1::CellSampleSize::default(); 2],
            ..v1::SampleSizeResponse::default()
        };
        let text = render_human_sample_size(&needs, 0.1);
        assert!(
            text.contains("18, 32 more trials")
                && text.contains("`ergodic extend abc --repeats 18`"),
            "{text}"
        );

        assert!(
            text.contains("16 of the 32 trials are theirs; `until` would repeat them"),
            "{text}"
        );
        let json: serde_json::Value =
            serde_json::from_str(&render_json_sample_size(&needs, 0.1)).expect("JSON");
        assert_eq!(json["same"]["in_cells_without_values"], 16);

        // More repeats of a sweep with a rule of its own are not of all cells.
        needs.has_stopping_rule = true;
        let text = render_human_sample_size(&needs, 0.1);
        assert!(
            !text.contains("ergodic extend") && text.contains("launch its file with repeats = 18"),
            "{text}"
        );
    }
}
