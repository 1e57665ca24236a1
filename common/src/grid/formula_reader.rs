//! Reads the expressions of a sweep file, each once, in the order in which they need each other.

use super::Grid;
use crate::config::{NUMERIC_FIELDS, SHORT_NAMES, numeric_field_range};
use crate::expr::Expr;
use crate::grid::axis::AxisValues;
use crate::grid::cases::{CASE, CaseNumber};
use crate::grid::fields::{do_axes_overlap, is_part_of_field, shown_field};
use crate::grid::formula::{DerivedField, Formula, FormulaInput, FormulaOwner};
use crate::grid::inline::{FoundExpression, NumberSlot, find_expressions};
use crate::grid::read::flatten_fields;
use crate::grid::reserved_names::explain_wrong_derived;
use crate::spec_file::error::{Origin, SpecError};
use crate::spec_file::grammar::{EXPRESSIONS_GRAMMAR, GRAMMAR};
use crate::spec_file::node::{SpecNode, SpecTable, SpecValue};
use crate::spec_file::reader::quote_value;
use crate::spec_file::suggest::suggest_nearest;

/// Reads expressions into a grid whose axes and cases are read.
struct FormulaReader<'a> {
    grid: &'a mut Grid,
    pending: Vec<PendingFormula>,
    /// Index of each read expression among the derived numbers.
    read: Vec<Option<usize>>,
    /// The expressions that are being read, each of which needs the next.
    open: Vec<usize>,
}

/// An expression to be read.
#[derive(Clone)]
struct PendingFormula {
    /// The field or free name that it is the number of.
    field: String,
    owner: FormulaOwner,
    slot: Option<NumberSlot>,
    text: ExpressionText,
}

/// An expression as written.
#[derive(Clone)]
struct ExpressionText {
    path: String,
    text: String,
    origin: Origin,
}

impl ExpressionText {
    fn error(&self, message: impl Into<String>) -> SpecError {
        SpecError::new(self.origin.clone(), self.path.clone(), message)
    }
}

impl Grid {
    /// Reads `[derive]`, `[where]`, and the expressions in the place of numbers.
    ///
    /// # Errors
    /// An expression cannot be read, or needs itself.
    pub(super) fn read_formulas(
        &mut self,
        derive: &SpecTable,
        condition: &SpecTable,
    ) -> Result<(), SpecError> {
        let mut reader = FormulaReader {
            grid: self,
            pending: Vec::new(),
            read: Vec::new(),
            open: Vec::new(),
        };
        reader.add_derived(derive)?;
        if reader.grid.reading_mode.grammar >= EXPRESSIONS_GRAMMAR {
            reader.add_inline();
        }

        for at in 0..reader.pending.len() {
            reader.read_pending(at)?;
        }
        reader.read_where(condition)
    }
}

