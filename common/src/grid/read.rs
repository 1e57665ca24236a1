//! Reads `[grid]`, and orders its factors.

use std::collections::HashMap;

use super::{Grid, GridFactor};
use crate::config::is_shape_field;
use crate::grid::axis::{Axis, MAX_POINTS};
use crate::grid::cases::{CASE, CASE_AXIS};
use crate::grid::fields::{
    NameKind, do_axes_overlap, do_tables_overlap, explain_wrong_name, resolve_field_name,
};
use crate::grid::formula::FormulaOwner;
use crate::grid::reserved_names::explain_reserved_axis;
use crate::spec_file::error::Origin;
use crate::spec_file::error::SpecError;
use crate::spec_file::grammar::ReadingMode;
use crate::spec_file::node::{SpecNode, SpecTable, SpecValue};
use crate::spec_file::suggest::suggest_nearest;

/// Maximum number of axes of a new sweep, so that a request can name all of them.
pub const MAX_AXES: usize = 64;
/// Maximum number of shape classes of a sweep.
const MAX_CLASSES: u64 = 100_000;

impl Grid {
    /// Puts the factors that decide the shape class first, including those that derived shape fields depend on.
    pub(super) fn order_by_shape(&mut self) -> Result<(), SpecError> {
        let mut shaping: Vec<bool> = self
            .axes
            .iter()
            .map(|a| a.field.as_deref().is_some_and(is_shape_field))
            .collect();
        if self.case_fields().any(is_shape_field) {
            shaping[CASE_AXIS] = true;
        }

        for derived in self.derived.iter().filter(|d| d.is_shaping()) {
            self.mark_inputs(&derived.formula, &mut shaping);
            match &derived.owner {
                FormulaOwner::Case(_) => shaping[CASE_AXIS] = true,
                FormulaOwner::AxisValue { axis, .. } => shaping[*axis] = true,
                FormulaOwner::Derive | FormulaOwner::File { .. } => {}
            }
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

pub(super) fn read_axes(
    grid: &SpecTable,
    sweep_seed: u64,
    (reading, base): (ReadingMode, &SpecTable),
) -> Result<Vec<Axis>, SpecError> {
    let names = NameKind::of_document(base);
    let mut axes: Vec<Axis> = Vec::new();
    let entries = flatten_axes(grid);
    if entries.len() > MAX_AXES {
        let message = format!(
            "{} axes are too many; at most {MAX_AXES} are possible",
            entries.len()
        );
        reading.refuse_if_new(|| SpecError::new(Origin::Default, "grid", message))?;
    }

    for (name, node) in entries {
        let field = names.resolve_in(base, &name);
        if names == NameKind::Values {
            check_value_name(base, &name, node)?;
        }
        if let Some(field) = &field
            && names == NameKind::Fields
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

        check_field_is_free(&axes, &name, field.as_deref(), node)?;
        check_table_is_free(&axes, &name, (field.as_deref(), node), reading)?;

        // A later version has more columns and metrics: an axis of a stored sweep keeps its name.
        if (field.is_none() || names == NameKind::Values)
            && let Some(message) = explain_taken_name(&name)
        {
            reading.refuse_if_new(|| {
                SpecError::new(node.origin.clone(), format!("grid.{name}"), message)
            })?;
        }

        axes.push(Axis::from_node(&name, field, node, (sweep_seed, reading))?);
    }

    Ok(axes)
}

/// Checks that no earlier axis sets the same field.
fn check_field_is_free(
    axes: &[Axis],
    name: &str,
    field: Option<&str>,
    node: &SpecNode,
) -> Result<(), SpecError> {
    let mut axes = axes.iter();
    let Some(other) = axes.find(|axis| do_axes_overlap(axis.field.as_deref(), field)) else {
        return Ok(());
    };
    let message = format!(
        "the axis {} sets the same field: keep one of the two",
        other.name
    );
    let path = format!("grid.{name}");
    Err(SpecError::new(node.origin.clone(), path, message))
}

/// Checks that no earlier axis of a new sweep sets a part of the same table, or the table that the field is part of.
fn check_table_is_free(
    axes: &[Axis],
    name: &str,
    (field, node): (Option<&str>, &SpecNode),
    reading: ReadingMode,
) -> Result<(), SpecError> {
    let mut axes = axes.iter();
    let Some(other) = axes.find(|axis| do_tables_overlap(axis.field.as_deref(), field)) else {
        return Ok(());
    };
    let message = format!(
        "the axis {} sets part of the same table: keep one of the two",
        other.name
    );
    let path = format!("grid.{name}");
    reading.refuse_if_new(|| SpecError::new(node.origin.clone(), path, message))
}

/// Checks the name of an axis that is a value of a program.
fn check_value_name(base: &SpecTable, name: &str, node: &SpecNode) -> Result<(), SpecError> {
    match explain_wrong_name(base, name) {
        Some(message) => {
            let path = format!("grid.{name}");
            Err(SpecError::new(node.origin.clone(), path, message))
        }
        None => Ok(()),
    }
}

/// Explains why an axis of a new sweep cannot have a name that is no field; `None` if it can.
fn explain_taken_name(name: &str) -> Option<String> {
    if name == CASE {
        return Some("[case] makes an axis of this name: give this one another name".to_owned());
    }
    explain_reserved_axis(name)
}

/// The entries of `[grid]` except `zip`.
pub(crate) fn flatten_axes(grid: &SpecTable) -> Vec<(String, &SpecNode)> {
    let mut axes = flatten_fields(grid);
    axes.retain(|(name, _)| name != "zip");
    axes
}

/// The entries of `[grid]` or `[derive]`. An unquoted `model.width = …` is the dotted path that it looks like.
pub(super) fn flatten_fields(table: &SpecTable) -> Vec<(String, &SpecNode)> {
    let mut out = Vec::new();
    flatten_into("", table, &mut out);
    out
}

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

/// The name of the axis of `[grid]` that sets a field.
pub(crate) fn find_axis_for_field(grid: &SpecTable, field: &str) -> Option<String> {
    flatten_axes(grid)
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

/// Whether `model.hidden` is a table of a width and a depth, in the file or on an axis.
pub(super) fn has_table_of_widths(base: &SpecTable, axes: &[Axis]) -> bool {
    base.get_at_path("model.hidden").is_some_and(is_table)
        || axes.iter().any(|axis| match axis.field.as_deref() {
            Some("model.hidden") => (0..axis.len()).any(|at| is_table(&axis.node_at(at))),
            Some(field) => field.starts_with("model.hidden."),
            None => false,
        })
}

fn is_table(node: &SpecNode) -> bool {
    matches!(node.value, SpecValue::Table(_))
}
