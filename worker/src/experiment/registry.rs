//! The experiments that a worker has, and what it tells the coordinator of them.

use std::sync::Arc;

use ergodic_common::ErrorCode;
use ergodic_common::program::{DeclaredMetric, experiment_class, is_experiment_name};
use ergodic_proto::status::UserError;
use ergodic_proto::v1;
use serde_json::Value;

use super::Experiment;
use super::context::TrialContext;
use super::error::TrialError;
use super::metrics::Metrics;

/// The experiments of a worker.
#[derive(Debug, Clone, Default)]
pub struct Experiments(Arc<Vec<ExperimentEntry>>);

/// An experiment without its type.
#[derive(Debug, Clone)]
pub(crate) struct ExperimentEntry {
    pub(super) name: &'static str,
    pub(super) version: u32,
    pub(super) metrics: Metrics,
    pub(super) needs_data: bool,
    /// The JSON schema of the config.
    schema: String,
    pub(super) run: fn(Value, &mut TrialContext<'_>) -> Result<(), TrialError>,
}

impl Experiments {
    /// Adds an experiment.
    #[must_use]
    pub fn with<E: Experiment>(mut self) -> Self {
        let entry = ExperimentEntry {
            name: E::NAME,
            version: E::VERSION,
            metrics: E::declare_metrics(),
            needs_data: E::NEEDS_DATA,
            schema: schemars::schema_for!(E::Config).to_value().to_string(),
            run: |config, trial| {
                let config = serde_json::from_value(config)
                    .map_err(|why| TrialError::Failed(format!("the config does not fit: {why}")))?;
                E::run(config, trial)
            },
        };
        Arc::make_mut(&mut self.0).push(entry);
        self
    }

    /// Checks names, versions and metrics.
    ///
    /// # Errors
    /// Names what the author of an experiment must change.
    pub(crate) fn check(&self) -> Result<(), UserError> {
        for (at, entry) in self.0.iter().enumerate() {
            let ExperimentEntry { name, version, .. } = entry;
            let why = if !is_experiment_name(name) {
                "NAME must be up to 40 small letters, digits and '-', the first a letter"
            } else if *version == 0 {
                "VERSION must be 1 or more"
            } else if self.0[..at].iter().any(|other| other.name == *name) {
                "there is another experiment of this NAME: rename one"
            } else if entry.metrics.0.is_empty() {
                "declare_metrics must name a metric"
            } else {
                continue;
            };
            let message = format!("the experiment '{name}': {why}");
            return Err(UserError::new(ErrorCode::BadInput, message));
        }
        Ok(())
    }

    /// The experiment of a numerics class.
    pub(crate) fn find_class(&self, class: &str) -> Option<&ExperimentEntry> {
        let mut entries = self.0.iter();
        entries.find(|entry| experiment_class(entry.name, entry.version) == class)
    }

    /// The numerics classes of all experiments.
    pub(crate) fn classes(&self) -> impl Iterator<Item = String> {
        self.0
            .iter()
            .map(|entry| experiment_class(entry.name, entry.version))
    }

    /// What a coordinator is told.
    pub(crate) fn announce(&self) -> Vec<v1::AnnouncedExperiment> {
        let announce = |entry: &ExperimentEntry| v1::AnnouncedExperiment {
            name: entry.name.to_owned(),
            version: entry.version,
            config_schema: entry.schema.clone(),
            metrics: entry.metrics.0.iter().map(announce_metric).collect(),
            needs_data: entry.needs_data,
        };
        self.0.iter().map(announce).collect()
    }
}

fn announce_metric(metric: &DeclaredMetric) -> v1::ExperimentMetric {
    v1::ExperimentMetric {
        name: metric.name.clone(),
        better: metric.direction.as_str().to_owned(),
    }
}
