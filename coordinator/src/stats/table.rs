//! Tables and mean curves over the cells of a sweep.

use std::collections::BTreeMap;

use ergodic_common::axis::Axis;
use ergodic_common::config::Length;
use ergodic_common::error::nearest;
use ergodic_common::metric::Metric;
use ergodic_common::tree::Value;
use ergodic_common::{Outcome, Spec, TrialKey};
use rayon::prelude::*;

use super::Summary;
use crate::core::{Counts, main_metric};
use crate::store::{Reader, StoreError};

/// A question that cannot be answered, in words; or the store failed.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// There is no such axis, metric or step.
    #[error("{0}")]
    Unknown(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// One row of a table, or one point of a curve.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Value of each axis asked for.
    pub values: Vec<Value>,
    /// Step, of a curve's point.
    pub step: u64,
    /// Statistics over completed trials.
    pub summary: Summary,
    /// Trials by outcome.
    pub counts: Counts,
}

/// Which axes, which metric.
#[derive(Debug, Clone)]
pub struct Query {
    axes: Vec<usize>,
    metric: (usize, Metric),
    at: Option<Length>,
}

impl Query {
    /// Checks a question against a sweep. Axes may be named by the last parts of their paths; an empty metric means the
    /// main one; an empty `at` the end of the trial.
    ///
    /// # Errors
    /// There is no such axis, metric or step.
    pub fn new(spec: &Spec, by: &[String], metric: &str, at: &str) -> Result<Self, TableError> {
        let axes = match by {
            [] => (0..spec.grid.axes().len()).collect(),
            names => names.iter().map(|name| find_axis(spec.grid.axes(), name)).collect::<Result<_, _>>()?,
        };
        Ok(Self { axes, metric: find_metric(&spec.measure.metrics, metric)?, at: find_step(at)? })
    }

    /// The metric.
    pub fn metric(&self) -> &Metric {
        &self.metric.1
    }

    /// Names of the axes.
    pub fn axis_names(&self, spec: &Spec) -> Vec<String> {
        self.axes.iter().map(|at| spec.grid.axes()[*at].name.clone()).collect()
    }

    fn group(&self, spec: &Spec, cell: u64) -> Vec<u64> {
        let indices = spec.grid.value_indices(cell);
        self.axes.iter().map(|axis| indices[*axis]).collect()
    }

    fn values(&self, spec: &Spec, group: &[u64]) -> Vec<Value> {
        self.axes.iter().zip(group).map(|(axis, i)| spec.grid.axes()[*axis].value(*i)).collect()
    }

    /// Statistics per group of cells, in the order of the grid; groups without a row are listed too, as long as the
    /// grid is small enough to print.
    ///
    /// # Errors
    /// The store failed, or no curve has a sample at the step asked for.
    pub fn table(&self, spec: &Spec, reader: &dyn Reader, sweep: i64) -> Result<Vec<Entry>, TableError> {
        let mut groups: BTreeMap<Vec<u64>, (Vec<f64>, Counts)> = BTreeMap::new();
        if spec.grid.numbers() <= MOST_EMPTY_ROWS {
            for cell in spec.grid.iter() {
                groups.entry(self.group(spec, cell)).or_default();
            }
        }
        let mut last = (u64::MAX, Vec::new());
        reader.trials(sweep, &mut |row| {
            let result = row.result;
            if last.0 != result.key.cell {
                last = (result.key.cell, self.group(spec, result.key.cell));
            }
            let (values, counts) = groups.entry(last.1.clone()).or_default();
            counts.add(&result.outcome);
            let value = result.metrics.get(self.metric.0).copied().filter(|x| x.is_finite());
            if let (Outcome::Completed, Some(value), None) = (result.outcome, value, self.at) {
                values.push(value);
            }
            true
        })?;
        if let Some(at) = self.at {
            self.sample_curves(spec, reader, sweep, at, &mut groups)?;
        }
        let entry = |(group, (values, counts)): (Vec<u64>, (Vec<f64>, Counts))| Entry {
            values: self.values(spec, &group),
            step: 0,
            summary: Summary::of(&values),
            counts,
        };
        Ok(groups.into_par_iter().map(entry).collect())
    }

