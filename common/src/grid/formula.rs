//! The expressions of `[derive]` and `[where]`: names resolved once, values computed per cell.

use super::Grid;
use crate::config::{NUMERIC_FIELDS, SHORT_NAMES, numeric_field_range};
use crate::expr::Expr;
use crate::grid::axis::Axis;
use crate::grid::cases::CASE_AXIS;
use crate::grid::fields::resolve_field_name;
use crate::spec_file::error::{Origin, SpecError};
use crate::spec_file::grammar::GRAMMAR;
use crate::spec_file::node::{SpecNode, SpecTable};
use crate::spec_file::reader::quote_value;
use crate::spec_file::suggest::suggest_nearest;

/// A field that `[derive]` computes per cell.
#[derive(Debug, Clone)]
pub(super) struct DerivedField {
    pub(super) field: String,
    pub(super) formula: Formula,
}

/// An expression whose names are resolved.
#[derive(Debug, Clone)]
pub(super) struct Formula {
    pub(super) expr: Expr,
    pub(super) inputs: Vec<FormulaInput>,
    pub(super) origin: Origin,
}

/// What a name in an expression stands for.
#[derive(Debug, Clone, Copy)]
pub(super) enum FormulaInput {
    /// The number of an axis.
    Axis(usize),
    /// A number that each case has.
    Case(usize),
    /// The value of an earlier derived field.
    Derived(usize),
    /// A number of the file.
    Constant(f64),
}

impl Grid {
    pub(super) fn read_derived(&mut self, table: &SpecTable) -> Result<(), SpecError> {
        for (name, node) in &table.0 {
            let path = format!("derive.{name}");
            let field = resolve_field_name(name).unwrap_or_else(|| name.clone());
            if numeric_field_range(&field).is_none() {
                let known = NUMERIC_FIELDS
                    .iter()
                    .map(|(f, _)| *f)
                    .chain(SHORT_NAMES.iter().map(|(s, _)| *s));
                let message = format!(
                    "'{name}' is not a numeric field of a trial, {}",
                    suggest_nearest(name, known)
                );

                return Err(SpecError::new(node.origin.clone(), path, message));
            }

            if self
                .axes
                .iter()
                .any(|axis| axis.field.as_ref() == Some(&field))
            {
                let message = format!("{field} is an axis of [grid] as well: keep one of the two");
                return Err(SpecError::new(node.origin.clone(), path, message));
            }

            let owner = self
                .cases
                .as_ref()
                .and_then(|cases| cases.describe_owner(&field));
            if let Some(owner) = owner {
                let message = format!("{owner} sets the same field: keep one of the two");
                return Err(SpecError::new(node.origin.clone(), path, message));
            }

            if self.derived.iter().any(|d| d.field == field) {
                let message = format!("{field} is derived twice: keep one of the two");
                return Err(SpecError::new(node.origin.clone(), path, message));
            }

            let formula = self.read_formula(&path, node)?;
            self.derived.push(DerivedField { field, formula });
        }

        Ok(())
    }

    pub(super) fn read_where(&mut self, table: &SpecTable) -> Result<(), SpecError> {
        for (name, node) in &table.0 {
            let path = format!("where.{name}");
            if name != "keep" {
                return Err(SpecError::new(
                    node.origin.clone(),
                    path,
                    format!("unknown key '{name}', {}", suggest_nearest(name, ["keep"])),
                ));
            }

            let formula = self.read_formula(&path, node)?;
            if !formula.expr.is_condition() {
                let message = "expected a condition such as \"lr * wd <= 1e-3\", found a number that nothing is compared with";
                return Err(SpecError::new(node.origin.clone(), path, message));
            }

            self.keep_condition = Some(formula);
        }

        Ok(())
    }

