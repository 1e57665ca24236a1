//! The grid as a lazily indexed product.
//!
//! A cell's *number* counts the full product of the axes, the first axis slowest, whether `[where]` keeps it or not; its
//! values are arithmetic on that number. For scheduling, cells have a second order, *positions*, in which the axes that
//! decide the shape class are outermost, so that each class is one contiguous range. With `[where]`, one bit per
//! position says whether the cell is kept, and a rank index turns counts into positions. Trials are never stored.

use std::collections::HashMap;

use crate::axis::{Axis, MAX_POINTS};
use crate::config::{NUMERIC_FIELDS, SHORT_NAMES, TrialConfig, decides_shape, range_of};
use crate::error::{SpecError, nearest};
use crate::expr::Expr;
use crate::reader::quoted;
use crate::tree::{Node, Place, Table, Value};
use crate::trial::TrialKey;

/// Most shape classes of a sweep.
const MAX_CLASSES: u64 = 100_000;

/// All cells of a sweep.
#[derive(Debug, Clone)]
pub struct Grid {
    base: Table,
    axes: Vec<Axis>,
    factors: Vec<Factor>,
    derived: Vec<Derived>,
    keep: Option<Formula>,
    /// Factor numbers, those deciding the shape first: the digits of a position.
    order: Vec<usize>,
    product: u64,
    classes: u64,
    kept: Option<Kept>,
}

/// A factor of the product: one axis, or several that move together.
#[derive(Debug, Clone)]
struct Factor {
    axes: Vec<usize>,
    len: u64,
}

/// A field computed per cell.
#[derive(Debug, Clone)]
struct Derived {
    field: String,
    formula: Formula,
}

#[derive(Debug, Clone)]
struct Formula {
    expr: Expr,
    inputs: Vec<Input>,
    place: Place,
}

#[derive(Debug, Clone, Copy)]
enum Input {
    Axis(usize),
    Derived(usize),
    Constant(f64),
}

impl Grid {
    /// Reads `[grid]`, `[derive]` and `[where]` of a document and checks every cell they can make.
    ///
    /// # Errors
    /// Anything that would make a cell, or two equal ones, that cannot be run.
    pub fn read(document: &Table, sweep_seed: u64) -> Result<Self, SpecError> {
        let mut base = Table::default();
        for key in ["data", "model", "train"] {
            if let Some(node) = document.get(key) {
                base.0.push((key.to_owned(), node.clone()));
            }
        }
        let grid = section(document, "grid")?;
        let axes = read_axes(grid, sweep_seed)?;
        let factors = read_factors(grid, &axes)?;
        let product = product_of(&factors)?;
        let mut this = Self {
            base,
            order: (0..factors.len()).collect(),
            axes,
            factors,
            derived: Vec::new(),
            keep: None,
            product,
            classes: 1,
            kept: None,
        };
        this.read_derived(section(document, "derive")?)?;
        this.read_where(section(document, "where")?)?;
        this.check_names_used()?;
        this.order_by_shape()?;
        let witnesses = this.pass_over_cells()?;
        this.check_values(&witnesses)?;
        this.check_classes()?;
        Ok(this)
    }

    /// The axes in the order of the file.
    pub fn axes(&self) -> &[Axis] {
        &self.axes
    }

    /// Cells that are kept.
    pub fn cells(&self) -> u64 {
        self.kept.as_ref().map_or(self.product, |kept| kept.count)
    }

    /// Numbers a cell can have: those of kept cells are below this.
    pub fn numbers(&self) -> u64 {
        self.product
    }

    /// Whether `cell` is the number of a kept cell.
    pub fn holds(&self, cell: u64) -> bool {
        cell < self.product && self.kept.as_ref().is_none_or(|kept| kept.get(self.position(cell)))
    }

    /// Shape classes, some of which `[where]` may have emptied.
    pub fn classes(&self) -> u32 {
        self.classes as u32
    }

    /// Cells kept in a class.
    pub fn class_cells(&self, class: u32) -> u64 {
        let (from, to) = self.class_range(class);
        self.kept.as_ref().map_or(to - from, |kept| kept.rank(to) - kept.rank(from))
    }

    /// The `k`-th cell kept in a class, `k` < [`class_cells`](Self::class_cells).
    pub fn class_cell(&self, class: u32, k: u64) -> u64 {
        let (from, _) = self.class_range(class);
        let position = self.kept.as_ref().map_or(from + k, |kept| kept.select(kept.rank(from) + k));
        self.cell_at(position)
    }

