//! The plan of an experiment: its name, what its trials get, and how often it runs.

use ergodic_common::Spec;
use ergodic_common::escape::escape_line;
use ergodic_common::program::{Experiment, Program, ProgramCell};
use serde_json::{Map, Value, json};

use super::json::{describe_metrics, render_json_of_program};
use super::named_files::NamedFiles;
use super::{describe_axes, describe_scales, describe_size, format_data_line};
use crate::client::render::DocumentFormat;

/// Renders the plan of an experiment; `None` if there is no cell.
pub(super) fn render_experiment_plan(
    spec: &Spec,
    (program, experiment): (&Program, &Experiment),
    named: &NamedFiles,
    format: DocumentFormat,
) -> Option<String> {
    let first = spec.grid.iter().next()?;
    let config = spec.grid.resolve_config(first).ok()?;
    let cell = config.model.kind.program()?;
    if format == DocumentFormat::Json {
        return Some(render_json(spec, (program, experiment), named, cell));
    }

    let version = match experiment.version {
        Some(version) => format!("version {version}"),
        None => "in the version of the worker program".to_owned(),
    };
    let values: Vec<String> = cell
        .values
        .iter()
        .map(|(name, value)| format!("{name} = {value}"))
        .collect();
    let place = spec.grid.describe_cell(first);

    let mut out = describe_size(spec);
    out += &describe_scales(spec);
    out += &describe_axes(spec);
    out += &format_data_line(spec, named);
    out += &describe_metrics(program);
    out += &format!("  experiment: {}, {version}\n", experiment.name);
    out += &format!(
        "  config of {}:\n    {}\n",
        escape_line(&place),
        escape_line(&values.join(", "))
    );
    out += "time: not known for an experiment before its first trials have run\n";
    let checks = named.checks.join("; ");
    Some(format!(
        "{out}checked: {checks}; the launch checks each config against that of the experiment\n"
    ))
}

fn render_json(
    spec: &Spec,
    (program, experiment): (&Program, &Experiment),
    named: &NamedFiles,
    cell: &ProgramCell,
) -> String {
    let values = cell.values.iter();
    let example: Map<String, Value> = values
        .map(|(name, value)| (name.clone(), json!(value)))
        .collect();
    let own = Map::from_iter([
        ("name".to_owned(), json!(experiment.name)),
        ("version".to_owned(), json!(experiment.version)),
        ("example".to_owned(), json!(example)),
    ]);
    render_json_of_program(spec, program, ("experiment", own), Some(named))
}
