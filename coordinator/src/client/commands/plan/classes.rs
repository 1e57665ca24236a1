//! The shape classes of a sweep: their size, memory, work and stored bytes.

use std::collections::BTreeMap;

use ergodic_common::config::{AddedNoise, LayerList, LayerMap, LayerSettings, ModelKind};
use ergodic_common::ids::CellIndex;
use ergodic_common::metric::{MeasurementPass, Metric};
use ergodic_common::net::{NOISE_BATCHES, Net};
use ergodic_common::spec::Measure;
use ergodic_common::{Spec, TrialConfig};
use serde_json::json;

/// Approximate number of products with a Hessian until its largest eigenvalue is known.
const HESSIAN_PRODUCTS: u64 = 30;

/// Maximum number of widths in the label of a class of listed layers.
const MAX_LABEL_WIDTHS: usize = 12;

/// The costs of a shape class.
pub(super) struct ClassPlan {
    pub(super) label: String,
    /// A cell of the class.
    pub(super) cell: CellIndex,
    /// What decides the costs of a trial's parts on a given machine.
    pub(super) cost_key: String,
    pub(super) cells: u64,
    pub(super) parameters: u64,
    pub(super) trained_parameters: u64,
    pub(super) steps: u64,
    pub(super) slot_bytes: u64,
    /// Size of the file of weights that a trial stores, in bytes; 0 without one.
    pub(super) weights_bytes: u64,
    /// Floating-point operations of a trial.
    pub(super) trial_flops: f64,
    /// Number of samples of a trial.
    pub(super) samples: u64,
    /// Number of training steps that take as long as all gradients of a trial.
    pub(super) gradient_steps: f64,
}

pub(super) fn class_to_json(class: &ClassPlan, trial_seconds: f64) -> serde_json::Value {
    json!({
        "class": class.label,
        "cells": class.cells,
        "parameters": class.parameters,
        "trained_parameters": class.trained_parameters,
        "steps": class.steps,
        "slot_bytes": class.slot_bytes,
        "trial_flops": class.trial_flops,
        "trial_seconds": trial_seconds,
        "flops_per_second": class.trial_flops / trial_seconds,
    })
}

/// Lists the shape classes. Classes with equal descriptions and numbers of parameters are merged, whatever axes distinguish
/// them.
pub(super) fn plan_classes(spec: &Spec) -> Vec<ClassPlan> {
    let grid = &spec.grid;
    let mut alike: BTreeMap<(String, u64), ClassPlan> = BTreeMap::new();

    for class in grid.kept_classes() {
        let cell = grid.class_cell_at(class, 0);
        let Ok(config) = grid.resolve_config(cell) else {
            continue;
        };
        let plan = plan_class(spec, &config, (cell, grid.class_cell_count(class)));
        alike
            .entry((plan.label.clone(), plan.parameters))
            .and_modify(|known| known.cells += plan.cells)
            .or_insert(plan);
    }

    alike.into_values().collect()
}

/// Plans the class of a cell, with `cells` cells.
fn plan_class(spec: &Spec, config: &TrialConfig, (cell, cells): (CellIndex, u64)) -> ClassPlan {
    let label = format_class_label(config);
    let steps = config.total_steps();
    let Some(net) = Net::from_config(config) else {
        return plan_toy_class(spec, config, label, (cell, cells));
    };
    let (parameters, trained_parameters) = net.param_counts();
    let weights_bytes = match spec.measure.save.is_empty() {
        true => 0,
        false => net.weights_file_bytes(config, &spec.measure.save),
    };

    ClassPlan {
        label,
        cell,
        cost_key: format_cost_key(spec, config),
        cells,
        parameters,
        trained_parameters,
        steps,
        slot_bytes: net.trial_bytes(config, &spec.measure),
        weights_bytes,
        trial_flops: estimate_trial_flops(spec, config, &net),
        samples: count_samples(spec, config),
        gradient_steps: count_gradient_steps(spec, config),
    }
}

