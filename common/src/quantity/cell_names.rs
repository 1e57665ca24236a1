//! What quantities and claims may name of a cell: its axes, derived values and fields.

use crate::config::{NUMERIC_FIELDS, OTHER_FIELDS, SHORT_NAMES, TrialConfig};
use crate::expr::{WordExpr, value_number};
use crate::grid::cases::CASE;
use crate::grid::{Grid, shown_field};
use crate::ids::CellIndex;
use crate::program::{DATA, ProgramValue, is_data_field};
use crate::spec_file::node::SpecValue;
use crate::spec_file::suggest::suggest_nearest;

/// Something of a cell that has a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum CellName {
    /// The value of an axis.
    Axis(usize),
    /// A field that `[derive]` computes.
    Derived(String),
    /// A field of the resolved config, by its full path.
    Field(&'static str),
    /// A name that every case has a number of, and that is no field.
    FreeName(String),
    /// A value of a program that a case sets.
    Value(String),
}

/// A name of a cell, and the words of the expression in which it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ComparedName {
    pub(super) name: CellName,
    pub(super) words: Vec<String>,
}

impl CellName {
    /// Finds what a name stands for: an axis, a derived value, or a field, by its full path, its short name, or the part of
    /// the path after the last point if one field alone ends so.
    pub(super) fn find(grid: &Grid, name: &str) -> Option<Self> {
        let axes = grid.axes();
        if let Some(at) = axes.iter().position(|axis| axis.name == name) {
            return Some(Self::Axis(at));
        }
        if grid.has_derived_field(name) {
            return Some(Self::Derived(name.to_owned()));
        }

        if grid.is_of_program() {
            return Self::find_value_or_data(grid, name);
        }
        if grid.has_free_name(name) {
            return Some(Self::FreeName(name.to_owned()));
        }

        let path = find_field(name);
        let of_field = |axis: &crate::grid::axis::Axis| {
            axis.field.as_deref() == path || axis.name.ends_with(&format!(".{name}"))
        };
        let axis = axes
            .iter()
            .position(|axis| path.is_some() && of_field(axis));
        axis.map(Self::Axis).or(path.map(Self::Field))
    }

    /// Finds a value of a program, or a field of an experiment's data.
    fn find_value_or_data(grid: &Grid, name: &str) -> Option<Self> {
        if is_data_field(name) {
            let mut fields = all_fields().filter(|_| grid.has_setting_in(DATA));
            return fields.find(|path| *path == name).map(Self::Field);
        }
        let mut values = grid.case_fields().map(shown_field);
        let is_value = values.any(|value| value == name);
        is_value.then(|| Self::Value(name.to_owned()))
    }

    /// The axis whose values decide the value of the name.
    fn find_axis(&self, grid: &Grid) -> Option<usize> {
        let is_of_case = match self {
            Self::Axis(at) => return Some(*at),
            Self::FreeName(_) | Self::Value(_) => true,
            Self::Field(path) => grid.case_fields().any(|field| field == *path),
            Self::Derived(_) => false,
        };
        let mut axes = grid.axes().iter();
        axes.position(|axis| axis.name == CASE)
            .filter(|_| is_of_case)
    }

    /// Suggests names for one that is unknown.
    pub(super) fn suggest(grid: &Grid, name: &str, further: &[&str]) -> String {
        let axes = grid.axes().iter().map(|axis| axis.name.as_str());
        let further = further.iter().copied();
        if grid.is_of_program() {
            let values = grid.derived_value_names();
            let of_cases = grid.case_fields().map(shown_field);
            return suggest_nearest(name, axes.chain(values).chain(of_cases).chain(further));
        }
        let short = SHORT_NAMES.iter().map(|(short, _)| *short);
        let known: Vec<&str> = axes
            .chain(further)
            .chain(short)
            .chain(["steps", "epochs"])
            .collect();
        suggest_nearest(name, known)
    }
}

/// The paths of all fields.
fn all_fields() -> impl Iterator<Item = &'static str> {
    let numeric = NUMERIC_FIELDS.iter().map(|(field, _)| *field);
    numeric.chain(OTHER_FIELDS)
}

/// The path of the field that a name stands for.
fn find_field(name: &str) -> Option<&'static str> {
    if let Some((_, path)) = SHORT_NAMES.iter().find(|(short, _)| *short == name) {
        return Some(path);
    }
    if let Some(path) = all_fields().find(|path| *path == name) {
        return Some(path);
    }

    let suffix = format!(".{name}");
    let mut ending = all_fields().filter(|path| path.ends_with(&suffix));
    let first = ending.next()?;
    ending.next().is_none().then_some(first)
}

/// The values of a cell's names.
pub(super) struct CellValues<'a> {
    grid: &'a Grid,
    cell: CellIndex,
    indices: Vec<u64>,
    /// The resolved config, if a name needed it.
    config: std::cell::OnceCell<Option<TrialConfig>>,
}

impl<'a> CellValues<'a> {
    pub(super) fn new(grid: &'a Grid, cell: CellIndex) -> Self {
        Self {
            grid,
            cell,
            indices: grid.value_indices(cell),
            config: std::cell::OnceCell::new(),
        }
    }

    /// The value of a name; `None` if the cell has none, such as the momentum of an optimizer without one.
    pub(super) fn value(&self, name: &CellName) -> Option<SpecValue> {
        match name {
            CellName::Axis(at) => Some(self.grid.axes()[*at].value_at(self.indices[*at])),
            CellName::Derived(name) => {
                let values = self.grid.derived_values_in(self.cell);
                let found = values.into_iter().find(|(field, _)| field == name);
                found.map(|(_, x)| SpecValue::Float(x))
            }
            CellName::Field(path) => self.field_value(path),
            CellName::Value(name) => self.program_value(name),
            CellName::FreeName(name) => {
                let number = self.grid.free_number_in(self.cell, name);
                number.map(SpecValue::Float)
            }
        }
    }

