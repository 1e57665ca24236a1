//! What a verification would cost: `--dry-run`.

use ergodic_common::number_format::format_count;
use ergodic_proto::status::UserError;
use serde_json::{Value, json};

use super::experiment::Experiment;
use crate::app::{CommandOutcome, print_output};
use crate::client::commands::plan::{PlannedCost, estimate_cost};
use crate::client::render::{TableData, TextFormat, render_human_rows, render_table_data};
use crate::client::status_text::format_duration;

/// Prints the trials and the time of each experiment, and those of all.
///
/// # Errors
/// Stdout cannot be written.
pub(super) async fn print_costs(
    experiments: &[Experiment],
    format: TextFormat,
) -> Result<CommandOutcome, UserError> {
    let mut costs = Vec::with_capacity(experiments.len());
    for experiment in experiments {
        let cost = estimate_cost(&experiment.file.source, &experiment.spec).await;
        costs.push((experiment.label.as_str(), cost));
    }
    print_output(render_costs(&costs, format))
}

const COLUMNS: [&str; 5] = [
    "experiment",
    "cells",
    "trials",
    "core_seconds",
    "speed_measured",
];

fn render_costs(costs: &[(&str, PlannedCost)], format: TextFormat) -> String {
    let rows = costs.iter().map(|(label, cost)| {
        vec![
            json!(label),
            json!(cost.cells),
            json!(cost.trials),
            json!(cost.core_seconds),
            json!(cost.is_measured),
        ]
    });
    let data = TableData::from_rows(&COLUMNS, rows.collect());
    render_table_data(&data, format, |_| render_human_costs(costs))
}

fn render_human_costs(costs: &[(&str, PlannedCost)]) -> String {
    let rows = costs.iter().map(|(label, cost)| {
        vec![
            json!(label),
            json!(cost.cells),
            json!(cost.trials),
            json!(describe_seconds(cost.core_seconds)),
        ]
    });
    let rows: Vec<Vec<Value>> = rows.collect();
    let header = ["experiment", "cells", "trials", "of one core"].map(str::to_owned);

    let trials: u64 = costs.iter().map(|(_, cost)| cost.trials).sum();
    let seconds: f64 = costs.iter().map(|(_, cost)| cost.core_seconds).sum();
    let speed = match costs.iter().all(|(_, cost)| cost.is_measured) {
        true => "like this machine's",
        false => "of an assumed speed",
    };
    let time = match seconds.is_nan() {
        true => "how long programs take is not known".to_owned(),
        false => format!("about {} of one core {speed}", format_duration(seconds)),
    };
    format!(
        "{}{} in {}: {time}; results that are there are not computed again\n",
        render_human_rows(&header, &rows),
        format_count(trials, "trial"),
        format_count(costs.len() as u64, "experiment"),
    )
}

fn describe_seconds(seconds: f64) -> String {
    match seconds.is_nan() {
        true => "not known".to_owned(),
        false => format_duration(seconds),
    }
}

#[cfg(test)]
mod tests {
    use crate::standalone::verify::cost::*;

    #[test]
    fn costs_are_listed_and_added_up() {
        let cost = PlannedCost {
            cells: 2,
            trials: 10,
            core_seconds: 90.0,
            is_measured: true,
        };
        let text = render_costs(&[("a", cost), ("b", cost)], TextFormat::Table);
        assert!(
            text.contains("20 trials in 2 experiments: about 3m 0s of one core"),
            "{text}"
        );
        let csv = render_costs(&[("a", cost)], TextFormat::Csv);
        assert!(csv.contains("a,2,10,90"), "{csv}");
    }
}