fn format_class_label(config: &TrialConfig) -> String {
    if let ModelKind::Layers(list) = &config.model.kind {
        return format!(
            "layers {} batch={} steps={}",
            format_widths(list),
            config.effective_batch_size(),
            config.total_steps()
        );
    }

    let fields: BTreeMap<&str, String> = config.identity_fields().into_iter().collect();
    let [kind, width, hidden, norm] = ["kind", "width", "hidden", "norm"].map(|name| {
        let name = format!("model.{name}");
        fields.get(name.as_str()).map_or("", String::as_str)
    });

    format!(
        "{kind} {width}{hidden} norm={norm} batch={} steps={}",
        config.effective_batch_size(),
        config.total_steps()
    )
}

/// The widths of listed layers, the first ones of many.
fn format_widths(list: &LayerList) -> String {
    let width = |layer: &LayerSettings| match layer.map {
        LayerMap::Conv { channels, .. } => channels.to_string(),
        LayerMap::Linear { width } => width.to_string(),
        LayerMap::Classes => "classes".to_owned(),
    };
    let shown = list.layers.iter().take(MAX_LABEL_WIDTHS).map(width);
    let more = list.layers.len().saturating_sub(MAX_LABEL_WIDTHS);
    let rest = (more > 0).then(|| format!("… {more} more"));
    shown.chain(rest).collect::<Vec<_>>().join(",")
}

/// The model, the images, the batch and the optimizer, which decide what a step takes, and the metrics and images of a sample.
fn format_cost_key(spec: &Spec, config: &TrialConfig) -> String {
    let mut fields = config.identity_fields();
    fields.retain(|(path, _)| decides_costs(path));
    fields.sort_unstable();
    let fields: Vec<String> = fields
        .into_iter()
        .map(|(path, value)| format!("{path}={value}"))
        .collect();

    let (height, width, channels) = config.data.dataset.image_shape();
    let metrics: Vec<_> = spec.measure.metrics.iter().map(Metric::name).collect();
    format!(
        "{height}x{width}x{channels} batch={} {} evaluated={} {}",
        config.effective_batch_size(),
        fields.join(" "),
        spec.measure.evaluated_images(config),
        metrics.join(" ")
    )
}

fn decides_costs(path: &str) -> bool {
    let is_of_step = path.starts_with("model.") && !path.starts_with("model.init");
    let others = [
        "train.optimizer.kind",
        "train.clip_norm",
        "data.augment",
        "data.order",
    ];
    is_of_step || others.contains(&path)
}

/// The costs of the toy model, which has no network.
fn plan_toy_class(
    spec: &Spec,
    config: &TrialConfig,
    label: String,
    (cell, cells): (CellIndex, u64),
) -> ClassPlan {
    let (numbers, step_flops) = match &config.model.kind {
        ModelKind::Toy(toy) => (u64::from(toy.dim), toy.step_flops()),
        _ => (0, 0),
    };
    let steps = config.total_steps();

    ClassPlan {
        label,
        cell,
        cost_key: format_cost_key(spec, config),
        cells,
        parameters: numbers,
        trained_parameters: numbers,
        steps,
        slot_bytes: 16 * numbers,
        weights_bytes: 0,
        trial_flops: (step_flops * steps) as f64,
        samples: count_samples(spec, config),
        gradient_steps: steps as f64,
    }
}

fn estimate_trial_flops(spec: &Spec, config: &TrialConfig, net: &Net) -> f64 {
    let batch = f64::from(config.effective_batch_size());
    let passes = count_samples(spec, config) * spec.measure.evaluated_images(config);
    let trained_on = batch * count_gradient_steps(spec, config);

    trained_on * net.train_flops() as f64 + passes as f64 * net.test_flops() as f64
}

/// Number of samples of a trial.
fn count_samples(spec: &Spec, config: &TrialConfig) -> u64 {
    let samples = spec.measure.every.steps_in_trial(config);
    samples.count()
}

