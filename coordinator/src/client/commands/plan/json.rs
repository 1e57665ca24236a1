//! The parts that the plans of programs and of experiments have in common, for programs that read them.

use ergodic_common::Spec;
use ergodic_common::program::Program;
use serde_json::{Map, Value, json};

use super::named_files::NamedFiles;
use super::planned_trials;

/// Renders the plan of a program or an experiment, which has `own` facts under a key of the plan. `named` is what an experiment names.
pub(super) fn render_json_of_program(
    spec: &Spec,
    program: &Program,
    (key, mut own): (&str, Map<String, Value>),
    named: Option<&NamedFiles>,
) -> String {
    let axes = spec.grid.axes().iter();
    let axes: Vec<_> = axes
        .map(|axis| json!({ "name": axis.name, "values": axis.len() }))
        .collect();
    let metrics = program.metrics.iter();
    let metrics: Vec<_> = metrics
        .map(|metric| json!({ "name": metric.name, "better": metric.direction.as_str() }))
        .collect();
    own.insert("metrics".to_owned(), json!(metrics));
    own.insert("deterministic".to_owned(), json!(program.deterministic));

    let mut object = json!({
        "name": spec.name,
        "cells": spec.grid.cell_count(),
        "repeats": spec.repeats,
        "trials": planned_trials(spec),
        "numerics": spec.numerics,
        "axes": axes,
        "scale": spec.scales.chosen,
        "scales": spec.scales.names,
        key: own,
    });
    if let Some(named) = named {
        let dataset = named.dataset.as_ref();
        object["data"] = json!(dataset.map(|data| &data.provenance));
        object["data_looks"] = json!(dataset.map(|data| &data.description));
    }
    format!("{object}\n")
}

/// The metrics, and which values are better, for people.
pub(super) fn describe_metrics(program: &Program) -> String {
    let metrics = program.metrics.iter();
    let metrics: Vec<String> = metrics
        .map(|metric| format!("{} ({})", metric.name, metric.direction.as_str()))
        .collect();
    format!("  metrics: {}\n", metrics.join(", "))
}
