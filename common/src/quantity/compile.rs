//! Compiles the texts of quantities to the nodes of a program.

use std::collections::BTreeMap;

use crate::expr::{MAX_EXPR_BYTES, WordExpr};
use crate::grid::Grid;
use crate::grid::reserved_names::BUILT_IN_NAMES;
use crate::metric::Metric;
use crate::quantity::call_text::{
    CalledFunction, QuantityCall, call_number, is_window, split_quantity_calls, tidy_text,
};
use crate::quantity::cell_names::{CellName, ComparedName};
use crate::quantity::program::{NodeIndex, QuantityNode, QuantityProgram, Reduction};
use crate::quantity::reduce::{Reducer, ReducerArguments};

/// Maximum nesting of reducers and quantities, each of which takes some of the thread's stack.
const MAX_NESTING: usize = 32;

/// Compiles quantities of a sweep.
pub(super) struct QuantityCompiler<'a> {
    grid: &'a Grid,
    metrics: &'a [Metric],
    /// Texts of the quantities by name.
    quantities: BTreeMap<&'a str, &'a str>,
    program: QuantityProgram,
    named: BTreeMap<String, NodeIndex>,
    /// Names of the quantities that are being compiled.
    open: Vec<String>,
    nesting: usize,
}

impl<'a> QuantityCompiler<'a> {
    pub(super) fn new(
        grid: &'a Grid,
        metrics: &'a [Metric],
        quantities: BTreeMap<&'a str, &'a str>,
    ) -> Self {
        Self {
            grid,
            metrics,
            quantities,
            program: QuantityProgram::default(),
            named: BTreeMap::new(),
            open: Vec::new(),
            nesting: 0,
        }
    }

    pub(super) fn into_program(self) -> QuantityProgram {
        self.program
    }

    pub(super) fn program(&self) -> &QuantityProgram {
        &self.program
    }

    /// Describes the quantities that were used so far, by name, as in `inv = 1/effective_lr`.
    pub(super) fn describe_named_quantities(&self) -> String {
        let used = self.quantities.iter();
        let used = used.filter(|(name, _)| self.named.contains_key(**name));
        let texts: Vec<String> = used
            .map(|(name, text)| format!("{name} = {}", tidy_text(text)))
            .collect();
        texts.join(", ")
    }

    /// Compiles a text that must be one number per trial.
    ///
    /// # Errors
    /// As for [`Self::compile_text`], or the text is a series or a condition.
    pub(super) fn compile_number(&mut self, text: &str) -> Result<NodeIndex, String> {
        let node = self.compile_text(text)?;
        if self.program.is_series(node) {
            return Err(format!(
                "'{text}' has a value at each sample: reduce it to one number per trial, as in mean({text}, last 20 %) or \
                 at({text}, end)"
            ));
        }
        if self.program.is_condition(node) {
            return Err(format!(
                "'{text}' is a condition: expected a number, which form = \"share\" alone does not need"
            ));
        }
        Ok(node)
    }

    /// Compiles a text to a node.
    ///
    /// # Errors
    /// The text is no quantity, or names something unknown; the message says what and what to do.
    pub(super) fn compile_text(&mut self, text: &str) -> Result<NodeIndex, String> {
        if self.nesting == MAX_NESTING {
            return Err(format!("it is nested more than {MAX_NESTING} levels deep"));
        }

        self.nesting += 1;
        let node = self.compile_expression(text);
        self.nesting -= 1;
        node
    }

    fn compile_expression(&mut self, text: &str) -> Result<NodeIndex, String> {
        if text.len() > MAX_EXPR_BYTES {
            return Err(format!(
                "it has {} bytes; at most {MAX_EXPR_BYTES} are possible",
                text.len()
            ));
        }

        let split = split_quantity_calls(text)?;
        let parsed = WordExpr::parse_quantity(&split.expression).map_err(|why| {
            let calls = split.calls.iter().enumerate();
            calls.fold(why, |why, (at, call)| {
                why.replace(
                    &format!("name #{at}"),
                    &format!("call of {}", call.function.name()),
                )
            })
        })?;

        let WordExpr { expr, words } = parsed;
        let names: Vec<String> = expr.names().into_iter().map(str::to_owned).collect();
        let mut inputs = Vec::with_capacity(names.len());
        for name in &names {
            inputs.push(match call_number(name).and_then(|at| split.calls.get(at)) {
                Some(call) => self.compile_call(call)?,
                None if words.is_empty() => self.compile_name(name)?,
                None => self.compile_compared_name(name, &words)?,
            });
        }

        // A name alone stays what it is: a condition, for example.
        let alone = split.expression.trim();
        let alone = alone.trim_start_matches('{').trim_end_matches('}');
        if let ([name], [node]) = (&names[..], &inputs[..])
            && name == alone
        {
            return Ok(*node);
        }

        let is_series = inputs.iter().any(|node| self.program.is_series(*node));
        Ok(self.push_node(QuantityNode::Formula {
            expr,
            inputs,
            is_series,
        }))
    }

