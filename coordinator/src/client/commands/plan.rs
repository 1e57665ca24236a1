//! `ergodic plan`: describes a sweep without a coordinator, and stores nothing.

mod classes;
mod costs;
mod experiment;
mod json;
mod named_files;
mod networks;
mod program;
mod variants;

use std::path::PathBuf;

use clap::Args;
use classes::{ClassPlan, class_to_json, estimate_stored_bytes, plan_classes};
pub use costs::ClassCosts;
use costs::{ASSUMED_FLOPS, find_class_costs};
use ergodic_common::Spec;
use ergodic_common::dataset::DatasetSummary;
use ergodic_common::net::Net;
use ergodic_common::number_format::{format_count, format_shortest, format_significant};
use ergodic_common::spec::SpecSource;
use ergodic_common::spec::misleading::settle_new_sweep;
use ergodic_common::spec::stopping_rule::{StoppingCriterion, StoppingRule};
use ergodic_proto::status::UserError;
use named_files::{DatasetPlace, inspect_named_files};
pub use named_files::{NamedFiles, check_local_files};
use networks::{describe_networks, find_networks, networks_to_json};
pub use program::describe_program;
use program::render_program_plan;
use serde_json::json;
use variants::check_variants;

use crate::app::{CommandOutcome, print_output};
use crate::client::args::SettingArgs;
use crate::client::check_coordinator_option;
use crate::client::render::{DocumentFormat, print_stderr_line};
use crate::client::status_text::format_duration;
use crate::client::sweep_file::{read_launch_spec, read_sweep_file, warn_of_sweep};

/// Maximum number of shape classes that are listed one by one.
const MAX_LISTED_CLASSES: usize = 20;

/// `ergodic plan`
#[derive(Debug, Args)]
pub struct PlanArgs {
    /// The sweep file
    pub spec: String,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub change: SettingArgs,
    /// Directory with datasets, to check the one that the sweep names
    #[arg(long, env = "ERGODIC_DATA", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Address of the coordinator that is to run the sweep: a dataset that is not found here is left to it
    #[arg(long, env = "ERGODIC_COORDINATOR", value_name = "URL")]
    pub coordinator: Option<String>,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    pub format: DocumentFormat,
}

/// Prints what a sweep would be.
///
/// # Errors
/// The sweep file or its data cannot be used.
pub async fn run_plan(args: PlanArgs) -> Result<CommandOutcome, UserError> {
    let urls = args.coordinator.iter().flat_map(|urls| urls.split(','));
    urls.map(str::trim).try_for_each(check_coordinator_option)?;
    let file = read_sweep_file(&args.spec, &args.change.resolve())?;
    let mut spec = read_launch_spec(&file.source)?;
    let notes = check_variants(&args, &file.source, &spec)?;
    // As a launch does, which stores these settings, too.
    let _ = settle_new_sweep(&mut spec);
    let place = DatasetPlace {
        data_dir: args.data_dir.as_deref(),
        coordinator: args.coordinator.as_deref(),
        is_run_here: false,
    };
    let named = inspect_named_files(&file, &spec, place)?;
    warn_of_sweep(&spec);
    if let Some(plan) = render_program_plan(&spec, (&file, &named), args.format) {
        notes.iter().for_each(|note| print_stderr_line(note));
        return print_output(plan);
    }
    let costs = find_class_costs(&file.source, &spec).await;
    notes.iter().for_each(|note| print_stderr_line(note));
    print_output(render_plan(&spec, &named, &costs, args.format))
}

/// Describes the scales of the file, and which one the plan is of.
fn describe_scales(spec: &Spec) -> String {
    let names = spec.scales.names.join(", ");
    match &spec.scales.chosen {
        _ if names.is_empty() => String::new(),
        Some(chosen) => format!("  scale: {chosen}, of {names}\n"),
        None => format!("  scale: none; --scale chooses one of {names}\n"),
    }
}