    /// The `n`-th trial of a class: repeats are outermost, so that every prefix is balanced over cells.
    pub fn class_trial(&self, class: u32, n: u64) -> TrialKey {
        let cells = self.class_cells(class);
        TrialKey { cell: self.class_cell(class, n % cells), repeat: (n / cells) as u32 }
    }

    /// Where a trial stands: its class, and its number in it.
    pub fn locate(&self, key: TrialKey) -> (u32, u64) {
        let position = self.position(key.cell);
        let class = (position / self.class_len()) as u32;
        let (from, _) = self.class_range(class);
        let k = self.kept.as_ref().map_or(position - from, |kept| kept.rank(position) - kept.rank(from));
        (class, u64::from(key.repeat) * self.class_cells(class) + k)
    }

    /// All kept cells in the order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        (0..self.product).filter(|cell| self.kept.is_none() || self.holds(*cell))
    }

    /// The value of each axis in a cell.
    pub fn values(&self, cell: u64) -> Vec<Value> {
        let digits = self.digits(cell);
        self.axis_digits(&digits).map(|(axis, digit)| axis.value(digit)).collect()
    }

    /// Index of each axis' value in a cell.
    pub fn value_indices(&self, cell: u64) -> Vec<u64> {
        let digits = self.digits(cell);
        self.axis_digits(&digits).map(|(_, digit)| digit).collect()
    }

    /// Fields computed by `[derive]`, with their values in a cell.
    pub fn derived(&self, cell: u64) -> Vec<(&str, f64)> {
        let digits = self.digits(cell);
        let values = self.derived_values(&|axis| self.axis_number(axis, &digits));
        self.derived.iter().map(|d| d.field.as_str()).zip(values).collect()
    }

    /// What a cell resolves to.
    ///
    /// # Errors
    /// None for a kept cell of a grid that was read; the check itself is made with this.
    pub fn config(&self, cell: u64) -> Result<TrialConfig, SpecError> {
        let digits = self.digits(cell);
        let mut tree = self.base.clone();
        let mut put = |path: &str, node: Node| {
            let place = node.place.clone();
            tree.set(path, node).map_err(|at| SpecError::new(place, path, format!("'{at}' is not a table")))
        };
        for (axis, digit) in self.axis_digits(&digits) {
            if let Some(field) = &axis.field {
                put(field, axis.node(digit))?;
            }
        }
        let values = self.derived_values(&|axis| self.axis_number(axis, &digits));
        for (derived, value) in self.derived.iter().zip(values) {
            put(&derived.field, Node { value: Value::Float(value), place: derived.formula.place.clone() })?;
        }
        TrialConfig::read(&tree)
    }

    // --- numbers, digits, positions ---

    fn digits(&self, cell: u64) -> Vec<u64> {
        let mut rest = cell;
        let mut digits = vec![0; self.factors.len()];
        for (digit, factor) in digits.iter_mut().zip(&self.factors).rev() {
            *digit = rest % factor.len;
            rest /= factor.len;
        }
        digits
    }

    fn number(&self, digits: &[u64]) -> u64 {
        self.factors.iter().zip(digits).fold(0, |n, (factor, digit)| n * factor.len + digit)
    }

    fn position(&self, cell: u64) -> u64 {
        let digits = self.digits(cell);
        self.order.iter().fold(0, |p, f| p * self.factors[*f].len + digits[*f])
    }

    fn cell_at(&self, position: u64) -> u64 {
        let mut rest = position;
        let mut digits = vec![0; self.factors.len()];
        for f in self.order.iter().rev() {
            digits[*f] = rest % self.factors[*f].len;
            rest /= self.factors[*f].len;
        }
        self.number(&digits)
    }

    fn class_len(&self) -> u64 {
        self.product / self.classes
    }

    fn class_range(&self, class: u32) -> (u64, u64) {
        let len = self.class_len();
        (u64::from(class) * len, (u64::from(class) + 1) * len)
    }

    fn axis_digits<'a>(&'a self, digits: &'a [u64]) -> impl Iterator<Item = (&'a Axis, u64)> {
        self.axes.iter().enumerate().map(move |(at, axis)| (axis, digits[self.factor_of(at)]))
    }

    fn factor_of(&self, axis: usize) -> usize {
        self.factors.iter().position(|f| f.axes.contains(&axis)).expect("every axis belongs to a factor")
    }

    fn axis_number(&self, axis: usize, digits: &[u64]) -> f64 {
        self.axes[axis].number(digits[self.factor_of(axis)]).unwrap_or(f64::NAN)
    }

    fn derived_values(&self, axis: &dyn Fn(usize) -> f64) -> Vec<f64> {
        let mut values = Vec::with_capacity(self.derived.len());
        for derived in &self.derived {
            let value = derived.formula.eval(axis, &values);
            values.push(value);
        }
        values
    }

    // --- reading ---

    fn read_derived(&mut self, table: &Table) -> Result<(), SpecError> {
        for (name, node) in &table.0 {
            let path = format!("derive.{name}");
            let field = field_of(name).unwrap_or_else(|| name.clone());
            if range_of(&field).is_none() {
                let known = NUMERIC_FIELDS.iter().map(|(f, _)| *f).chain(SHORT_NAMES.iter().map(|(s, _)| *s));
                let message = format!("'{name}' is no numeric field of a trial, {}", nearest(name, known));
                return Err(SpecError::new(node.place.clone(), path, message));
            }
            if self.axes.iter().any(|axis| axis.field.as_ref() == Some(&field)) {
                let message = format!("{field} is an axis of [grid] as well: keep one of the two");
                return Err(SpecError::new(node.place.clone(), path, message));
            }
            if self.derived.iter().any(|d| d.field == field) {
                let message = format!("{field} is derived twice: keep one of the two");
                return Err(SpecError::new(node.place.clone(), path, message));
            }
            let formula = self.read_formula(&path, node)?;
            self.derived.push(Derived { field, formula });
        }
        Ok(())
    }

    fn read_where(&mut self, table: &Table) -> Result<(), SpecError> {
        for (name, node) in &table.0 {
            let path = format!("where.{name}");
            if name != "keep" {
                return Err(SpecError::new(node.place.clone(), path, format!("unknown key '{name}', did you mean 'keep'?")));
            }
            self.keep = Some(self.read_formula(&path, node)?);
        }
        Ok(())
    }

    fn read_formula(&self, path: &str, node: &Node) -> Result<Formula, SpecError> {
        let error = |message: String| SpecError::new(node.place.clone(), path, message);
        let Some(text) = node.value.as_str() else {
            return Err(error(format!("expected an expression like \"intrinsic_lr / lr\", found {}", quoted(&node.value))));
        };
        let expr = Expr::parse(text).map_err(|e| error(format!("cannot read \"{text}\": {e}")))?;
        let inputs = expr.names().iter().map(|name| self.input(name)).collect::<Result<_, _>>().map_err(error)?;
        Ok(Formula { expr, inputs, place: node.place.clone() })
    }

    /// What a name in an expression stands for: an axis, an earlier derived field, or a number of the sweep file.
    fn input(&self, name: &str) -> Result<Input, String> {
        let field = field_of(name);
        let means = |axis: &Axis| axis.name == name || (field.is_some() && axis.field == field);
        if let Some(at) = self.axes.iter().position(means) {
            let axis = &self.axes[at];
            return match (0..axis.len().min(1000)).find(|i| axis.number(*i).is_none()) {
                None => Ok(Input::Axis(at)),
                Some(i) => Err(format!("the axis {name} has values that are no numbers, such as {}", axis.value(i))),
            };
        }
        let path = field.as_deref().unwrap_or(name);
        if let Some(at) = self.derived.iter().position(|d| d.field == path) {
            return Ok(Input::Derived(at));
        }
        if let Some(x) = self.base.at(path).and_then(|node| node.value.as_f64()) {
            return Ok(Input::Constant(x));
        }
        let known = self.axes.iter().map(|a| a.name.as_str());
        Err(format!("nothing is called {name}, {}", nearest(name, known)))
    }

    fn formulas(&self) -> impl Iterator<Item = &Formula> {
        self.derived.iter().map(|d| &d.formula).chain(&self.keep)
    }

    fn check_names_used(&self) -> Result<(), SpecError> {
        for (at, axis) in self.axes.iter().enumerate() {
            let used = self.formulas().any(|f| f.inputs.iter().any(|i| matches!(i, Input::Axis(a) if *a == at)));
            if axis.field.is_none() && !used {
                let suffix = format!(".{}", axis.name);
                let fields = NUMERIC_FIELDS.iter().map(|(f, _)| *f);
                let hint = match fields.clone().find(|f| f.ends_with(&suffix)) {
                    Some(field) => format!("did you mean '{field}'?"),
                    None => nearest(&axis.name, SHORT_NAMES.iter().map(|(s, _)| *s).chain(fields)),
                };
                let message = format!(
                    "'{}' is no field of a trial, and no expression in [derive] or [where] uses it; {hint}",
                    axis.name
                );
                return Err(SpecError::new(axis.place.clone(), format!("grid.{}", axis.name), message));
            }
        }
        Ok(())
    }

    /// Puts the factors that decide the shape class first, counting in what derived shape fields depend on.
    fn order_by_shape(&mut self) -> Result<(), SpecError> {
        let mut shaping: Vec<bool> =
            self.axes.iter().map(|a| a.field.as_deref().is_some_and(decides_shape)).collect();
        for derived in self.derived.iter().filter(|d| decides_shape(&d.field)) {
            self.mark_inputs(&derived.formula, &mut shaping);
        }
        let shapes = |f: &usize| self.factors[*f].axes.iter().any(|a| shaping[*a]);
        let (first, rest): (Vec<usize>, Vec<usize>) = (0..self.factors.len()).partition(shapes);
        self.classes = first.iter().map(|f| self.factors[*f].len).product();
        self.order = first.into_iter().chain(rest).collect();
        if self.classes > MAX_CLASSES {
            let message = format!(
                "the axes make {} shape classes (architecture, batch size, number of steps); at most {MAX_CLASSES} are possible",
                self.classes
            );
            return Err(SpecError::new(Place::Default, "grid", message));
        }
        Ok(())
    }

    fn mark_inputs(&self, formula: &Formula, shaping: &mut [bool]) {
        for input in &formula.inputs {
            match input {
                Input::Axis(at) => shaping[*at] = true,
                Input::Derived(at) => self.mark_inputs(&self.derived[*at].formula, shaping),
                Input::Constant(_) => {}
            }
        }
    }

    // --- checking ---

    /// The one pass over the cells: evaluates `[where]` and `[derive]`, and looks for cells that are equal.
    ///
    /// Returns, for each value of each factor, a kept cell that has it.
    fn pass_over_cells(&mut self) -> Result<Witnesses, SpecError> {
        let mut witnesses = Witnesses::default();
        if self.keep.is_none() && self.derived.is_empty() {
            return Ok(witnesses);
        }
        let numbers = self.numbers_used();
        let free = self.axes.iter().any(|a| a.field.is_none());
        let mut kept = self.keep.is_some().then(|| Kept::new(self.product));
        let mut prints: Vec<(u64, u32)> = Vec::new();
        let mut digits = vec![0_u64; self.factors.len()];
        let homes: Vec<usize> = (0..self.axes.len()).map(|a| self.factor_of(a)).collect();
        let ranges: Vec<_> = self.derived.iter().map(|d| range_of(&d.field)).collect();
        witnesses.0 = self.factors.iter().map(|f| vec![None; f.len as usize]).collect();
        for position in 0..self.product {
            let axis = |a: usize| numbers[a][digits[homes[a]] as usize];
            let derived = self.derived_values(&axis);
            let holds = match &self.keep {
                None => true,
                Some(keep) => {
                    let value = keep.eval(&axis, &derived);
                    if value.is_nan() {
                        return Err(self.cell_error(&keep.place, "where.keep", &digits, "the expression has no value"));
                    }
                    value != 0.0
                }
            };
            if holds {
                for ((d, x), range) in self.derived.iter().zip(&derived).zip(&ranges) {
                    if let Some(range) = range.filter(|r| !r.holds(*x)) {
                        let message = format!("expected {}, found {x}", range.describe());
                        return Err(self.cell_error(&d.formula.place, &d.field, &digits, &message));
                    }
                }
                if let Some(kept) = &mut kept {
                    kept.set(position);
                }
                witnesses.note(&digits, self.number(&digits));
                if free {
                    prints.push((self.fingerprint(&digits, &homes, &derived), position as u32));
                }
            }
            self.advance(&mut digits);
        }
        if let Some(kept) = &mut kept {
            kept.index();
            if kept.count == 0 {
                let place = self.keep.as_ref().map_or(Place::Default, |k| k.place.clone());
                return Err(SpecError::new(place, "where.keep", "this keeps no cell at all"));
            }
        }
        self.kept = kept;
        self.refuse_equal_cells(prints)?;
        Ok(witnesses)
    }

    /// The numbers of each axis that an expression uses.
    fn numbers_used(&self) -> Vec<Vec<f64>> {
        let mut used = vec![false; self.axes.len()];
        self.formulas().for_each(|f| self.mark_inputs(f, &mut used));
        let all = |axis: &Axis| (0..axis.len()).map(|i| axis.number(i).unwrap_or(f64::NAN)).collect();
        self.axes.iter().zip(used).map(|(axis, used)| if used { all(axis) } else { Vec::new() }).collect()
    }

    /// The digits of the next position.
    fn advance(&self, digits: &mut [u64]) {
        for f in self.order.iter().rev() {
            digits[*f] += 1;
            if digits[*f] < self.factors[*f].len {
                return;
            }
            digits[*f] = 0;
        }
    }

    /// Equal for cells that resolve to the same config: what fields' axes and derived fields say.
    fn fingerprint(&self, digits: &[u64], homes: &[usize], derived: &[f64]) -> u64 {
        let mix = |h: u64, x: u64| (h ^ x).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
        let fields = self.axes.iter().zip(homes).filter(|(axis, _)| axis.field.is_some());
        let h = fields.fold(0x1234_5678_u64, |h, (_, home)| mix(h, digits[*home] + 1));
        derived.iter().fold(h, |h, x| mix(h, (x + 0.0).to_bits()))
    }

    fn refuse_equal_cells(&self, mut prints: Vec<(u64, u32)>) -> Result<(), SpecError> {
        prints.sort_unstable();
        for pair in prints.windows(2).filter(|pair| pair[0].0 == pair[1].0) {
            let [a, b] = [pair[0].1, pair[1].1].map(|position| self.cell_at(u64::from(position)));
            if self.config(a)? == self.config(b)? {
                let message = format!(
                    "the cells {} and {} resolve to the same trial: drop one, or derive another field as well",
                    self.describe(&self.digits(a)),
                    self.describe(&self.digits(b))
                );
                return Err(SpecError::new(Place::Default, "grid", message));
            }
        }
        Ok(())
    }

    /// Every value of every axis, tried in a cell that has it.
    fn check_values(&self, witnesses: &Witnesses) -> Result<(), SpecError> {
        for (at, axis) in self.axes.iter().enumerate() {
            let Some(field) = &axis.field else { continue };
            let factor = self.factor_of(at);
            let range = range_of(field);
            let continuous = range.is_some_and(|r| !r.whole);
            for i in axis.representatives(continuous) {
                if let Some(range) = range {
                    let node = axis.node(i);
                    if !node.value.as_f64().is_some_and(|x| range.holds(x)) {
                        let message = format!("expected {}, found {}", range.describe(), quoted(&node.value));
                        return Err(SpecError::new(node.place, format!("grid.{}", axis.name), message));
                    }
                    if !matches!(axis.values, crate::axis::Values::Listed(_)) {
                        continue;
                    }
                }
                if let Some(cell) = self.witness(witnesses, factor, i) {
                    self.config(cell).map_err(|e| self.blame(e, axis, i))?;
                }
            }
        }
        Ok(())
    }

    fn witness(&self, witnesses: &Witnesses, factor: usize, digit: u64) -> Option<u64> {
        match witnesses.0.get(factor) {
            Some(cells) => cells[digit as usize],
            None => {
                let mut digits = vec![0; self.factors.len()];
                digits[factor] = digit;
                Some(self.number(&digits))
            }
        }
    }

    /// An unknown key set by an axis is that axis' fault, wherever the reader found it.
    fn blame(&self, error: SpecError, axis: &Axis, i: u64) -> SpecError {
        if error.place == axis.node(i).place { SpecError { path: format!("grid.{}", axis.name), ..error } } else { error }
    }

    /// One cell of every shape class: whether batch, data and length go together.
    fn check_classes(&self) -> Result<(), SpecError> {
        for class in 0..self.classes() {
            if self.class_cells(class) > 0 {
                self.config(self.class_cell(class, 0))?;
            }
        }
        Ok(())
    }

    fn cell_error(&self, place: &Place, path: &str, digits: &[u64], message: &str) -> SpecError {
        SpecError::new(place.clone(), path, format!("{message} (in the cell {})", self.describe(digits)))
    }

    fn describe(&self, digits: &[u64]) -> String {
        let parts: Vec<String> =
            self.axis_digits(digits).map(|(axis, digit)| format!("{}={}", axis.name, axis.value(digit))).collect();
        parts.join(", ")
    }
}

