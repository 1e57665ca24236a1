//! `[measure]`: the metrics, predictions and weights that are kept of a trial, and the times of
//! samples.

use crate::config::{Length, TrialConfig};
use crate::grid::Grid;
use crate::ids::CellIndex;
use crate::metric::{MAX_METRICS, MeasurementPass, Metric};
use crate::spec::moments::{Moment, RepeatedMoment, SampleTimes, read_moment, steps_of_moments};
use crate::spec::saved_moments::SavedMoments;
use crate::spec_file::error::SpecError;
use crate::spec_file::grammar::{MOMENTS_GRAMMAR, ReadingMode};
use crate::spec_file::node::{SpecNode, SpecValue};
use crate::spec_file::reader::{NumberRange, TableReader, quote_value};
use crate::spec_file::suggest::suggest_nearest;

/// Maximum number of predictions that a trial keeps: probe points times moments.
pub const MAX_PREDICTIONS: u64 = 1_000_000;

/// The settings of `[measure]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Measure {
    /// When samples are taken. The last one is at the end of the trial.
    pub every: SampleTimes,
    /// The metrics to sample.
    pub metrics: Vec<Metric>,
    /// The batch-norm statistics under which networks are evaluated.
    pub statistics: EvalStatistics,
    /// The probe set, if predictions are kept.
    pub probe: Option<Probe>,
    /// The moments whose weights are kept.
    pub save: SavedMoments,
}

impl Measure {
    /// Whether any metric needs this pass.
    pub fn needs_pass(&self, pass: MeasurementPass) -> bool {
        self.metrics
            .iter()
            .any(|metric| metric.required_pass() == Some(pass))
    }
}

/// `[measure] statistics`: the batch-norm statistics under which test, validation and probe images
/// are evaluated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EvalStatistics {
    /// Running statistics, which follow the training batches with a momentum.
    Running,
    /// Means over the batches of an epoch of training images, not augmented, under the weights that are evaluated.
    ReEstimated,
}

pub(crate) const EVAL_STATISTICS: [(&str, EvalStatistics); 2] = [
    ("running", EvalStatistics::Running),
    ("re-estimated", EvalStatistics::ReEstimated),
];

/// `[measure] probe`: the fixed test inputs for which predictions are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// Number of test images.
    pub points: u32,
    /// The moments at which predictions are made.
    pub at: Vec<Moment>,
}

impl Probe {
    /// The steps after which predictions are made in a trial of this config, in ascending order.
    pub fn steps_in_trial(&self, config: &TrialConfig) -> Vec<u64> {
        steps_of_moments(&self.at, config)
    }
}

impl Measure {
    /// Samples these metrics and keeps nothing else.
    pub fn with_metrics(every: Length, metrics: Vec<Metric>) -> Self {
        Self {
            every: SampleTimes::Every(every),
            metrics,
            statistics: EvalStatistics::Running,
            probe: None,
            save: SavedMoments::default(),
        }
    }

    /// Reads the section of a cell, in which expressions have their values.
    pub(super) fn read_of_cell(
        grid: &Grid,
        cell: CellIndex,
        reading: ReadingMode,
    ) -> Result<Self, SpecError> {
        let document = grid.build_document(cell)?;
        Self::read_section(&TableReader::from_document(&document, reading))?
            .with_metrics_of_targets(&document, (grid, cell))
    }

    pub(crate) fn read_section(root: &TableReader<'_>) -> Result<Self, SpecError> {
        let r = root.section("measure")?;
        let every = Self::read_sample_times(&r)?;

        let metrics = match r.read_list("metrics")? {
            None => vec![Metric::TrainLoss, Metric::TestAcc],
            Some(items) => Self::read_metrics(&r, items)?,
        };
        let statistics = r
            .read_word("statistics", &EVAL_STATISTICS)?
            .unwrap_or(EvalStatistics::Running);

        let probe = Self::read_probe(&r)?;
        let save = SavedMoments::read_field(&r)?;
        r.refuse_unknown_keys()?;
        Ok(Self {
            every,
            metrics,
            statistics,
            probe,
            save,
        })
    }

