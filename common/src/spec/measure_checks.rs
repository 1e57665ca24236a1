//! Checks that what is measured and kept is possible in the cells.

use crate::config::{ModelKind, TrialConfig};
use crate::ids::ShapeClass;
use crate::metric::Metric;
use crate::net::{Layer, Net};
use crate::spec::{MAX_PREDICTIONS, Moment, Spec};
use crate::spec_file::error::{Origin, SpecError};
use crate::spec_file::suggest::suggest_nearest;

/// Maximum number of values in a trial's curve: samples of all metrics, and their steps.
const MAX_CURVE_NUMBERS: u64 = 200_000;
/// Maximum size of the file of a trial's kept weights of several moments, in bytes.
const MAX_KEPT_BYTES: u64 = 1 << 30;

impl Spec {
    /// Checks that everything measured and kept is possible in every cell. One cell of each shape class shows it.
    pub(super) fn check_cells(&self) -> Result<(), SpecError> {
        for class in self.grid.kept_classes() {
            let config = self
                .grid
                .resolve_config(self.grid.class_cell_at(class, 0))?;
            if config.model.kind.program().is_some() {
                self.check_program_is_named()?;
                continue;
            }
            self.stages.check_source(&config)?;
            self.check_curve_size(&config, class)?;
            self.check_toy_metrics(&config)?;
            self.check_validation_images(&config)?;
            self.check_metrics_of_start(&config)?;
            self.check_effective_lr(&config)?;
            check_start_moments(&config)?;

            self.check_probe_and_weights(&config)?;
        }

        Ok(())
    }

    /// Checks that the sweep, of which a cell is a program or an experiment, is one itself: numerics class, metrics and identity of
    /// its trials are.
    fn check_program_is_named(&self) -> Result<(), SpecError> {
        if self.program().is_some() {
            return Ok(());
        }
        let mut axes = self.grid.axes().iter();
        let axis = axes.find(|axis| axis.field.as_deref() == Some("model.kind"));
        let origin = axis.map_or(Origin::Default, |axis| axis.origin.clone());
        let message = "an experiment is named by [model] alone, so this is no axis and no case: write kind = \"custom:NAME\" in \
                       [model], and a sweep file for each experiment";
        Err(SpecError::new(origin, "model.kind", message))
    }

    /// Checks that a trial's curve fits into a message.
    fn check_curve_size(&self, config: &TrialConfig, class: ShapeClass) -> Result<(), SpecError> {
        let every = &self.measure_of_class(class)?.every;
        if let Some(problem) = every.find_problem(config) {
            return Err(SpecError::new(Origin::Default, "measure.every", problem));
        }
        let rows = every.steps_in_trial(config).count();
        let numbers = rows.saturating_mul(1 + self.measure.metrics.len() as u64);
        if numbers > MAX_CURVE_NUMBERS {
            let message = format!(
                "{rows} samples of {} metrics per trial are too many: sample less often",
                self.measure.metrics.len()
            );
            return Err(SpecError::new(Origin::Default, "measure.every", message));
        }

        Ok(())
    }

    /// Checks that the toy loss has the requested metrics.
    fn check_toy_metrics(&self, config: &TrialConfig) -> Result<(), SpecError> {
        let undefined = self
            .measure
            .metrics
            .iter()
            .find(|metric| metric.is_undefined_for_toy());
        let (ModelKind::Toy(_), Some(metric)) = (&config.model.kind, undefined) else {
            return Ok(());
        };
        let message = format!(
            "the toy loss has no {}: name metrics that it has, such as [\"train_loss\", \"weight_norm_sq\"]",
            metric.name()
        );

        Err(SpecError::new(Origin::Default, "measure.metrics", message))
    }

    /// Checks that there are validation images if a metric needs them.
    fn check_validation_images(&self, config: &TrialConfig) -> Result<(), SpecError> {
        let undefined = self
            .measure
            .metrics
            .iter()
            .find(|metric| metric.needs_validation());
        let (true, 0, Some(metric)) = (
            config.model.kind.needs_images(),
            config.data.validation,
            undefined,
        ) else {
            return Ok(());
        };
        let message = format!(
            "{} needs validation images: set data.validation = {}, which keeps that many training images aside",
            metric.name(),
            (config.data.dataset.split_sizes().0 / 10).max(1)
        );

        Err(SpecError::new(Origin::Default, "measure.metrics", message))
    }

    /// Checks that a trial without steps measures nothing that steps have, and that only trials that start from the weights of
    /// others compare these.
    fn check_metrics_of_start(&self, config: &TrialConfig) -> Result<(), SpecError> {
        let of_parts = |metric: &&Metric| metric.is_of_parts() && config.results_start.is_none();
        let of_steps = |metric: &&Metric| metric.needs_step() && config.total_steps() == 0;
        let metrics = &self.measure.metrics;
        let message = match (metrics.iter().find(of_parts), metrics.iter().find(of_steps)) {
            (Some(metric), _) => format!(
                "{} compares the weights that a trial starts from the mean of: set model.init.results, or remove it",
                metric.name()
            ),
            (None, Some(metric)) => format!(
                "a trial of 0 steps has no {}: name metrics of its weights, such as [\"test_acc\", \"weight_norm_sq\"]",
                metric.name()
            ),
            (None, None) => return Ok(()),
        };
        Err(SpecError::new(Origin::Default, "measure.metrics", message))
    }

