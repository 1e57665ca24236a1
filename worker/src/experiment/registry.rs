//! The experiments that a worker has, and what it tells the coordinator of them.

use std::sync::Arc;

use ergodic_common::ErrorCode;
use ergodic_common::program::{DeclaredMetric, Direction, experiment_class, is_experiment_name};
use ergodic_proto::status::UserError;
use ergodic_proto::v1;
use serde_json::Value;

use super::Experiment;
use super::context::{TrialContext, TrialError};

/// The metrics of an experiment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Metrics(Vec<DeclaredMetric>);

impl Metrics {
    /// Adds a metric of which smaller values are better.
    #[must_use]
    pub fn min(self, name: &str) -> Self {
        self.with(name, Direction::Min)
    }

    /// Adds a metric of which larger values are better.
    #[must_use]
    pub fn max(self, name: &str) -> Self {
        self.with(name, Direction::Max)
    }

    /// Adds a metric whose values may differ between runs of the same trial, such as a time.
    #[must_use]
    pub fn volatile(self, name: &str) -> Self {
        self.with(name, Direction::Volatile)
    }

    fn with(mut self, name: &str, direction: Direction) -> Self {
        let name = name.to_owned();
        self.0.push(DeclaredMetric { name, direction });
        self
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|metric| metric.name == name)
    }

    /// What is wrong with the metrics that a sweep file keeps, if something is. `owner` is the experiment.
    pub(super) fn find_problem(&self, owner: &str, kept: &[DeclaredMetric]) -> Option<String> {
        kept.iter().find_map(|metric| {
            let (name, better) = (&metric.name, metric.direction.as_str());
            let own = self.0.iter().find(|own| own.name == *name);
            match own.map(|own| own.direction.as_str()) {
                None => Some(format!(
                    "the sweep file has the metric {name}, and {owner} declares {}: launch a sweep file that names those",
                    self.join_names()
                )),
                Some(own) if own != better => Some(format!(
                    "the sweep file has {name} = \"{better}\", and {owner} declares it as \"{own}\": launch a sweep file that \
                     says so, too"
                )),
                Some(_) => None,
            }
        })
    }

    /// The names, for messages.
    pub(super) fn join_names(&self) -> String {
        let names: Vec<&str> = self.0.iter().map(|metric| metric.name.as_str()).collect();
        names.join(", ")
    }
}

/// The experiments of a worker.
#[derive(Debug, Clone, Default)]
pub struct Experiments(Arc<Vec<ExperimentEntry>>);

/// An experiment without its type.
#[derive(Debug, Clone)]
pub(crate) struct ExperimentEntry {
    pub(super) name: &'static str,
    pub(super) version: u32,
    pub(super) metrics: Metrics,
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