    /// The value of a name as a number; NaN if it is none, and no word of its expression is compared with it.
    pub(super) fn number(&self, name: &ComparedName) -> f64 {
        let value = self.value(&name.name);
        value.map_or(f64::NAN, |value| value_number(&name.words, &value))
    }

    fn config(&self) -> Option<&TrialConfig> {
        let config = self
            .config
            .get_or_init(|| self.grid.resolve_config(self.cell).ok());
        config.as_ref()
    }

    fn program_value(&self, name: &str) -> Option<SpecValue> {
        let value = self.config()?.model.kind.program()?.find_value(name)?;
        Some(match value {
            ProgramValue::Number(x) => SpecValue::Float(*x),
            ProgramValue::Text(text) => SpecValue::Str(text.clone()),
            ProgramValue::Bool(value) => SpecValue::Bool(*value),
        })
    }

    fn field_value(&self, path: &str) -> Option<SpecValue> {
        let config = self.config()?;
        if path == "train.epochs" {
            let epochs = config.total_steps() as f64 / config.steps_per_epoch() as f64;
            return Some(SpecValue::Float(epochs));
        }

        let selection = config.results_start.as_ref().map(|start| &start.selection);
        match path {
            "model.init.results.trials" => return Some(SpecValue::Int(selection?.trials.into())),
            "model.init.results.block" => return Some(SpecValue::Int(selection?.block.into())),
            _ => {}
        }

        // The identity of every cell has these two, but only SGD uses them.
        let is_of_sgd = matches!(
            path,
            "train.optimizer.momentum" | "train.optimizer.nesterov"
        );
        if is_of_sgd && config.train.adam.is_some() {
            return None;
        }

        let fields = config.identity_fields();
        match fields.iter().find(|(field, _)| *field == path) {
            Some((_, text)) => Some(parse_value(text)),
            // A field appears in the identity only where it differs from its default.
            None => default_value(path),
        }
    }
}

/// The default of a field that has one, and that is no part of the identity where it has it.
fn default_value(path: &str) -> Option<SpecValue> {
    match path {
        "data.validation" | "data.label_noise" | "train.sam.rho" => Some(SpecValue::Int(0)),
        "train.optimizer.kind" => Some(SpecValue::Str("sgd".into())),
        _ => None,
    }
}

fn parse_value(text: &str) -> SpecValue {
    match (text, text.parse()) {
        ("true", _) => SpecValue::Bool(true),
        ("false", _) => SpecValue::Bool(false),
        (_, Ok(number)) => SpecValue::Float(number),
        _ => SpecValue::Str(text.to_owned()),
    }
}

/// Finds the cells that meet a condition; all cells without one.
///
/// # Errors
/// The text is no condition, or names something unknown; the message says what.
pub fn find_cells_meeting(grid: &Grid, condition: Option<&str>) -> Result<Vec<CellIndex>, String> {
    let condition = condition
        .map(|text| NamedCondition::parse(grid, text))
        .transpose()?;
    let cells = grid.iter().filter(|cell| {
        let values = CellValues::new(grid, *cell);
        condition
            .as_ref()
            .is_none_or(|condition| condition.is_met_by(&values))
    });
    Ok(cells.collect())
}

/// A condition on the names of a cell, such as `norm == "batch" && intrinsic_lr*steps >= 4`.
#[derive(Debug, Clone)]
pub(super) struct NamedCondition {
    parsed: WordExpr,
    names: Vec<Option<CellName>>,
    constants: Vec<f64>,
}

impl NamedCondition {
    /// Reads a condition.
    ///
    /// # Errors
    /// The text is no condition, or names something unknown; the message says what.
    pub(super) fn parse(grid: &Grid, text: &str) -> Result<Self, String> {
        let parsed = WordExpr::parse(text).map_err(|why| {
            format!("expected a condition such as \"lr <= 0.1\", found '{text}': {why}")
        })?;
        let mut names = Vec::new();
        let mut constants = Vec::new();
        for name in parsed.expr.names() {
            let found = CellName::find(grid, name);
            let constant = match name {
                "true" => 1.0,
                "false" => 0.0,
                _ if found.is_some() => 0.0,
                _ => {
                    let hint = CellName::suggest(grid, name, &[]);
                    return Err(format!("cells have no axis or field '{name}', {hint}"));
                }
            };
            names.push(found);
            constants.push(constant);
        }

        Ok(Self {
            parsed,
            names,
            constants,
        })
    }

    pub(super) fn is_met_by(&self, cell: &CellValues<'_>) -> bool {
        let names = self.names.iter().zip(&self.constants);
        let values: Vec<f64> = names
            .map(|(name, constant)| match name {
                None => *constant,
                Some(name) => cell
                    .value(name)
                    .map_or(f64::NAN, |value| self.parsed.value_number(&value)),
            })
            .collect();
        self.parsed.is_met(&values)
    }

    /// The axes that the condition names: of what cases set, the axis of cases.
    pub(super) fn axes(&self, grid: &Grid) -> Vec<usize> {
        let names = self.names.iter().flatten();
        let mut axes: Vec<usize> = names.filter_map(|name| name.find_axis(grid)).collect();
        axes.sort_unstable();
        axes.dedup();
        axes
    }
}
