//! The plan of an experiment: its name, what its trials get, and how often it runs.

use ergodic_common::Spec;
use ergodic_common::escape::escape_line;
use ergodic_common::program::{Experiment, Program, ProgramCell};
use serde_json::{Map, Value, json};

use super::{describe_axes, describe_scales, describe_size, planned_trials};
use crate::client::render::DocumentFormat;

/// Renders the plan of an experiment; `None` if there is no cell.
pub(super) fn render_experiment_plan(
    spec: &Spec,
    (program, experiment): (&Program, &Experiment),
    format: DocumentFormat,
) -> Option<String> {
    let first = spec.grid.iter().next()?;
    let config = spec.grid.resolve_config(first).ok()?;
    let cell = config.model.kind.program()?;
    if format == DocumentFormat::Json {
        return Some(render_json(spec, (program, experiment), cell));
    }

    let metrics = program.metrics.iter();
    let metrics: Vec<String> = metrics
        .map(|metric| format!("{} ({})", metric.name, metric.direction.as_str()))
        .collect();
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
    out += &format!("  metrics: {}\n", metrics.join(", "));
    out += &format!("  experiment: {}, {version}\n", experiment.name);
    out += &format!(
        "  config of {}:\n    {}\n",
        escape_line(&place),
        escape_line(&values.join(", "))
    );
    out += "time: not known for an experiment\n";
    Some(
        out + "checked: the file and its cells; the launch checks each config against that of the experiment\n",
    )
}

fn render_json(
    spec: &Spec,
    (program, experiment): (&Program, &Experiment),
    cell: &ProgramCell,
) -> String {
    let axes = spec.grid.axes().iter();
    let axes: Vec<_> = axes
        .map(|axis| json!({ "name": axis.name, "values": axis.len() }))
        .collect();
    let metrics: Vec<_> = program
        .metrics
        .iter()
        .map(|metric| json!({ "name": metric.name, "better": metric.direction.as_str() }))
        .collect();
    let values = cell.values.iter();
    let example: Map<String, Value> = values
        .map(|(name, value)| (name.clone(), json!(value)))
        .collect();
    let object = json!({
        "name": spec.name,
        "cells": spec.grid.cell_count(),
        "repeats": spec.repeats,
        "trials": planned_trials(spec),
        "numerics": spec.numerics,
        "axes": axes,
        "scale": spec.scales.chosen,
        "scales": spec.scales.names,
        "experiment": {
            "name": experiment.name,
            "version": experiment.version,
            "example": example,
            "metrics": metrics,
            "deterministic": program.deterministic,
        },
    });
    format!("{object}\n")
}
