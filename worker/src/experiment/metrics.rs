//! The metrics that an experiment declares.

use ergodic_common::program::{DeclaredMetric, Direction};

/// The metrics of an experiment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Metrics(pub(super) Vec<DeclaredMetric>);

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
