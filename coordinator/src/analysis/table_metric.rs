//! What a query is about: a metric of the sweep, or a quantity that is computed from metrics.

use std::borrow::Cow;
use std::sync::Arc;

use ergodic_common::Spec;
use ergodic_common::ids::CellIndex;
use ergodic_common::metric::Metric;
use ergodic_common::quantity::TrialQuantity;
use ergodic_common::spec::measured_value::MeasuredValue;
use ergodic_common::spec::misleading::describe_loss_quantity;

use crate::analysis::error::AnalysisError;
use crate::core::{main_metric, selection_metric};

/// A metric, or a quantity in its place.
#[derive(Debug, Clone)]
pub enum TableMetric {
    /// A metric, and its index among those of the sweep.
    Stored(usize, Metric),
    /// A quantity, computed from the samples of each trial.
    Computed(Arc<TrialQuantity>),
}

/// Two are equal if they have the same name in the same sweep.
impl PartialEq for TableMetric {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl TableMetric {
    /// Finds what a user names: a metric that the sweep measures, a quantity of its file, or an expression. Without a name, it is
    /// the main metric.
    ///
    /// # Errors
    /// There is no such metric or quantity, or the expression cannot be computed in any cell.
    pub(super) fn find(spec: &Spec, name: &str) -> Result<Self, AnalysisError> {
        let metrics = &spec.measure.metrics;
        if name.is_empty() {
            let (column, metric) = main_metric(metrics);
            return Ok(Self::Stored(column, metric));
        }
        match spec.find_measured_value(name)? {
            MeasuredValue::Metric(column) => Ok(Self::Stored(column, metrics[column].clone())),
            MeasuredValue::Quantity(quantity) => Ok(Self::Computed(Arc::new(quantity))),
        }
    }

    /// The name of the metric or quantity, or the expression.
    pub fn name(&self) -> Cow<'_, str> {
        match self {
            Self::Stored(_, metric) => metric.name(),
            Self::Computed(quantity) => quantity.text().into(),
        }
    }

    /// The quantities of the sweep file that it uses, as in `inv = 1/effective_lr`; empty if there are none.
    pub fn definition(&self) -> &str {
        match self {
            Self::Stored(..) => "",
            Self::Computed(quantity) => quantity.definition(),
        }
    }

    /// The metric; `None` for a quantity.
    pub fn stored(&self) -> Option<&Metric> {
        match self {
            Self::Stored(_, metric) => Some(metric),
            Self::Computed(_) => None,
        }
    }

    /// As for metrics: `None` if neither larger nor smaller values are better, which holds for every quantity.
    pub fn larger_is_better(&self) -> Option<bool> {
        self.stored().and_then(Metric::larger_is_better)
    }

    /// The range, if it is known to be bounded on both sides.
    pub fn bounded_range(&self) -> Option<(f64, f64)> {
        self.stored().and_then(Metric::bounded_range)
    }

    /// The metric by which cells are selected if this one judges them.
    pub(super) fn selection_metric(&self, spec: &Spec) -> Self {
        match self {
            Self::Stored(column, metric) => {
                let judging = (*column, metric.clone());
                let (column, metric) = selection_metric(&spec.measure.metrics, &judging);
                Self::Stored(column, metric)
            }
            Self::Computed(_) => self.clone(),
        }
    }

    /// The column of its values in the rows that a query reads.
    pub(super) fn column(&self) -> usize {
        match self {
            Self::Stored(column, _) => *column,
            Self::Computed(_) => 0,
        }
    }

    /// The name of the quantity that a loss measures in a cell, for the first loss that it is made of; `None` without a loss.
    pub(super) fn describe_loss(&self, spec: &Spec, cell: CellIndex) -> Option<String> {
        match self {
            Self::Stored(_, metric) => describe_loss_quantity(spec, metric, cell),
            Self::Computed(quantity) => quantity.metrics().iter().find_map(|column| {
                describe_loss_quantity(spec, &spec.measure.metrics[*column], cell)
            }),
        }
    }

    /// Refuses a moment for a quantity that has one value for all of a trial.
    ///
    /// # Errors
    /// The quantity is such a one.
    pub(super) fn check_moment(&self) -> Result<(), AnalysisError> {
        self.check_curve(
            "at",
            "leave out --at, or write the moment into it, as in at(test_acc, 500)",
        )
    }

    /// Refuses curves of a quantity that has one value for all of a trial.
    ///
    /// # Errors
    /// The quantity is such a one.
    pub fn check_has_curve(&self) -> Result<(), AnalysisError> {
        self.check_curve("metric", "`ergodic table` shows it")
    }

    fn check_curve(&self, option: &str, advice: &str) -> Result<(), AnalysisError> {
        match self {
            Self::Computed(quantity) if !quantity.is_curve() => {
                let text = quantity.text();
                Err(AnalysisError::Invalid(format!(
                    "{option}: '{text}' is one number per trial, without a value at each sample: {advice}"
                )))
            }
            _ => Ok(()),
        }
    }
}