    fn push_node(&mut self, node: QuantityNode) -> NodeIndex {
        self.program.nodes.push(node);
        self.program.nodes.len() - 1
    }

    fn compile_name(&mut self, name: &str) -> Result<NodeIndex, String> {
        if let Some(node) = self.named.get(name) {
            return Ok(*node);
        }

        if self.grid.is_of_program()
            && let Some(why) = explain_missing_in_program(name)
        {
            return Err(why.to_owned());
        }
        let built_in = match name {
            "step" => Some(QuantityNode::Step),
            "epoch" => Some(QuantityNode::Epoch),
            "samples" => Some(QuantityNode::ImagesSeen),
            "decay" => Some(QuantityNode::Decay),
            "end" | "final" => Some(QuantityNode::End),
            _ => None,
        };
        let metric = self.metrics.iter().position(|metric| metric.name() == name);
        let node = if let Some(node) = built_in {
            self.push_node(node)
        } else if let Some(column) = metric {
            self.program.metrics.push(column);
            let at = self.program.metrics.len() - 1;
            self.push_node(QuantityNode::Metric(at))
        } else if let Some(text) = self.quantities.get(name).copied() {
            self.compile_quantity(name, text)?
        } else {
            self.compile_cell_name(name)?
        };

        self.named.insert(name.to_owned(), node);
        Ok(node)
    }

    fn compile_quantity(&mut self, name: &str, text: &str) -> Result<NodeIndex, String> {
        if self.open.iter().any(|open| open == name) {
            let circle = self.open.join("', '");
            return Err(format!(
                "the quantities '{circle}' use each other in a circle: one of them must do without the others"
            ));
        }

        self.open.push(name.to_owned());
        let node = self.compile_text(text);
        self.open.pop();
        node.map_err(|why| match why.starts_with("the quantit") {
            true => why,
            false => format!("the quantity '{name}': {why}"),
        })
    }

    /// Compiles a name of an expression with words, which the name of a cell may be compared with.
    fn compile_compared_name(&mut self, name: &str, words: &[String]) -> Result<NodeIndex, String> {
        let is_quantity = BUILT_IN_NAMES.contains(&name)
            || self.quantities.contains_key(name)
            || self.metrics.iter().any(|metric| metric.name() == name);
        match CellName::find(self.grid, name).filter(|_| !is_quantity) {
            Some(found) => Ok(self.push_cell_name(found, words.to_vec())),
            None => self.compile_name(name),
        }
    }

    fn push_cell_name(&mut self, name: CellName, words: Vec<String>) -> NodeIndex {
        self.program.cell_names.push(ComparedName { name, words });
        let at = self.program.cell_names.len() - 1;
        self.push_node(QuantityNode::Cell(at))
    }

    fn compile_cell_name(&mut self, name: &str) -> Result<NodeIndex, String> {
        if let Some(found) = CellName::find(self.grid, name) {
            return Ok(self.push_cell_name(found, Vec::new()));
        }
        let metric = Metric::from_name(name).filter(|_| !self.grid.is_of_program());
        if let Some(metric) = metric {
            let why = metric.explain_undefined_for_targets();
            if let Some(why) = why.filter(|_| self.grid.has_targets()) {
                return Err(why);
            }
            return Err(format!(
                "the sweep does not measure '{name}': add it to measure.metrics, and launch the sweep with it"
            ));
        }

        let metrics: Vec<_> = self.metrics.iter().map(Metric::name).collect();
        let known: Vec<&str> = metrics
            .iter()
            .map(AsRef::as_ref)
            .chain(self.quantities.keys().copied())
            .chain(BUILT_IN_NAMES)
            .collect();
        let hint = CellName::suggest(self.grid, name, &known);
        Err(format!(
            "there is no quantity, metric, axis or field '{name}', {hint}"
        ))
    }

    fn compile_call(&mut self, call: &QuantityCall<'_>) -> Result<NodeIndex, String> {
        let arguments = &call.arguments;
        let node = match call.function {
            CalledFunction::Reducer(reducer) => self.compile_reduction(reducer, arguments),
            CalledFunction::Other => self.compile_other(arguments),
        };
        node.map_err(|why| match why.starts_with("the quantit") {
            true => why,
            false => format!("{}: {why}", call.function.name()),
        })
    }

    /// Compiles the quantity of the reference cell.
    fn compile_other(&mut self, arguments: &[&str]) -> Result<NodeIndex, String> {
        let [text] = arguments else {
            return Err(format!(
                "expected one quantity, as in other(train_loss), found {}",
                arguments.len()
            ));
        };

        let node = self.compile_text(text)?;
        if self.program.uses_other(node) {
            return Err(format!(
                "'{text}' is set against a reference cell itself, which has no reference: write one other(...) around what is its"
            ));
        }
        Ok(self.push_node(QuantityNode::Other(node)))
    }

