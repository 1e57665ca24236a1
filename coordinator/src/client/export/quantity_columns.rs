//! The quantities of a sweep file as columns: one value per trial in `trials`, and one per sample in `curves`.

use std::collections::BTreeMap;

use arrow_schema::{DataType, Field};
use ergodic_common::escape::escape_line;
use ergodic_common::quantity::{TrialEvaluator, TrialQuantity};
use ergodic_common::{Spec, TrialResult};

/// The quantities of a sweep that have columns, and those that have none.
#[derive(Debug, Clone, Default)]
pub(super) struct QuantityColumns {
    columns: Vec<QuantityColumn>,
    /// Names of the other quantities, with the reasons.
    left_out: Vec<(String, String)>,
}

#[derive(Debug, Clone)]
struct QuantityColumn {
    /// The name of the column.
    name: String,
    /// The text that defines the quantity.
    definition: String,
    quantity: TrialQuantity,
}

impl QuantityColumns {
    /// The columns of all quantities of a sweep file that single trials have. A quantity with the name of a column that is
    /// `taken` gets a longer name. Names that differ in capitals alone are one name, because they are to many readers.
    pub(super) fn from_spec(spec: &Spec, mut taken: Vec<String>) -> Self {
        let mut found = Self::default();
        let section = match &spec.claims {
            Ok(section) => section,
            Err(error) => {
                found
                    .left_out
                    .push(("quantities".to_owned(), error.to_string()));
                return found;
            }
        };
        for named in &section.quantities {
            let quantity = match spec.compile_quantity(&named.name) {
                Ok(quantity) => quantity,
                Err(why) => {
                    found.left_out.push((named.name.clone(), why));
                    continue;
                }
            };

            let lower = named.name.to_lowercase();
            let is_taken = taken.iter().any(|name| name.to_lowercase() == lower);
            let name = match is_taken {
                true => format!("quantity.{}", named.name),
                false => named.name.clone(),
            };
            taken.push(name.clone());
            found.columns.push(QuantityColumn {
                name,
                definition: named.text.clone(),
                quantity,
            });
        }

        found
    }

    /// The names of the columns, with the texts that define the quantities.
    pub(super) fn definitions(&self) -> BTreeMap<String, String> {
        let columns = self.columns.iter();
        columns
            .map(|column| (column.name.clone(), column.definition.clone()))
            .collect()
    }

    /// Says which quantities have no column, and why.
    pub(super) fn describe_left_out(&self) -> Vec<String> {
        let others = self.left_out.iter();
        others
            .map(|(name, why)| escape_line(&format!("no column for {name}: {why}")).into_owned())
            .collect()
    }

    /// The fields in `trials`.
    pub(super) fn trial_fields(&self) -> impl Iterator<Item = Field> {
        self.columns.iter().map(QuantityColumn::to_field)
    }

    /// The fields in `curves`: those of quantities with a value at each sample.
    pub(super) fn curve_fields(&self) -> impl Iterator<Item = Field> {
        self.curve_columns().map(QuantityColumn::to_field)
    }

    /// Number of columns in `curves`.
    pub(super) fn curve_count(&self) -> usize {
        self.curve_columns().count()
    }

    fn curve_columns(&self) -> impl Iterator<Item = &QuantityColumn> {
        let columns = self.columns.iter();
        columns.filter(|column| column.quantity.is_curve())
    }

    /// The values in `trials`, column by column: those at the end of each trial.
    pub(super) fn evaluate_trials<'a>(
        &self,
        spec: &Spec,
        results: impl Iterator<Item = &'a TrialResult> + Clone,
    ) -> Vec<Vec<f64>> {
        let mut columns = Vec::with_capacity(self.columns.len());
        for column in &self.columns {
            let mut evaluator = TrialEvaluator::new(&column.quantity, &spec.grid);
            let results = results.clone();
            columns.push(results.map(|of| evaluator.evaluate_result(of)).collect());
        }

        columns
    }

    /// The values in `curves`, column by column: those at all samples of each trial.
    pub(super) fn evaluate_curves<'a>(
        &self,
        spec: &Spec,
        results: impl Iterator<Item = &'a TrialResult> + Clone,
    ) -> Vec<Vec<f64>> {
        let mut columns = Vec::new();
        for column in self.curve_columns() {
            let mut evaluator = TrialEvaluator::new(&column.quantity, &spec.grid);
            let mut values = Vec::new();
            for result in results.clone() {
                values.extend(evaluator.evaluate_result_curve(result));
            }
            columns.push(values);
        }

        columns
    }
}