impl FormulaReader<'_> {
    fn add_derived(&mut self, table: &SpecTable) -> Result<(), SpecError> {
        for (name, node) in flatten_fields(table) {
            let path = format!("derive.{name}");
            let field = self
                .grid
                .resolve_name(&name)
                .unwrap_or_else(|| name.clone());
            self.check_derived_field(&name, &field)
                .map_err(|message| SpecError::new(node.origin.clone(), path.clone(), message))?;
            self.add(PendingFormula {
                field,
                owner: FormulaOwner::Derive,
                slot: None,
                text: expression_text(path, node)?,
            });
        }

        Ok(())
    }

    fn add(&mut self, formula: PendingFormula) {
        self.pending.push(formula);
        self.read.push(None);
    }

    fn check_derived_field(&self, name: &str, field: &str) -> Result<(), String> {
        let is_value = self.grid.is_of_program() && !self.grid.is_data_of_experiment(name);
        if is_value
            && let Some(message) = explain_wrong_derived(name, self.grid.reading_mode.is_new)
        {
            return Err(message);
        }
        if !is_value && numeric_field_range(field).is_none() {
            let known = NUMERIC_FIELDS
                .iter()
                .map(|(f, _)| *f)
                .chain(SHORT_NAMES.iter().map(|(s, _)| *s));
            return Err(format!(
                "'{name}' is not a numeric field of a trial, {}",
                suggest_nearest(name, known)
            ));
        }

        let mut axes = self.grid.axes.iter().flat_map(|axis| &axis.field);
        if let Some(axis) = axes.find(|axis| do_axes_overlap(Some(axis), Some(field))) {
            let field = shown_field(axis);
            return Err(format!(
                "{field} is an axis of [grid] as well: keep one of the two"
            ));
        }
        if let Some(owner) = self.grid.describe_case_owner(field) {
            return Err(format!("{owner} sets the same field: keep one of the two"));
        }
        if self.pending.iter().any(|other| other.field == field) {
            let field = shown_field(field);
            return Err(format!("{field} is derived twice: keep one of the two"));
        }

        Ok(())
    }

    /// Adds the expressions in the place of numbers: of the file, of cases, and of values of axes.
    fn add_inline(&mut self) {
        let sections = self.grid.base.0.clone();
        for (section, node) in &sections {
            for found in find_expressions(section, node) {
                if let Some(owner) = self.owner_in_file(&found.path) {
                    let path = found.path.clone();
                    self.add_found(found, owner, path);
                }
            }
        }

        self.add_inline_of_cases();
        let axes = self.grid.axes.clone();
        for (axis, definition) in axes.iter().enumerate() {
            let (Some(field), AxisValues::Listed(items)) = (&definition.field, &definition.values)
            else {
                continue;
            };
            for (index, item) in items.iter().enumerate() {
                // A word on an axis is a value of its own.
                if item.value.as_str().is_some() {
                    continue;
                }
                for found in find_expressions(field, item) {
                    let index = index as u64;
                    let owner = FormulaOwner::AxisValue { axis, index };
                    self.add_found(found, owner, format!("grid.{}", definition.name));
                }
            }
        }
    }

    /// The owner of an expression at a path of the file; `None` if every cell has another value there.
    fn owner_in_file(&self, path: &str) -> Option<FormulaOwner> {
        let mut axes = self.grid.axes.iter().filter_map(|axis| axis.field.as_ref());
        let is_derived = self.pending.iter().any(|other| {
            other.owner == FormulaOwner::Derive && is_part_of_field(path, &other.field)
        });
        if is_derived || axes.any(|field| is_part_of_field(path, field)) {
            return None;
        }

        let except: Vec<bool> = self
            .grid
            .cases
            .iter()
            .flat_map(|c| c.cases_setting(path))
            .collect();
        let is_unused = !except.is_empty() && except.iter().all(|set| *set);
        (!is_unused).then_some(FormulaOwner::File { except })
    }

    fn add_inline_of_cases(&mut self) {
        let Some(cases) = self.grid.cases.clone() else {
            return;
        };
        for (case, label, setting) in cases.numbered_settings() {
            let owner = FormulaOwner::Case(case);
            let path = format!("{CASE}.{label}.{}", setting.name);
            match (&setting.field, &setting.node.value) {
                (Some(field), _) => {
                    for found in find_expressions(field, &setting.node) {
                        let path = format!("{path}{}", &found.path[field.len()..]);
                        self.add_found(found, owner.clone(), path);
                    }
                }
                (None, SpecValue::Str(text)) => self.add(PendingFormula {
                    field: setting.name.clone(),
                    owner,
                    slot: None,
                    text: ExpressionText {
                        path,
                        text: text.clone(),
                        origin: setting.node.origin.clone(),
                    },
                }),
                _ => {}
            }
        }
    }

    fn add_found(&mut self, found: FoundExpression, owner: FormulaOwner, path: String) {
        self.grid.min_grammar = self.grid.min_grammar.max(EXPRESSIONS_GRAMMAR);
        self.add(PendingFormula {
            field: found.path,
            owner,
            slot: Some(found.slot),
            text: ExpressionText {
                path,
                text: found.text,
                origin: found.origin,
            },
        });
    }

    /// Reads an expression after those that it needs; returns its index among the derived numbers.
    fn read_pending(&mut self, at: usize) -> Result<usize, SpecError> {
        if let Some(index) = self.read[at] {
            return Ok(index);
        }
        if let Some(begin) = self.open.iter().position(|open| *open == at) {
            return Err(self.circle_error(begin));
        }

        self.open.push(at);
        let PendingFormula {
            field,
            owner,
            slot,
            text,
        } = self.pending[at].clone();
        let formula = self.read_formula(&text, Some(at))?;
        self.open.pop();
        self.grid.derived.push(DerivedField {
            field,
            formula,
            owner,
            slot,
        });
        let index = self.grid.derived.len() - 1;
        self.read[at] = Some(index);
        Ok(index)
    }

    /// The error of expressions that need each other in a circle, which begins at this open one.
    fn circle_error(&self, begin: usize) -> SpecError {
        let circle = &self.open[begin..];
        let names: Vec<&str> = circle
            .iter()
            .chain(circle.first())
            .map(|at| shown_field(&self.pending[*at].field))
            .collect();
        let first = &self.pending[circle[0]];
        first.text.error(format!(
            "this definition goes in a circle, {}: let one of them be a number",
            names.join(" → ")
        ))
    }

    fn read_where(&mut self, table: &SpecTable) -> Result<(), SpecError> {
        for (name, node) in &table.0 {
            let path = format!("where.{name}");
            if name != "keep" {
                let message = format!("unknown key '{name}', {}", suggest_nearest(name, ["keep"]));
                return Err(SpecError::new(node.origin.clone(), path, message));
            }

            let text = expression_text(path, node)?;
            let formula = self.read_formula(&text, None)?;
            if !formula.expr.is_condition() {
                return Err(text.error(
                    "expected a condition such as \"lr * wd <= 1e-3\", found a number that nothing is compared with",
                ));
            }

            self.grid.keep_condition = Some(formula);
        }

        Ok(())
    }

    fn read_formula(
        &mut self,
        text: &ExpressionText,
        at: Option<usize>,
    ) -> Result<Formula, SpecError> {
        let parse = |grammar| {
            Expr::parse(&text.text, grammar).map_err(|e| {
                let shown: String = text.text.chars().take(200).collect();
                text.error(format!("cannot read \"{shown}\": {e}"))
            })
        };

        // Older grammars exist for stored sweeps alone, so a new file is read in today's grammar even if an older
        // program sent it.
        let reading = self.grid.reading_mode;
        let expr = parse(if reading.is_new {
            GRAMMAR
        } else {
            reading.grammar
        })?;

        // The sender's program would read this expression in another way, so its user would have checked one sweep
        // and run another.
        if expr.min_grammar() > reading.grammar {
            let message = format!(
                "since version {} of the grammar this means something else",
                expr.min_grammar()
            );
            return Err(text.error(message + ": use an ergodic of the coordinator's version"));
        }

        self.grid.min_grammar = self.grid.min_grammar.max(expr.min_grammar());
        let inputs = expr
            .names()
            .into_iter()
            .map(|name| self.resolve_input(name, text, at))
            .collect::<Result<_, _>>()?;
        Ok(Formula {
            expr,
            inputs,
            origin: text.origin.clone(),
        })
    }

    /// Resolves a name in an expression: an axis, a number of cases, a derived field, or a number of the sweep file.
    fn resolve_input(
        &mut self,
        name: &str,
        text: &ExpressionText,
        at: Option<usize>,
    ) -> Result<FormulaInput, SpecError> {
        let field = self.grid.resolve_name(name);
        let mut axes = self.grid.axes.iter();
        if let Some(at) =
            axes.position(|axis| axis.name == name || (field.is_some() && axis.field == field))
        {
            let axis = &self.grid.axes[at];
            return match (0..axis.len().min(1000)).find(|i| axis.number_at(*i).is_none()) {
                None => Ok(FormulaInput::Axis(at)),
                Some(i) => Err(text.error(format!(
                    "the axis {name} has values that are not numbers, such as {}",
                    axis.value_at(i)
                ))),
            };
        }

        let path = field.as_deref().unwrap_or(name);
        if let Some(quantity) = self.find_quantity(name, path, text)? {
            return Ok(FormulaInput::Case(quantity));
        }
        self.resolve_number(path, at)?
            .ok_or_else(|| text.error(self.explain_unknown_name(name, path)))
    }

    /// Resolves a field that is derived, or has a number or an expression in the file. An expression of `[derive]` prefers
    /// the number of the file to a field that is derived below it.
    fn resolve_number(
        &mut self,
        path: &str,
        at: Option<usize>,
    ) -> Result<Option<FormulaInput>, SpecError> {
        let derived = self.find_pending(path, |owner| *owner == FormulaOwner::Derive);
        let user = at.filter(|at| self.pending[*at].owner == FormulaOwner::Derive);
        let is_below = derived.is_some_and(|derived| user.is_some_and(|user| derived >= user));
        if let Some(number) = self
            .file_number(path)
            .filter(|_| is_below || derived.is_none())
        {
            return Ok(Some(FormulaInput::Constant(number)));
        }
        if is_below {
            if self.grid.reading_mode.grammar < EXPRESSIONS_GRAMMAR {
                return Ok(None);
            }
            self.grid.min_grammar = self.grid.min_grammar.max(EXPRESSIONS_GRAMMAR);
        }

        let found =
            derived.or_else(|| self.find_pending(path, |o| matches!(o, FormulaOwner::File { .. })));
        match found {
            Some(found) => Ok(Some(FormulaInput::Derived(self.read_pending(found)?))),
            None => Ok(None),
        }
    }

    fn file_number(&self, path: &str) -> Option<f64> {
        self.grid.base.get_at_path(path)?.value.as_f64()
    }

    fn find_pending(&self, field: &str, is_owner: impl Fn(&FormulaOwner) -> bool) -> Option<usize> {
        self.pending
            .iter()
            .position(|formula| formula.field == field && is_owner(&formula.owner))
    }

    fn explain_unknown_name(&self, name: &str, path: &str) -> String {
        if numeric_field_range(path).is_some() {
            return format!(
                "{name} has no value in the sweep file: set {path}, or make it an axis of [grid]"
            );
        }

        format!(
            "nothing is called {name}, {}",
            suggest_nearest(name, self.grid.names_with_numbers())
        )
    }

    /// The quantity of cases that a name means; `None` if no case sets it.
    fn find_quantity(
        &mut self,
        name: &str,
        path: &str,
        text: &ExpressionText,
    ) -> Result<Option<usize>, SpecError> {
        let Some(settings) = self.grid.cases.as_ref().and_then(|c| c.settings_of(path)) else {
            return Ok(None);
        };
        if let Some(known) = self.grid.cases.as_ref().and_then(|c| c.find_quantity(path)) {
            return Ok(Some(known));
        }

        let mut numbers = Vec::new();
        for (case, (label, node)) in settings.into_iter().enumerate() {
            let owner = FormulaOwner::Case(case as u64);
            let number = match &node {
                Some(node) => match (
                    node.value.as_f64(),
                    self.find_pending(path, |o| *o == owner),
                ) {
                    (Some(x), _) => Some(CaseNumber::Number(x)),
                    (None, Some(pending)) => Some(CaseNumber::Derived(self.read_pending(pending)?)),
                    (None, None) => None,
                },
                None => match self.resolve_number(path, None)? {
                    Some(FormulaInput::Constant(x)) => Some(CaseNumber::Number(x)),
                    Some(FormulaInput::Derived(at)) => Some(CaseNumber::Derived(at)),
                    _ => None,
                },
            };
            numbers.push(number.ok_or_else(|| {
                text.error(match &node {
                    Some(node) => format!(
                        "{name} is no number in the case {label}, but {}",
                        quote_value(&node.value)
                    ),
                    None => {
                        let path = shown_field(path);
                        format!("{name} has no value in the case {label}: set {path} there as well")
                    }
                })
            })?);
        }

        let cases = self.grid.cases.as_mut();
        Ok(cases.map(|cases| cases.add_quantity(path, numbers)))
    }
}

fn expression_text(path: String, node: &SpecNode) -> Result<ExpressionText, SpecError> {
    let origin = node.origin.clone();
    match node.value.as_str() {
        Some(text) => Ok(ExpressionText {
            path,
            text: text.to_owned(),
            origin,
        }),
        None => {
            let message = format!(
                "expected an expression like \"intrinsic_lr / lr\", found {}",
                quote_value(&node.value)
            );
            Err(SpecError::new(origin, path, message))
        }
    }
}