    /// Checks that the weights that a norm follows have one learning rate, if a metric divides it by their norm.
    fn check_effective_lr(&self, config: &TrialConfig) -> Result<(), SpecError> {
        let is_wanted = self.measure.metrics.contains(&Metric::EffectiveLr);
        let net = Net::from_config(config).filter(|_| is_wanted && !config.train.lr_on.is_empty());
        let Some(net) = net else {
            return Ok(());
        };

        let head = net.layers.len() - 1;
        let params = net.params().into_iter().filter(|p| p.trained && p.normed);
        let mut factors = params.map(|param| param.lr_factor(&config.train.lr_on, head));
        let first = factors.next();
        if factors.all(|factor| Some(factor) == first) {
            return Ok(());
        }
        let message = "effective_lr is of one learning rate, and train.lr_on gives several to the weights that a norm follows: measure \
                       weight_norm_sq[LAYER] instead, or give these weights one factor";
        Err(SpecError::new(Origin::Default, "measure.metrics", message))
    }

    /// Checks that a layer whose weights are measured exists in some cell.
    pub(super) fn check_layer_metrics(&self) -> Result<(), SpecError> {
        for metric in &self.measure.metrics {
            let Metric::LayerNormSq(layer) = metric else {
                continue;
            };
            let mut names = Vec::new();

            for class in self.grid.kept_classes() {
                let net = Net::from_config(
                    &self
                        .grid
                        .resolve_config(self.grid.class_cell_at(class, 0))?,
                );
                let layers = net.into_iter().flat_map(|net| net.layers);
                names.extend(layers.filter(Layer::has_weight).map(|l| l.name));
            }

            if !names.contains(layer) {
                let hint = suggest_nearest(layer, names.iter().map(String::as_str));
                let message = format!(
                    "{}: no model of the sweep has a layer '{layer}', {hint}",
                    metric.name()
                );
                return Err(SpecError::new(Origin::Default, "measure.metrics", message));
            }
        }

        Ok(())
    }

    /// Checks that the probe set fits into the test set, and its moments into the trial.
    fn check_probe_and_weights(&self, config: &TrialConfig) -> Result<(), SpecError> {
        let keeps_some = self.measure.probe.is_some() || !self.measure.save.is_empty();
        if !config.model.kind.needs_images() && keeps_some {
            let message = "a model that is not a network has neither predictions nor weights: remove probe and save";
            return Err(SpecError::new(Origin::Default, "measure", message));
        }

        self.check_saved_moments(config)?;
        let Some(probe) = &self.measure.probe else {
            return Ok(());
        };
        let (_, images) = config.data.dataset.split_sizes();
        if probe.points > images {
            let word = config.data.dataset.as_str();
            let message = format!(
                "{word} has {images} test images, which are fewer than {}",
                probe.points
            );
            return Err(SpecError::new(
                Origin::Default,
                "measure.probe.points",
                message,
            ));
        }

        let problem = probe
            .at
            .iter()
            .find_map(|moment| moment.find_problem(config));
        let kept = u64::from(probe.points) * probe.steps_in_trial(config).len() as u64;
        let too_many = (kept > MAX_PREDICTIONS).then(|| {
            format!(
                "{kept} predictions of a trial are too many: at most {MAX_PREDICTIONS} are kept; name fewer moments"
            )
        });
        if let Some(message) = problem.or(too_many) {
            return Err(SpecError::new(Origin::Default, "measure.probe.at", message));
        }

        Ok(())
    }

    /// Checks that the moments whose weights are kept are in the trial, and that all of them go into a file.
    fn check_saved_moments(&self, config: &TrialConfig) -> Result<(), SpecError> {
        let save = &self.measure.save;
        if !save.has_earlier_moments() {
            return Ok(());
        }

        let moments = save.steps_in_trial(config).len() as u64;
        let net = Net::from_config(config);
        let bytes = net.map_or(0, |net| net.weights_file_bytes(config, save));
        let problem = save.find_problem(config).or_else(|| match moments {
            0 => Some("none of the moments is in the trial: name one, such as \"final\"".to_owned()),
            _ if bytes > MAX_KEPT_BYTES => Some(format!(
                "the weights of {moments} moments are {bytes} bytes per trial, which are too many: at most {MAX_KEPT_BYTES} are kept; \
                 name fewer moments"
            )),
            _ => None,
        });
        problem.map_or(Ok(()), |message| {
            Err(SpecError::new(Origin::Default, "measure.save", message))
        })
    }
}

/// Checks that the moments of the weights that trials start from can be read; whether they were kept is known at the launch.
fn check_start_moments(config: &TrialConfig) -> Result<(), SpecError> {
    let texts = config
        .results_start
        .iter()
        .flat_map(|start| &start.selection.at);
    for text in texts {
        if Moment::parse_several(text).is_none() {
            let message = format!(
                "expected moments like \"300 steps\", \"50 %\" or \"final\", found '{text}'"
            );
            let path = "model.init.results.at";
            return Err(SpecError::new(Origin::Default, path, message));
        }
    }

    Ok(())
}
