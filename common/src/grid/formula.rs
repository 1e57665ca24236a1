//! Expressions whose names are resolved, and their values in cells.

use super::Grid;
use crate::config::{is_shape_field, numeric_field_range};
use crate::expr::Expr;
use crate::grid::cases::{CASE_AXIS, CaseNumber};
use crate::grid::fields::shown_field;
use crate::grid::inline::NumberSlot;
use crate::spec_file::error::Origin;
use crate::spec_file::reader::NumberRange;

/// A number that an expression computes per cell.
#[derive(Debug, Clone)]
pub(super) struct DerivedField {
    /// The field, the path of the number within one, or the free name of a case.
    pub(super) field: String,
    pub(super) formula: Formula,
    pub(super) owner: FormulaOwner,
    /// Where the number is written; `None` for a free name.
    pub(super) slot: Option<NumberSlot>,
}

/// Whose expression it is: only cells of the owner use it.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum FormulaOwner {
    /// `[derive]`: all cells.
    Derive,
    /// The tables of the file: the cells of all cases but these, which set the field otherwise.
    File { except: Vec<bool> },
    /// A case.
    Case(u64),
    /// A value of an axis.
    AxisValue { axis: usize, index: u64 },
}

impl FormulaOwner {
    fn is_in_use(&self, numbers: &dyn CellNumbers) -> bool {
        match self {
            Self::Derive => true,
            Self::File { except } if except.is_empty() => true,
            Self::File { except } => !except[numbers.digit(CASE_AXIS) as usize],
            Self::Case(case) => numbers.digit(CASE_AXIS) == *case,
            Self::AxisValue { axis, index } => numbers.digit(*axis) == *index,
        }
    }
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
    /// The value of an earlier derived number.
    Derived(usize),
    /// A number of the file.
    Constant(f64),
}

/// The numbers of a cell that expressions use.
pub(super) trait CellNumbers {
    /// The index of an axis' value.
    fn digit(&self, axis: usize) -> u64;
    /// The number of an axis.
    fn axis_number(&self, axis: usize) -> f64;
    /// What a quantity is in the cell's case.
    fn case_number(&self, quantity: usize) -> CaseNumber;
}

impl DerivedField {
    /// Whether the number is a field's, and all cells have it from this expression.
    pub(super) fn is_field_of_all_cells(&self) -> bool {
        let of_all = match &self.owner {
            FormulaOwner::Derive => true,
            FormulaOwner::File { except } => except.is_empty(),
            _ => false,
        };
        of_all && (numeric_field_range(&self.field).is_some() || self.is_program_value())
    }

    /// Whether the number is a value of a program.
    fn is_program_value(&self) -> bool {
        shown_field(&self.field) != self.field
    }

    /// The numbers that the expression may have.
    pub(super) fn range(&self) -> NumberRange {
        let slot = self.slot.as_ref().map(|slot| slot.range);
        slot.or_else(|| numeric_field_range(&self.field))
            .unwrap_or(NumberRange::FINITE)
    }

    /// Whether the number decides the shape class, or when samples are taken.
    pub(super) fn is_shaping(&self) -> bool {
        let field = self.field.split('[').next().unwrap_or_default();
        is_shape_field(field) || field.starts_with("measure.")
    }

    /// Whether a cell uses the number.
    pub(super) fn is_in_use(&self, numbers: &dyn CellNumbers) -> bool {
        self.owner.is_in_use(numbers)
    }
}

impl Formula {
    /// The value of the expression, given the numbers of axes and cases, and the values of earlier derived numbers.
    pub(super) fn eval(&self, numbers: &dyn CellNumbers, derived: &[f64]) -> f64 {
        let value = |input: &FormulaInput| match *input {
            FormulaInput::Axis(at) => numbers.axis_number(at),
            FormulaInput::Case(at) => match numbers.case_number(at) {
                CaseNumber::Number(x) => x,
                CaseNumber::Derived(at) => derived[at],
            },
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

impl Grid {
    pub(super) fn formulas(&self) -> impl Iterator<Item = &Formula> {
        self.derived
            .iter()
            .map(|d| &d.formula)
            .chain(&self.keep_condition)
    }

    /// The values of derived numbers in a cell; NaN where the cell does not use one.
    pub(super) fn derived_values(&self, numbers: &dyn CellNumbers) -> Vec<f64> {
        let mut values = Vec::with_capacity(self.derived.len());
        for derived in &self.derived {
            let value = match derived.is_in_use(numbers) {
                true => derived.formula.eval(numbers, &values),
                false => f64::NAN,
            };
            values.push(value);
        }
        values
    }

    /// Marks the axes that an expression depends on.
    pub(super) fn mark_inputs(&self, formula: &Formula, shaping: &mut [bool]) {
        for input in &formula.inputs {
            match input {
                FormulaInput::Axis(at) => shaping[*at] = true,
                FormulaInput::Case(at) => {
                    shaping[CASE_AXIS] = true;
                    let numbers = self.cases.iter().flat_map(|cases| cases.numbers(*at));
                    numbers.for_each(|number| self.mark_case_number(number, shaping));
                }
                FormulaInput::Derived(at) => self.mark_inputs(&self.derived[*at].formula, shaping),
                FormulaInput::Constant(_) => {}
            }
        }
    }

    fn mark_case_number(&self, number: CaseNumber, shaping: &mut [bool]) {
        if let CaseNumber::Derived(at) = number {
            self.mark_inputs(&self.derived[at].formula, shaping);
        }
    }
}