/// Number of training steps that take as long as all gradients of a trial.
fn count_gradient_steps(spec: &Spec, config: &TrialConfig) -> f64 {
    let steps = config.total_steps();
    let noise = config.train.added_noise;
    let noise_images = steps * noise.map_or(0, AddedNoise::images_per_step);
    let of_samples = count_samples(spec, config) * count_sample_gradients(&spec.measure);

    let passes = if config.train.sam.is_some() { 2 } else { 1 };

    (passes * steps + of_samples) as f64
        + noise_images as f64 / f64::from(config.effective_batch_size())
}

/// Number of training steps that take as long as the gradients for one sample.
fn count_sample_gradients(measure: &Measure) -> u64 {
    let noise = if measure.needs_pass(MeasurementPass::Noise) {
        NOISE_BATCHES
    } else {
        0
    };

    // A Hessian product does twice the work of a step, in f64, which takes twice as long.
    let curvature = if measure.needs_pass(MeasurementPass::Curvature) {
        4 * HESSIAN_PRODUCTS
    } else {
        0
    };
    noise + curvature
}

/// Bytes of weights and of predictions that all trials store.
pub(super) fn estimate_stored_bytes(spec: &Spec, classes: &[ClassPlan]) -> (u64, u64) {
    let repeats = u64::from(spec.repeats);
    let weights = classes
        .iter()
        .map(|c| c.weights_bytes * c.cells * repeats)
        .sum();
    let predictions_in = |cell| {
        let probe = spec.measure.probe.as_ref()?;
        let config = spec.grid.resolve_config(cell).ok()?;
        Some(u64::from(probe.points) * probe.steps_in_trial(&config).len() as u64)
    };
    let predictions = classes
        .iter()
        .map(|class| predictions_in(class.cell).unwrap_or(0) * class.cells * repeats)
        .sum();

    (weights, predictions)
}

#[cfg(test)]
mod tests {
    use ergodic_common::spec::SpecSource;

    use crate::client::commands::plan::classes::*;

    /// Operations of a trial of 40 steps with a sample after every tenth, relative to those of its steps.
    fn cost(metrics: &str) -> f64 {
        let text = format!(
            "name = \"t\"\nrepeats = 2\n[data]\ndataset = \"glyphs\"\n[model]\nkind = \"mlp\"\n[train]\nsteps = 40\nlr = 0.1\nbatch_size = 16\n\
             [measure]\nevery = \"10 steps\"\nmetrics = [{metrics}]\n"
        );
        let spec = Spec::read_stored(&SpecSource {
            text,
            ..SpecSource::default()
        })
        .expect("a valid sweep");
        let config = spec.grid.resolve_config(CellIndex(0)).expect("a cell");
        let net = Net::from_config(&config).expect("not the toy");

        plan_class(&spec, &config, (CellIndex(0), 1)).trial_flops
            / (40 * u64::from(config.effective_batch_size()) * net.train_flops()) as f64
    }

    #[test]
    fn what_takes_gradients_of_its_own_is_part_of_the_time() {
        assert_eq!(cost("\"train_loss\", \"grad_norm\""), 1.0);
        assert_eq!(
            cost("\"grad_noise_trace\", \"grad_noise_hill\""),
            1.0 + 64.0 / 10.0
        );
        assert_eq!(cost("\"hessian_top\""), 1.0 + 4.0 * 30.0 / 10.0);
    }

    #[test]
    fn added_noise_is_part_of_the_time() {
        let more = "\"train_loss\"]\n[train.added_noise]\nimages = 8\npairs = 3\n[derive]\n#";
        assert_eq!(cost(more), 1.0 + 2.0 * 3.0 * 8.0 / 16.0);
    }

    #[test]
    fn a_sharpness_aware_step_counts_twice() {
        let more = "\"train_loss\"]\n[train.sam]\nrho = 0.05\n[derive]\n#";
        assert_eq!(cost(more), 2.0);
    }
}