    fn compile_reduction(
        &mut self,
        reducer: Reducer,
        arguments: &[&str],
    ) -> Result<NodeIndex, String> {
        let example = reducer.example();
        let wrong = || {
            format!(
                "expected arguments as in {example}, found {}",
                arguments.len()
            )
        };
        let (before, window) = match arguments.split_last() {
            Some((last, before)) if is_window(last) => (before, Some(*last)),
            _ => (arguments, None),
        };

        let form = reducer.arguments();
        let expected = if form == ReducerArguments::Window {
            1
        } else {
            2
        };
        let takes_window = !matches!(form, ReducerArguments::Moment | ReducerArguments::Number);
        if before.len() != expected || (window.is_some() && !takes_window) {
            return Err(wrong());
        }

        let of = self.compile_series(reducer, before[0])?;
        let (mut over, mut number) = (None, None);
        match form {
            ReducerArguments::Moment => number = Some(self.compile_moment(before[1])?),
            ReducerArguments::SeriesAndWindow => {
                over = Some(self.compile_series(reducer, before[1])?);
            }
            ReducerArguments::NumberAndWindow | ReducerArguments::Number => {
                number = Some(self.compile_number(before[1])?);
            }
            ReducerArguments::Window => {}
        }
        let (from, to) = match window {
            Some(window) => self.compile_window(window)?,
            None => (None, None),
        };

        Ok(self.push_node(QuantityNode::Reduction(Reduction {
            reducer,
            of,
            over,
            number,
            from,
            to,
        })))
    }

    fn compile_series(&mut self, reducer: Reducer, text: &str) -> Result<NodeIndex, String> {
        let node = self.compile_text(text)?;
        if !self.program.is_series(node) {
            return Err(format!(
                "'{text}' is one number per trial: expected something with a value at each sample, as in {}",
                reducer.example()
            ));
        }

        let is_condition = self.program.is_condition(node);
        if is_condition != reducer.takes_condition() {
            let found = if is_condition {
                "a condition"
            } else {
                "a number"
            };
            return Err(format!(
                "'{text}' is {found}: expected it as in {}",
                reducer.example()
            ));
        }
        Ok(node)
    }

    /// Compiles `a..b`, of which either end may be absent, or `last x`.
    fn compile_window(
        &mut self,
        text: &str,
    ) -> Result<(Option<NodeIndex>, Option<NodeIndex>), String> {
        if let Some(length) = text.trim_start().strip_prefix("last ") {
            let length = self.compile_moment(length)?;
            return Ok((Some(self.push_node(QuantityNode::BeforeEnd(length))), None));
        }

        let (from, to) = text.split_once("..").unwrap_or((text, ""));
        let mut ends = [None, None];
        for (end, text) in ends.iter_mut().zip([from, to]) {
            if !text.trim().is_empty() {
                *end = Some(self.compile_moment(text)?);
            }
        }
        let [from, to] = ends;
        Ok((from, to))
    }

    /// Compiles a moment: `1000`, `1000 steps`, `2 epochs`, `50 %`, or a number per trial, which is a step.
    fn compile_moment(&mut self, text: &str) -> Result<NodeIndex, String> {
        let text = text.trim();
        if let Some(share) = text.strip_suffix('%') {
            let share: Option<f64> = share.trim().parse().ok();
            let share = share.filter(|x| (0.0..=100.0).contains(x));
            let share = share.ok_or_else(|| {
                format!("expected a share of the trial from 0 % to 100 %, found '{text}'")
            })?;
            return Ok(self.push_node(QuantityNode::Share(share)));
        }

        let (number, unit) = text.rsplit_once(' ').unwrap_or((text, ""));
        match (number.trim().parse::<f64>(), unit) {
            (Ok(_), "epoch" | "epochs") if self.grid.is_of_program() => Err(format!(
                "a program has no epochs, found '{text}': name steps as it reports them, or a share such as \"50 %\""
            )),
            (Ok(count), "epoch" | "epochs") => Ok(self.push_node(QuantityNode::Epochs(count))),
            (Ok(_), "step" | "steps") => self.compile_text(number),
            _ => self.compile_number(text),
        }
    }
}

/// Explains that the trials of a program lack something that those of a training have; `None` if they do not.
fn explain_missing_in_program(name: &str) -> Option<&'static str> {
    match name {
        "epoch" => {
            Some("a program has no epochs: use step, or let the program report a metric for them")
        }
        "samples" => {
            Some("a program has no images: use step, or let the program report a metric for them")
        }
        "decay" => Some("a program has no schedule: name the step itself, or a value of the cell"),
        _ => None,
    }
}