/// Describes the stages of the file, and which one the plan is of.
fn describe_stages(spec: &Spec) -> String {
    let names = spec.stages.names.join(", ");
    match &spec.stages.chosen {
        _ if names.is_empty() => String::new(),
        Some(chosen) => format!("  stage: {chosen}, of {names}\n"),
        None => format!("  stages: after this, {names}; --stage plans one\n"),
    }
}

/// Renders the plan as JSON, or as text for people.
pub fn render_plan(
    spec: &Spec,
    named: &NamedFiles,
    costs: &ClassCosts,
    format: DocumentFormat,
) -> String {
    let classes = plan_classes(spec);
    match format {
        DocumentFormat::Json => render_json_plan(spec, &classes, named, costs),
        DocumentFormat::Table => render_human_plan(spec, &classes, named, costs),
    }
}

/// What a sweep would cost.
#[derive(Debug, Clone, Copy)]
pub struct PlannedCost {
    /// Number of cells.
    pub cells: u64,
    /// Number of trials, or the maximum.
    pub trials: u64,
    /// Seconds of one core; NaN for a program, of which nothing is known.
    pub core_seconds: f64,
    /// Whether the speed of this machine was measured for it.
    pub is_measured: bool,
}

/// Estimates the cost of a sweep on this machine, whose speed is measured if it is not known.
pub async fn estimate_cost(source: &SpecSource, spec: &Spec) -> PlannedCost {
    let mut spec = spec.clone();
    let _ = settle_new_sweep(&mut spec);
    if spec.program().is_some() {
        return PlannedCost {
            cells: spec.grid.cell_count(),
            trials: planned_trials(&spec),
            core_seconds: f64::NAN,
            is_measured: false,
        };
    }
    let classes = plan_classes(&spec);
    let costs = find_class_costs(source, &spec).await;
    PlannedCost {
        cells: spec.grid.cell_count(),
        trials: planned_trials(&spec),
        core_seconds: estimate_core_seconds(&spec, &classes, &costs),
        is_measured: !costs.is_assumed(),
    }
}

/// Number of trials. If only the best cells get more repeats, these are assumed to cost as much as
/// all others.
fn planned_trials(spec: &Spec) -> u64 {
    certain_trials(spec).unwrap_or(spec.trial_count())
}

/// Estimates the seconds of one core for all trials and audits.
fn estimate_core_seconds(spec: &Spec, classes: &[ClassPlan], costs: &ClassCosts) -> f64 {
    let repeats = planned_trials(spec) as f64 / spec.grid.cell_count() as f64;
    let once: f64 = classes
        .iter()
        .map(|class| class.cells as f64 * repeats * costs.trial_seconds(class))
        .sum();
    once * (1.0 + spec.scheduling.audit_share)
}

/// Bytes of memory of a slot in which any trial fits.
fn slot_bytes(classes: &[ClassPlan]) -> u64 {
    classes.iter().map(|c| c.slot_bytes).max().unwrap_or(0)
}

fn render_json_plan(
    spec: &Spec,
    classes: &[ClassPlan],
    named: &NamedFiles,
    costs: &ClassCosts,
) -> String {
    let min_repeats = spec
        .stopping_rule
        .as_ref()
        .map_or(spec.repeats, |until| until.min_repeats);
    let axes: Vec<_> = spec
        .grid
        .axes()
        .iter()
        .map(|axis| json!({ "name": axis.name, "values": axis.len() }))
        .collect();
    let (weights, predictions) = estimate_stored_bytes(spec, classes);

    let object = json!({
        "name": spec.name,
        "cells": spec.grid.cell_count(),
        "repeats": spec.repeats,
        "least_repeats": min_repeats,
        "trials": planned_trials(spec),
        "audits": expected_audits(spec),
        "numerics": spec.numerics,
        "data": named.dataset.as_ref().map(|dataset| &dataset.provenance),
        "data_looks": named.dataset.as_ref().map(|dataset| &dataset.description),
        "checked": named.checks,
        "axes": axes,
        "scale": spec.scales.chosen,
        "scales": spec.scales.names,
        "stage": spec.stages.chosen,
        "stages": spec.stages.names,
        "shape_classes": classes
            .iter()
            .map(|class| class_to_json(class, costs.trial_seconds(class)))
            .collect::<Vec<_>>(),
        "networks": networks_to_json(&find_networks(spec)),
        "slot_bytes": slot_bytes(classes),
        "core_seconds": estimate_core_seconds(spec, classes, costs),
        "speed_measured": !costs.is_assumed(),
        "weights_bytes": weights,
        "prediction_bytes": predictions,
    });
    format!("{object}\n")
}

