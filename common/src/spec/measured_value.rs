//! What a user means by the name of a metric: one that the sweep measures, a quantity of its file, or an expression.

use crate::metric::Metric;
use crate::quantity::TrialQuantity;
use crate::spec::Spec;
use crate::spec_file::suggest::suggest_nearest;

/// A value of each trial.
#[derive(Debug, Clone)]
pub enum MeasuredValue {
    /// A metric, by its index among those of the sweep.
    Metric(usize),
    /// A quantity, which is computed from metrics.
    Quantity(TrialQuantity),
}

/// Why a name stands for no value of a trial, with a message for the user.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MeasuredValueError {
    /// There is no such metric or quantity.
    #[error("{0}")]
    Unknown(String),
    /// The expression is wrong, or no trial can have such a value.
    #[error("{0}")]
    Invalid(String),
}

impl Spec {
    /// Finds what a user means by the name of a metric.
    ///
    /// # Errors
    /// There is no such metric or quantity, the expression is wrong, or its windows lie outside of the trials of all cells.
    pub fn find_measured_value(&self, name: &str) -> Result<MeasuredValue, MeasuredValueError> {
        let mut metrics = self.measure.metrics.iter();
        if let Some(column) = metrics.position(|metric| metric.name() == name) {
            return Ok(MeasuredValue::Metric(column));
        }

        let is_defined = self.quantity_names().any(|known| known == name.trim());
        if !is_defined && (is_plain_name(name) || Metric::from_name(name).is_some()) {
            return Err(MeasuredValueError::Unknown(self.explain_unknown(name)));
        }
        let quantity = self
            .compile_quantity(name)
            .map_err(MeasuredValueError::Invalid)?;
        match quantity.explain_absence(&self.grid) {
            None => Ok(MeasuredValue::Quantity(quantity)),
            Some(why) => Err(MeasuredValueError::Invalid(why)),
        }
    }

    fn explain_unknown(&self, name: &str) -> String {
        let metrics: Vec<_> = self.measure.metrics.iter().map(Metric::name).collect();
        let known = metrics.iter().map(AsRef::as_ref);
        let hint = suggest_nearest(name, known.chain(self.quantity_names()));
        let unread = match &self.claims {
            Ok(_) => String::new(),
            Err(error) => format!("; the quantities of its file cannot be read: {error}"),
        };
        format!("the sweep does not measure '{name}', {hint}{unread}")
    }
}

/// Whether a text is a name rather than an expression.
fn is_plain_name(text: &str) -> bool {
    text.chars().all(|c| c.is_alphanumeric() || c == '_')
}
