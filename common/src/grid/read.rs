//! Reads `[grid]`, `[derive]` and `[where]`.

use std::collections::HashMap;

use super::{DerivedField, Formula, FormulaInput, Grid, GridFactor};
use crate::config::{NUMERIC_FIELDS, SHORT_NAMES, is_shape_field, numeric_field_range};
use crate::expr::Expr;
use crate::grid::axis::{Axis, MAX_POINTS};
use crate::metric::Metric;
use crate::spec_file::error::Origin;
use crate::spec_file::error::SpecError;
use crate::spec_file::grammar::{GRAMMAR, ReadingMode};
use crate::spec_file::node::{SpecNode, SpecTable, SpecValue};
use crate::spec_file::reader::quote_value;
use crate::spec_file::suggest::suggest_nearest;

/// Columns that stand beside the axes in tables; metrics do so too. No axis of a new sweep may have such a name.
const RESERVED_COLUMNS: [&str; 23] = [
    "n",
    "diverged",
    "failed",
    "mean",
    "std",
    "ci95_low",
    "ci95_high",
    "min",
    "median",
    "max",
    "cell",
    "repeat",
    "outcome",
    "steps",
    "step",
    "seconds",
    "worker",
    "isa",
    "image",
    "label",
    "class",
    "numerics",
    "digest",
];

/// Maximum number of axes of a new sweep, so that a request can name all of them.
pub const MAX_AXES: usize = 64;
/// Maximum number of shape classes of a sweep.
const MAX_CLASSES: u64 = 100_000;

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
            .iter()
            .map(|name| self.resolve_input(name))
            .collect::<Result<_, _>>()
            .map_err(error)?;
        Ok(Formula {
            expr,
            inputs,
            origin: node.origin.clone(),
        })
    }

    /// Resolves a name in an expression: an axis, an earlier derived field, or a number of the sweep file.
    fn resolve_input(&self, name: &str) -> Result<FormulaInput, String> {
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
        if let Some(at) = self.derived.iter().position(|d| d.field == path) {
            return Ok(FormulaInput::Derived(at));
        }

        if let Some(x) = self
            .base
            .get_at_path(path)
            .and_then(|node| node.value.as_f64())
        {
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

    /// Puts the factors that decide the shape class first, including those that derived shape fields depend on.
    pub(super) fn order_by_shape(&mut self) -> Result<(), SpecError> {
        let mut shaping: Vec<bool> = self
            .axes
            .iter()
            .map(|a| a.field.as_deref().is_some_and(is_shape_field))
            .collect();

        for derived in self.derived.iter().filter(|d| is_shape_field(&d.field)) {
            self.mark_inputs(&derived.formula, &mut shaping);
        }

        let (first, rest): (Vec<usize>, Vec<usize>) = (0..self.factors.len())
            .partition(|factor| self.factors[*factor].axes.iter().any(|axis| shaping[*axis]));
        self.classes = first.iter().map(|f| self.factors[*f].len).product();
        self.factor_order = first.into_iter().chain(rest).collect();

        if self.classes > MAX_CLASSES {
            let message = format!(
                "the axes make {} shape classes (architecture, batch size, number of steps); at most {MAX_CLASSES} are possible",
                self.classes
            );
            return Err(SpecError::new(Origin::Default, "grid", message));
        }

        Ok(())
    }

    pub(super) fn mark_inputs(&self, formula: &Formula, shaping: &mut [bool]) {
        for input in &formula.inputs {
            match input {
                FormulaInput::Axis(at) => shaping[*at] = true,
                FormulaInput::Derived(at) => self.mark_inputs(&self.derived[*at].formula, shaping),
                FormulaInput::Constant(_) => {}
            }
        }
    }
}

static EMPTY_SECTION: SpecTable = SpecTable(Vec::new());

pub(super) fn section_table<'a>(
    document: &'a SpecTable,
    key: &str,
) -> Result<&'a SpecTable, SpecError> {
    match document.get(key) {
        None => Ok(&EMPTY_SECTION),
        Some(SpecNode {
            value: SpecValue::Table(table),
            ..
        }) => Ok(table),
        Some(node) => Err(SpecError::new(
            node.origin.clone(),
            key,
            format!("expected [{key}], a table"),
        )),
    }
}

/// The field that an axis or derived name stands for; `None` for a free name.
pub(crate) fn resolve_field_name(name: &str) -> Option<String> {
    match SHORT_NAMES.iter().find(|(short, _)| *short == name) {
        Some((_, path)) => Some((*path).to_owned()),
        None => name.contains('.').then(|| name.to_owned()),
    }
}

pub(super) fn read_axes(
    grid: &SpecTable,
    sweep_seed: u64,
    reading: ReadingMode,
) -> Result<Vec<Axis>, SpecError> {
    let mut axes: Vec<Axis> = Vec::new();
    let entries = flatten_entries(grid);
    if entries.len() > MAX_AXES {
        let message = format!(
            "{} axes are too many; at most {MAX_AXES} are possible",
            entries.len()
        );
        reading.refuse_if_new(|| SpecError::new(Origin::Default, "grid", message))?;
    }

    for (name, node) in entries {
        let field = resolve_field_name(&name);
        if let Some(field) = &field
            && !["data.", "model.", "train."]
                .iter()
                .any(|section| field.starts_with(section))
        {
            let message = "only fields of data, model and train can be axes";
            return Err(SpecError::new(
                node.origin.clone(),
                format!("grid.{name}"),
                message,
            ));
        }

        if let Some(other) = axes.iter().find(|a| field.is_some() && a.field == field) {
            let message = format!(
                "the axis {} sets the same field: keep one of the two",
                other.name
            );
            return Err(SpecError::new(
                node.origin.clone(),
                format!("grid.{name}"),
                message,
            ));
        }

        // A later version has more columns and metrics: an axis of a stored sweep keeps its name.
        if field.is_none() && is_column_name(&name) {
            reading.refuse_if_new(|| {
                let message =
                    format!("'{name}' is a column of every table: give the axis another name");
                SpecError::new(node.origin.clone(), format!("grid.{name}"), message)
            })?;
        }

        axes.push(Axis::from_node(&name, field, node, (sweep_seed, reading))?);
    }

    Ok(axes)
}