fn render_human_plan(
    spec: &Spec,
    classes: &[ClassPlan],
    named: &NamedFiles,
    costs: &ClassCosts,
) -> String {
    let mut out = describe_size(spec);
    out += &describe_scales(spec);
    out += &describe_stages(spec);
    out += &describe_axes(spec);
    out += &format_data_line(spec, named);
    out += &describe_classes(classes, costs);
    out += &describe_networks(&find_networks(spec));
    out += &describe_costs(spec, classes, costs);
    out + &format!("checked: {}\n", named.checks.join("; "))
}

fn describe_size(spec: &Spec) -> String {
    let mut out = format!(
        "{}: {}, {}\n",
        spec.name,
        format_plan_size(spec),
        spec.numerics
    );

    if let Some(until) = &spec.stopping_rule {
        out += &format_stopping_rule(spec, until);
    }

    if spec.scheduling.audit_share > 0.0 {
        let share = format_significant(100.0 * spec.scheduling.audit_share, 6);
        let audits = expected_audits(spec);
        let are = if audits == 1 { "is" } else { "are" };
        out += &format!(
            "  audit: about {} ({share} %) {are} run again by another worker process\n",
            format_count(audits, "trial")
        );
    }

    out
}

fn describe_axes(spec: &Spec) -> String {
    let mut out = String::new();
    for axis in spec.grid.axes() {
        let first = axis.format_value(&axis.value_at(0));
        let ends = match axis.len() {
            1 => first,
            n => format!("{first} … {}", axis.format_value(&axis.value_at(n - 1))),
        };
        let values = format_count(axis.len(), "value");
        out += &format!("  axis {}: {values}, {ends}\n", axis.name);
    }

    if spec.grid.cell_count() < spec.grid.cell_number_bound() {
        out += &format!(
            "  [where] keeps {} of {}\n",
            spec.grid.cell_count(),
            format_count(spec.grid.cell_number_bound(), "cell")
        );
    }

    out
}

fn describe_classes(classes: &[ClassPlan], costs: &ClassCosts) -> String {
    let plural = if classes.len() == 1 {
        "class"
    } else {
        "classes"
    };
    let mut out = format!("{} shape {plural}:\n", classes.len());

    for class in classes.iter().take(MAX_LISTED_CLASSES) {
        out += &format!(
            "  {}: {}, {} ({} trained), {} per slot, about {} per trial\n",
            class.label,
            format_count(class.cells, "cell"),
            format_count(class.parameters, "parameter"),
            class.trained_parameters,
            format_bytes(class.slot_bytes),
            format_short_duration(costs.trial_seconds(class))
        );
    }

    if classes.len() > MAX_LISTED_CLASSES {
        out += &format!("  … and {} more\n", classes.len() - MAX_LISTED_CLASSES);
    }

    out
}

/// Describes memory, time, and what is stored besides rows.
fn describe_costs(spec: &Spec, classes: &[ClassPlan], costs: &ClassCosts) -> String {
    let condition = match certain_trials(spec) {
        Some(_) => "",
        None => ", if all repeats are needed,",
    };
    let speed = if costs.is_assumed() {
        format!("at {} GFLOP/s, which is assumed", ASSUMED_FLOPS / 1e9)
    } else {
        "like this machine's".to_owned()
    };
    let mut out = format!(
        "memory: {} per slot, and {} for the dataset once per worker\ntime: about {} of one core{condition} {speed}\n",
        format_bytes(slot_bytes(classes)),
        format_bytes(dataset_bytes(spec)),
        format_short_duration(estimate_core_seconds(spec, classes, costs)),
    );

    let (weights, predictions) = estimate_stored_bytes(spec, classes);
    if weights + predictions > 0 {
        out += &format!(
            "kept: {} of weights and {} of predictions\n",
            format_bytes(weights),
            format_bytes(predictions)
        );
    }

    out
}