impl Formula {
    fn eval(&self, axis: &dyn Fn(usize) -> f64, derived: &[f64]) -> f64 {
        let value = |input: &Input| match *input {
            Input::Axis(at) => axis(at),
            Input::Derived(at) => derived[at],
            Input::Constant(x) => x,
        };
        let mut values = [0.0; 16];
        match self.inputs.len() {
            n if n <= values.len() => {
                values.iter_mut().zip(&self.inputs).for_each(|(v, input)| *v = value(input));
                self.expr.eval(&values[..n])
            }
            _ => self.expr.eval(&self.inputs.iter().map(value).collect::<Vec<_>>()),
        }
    }
}

/// For each value of each factor, a kept cell that has it; empty when every cell is kept.
#[derive(Default)]
struct Witnesses(Vec<Vec<Option<u64>>>);

impl Witnesses {
    fn note(&mut self, digits: &[u64], cell: u64) {
        for (cells, digit) in self.0.iter_mut().zip(digits) {
            cells[*digit as usize].get_or_insert(cell);
        }
    }
}

/// One bit per position, with counts to find the n-th one.
#[derive(Debug, Clone)]
struct Kept {
    words: Vec<u64>,
    /// Ones before each block of [`BLOCK`] words.
    ranks: Vec<u32>,
    count: u64,
}