/// Whether tables have a column of this name beside those of axes.
fn is_column_name(name: &str) -> bool {
    RESERVED_COLUMNS.contains(&name) || Metric::from_name(name).is_some()
}

/// The entries of `[grid]` except `zip`. An unquoted `model.width = …` is the dotted path that it looks like.
fn flatten_entries(grid: &SpecTable) -> Vec<(String, &SpecNode)> {
    fn flatten_into<'a>(prefix: &str, table: &'a SpecTable, out: &mut Vec<(String, &'a SpecNode)>) {
        for (key, node) in &table.0 {
            let name = if prefix.is_empty() {
                key.clone()
            } else {
                format!("{prefix}.{key}")
            };

            match &node.value {
                SpecValue::Table(inner)
                    if matches!(name.split('.').next(), Some("data" | "model" | "train"))
                        && !inner.0.iter().any(|(k, _)| is_axis_form(k)) =>
                {
                    flatten_into(&name, inner, out);
                }
                _ => out.push((name, node)),
            }
        }
    }

    let mut out = Vec::new();
    flatten_into("", grid, &mut out);
    out.retain(|(name, _)| name != "zip");
    out
}

/// The name of the axis of `[grid]` that sets a field.
pub(crate) fn find_axis_for_field(grid: &SpecTable, field: &str) -> Option<String> {
    flatten_entries(grid)
        .into_iter()
        .map(|(name, _)| name)
        .find(|name| resolve_field_name(name).as_deref() == Some(field))
}

/// Whether a key belongs to a table that generates the values of an axis.
pub(crate) fn is_axis_form(key: &str) -> bool {
    matches!(
        key,
        "values" | "linear" | "log" | "uniform" | "log_uniform" | "points" | "samples"
    )
}

/// Joins zipped axes, and random ones of equal length, into one factor each.
pub(super) fn read_factors(grid: &SpecTable, axes: &[Axis]) -> Result<Vec<GridFactor>, SpecError> {
    let mut together: Vec<Vec<usize>> = Vec::new();
    if let Some(zip) = grid.get("zip") {
        let form = "expected lists of axis names, like [[\"lr\", \"wd\"]]";
        let SpecValue::List(sets) = &zip.value else {
            return Err(zip_error(zip, form));
        };
        for set in sets {
            let SpecValue::List(names) = &set.value else {
                return Err(zip_error(zip, form));
            };
            together.push(read_zip(names, axes, zip)?);
        }
    }

    let mut random: HashMap<u64, Vec<usize>> = HashMap::new();
    for (at, axis) in axes.iter().enumerate() {
        if axis.is_random() && !together.iter().flatten().any(|a| *a == at) {
            random.entry(axis.len()).or_default().push(at);
        }
    }

    together.extend(random.into_values());
    let mut factors: Vec<GridFactor> = Vec::new();

    for (at, axis) in axes.iter().enumerate() {
        let mates = together
            .iter()
            .find(|set| set.contains(&at))
            .cloned()
            .unwrap_or_else(|| vec![at]);
        if mates.iter().min() == Some(&at) {
            factors.push(GridFactor {
                axes: mates,
                len: axis.len(),
            });
        }
    }

    Ok(factors)
}

fn read_zip(names: &[SpecNode], axes: &[Axis], zip: &SpecNode) -> Result<Vec<usize>, SpecError> {
    let mut set = Vec::new();

    for name in names {
        let text = name.value.to_string();
        let found = axes.iter().position(|a| a.name == text);
        let at = found.ok_or_else(|| {
            let hint = suggest_nearest(&text, axes.iter().map(|a| a.name.as_str()));
            zip_error(zip, &format!("there is no axis '{text}', {hint}"))
        })?;
        if set.contains(&at) {
            return Err(zip_error(zip, &format!("the axis {text} is listed twice")));
        }

        set.push(at);
    }

    if let Some(other) = set.iter().find(|a| axes[**a].len() != axes[set[0]].len()) {
        let a = &axes[set[0]];
        let b = &axes[*other];
        let message = format!(
            "zipped axes need equally many values, but {} has {} and {} has {}",
            a.name,
            a.len(),
            b.name,
            b.len()
        );
        return Err(zip_error(zip, &message));
    }

    Ok(set)
}

fn zip_error(zip: &SpecNode, message: &str) -> SpecError {
    SpecError::new(zip.origin.clone(), "grid.zip", message)
}

pub(super) fn checked_product(factors: &[GridFactor]) -> Result<u64, SpecError> {
    let product = factors
        .iter()
        .try_fold(1_u64, |p, f| p.checked_mul(f.len))
        .filter(|p| *p <= MAX_POINTS);
    product.ok_or_else(|| {
        let cells: f64 = factors.iter().map(|f| f.len as f64).product();
        let message = format!(
            "the axes make {cells:e} cells; at most {MAX_POINTS} are possible: use fewer values"
        );
        SpecError::new(Origin::Default, "grid", message)
    })
}