    fn sample_curves(
        &self,
        spec: &Spec,
        reader: &dyn Reader,
        sweep: i64,
        at: Length,
        groups: &mut BTreeMap<Vec<u64>, (Vec<f64>, Counts)>,
    ) -> Result<(), TableError> {
        let width = spec.measure.metrics.len();
        let mut seen = (0_u64, 0_u64);
        let mut cell: Option<(u64, u64, Vec<u64>)> = None;
        reader.curves(sweep, &mut |key, curve| {
            if cell.as_ref().is_none_or(|(number, ..)| *number != key.cell) {
                let step = spec.grid.config(key.cell).map_or(0, |config| config.to_steps(at));
                cell = Some((key.cell, step, self.group(spec, key.cell)));
            }
            let Some((_, step, group)) = &cell else { return };
            seen.0 += 1;
            if let Ok(row) = curve.steps.binary_search(step) {
                seen.1 += 1;
                let value = curve.values[row * width + self.metric.0];
                if value.is_finite() {
                    groups.entry(group.clone()).or_default().0.push(value);
                }
            }
        })?;
        if seen.0 > 0 && seen.1 == 0 {
            let message = "no curve has a sample at this step: `ergodic curves` lists the steps there are";
            return Err(TableError::Unknown(message.into()));
        }
        Ok(())
    }

    /// Statistics per group and step, in the order (group, step).
    ///
    /// # Errors
    /// The store failed.
    pub fn curves(&self, spec: &Spec, reader: &dyn Reader, sweep: i64) -> Result<Vec<Entry>, TableError> {
        let width = spec.measure.metrics.len();
        let mut points: BTreeMap<(Vec<u64>, u64), Vec<f64>> = BTreeMap::new();
        let mut take = |key: TrialKey, curve: ergodic_common::trial::Curve| {
            let group = self.group(spec, key.cell);
            for (step, row) in curve.steps.iter().zip(curve.values.chunks_exact(width)) {
                let values = points.entry((group.clone(), *step)).or_default();
                values.extend(Some(row[self.metric.0]).filter(|x| x.is_finite()));
            }
        };
        reader.curves(sweep, &mut take)?;
        let entry = |((group, step), values): ((Vec<u64>, u64), Vec<f64>)| Entry {
            values: self.values(spec, &group),
            step,
            summary: Summary::of(&values),
            counts: Counts { completed: values.len() as u64, ..Counts::default() },
        };
        Ok(points.into_par_iter().map(entry).collect())
    }
}

/// Above this many cells, rows are listed only where there are results.
const MOST_EMPTY_ROWS: u64 = 10_000;

fn find_axis(axes: &[Axis], name: &str) -> Result<usize, TableError> {
    if let Some(at) = axes.iter().position(|axis| axis.name == name) {
        return Ok(at);
    }
    let suffix = format!(".{name}");
    let ends = |axis: &Axis| axis.name.ends_with(&suffix) || axis.field.as_deref() == Some(name);
    let mut found = axes.iter().enumerate().filter(|(_, axis)| ends(axis));
    match (found.next(), found.next()) {
        (Some((at, _)), None) => Ok(at),
        _ => {
            let hint = nearest(name, axes.iter().map(|axis| axis.name.as_str()));
            Err(TableError::Unknown(format!("the sweep has no axis '{name}', {hint}")))
        }
    }
}

fn find_metric(metrics: &[Metric], name: &str) -> Result<(usize, Metric), TableError> {
    if name.is_empty() {
        return Ok(main_metric(metrics));
    }
    match metrics.iter().position(|m| m.name() == name) {
        Some(at) => Ok((at, metrics[at].clone())),
        None => {
            let names: Vec<_> = metrics.iter().map(Metric::name).collect();
            let hint = nearest(name, names.iter().map(AsRef::as_ref));
            Err(TableError::Unknown(format!("the sweep does not measure '{name}', {hint}")))
        }
    }
}

fn find_step(at: &str) -> Result<Option<Length>, TableError> {
    if at.is_empty() {
        return Ok(None);
    }
    let parsed = at.trim().split_once(' ').and_then(|(count, unit)| match unit.trim() {
        "epoch" | "epochs" => count.parse().ok().map(Length::Epochs),
        "step" | "steps" => count.parse().ok().map(Length::Steps),
        _ => None,
    });
    let unknown =
        || TableError::Unknown(format!("expected something like \"20 epochs\" or \"500 steps\", found '{at}'"));
    parsed.map(Some).ok_or_else(unknown)
}