const BLOCK: usize = 8;

impl Kept {
    fn new(len: u64) -> Self {
        Self { words: vec![0; len as usize / 64 + 1], ranks: Vec::new(), count: 0 }
    }

    fn set(&mut self, at: u64) {
        self.words[at as usize / 64] |= 1 << (at % 64);
    }

    fn get(&self, at: u64) -> bool {
        self.words[at as usize / 64] >> (at % 64) & 1 == 1
    }

    fn index(&mut self) {
        for block in self.words.chunks(BLOCK) {
            self.ranks.push(self.count as u32);
            self.count += block.iter().map(|w| u64::from(w.count_ones())).sum::<u64>();
        }
    }

    /// Ones before `at`.
    fn rank(&self, at: u64) -> u64 {
        let word = at as usize / 64;
        let block = word / BLOCK;
        let whole: u32 = self.words[block * BLOCK..word].iter().map(|w| w.count_ones()).sum();
        let part = (self.words[word] & ((1 << (at % 64)) - 1)).count_ones();
        u64::from(self.ranks[block] + whole + part)
    }

    /// Position of the `n`-th one, `n` < `count`.
    fn select(&self, n: u64) -> u64 {
        let block = self.ranks.partition_point(|r| u64::from(*r) <= n) - 1;
        let mut left = n as u32 - self.ranks[block];
        let mut word = block * BLOCK;
        while self.words[word].count_ones() <= left {
            left -= self.words[word].count_ones();
            word += 1;
        }
        let mut bits = self.words[word];
        (0..left).for_each(|_| bits &= bits - 1);
        word as u64 * 64 + u64::from(bits.trailing_zeros())
    }
}