/// Formats `data: glyphs: all 10000 training images, …; 28×28×1, …`.
fn format_data_line(spec: &Spec, named: &NamedFiles) -> String {
    if let Some(DatasetSummary {
        provenance,
        description,
    }) = &named.dataset
    {
        return format!("  data: {provenance}; {description}\n");
    }

    let configs = spec.grid.class_configs();
    let first = configs.iter().find(|config| config.uses_dataset());
    match first.zip(named.left_to.as_ref()) {
        Some((first, url)) => format!(
            "  data: {}, not checked: the coordinator at {url} reads its own; --data-dir DIR checks a copy here\n",
            first.data.dataset.as_str()
        ),
        None => String::new(),
    }
}

/// Formats `6 cells × 20 to 500 repeats = 120 to 3000 trials`.
fn format_plan_size(spec: &Spec) -> String {
    let count = spec.grid.cell_count();
    let cells = format_count(count, "cell");
    let repeats = format_count(spec.repeats.into(), "repeat");
    let most = format_count(spec.trial_count(), "trial");
    let Some(until) = &spec.stopping_rule else {
        return format!("{cells} × {repeats} = {most}");
    };
    let trials = match until.trial_bounds(count, spec.repeats) {
        (_, Some(trials)) => format_count(trials, "trial"),
        (least, None) => format!("{least} to {most}"),
    };

    format!("{cells} × {} to {repeats} = {trials}", until.min_repeats)
}

/// Number of trials, if it is known in advance.
fn certain_trials(spec: &Spec) -> Option<u64> {
    spec.stopping_rule
        .as_ref()
        .map_or(Some(spec.trial_count()), |until| {
            until.trial_bounds(spec.grid.cell_count(), spec.repeats).1
        })
}

/// Formats a line about the stopping rule.
fn format_stopping_rule(spec: &Spec, until: &StoppingRule) -> String {
    let name = until.metric.name();
    match until.criterion {
        StoppingCriterion::Precision { ci95 } => {
            format!(
                "  each cell until the mean of {name} is known to ± {}\n",
                format_shortest(ci95)
            )
        }
        StoppingCriterion::Halving { factor } => {
            let rungs: Vec<String> = until
                .rungs(spec.repeats)
                .iter()
                .map(u32::to_string)
                .collect();
            format!(
                "  after {} repeats one cell in {factor} continues, by mean rank in {name}\n",
                rungs[..rungs.len() - 1].join(", ")
            )
        }
    }
}

/// Expected number of audits. The actual choice depends on the dataset's hash.
fn expected_audits(spec: &Spec) -> u64 {
    (spec.scheduling.audit_share * spec.trial_count() as f64).round() as u64
}

fn dataset_bytes(spec: &Spec) -> u64 {
    let first = spec
        .grid
        .iter()
        .next()
        .and_then(|cell| spec.grid.resolve_config(cell).ok());
    first
        .filter(|config| Net::from_config(config).is_some())
        .map_or(0, |config| config.data.dataset.bytes_in_memory())
}

fn format_bytes(n: u64) -> String {
    match n {
        0..1024 => format!("{n} B"),
        1024..1_048_576 => format!("{:.1} KiB", n as f64 / 1024.0),
        _ => format!("{:.1} MiB", n as f64 / 1_048_576.0),
    }
}

fn format_short_duration(seconds: f64) -> String {
    if seconds < 1.0 {
        format!("{} ms", format_significant(seconds * 1e3, 2))
    } else {
        format_duration(seconds)
    }
}