impl QuantityColumn {
    fn to_field(&self) -> Field {
        Field::new(&self.name, DataType::Float64, true)
    }
}

#[cfg(test)]
mod tests {
    use ergodic_common::spec::SpecSource;
    use ergodic_common::trial::MetricCurve;
    use ergodic_common::{Outcome, TrialKey};

    use crate::client::export::quantity_columns::*;

    const SWEEP: &str = "name = \"t\"\nrepeats = 4\n[data]\ndataset = \"glyphs\"\ntrain = 100\n[model]\nkind = \"mlp\"\nhidden = [8]\n\
                         [train]\nsteps = 40\nbatch_size = 10\n[grid]\nlr = [0.5, 2.0]\n\
                         [measure]\nevery = \"10 steps\"\nmetrics = [\"train_loss\"]\n\
                         [quantity]\nscaled = \"lr*train_loss\"\nshare = \"train_loss/max(train_loss)\"\ntail = \"at(train_loss, end)\"\n\
                         Steps = \"2*lr\"\nTAIL = \"1/tail\"\nis_low = \"tail < 1\"\n";

    /// A trial with a loss after each ten steps.
    fn trial(cell: u64, repeat: u32, outcome: Outcome, losses: &[f64]) -> TrialResult {
        TrialResult {
            outcome,
            metrics: vec![losses.last().copied().unwrap_or(f64::NAN)],
            curve: MetricCurve {
                steps: (1..=losses.len() as u64).map(|at| 10 * at).collect(),
                values: losses.to_vec(),
            },
            ..TrialResult::completed(TrialKey::new(cell, repeat))
        }
    }

    #[test]
    fn trials_that_end_early_have_the_values_that_one_sample_gives() {
        let source = SpecSource {
            text: SWEEP.to_owned(),
            ..SpecSource::default()
        };
        let spec = Spec::read_new(&source).unwrap_or_else(|e| panic!("{e}"));
        let taken = vec![
            "cell".to_owned(),
            "steps".to_owned(),
            "train_loss".to_owned(),
        ];
        let columns = QuantityColumns::from_spec(&spec, taken);
        let names: Vec<String> = columns
            .trial_fields()
            .map(|field| field.name().clone())
            .collect();
        assert_eq!(
            names,
            ["scaled", "share", "tail", "quantity.Steps", "quantity.TAIL"]
        );
        assert_eq!(columns.curve_count(), 2);
        assert_eq!(columns.describe_left_out().len(), 1);

        let failed = Outcome::Failed {
            cause: "out of luck".to_owned(),
        };
        let results = [
            trial(0, 0, Outcome::Completed, &[4.0, 3.0, 2.0, 1.0]),
            trial(0, 1, Outcome::Diverged { step: 25 }, &[4.0, f64::INFINITY]),
            trial(1, 0, Outcome::Completed, &[4.0, f64::NAN, 2.0, 0.0]),
            trial(1, 1, failed, &[]),
        ];
        let ends = columns.evaluate_trials(&spec, results.iter());
        let [scaled, share, tail, rate, inverse] = &ends[..] else {
            panic!("five columns: {ends:?}");
        };
        let bits = |values: &[f64]| -> Vec<Option<u64>> {
            let defined = values.iter().map(|x| (!x.is_nan()).then(|| x.to_bits()));
            defined.collect()
        };
        for (found, wanted) in [
            (scaled, [0.5, f64::NAN, 0.0, f64::NAN]),
            (tail, [1.0, f64::NAN, 0.0, f64::NAN]),
            (rate, [1.0, f64::NAN, 4.0, f64::NAN]),
            (inverse, [1.0, f64::NAN, f64::INFINITY, f64::NAN]),
        ] {
            assert_eq!(bits(found), bits(&wanted));
        }
        assert_eq!(
            (share[0], share[1].is_nan(), share[3].is_nan()),
            (0.25, true, true)
        );

        let curves = columns.evaluate_curves(&spec, results.iter());
        let wanted = [
            2.0,
            1.5,
            1.0,
            0.5,
            2.0,
            f64::INFINITY,
            8.0,
            f64::NAN,
            4.0,
            0.0,
        ];
        assert_eq!(bits(&curves[0]), bits(&wanted));
        assert_eq!(curves[1][..4], [1.0, 0.75, 0.5, 0.25]);
        assert!(curves[1][4].is_nan() && curves[1][5].is_nan());
        assert_eq!(curves[1].len(), 10);
    }
}