static NOTHING: Table = Table(Vec::new());

fn section<'a>(document: &'a Table, key: &str) -> Result<&'a Table, SpecError> {
    match document.get(key) {
        None => Ok(&NOTHING),
        Some(Node { value: Value::Table(table), .. }) => Ok(table),
        Some(node) => Err(SpecError::new(node.place.clone(), key, format!("expected [{key}], a table"))),
    }
}

/// The field that an axis or derived name stands for; `None` for a free name.
fn field_of(name: &str) -> Option<String> {
    match SHORT_NAMES.iter().find(|(short, _)| *short == name) {
        Some((_, path)) => Some((*path).to_owned()),
        None => name.contains('.').then(|| name.to_owned()),
    }
}

fn read_axes(grid: &Table, sweep_seed: u64) -> Result<Vec<Axis>, SpecError> {
    let mut axes: Vec<Axis> = Vec::new();
    for (name, node) in flat_entries(grid) {
        let field = field_of(&name);
        if let Some(field) = &field
            && !["data.", "model.", "train."].iter().any(|section| field.starts_with(section))
        {
            let message = "only fields of data, model and train can be axes";
            return Err(SpecError::new(node.place.clone(), format!("grid.{name}"), message));
        }
        if let Some(other) = axes.iter().find(|a| field.is_some() && a.field == field) {
            let message = format!("the axis {} sets the same field: keep one of the two", other.name);
            return Err(SpecError::new(node.place.clone(), format!("grid.{name}"), message));
        }
        axes.push(Axis::read(&name, field, node, sweep_seed)?);
    }
    Ok(axes)
}