    /// Reads `every = "10 steps"` or `every = ["1 %", "1 step from 990 to 1010"]`.
    fn read_sample_times(r: &TableReader<'_>) -> Result<SampleTimes, SpecError> {
        let Some(node) = r.read_node("every") else {
            return Ok(SampleTimes::Every(Length::Epochs(1)));
        };
        if let Some(length) = node.value.as_str().and_then(Length::parse) {
            return Ok(SampleTimes::Every(length));
        }

        let items = match &node.value {
            SpecValue::List(items) => items.as_slice(),
            _ => std::slice::from_ref(node),
        };
        let moments = items
            .iter()
            .filter(|item| item.value.as_str() != Some("final"))
            .map(|item| {
                let moments = item.value.as_str().and_then(RepeatedMoment::parse);
                moments.ok_or_else(|| {
                    let found = quote_value(&item.value);
                    r.error_at(
                        "every",
                        format!(
                            "expected something like \"1 epoch\", \"50 steps\", \"1 %\" or \"1 step from 990 to 1010\", \
                             found {found}"
                        ),
                    )
                })
            })
            .collect::<Result<_, _>>()?;
        if items.is_empty() {
            let message = "the list is empty: name moments, such as \"50 steps\"";
            return Err(r.error_at("every", message));
        }
        r.reading_mode()
            .require_grammar(MOMENTS_GRAMMAR, &node.origin, "measure.every")?;
        Ok(SampleTimes::At(moments))
    }

    /// The first version of the grammar that has what is measured.
    pub(super) fn min_grammar(&self) -> u32 {
        let is_plain = matches!(self.every, SampleTimes::Every(_))
            && self
                .probe
                .iter()
                .flat_map(|probe| &probe.at)
                .all(|moment| moment.is_plain())
            && !self.save.has_earlier_moments();
        if is_plain { 1 } else { MOMENTS_GRAMMAR }
    }

    pub(crate) fn read_probe(measure: &TableReader<'_>) -> Result<Option<Probe>, SpecError> {
        if measure.read_node("probe").is_none() {
            return Ok(None);
        }

        let r = measure.section("probe")?;
        let Some(points) =
            r.read_whole_number("points", NumberRange::whole_numbers(1, MAX_PREDICTIONS))?
        else {
            return Err(r.error_at("points", "how many test images? Set points = 1000"));
        };

        let at = match r.read_list("at")? {
            None => vec![Moment::Final],
            Some(items) => items
                .iter()
                .map(|item| read_moment(&r, "at", item))
                .collect::<Result<Vec<_>, _>>()?,
        };
        if at.is_empty() {
            return Err(r.error_at("at", "the list is empty: name a moment, such as \"final\""));
        }

        if points * at.len() as u64 > MAX_PREDICTIONS {
            let message = format!(
                "{points} points at {} moments are too many: at most {MAX_PREDICTIONS} predictions per trial are kept",
                at.len()
            );
            return Err(r.error_at("points", message));
        }

        r.refuse_unknown_keys()?;
        Ok(Some(Probe {
            points: points as u32,
            at,
        }))
    }

    pub(crate) fn read_metrics(
        r: &TableReader<'_>,
        items: &[SpecNode],
    ) -> Result<Vec<Metric>, SpecError> {
        if items.len() > MAX_METRICS {
            r.refuse_if_new("metrics", || {
                format!(
                    "{} metrics are too many; at most {MAX_METRICS} are possible",
                    items.len()
                )
            })?;
        }

        let mut metrics = Vec::new();
        for item in items {
            let name = item.value.as_str().unwrap_or_default();
            let Some(metric) = Metric::from_name(name) else {
                let known = Metric::NAMES.iter().map(|(word, _)| *word);
                let hint = suggest_nearest(name, known.clone());
                let message = format!("unknown metric {}, {hint}", quote_value(&item.value));
                return Err(r.error_at("metrics", message).with_unknown(name, known));
            };
            if metrics.contains(&metric) {
                return Err(r.error_at("metrics", format!("the metric {name} is listed twice")));
            }

            metrics.push(metric);
        }

        if metrics.is_empty() {
            return Err(r.error_at(
                "metrics",
                "the list is empty: name at least one metric, such as \"test_acc\"",
            ));
        }

        Ok(metrics)
    }
}