    fn read_formula(&mut self, path: &str, node: &SpecNode) -> Result<Formula, SpecError> {
        let error = |message: String| SpecError::new(node.origin.clone(), path, message);
        let Some(text) = node.value.as_str() else {
            return Err(error(format!(
                "expected an expression like \"intrinsic_lr / lr\", found {}",
                quote_value(&node.value)
            )));
        };
        let parse = |grammar| {
            Expr::parse(text, grammar).map_err(|e| {
                let shown: String = text.chars().take(200).collect();
                error(format!("cannot read \"{shown}\": {e}"))
            })
        };

        // Older grammars exist for stored sweeps alone, so a new file is read in today's grammar even if an older
        // program sent it.
        let expr = parse(if self.reading_mode.is_new {
            GRAMMAR
        } else {
            self.reading_mode.grammar
        })?;

        // The sender's program would read this expression in another way, so its user would have checked one sweep
        // and run another.
        if expr.min_grammar() > self.reading_mode.grammar {
            let message = format!(
                "since version {} of the grammar this means something else",
                expr.min_grammar()
            );
            return Err(error(
                message + ": use an ergodic of the coordinator's version",
            ));
        }

        self.min_grammar = self.min_grammar.max(expr.min_grammar());
        let inputs = expr
            .names()
            .into_iter()
            .map(|name| self.resolve_input(name))
            .collect::<Result<_, _>>()
            .map_err(error)?;
        Ok(Formula {
            expr,
            inputs,
            origin: node.origin.clone(),
        })
    }

    /// Resolves a name in an expression: an axis, an earlier derived field, or a number of a case or of the sweep file.
    fn resolve_input(&mut self, name: &str) -> Result<FormulaInput, String> {
        let field = resolve_field_name(name);
        let means = |axis: &Axis| axis.name == name || (field.is_some() && axis.field == field);
        if let Some(at) = self.axes.iter().position(means) {
            let axis = &self.axes[at];
            return match (0..axis.len().min(1000)).find(|i| axis.number_at(*i).is_none()) {
                None => Ok(FormulaInput::Axis(at)),
                Some(i) => Err(format!(
                    "the axis {name} has values that are not numbers, such as {}",
                    axis.value_at(i)
                )),
            };
        }

        let path = field.as_deref().unwrap_or(name);
        let base = self
            .base
            .get_at_path(path)
            .and_then(|node| node.value.as_f64());
        if let Some(cases) = &mut self.cases
            && let Some(at) = cases.find_quantity(name, base)?
        {
            return Ok(FormulaInput::Case(at));
        }

        if let Some(at) = self.derived.iter().position(|d| d.field == path) {
            return Ok(FormulaInput::Derived(at));
        }

        if let Some(x) = base {
            return Ok(FormulaInput::Constant(x));
        }

        if numeric_field_range(path).is_some() {
            return Err(format!(
                "{name} has no value in the sweep file: set {path}, or make it an axis of [grid]"
            ));
        }

        Err(format!(
            "nothing is called {name}, {}",
            suggest_nearest(name, self.names_with_numbers())
        ))
    }

    pub(super) fn formulas(&self) -> impl Iterator<Item = &Formula> {
        self.derived
            .iter()
            .map(|d| &d.formula)
            .chain(&self.keep_condition)
    }

    pub(super) fn mark_inputs(&self, formula: &Formula, shaping: &mut [bool]) {
        for input in &formula.inputs {
            match input {
                FormulaInput::Axis(at) => shaping[*at] = true,
                FormulaInput::Case(_) => shaping[CASE_AXIS] = true,
                FormulaInput::Derived(at) => self.mark_inputs(&self.derived[*at].formula, shaping),
                FormulaInput::Constant(_) => {}
            }
        }
    }
}

/// The numbers of a cell that expressions use.
pub(super) trait CellNumbers {
    /// The number of an axis.
    fn axis_number(&self, axis: usize) -> f64;
    /// The number of a quantity of the cell's case.
    fn case_number(&self, quantity: usize) -> f64;
}

impl Formula {
    /// The value of the expression, given the numbers of axes and cases, and the values of earlier derived fields.
    pub(super) fn eval(&self, numbers: &dyn CellNumbers, derived: &[f64]) -> f64 {
        let value = |input: &FormulaInput| match *input {
            FormulaInput::Axis(at) => numbers.axis_number(at),
            FormulaInput::Case(at) => numbers.case_number(at),
            FormulaInput::Derived(at) => derived[at],
            FormulaInput::Constant(x) => x,
        };

        let mut values = [0.0; 16];
        match self.inputs.len() {
            n if n <= values.len() => {
                values
                    .iter_mut()
                    .zip(&self.inputs)
                    .for_each(|(v, input)| *v = value(input));
                self.expr.eval(&values[..n])
            }
            _ => self
                .expr
                .eval(&self.inputs.iter().map(value).collect::<Vec<_>>()),
        }
    }
}