/// Entries of `[grid]` but `zip`; `model.width = …` written without quotes is the dotted path it looks like.
fn flat_entries(grid: &Table) -> Vec<(String, &Node)> {
    fn walk<'a>(prefix: &str, table: &'a Table, out: &mut Vec<(String, &'a Node)>) {
        for (key, node) in &table.0 {
            let name = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
            match &node.value {
                Value::Table(inner) if matches!(name.split('.').next(), Some("data" | "model" | "train"))
                    && !inner.0.iter().any(|(k, _)| is_axis_form(k)) =>
                {
                    walk(&name, inner, out);
                }
                _ => out.push((name, node)),
            }
        }
    }
    let mut out = Vec::new();
    walk("", grid, &mut out);
    out.retain(|(name, _)| name != "zip");
    out
}

fn is_axis_form(key: &str) -> bool {
    matches!(key, "values" | "linear" | "log" | "uniform" | "log_uniform" | "points" | "samples")
}

/// Joins zipped axes, and random ones of equal length, into one factor each.
fn read_factors(grid: &Table, axes: &[Axis]) -> Result<Vec<Factor>, SpecError> {
    let mut together: Vec<Vec<usize>> = Vec::new();
    if let Some(zip) = grid.get("zip") {
        let error = |message: &str| SpecError::new(zip.place.clone(), "grid.zip", message);
        let form = "expected lists of axis names, like [[\"lr\", \"wd\"]]";
        let Value::List(sets) = &zip.value else { return Err(error(form)) };
        for set in sets {
            let Value::List(names) = &set.value else { return Err(error(form)) };
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
    let mut factors: Vec<Factor> = Vec::new();
    for (at, axis) in axes.iter().enumerate() {
        let mates = together.iter().find(|set| set.contains(&at)).cloned().unwrap_or_else(|| vec![at]);
        if mates.iter().min() == Some(&at) {
            factors.push(Factor { axes: mates, len: axis.len() });
        }
    }
    Ok(factors)
}

fn read_zip(names: &[Node], axes: &[Axis], zip: &Node) -> Result<Vec<usize>, SpecError> {
    let error = |message: String| SpecError::new(zip.place.clone(), "grid.zip", message);
    let mut set = Vec::new();
    for name in names {
        let text = name.value.to_string();
        let found = axes.iter().position(|a| a.name == text);
        let at = found.ok_or_else(|| {
            error(format!("there is no axis '{text}', {}", nearest(&text, axes.iter().map(|a| a.name.as_str()))))
        })?;
        if set.contains(&at) {
            return Err(error(format!("the axis {text} stands here twice")));
        }
        set.push(at);
    }
    if let Some(other) = set.iter().find(|a| axes[**a].len() != axes[set[0]].len()) {
        let (a, b) = (&axes[set[0]], &axes[*other]);
        return Err(error(format!(
            "zipped axes need equally many values, but {} has {} and {} has {}",
            a.name,
            a.len(),
            b.name,
            b.len()
        )));
    }
    Ok(set)
}

fn product_of(factors: &[Factor]) -> Result<u64, SpecError> {
    let product = factors.iter().try_fold(1_u64, |p, f| p.checked_mul(f.len)).filter(|p| *p <= MAX_POINTS);
    product.ok_or_else(|| {
        let cells: f64 = factors.iter().map(|f| f.len as f64).product();
        let message = format!("the axes make {cells:e} cells; at most {MAX_POINTS} are possible: use fewer values");
        SpecError::new(Place::Default, "grid", message)
    })
}
