//! The grid as a lazily indexed product.
//!
//! A cell's *number* counts the full product of the axes, the first axis slowest, whether `[where]` keeps it or not; its
//! values are arithmetic on that number. For scheduling, cells have a second order, *positions*, in which the axes that
//! decide the shape class are outermost, so that each class is one contiguous range. With `[where]`, one bit per
//! position says whether the cell is kept, and a rank index turns counts into positions. Trials are never stored.

pub mod axis;
mod case_labels;
pub(crate) mod cases;
mod cell_pass;
mod check;
mod digits;
mod fields;
mod formula;
mod formula_reader;
mod hashing;
mod inline;
mod names;
mod optimizer_settings;
mod ranked_bitmap;
mod read;
pub mod reserved_names;
mod varieties;

pub(crate) use fields::{NameKind, flatten_fields, resolve_field_name, shown_field};
pub(crate) use fields::{is_part_of_list, set_field};
use ranked_bitmap::RankedBitmap;
pub use read::MAX_AXES;
use read::{checked_product, has_table_of_widths, read_axes, read_factors, section_table};
pub(crate) use read::{find_axis_for_field, flatten_axes, is_axis_form};

use cases::{CASE_AXIS, CaseNumber, Cases};
use formula::{CellNumbers, DerivedField, Formula, FormulaOwner};
pub(crate) use inline::find_expressions;

use crate::config::TrialConfig;
use crate::grid::axis::Axis;
use crate::ids::{CellIndex, Repeat, ShapeClass, TrialIndex};
use crate::pinned_file::FilePin;
use crate::program;
use crate::random_streams;
use crate::spec_file::error::SpecError;
use crate::spec_file::grammar::{
    CASES_GRAMMAR, EQUAL_WIDTHS_GRAMMAR, MOMENTS_GRAMMAR, PROGRAMS_GRAMMAR, ReadingMode,
};
use crate::spec_file::node::{SpecNode, SpecTable, SpecValue};
use crate::trial::TrialKey;

/// Tells whether the result of reading a file is still needed. If not, the reading ends.
pub type StillWanted<'a> = &'a dyn Fn() -> bool;

/// All cells of a sweep.
#[derive(Debug, Clone)]
pub struct Grid {
    base: SpecTable,
    /// Files that the sweep file names.
    files: Vec<FilePin>,
    /// The axes; the first is `case` if there are cases.
    axes: Vec<Axis>,
    cases: Option<Cases>,
    factors: Vec<GridFactor>,
    derived: Vec<DerivedField>,
    keep_condition: Option<Formula>,
    /// Indices of the factors, those that decide the shape class first: the digits of a position.
    factor_order: Vec<usize>,
    product: u64,
    classes: u64,
    kept_positions: Option<RankedBitmap>,
    /// The mode in which the file was read.
    reading_mode: ReadingMode,
    /// The earliest version of the grammar in which the grid means the same.
    min_grammar: u32,
    /// Fingerprint of the values of all expressions.
    derived_fingerprint: u64,
    /// One cell of each variety.
    variety_cells: Vec<CellIndex>,
}

/// A factor of the product: one axis, or several that move together.
#[derive(Debug, Clone)]
struct GridFactor {
    axes: Vec<usize>,
    len: u64,
}

impl Grid {
    /// Reads `[case]`, `[grid]`, `[derive]` and `[where]` of a document, and checks every cell.
    ///
    /// # Errors
    /// A cell cannot be run, or two cells are equal.
    pub fn from_document(
        document: &SpecTable,
        sweep_seed: u64,
        files: &[FilePin],
        (reading, wanted): (ReadingMode, StillWanted<'_>),
    ) -> Result<Self, SpecError> {
        let base = tables_of_cells(document);
        let grid = section_table(document, "grid")?;
        let names = NameKind::of_document(&base);
        let mut axes = read_axes(grid, sweep_seed, (reading, &base))?;
        let cases = Cases::from_document(document, &base, reading)?.map(|(cases, axis)| {
            axes.insert(CASE_AXIS, axis);
            cases
        });
        cases
            .iter()
            .try_for_each(|cases| cases.check_axes(&axes[CASE_AXIS + 1..]))?;
        let factors = read_factors(grid, &axes).map_err(SpecError::of_combination)?;
        let product = checked_product(&factors).map_err(SpecError::of_combination)?;
        let min_grammar = match cases {
            Some(_) if names == NameKind::Fields => CASES_GRAMMAR,
            Some(_) => PROGRAMS_GRAMMAR,
            None if names == NameKind::Values => PROGRAMS_GRAMMAR,
            None if has_table_of_widths(&base, &axes) => EQUAL_WIDTHS_GRAMMAR,
            None => 1,
        };
        let mut this = Self {
            base,
            files: files.to_vec(),
            factor_order: (0..factors.len()).collect(),
            axes,
            cases,
            factors,
            derived: Vec::new(),
            keep_condition: None,
            product,
            classes: 1,
            kept_positions: None,
            reading_mode: reading,
            min_grammar,
            derived_fingerprint: 0,
            variety_cells: Vec::new(),
        };
        this.read_formulas(
            section_table(document, "derive")?,
            section_table(document, "where")?,
        )?;
        this.check_all_cells(wanted)?;
        Ok(this)
    }

    /// Orders the cells, and checks every one.
    fn check_all_cells(&mut self, wanted: StillWanted<'_>) -> Result<(), SpecError> {
        self.check_names_used()?;
        self.order_by_shape()
            .and_then(|()| self.check_cost())
            .map_err(SpecError::of_combination)?;
        let witnesses = self.pass_over_cells(wanted)?;
        self.check_axis_values(&witnesses, wanted)?;

        self.check_classes(wanted)?;
        self.check_spellings(wanted)?;
        self.check_written_numbers(wanted)?;
        if self.reading_mode.grammar >= MOMENTS_GRAMMAR && self.has_phase_without_steps() {
            self.min_grammar = self.min_grammar.max(MOMENTS_GRAMMAR);
        }
        // The checks for new sweeps are done. Reading a cell later must not refuse what was
        // accepted here.
        self.reading_mode.is_new = false;
        Ok(())
    }

    /// The earliest version of the grammar in which the file means the same.
    pub fn min_grammar(&self) -> u32 {
        self.min_grammar
    }

    /// The axes in the order of the file.
    pub fn axes(&self) -> &[Axis] {
        &self.axes
    }

    /// Number of kept cells.
    pub fn cell_count(&self) -> u64 {
        self.kept_positions
            .as_ref()
            .map_or(self.product, |kept| kept.count)
    }

    /// An exclusive upper bound of the numbers of cells.
    pub fn cell_number_bound(&self) -> u64 {
        self.product
    }

    /// Whether `cell` is the number of a kept cell.
    pub fn has_cell(&self, cell: CellIndex) -> bool {
        cell.0 < self.product
            && self
                .kept_positions
                .as_ref()
                .is_none_or(|kept| kept.get(self.cell_position(cell)))
    }

    /// Number of shape classes, some of which `[where]` may have emptied.
    pub fn class_count(&self) -> u32 {
        self.classes as u32
    }

    /// All shape classes.
    pub fn shape_classes(&self) -> impl Iterator<Item = ShapeClass> + use<> {
        (0..self.class_count()).map(ShapeClass)
    }

    /// The shape classes with kept cells.
    pub fn kept_classes(&self) -> impl Iterator<Item = ShapeClass> + '_ {
        self.shape_classes()
            .filter(|class| self.class_cell_count(*class) > 0)
    }

    /// The shape class of a cell.
    pub fn class_of(&self, cell: CellIndex) -> ShapeClass {
        self.class_at_position(self.cell_position(cell))
    }

    /// Number of kept cells in a class.
    pub fn class_cell_count(&self, class: ShapeClass) -> u64 {
        let (from, to) = self.class_range(class);
        self.kept_positions
            .as_ref()
            .map_or(to - from, |kept| kept.rank(to) - kept.rank(from))
    }

    /// The `k`-th kept cell of a class, `k` < [`class_cell_count`](Self::class_cell_count).
    pub fn class_cell_at(&self, class: ShapeClass, k: u64) -> CellIndex {
        let (from, _) = self.class_range(class);
        let position = self
            .kept_positions
            .as_ref()
            .map_or(from + k, |kept| kept.select(kept.rank(from) + k));
        self.cell_at_position(position)
    }

    /// The trial at a place in the order of its class: repeats are outermost, so that every prefix is balanced over cells.
    pub fn trial_at(&self, index: TrialIndex) -> TrialKey {
        let cells = self.class_cell_count(index.class);
        TrialKey {
            cell: self.class_cell_at(index.class, index.number % cells),
            repeat: Repeat((index.number / cells) as u32),
        }
    }

    /// The place of a trial in the order of its class.
    pub fn locate_trial(&self, key: TrialKey) -> TrialIndex {
        let position = self.cell_position(key.cell);
        let class = self.class_at_position(position);
        let (from, _) = self.class_range(class);
        let k = self
            .kept_positions
            .as_ref()
            .map_or(position - from, |kept| {
                kept.rank(position) - kept.rank(from)
            });

        TrialIndex {
            class,
            number: u64::from(key.repeat.0) * self.class_cell_count(class) + k,
        }
    }

    /// Whether a file of the sweep is a dataset with targets.
    pub fn has_targets(&self) -> bool {
        self.files.iter().any(FilePin::has_targets)
    }

    /// Configs of one cell of every shape class. Dataset, sizes and architecture do not vary within
    /// a class.
    pub fn class_configs(&self) -> Vec<TrialConfig> {
        self.kept_classes()
            .filter_map(|class| self.resolve_config(self.class_cell_at(class, 0)).ok())
            .collect()
    }

    /// A few configs that represent all kept cells as far as losses and random streams are
    /// concerned.
    pub fn variety_configs(&self) -> impl Iterator<Item = TrialConfig> + '_ {
        self.variety_cells
            .iter()
            .filter_map(|cell| self.resolve_config(*cell).ok())
    }

    /// All kept cells in the order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = CellIndex> + '_ {
        let all = (0..self.product).map(CellIndex);
        all.filter(|cell| self.kept_positions.is_none() || self.has_cell(*cell))
    }

    /// The value of each axis in a cell.
    pub fn axis_values(&self, cell: CellIndex) -> Vec<SpecValue> {
        let digits = self.cell_digits(cell);
        self.axis_digits(&digits)
            .map(|(axis, digit)| axis.value_at(digit))
            .collect()
    }

    /// Index of each axis' value in a cell.
    pub fn value_indices(&self, cell: CellIndex) -> Vec<u64> {
        let digits = self.cell_digits(cell);
        self.axis_digits(&digits).map(|(_, digit)| digit).collect()
    }

    /// The cell with these values (axis, index), and otherwise the values of `cell`, if it is kept.
    /// Axes that are zipped with a named one move along.
    pub fn cell_with_values(&self, cell: CellIndex, values: &[(usize, u64)]) -> Option<CellIndex> {
        let mut digits = self.cell_digits(cell);
        values
            .iter()
            .for_each(|(axis, index)| digits[self.factor_index(*axis)] = *index);
        let found = self.cell_from_digits(&digits);
        let agree = values
            .iter()
            .all(|(axis, index)| digits[self.factor_index(*axis)] == *index);

        (agree && self.has_cell(found)).then_some(found)
    }

    /// The fields, and numbers within fields, that expressions compute.
    pub fn computed_fields(&self) -> impl Iterator<Item = &str> {
        self.derived.iter().map(|derived| derived.field.as_str())
    }

    /// The fields that expressions compute in every cell, with their values in one.
    pub fn derived_values_in(&self, cell: CellIndex) -> Vec<(&str, f64)> {
        let digits = self.cell_digits(cell);
        let values = self.derived_values(&DigitNumbers(self, &digits));
        let fields = self.derived.iter().zip(values);
        fields
            .filter(|(derived, _)| derived.is_field_of_all_cells())
            .map(|(derived, value)| (shown_field(&derived.field), value))
            .collect()
    }

    /// Resolves the settings of a cell.
    ///
    /// # Errors
    /// The cell cannot be run. Never happens for a kept cell of a grid that was read, because
    /// reading checks with this function.
    pub fn resolve_config(&self, cell: CellIndex) -> Result<TrialConfig, SpecError> {
        TrialConfig::from_table(&self.build_document(cell)?, &self.files, self.reading_mode)
    }

    /// Builds `[data]`, `[model]` and `[train]` of a cell, and `[measure]` if it has expressions.
    pub(crate) fn build_document(&self, cell: CellIndex) -> Result<SpecTable, SpecError> {
        let digits = self.cell_digits(cell);
        let mut tree = self.base.clone();
        for (axis, digit) in self.axis_digits(&digits) {
            if let Some(field) = &axis.field {
                set_field(&mut tree, field, axis.node_at(digit))?;
            }
        }

        for (field, node) in self.case_settings(&digits) {
            set_field(&mut tree, field, node.clone())?;
        }

        let numbers = DigitNumbers(self, &digits);
        let values = self.derived_values(&numbers);
        for (derived, value) in self.derived.iter().zip(values) {
            if let Some(slot) = derived
                .slot
                .as_ref()
                .filter(|_| derived.is_in_use(&numbers))
            {
                slot.write(&mut tree, value);
            }
            if derived.owner != FormulaOwner::Derive {
                continue;
            }
            set_field(
                &mut tree,
                &derived.field,
                SpecNode {
                    value: SpecValue::Float(value),
                    origin: derived.formula.origin.clone(),
                },
            )?;
        }

        self.drop_foreign_settings(&mut tree, &digits);
        Ok(tree)
    }

    /// Whether `[measure]` has expressions, so that it differs by cell.
    pub fn has_measure_expressions(&self) -> bool {
        self.base.get("measure").is_some()
    }

    /// Hashes what is cheap to know about all cells: how they are numbered and ordered, which are
    /// kept, and the values of expressions.
    pub(crate) fn hash_layout(&self, hasher: &mut blake3::Hasher) {
        hasher
            .update(&self.product.to_le_bytes())
            .update(&self.classes.to_le_bytes());

        for factor in &self.factor_order {
            hasher
                .update(&(*factor as u64).to_le_bytes())
                .update(&self.factors[*factor].len.to_le_bytes());
        }

        hasher.update(&self.derived_fingerprint.to_le_bytes());
        if let Some(kept) = &self.kept_positions {
            kept.hash_into(hasher);
        }
    }

    /// Draws at most `most` kept cells from a fixed random stream; returns all if there are no
    /// more.
    pub fn sample_cells(&self, most: u64) -> Vec<CellIndex> {
        let cells = self.cell_count();
        if cells <= most {
            return (0..cells).map(|n| self.nth_kept_cell(n)).collect();
        }

        let key = blake3::derive_key("ergodic 2026 printed cells v1", &cells.to_le_bytes());
        (0..most)
            .map(|i| (random_streams::uniform_at(&key, i) * cells as f64) as u64)
            .map(|n| self.nth_kept_cell(n.min(cells - 1)))
            .collect()
    }

    pub(crate) fn nth_kept_cell(&self, n: u64) -> CellIndex {
        let kept = self.kept_positions.as_ref();
        self.cell_at_position(kept.map_or(n, |kept| kept.select(n)))
    }

    fn case_number(&self, quantity: usize, digits: &[u64]) -> CaseNumber {
        let none = CaseNumber::Number(f64::NAN);
        self.cases.as_ref().map_or(none, |cases| {
            cases.number(quantity, self.case_digit(digits))
        })
    }

    fn axis_number(&self, axis: usize, digits: &[u64]) -> f64 {
        self.axes[axis]
            .number_at(digits[self.factor_index(axis)])
            .unwrap_or(f64::NAN)
    }

    /// Whether the axis at this place is `case`.
    fn is_case_axis(&self, axis: usize) -> bool {
        self.cases.is_some() && axis == CASE_AXIS
    }

    /// The fields that the case of a cell sets.
    fn case_settings(&self, digits: &[u64]) -> impl Iterator<Item = (&str, &SpecNode)> {
        let case = self.case_digit(digits);
        self.cases
            .iter()
            .flat_map(move |cases| cases.field_settings(case))
    }

    /// The index of a cell's case; the axis is the first one, and so is its factor.
    fn case_digit(&self, digits: &[u64]) -> u64 {
        digits.first().copied().unwrap_or(0)
    }

    /// The fields that some case sets.
    pub fn case_fields(&self) -> impl Iterator<Item = &str> {
        self.cases.iter().flat_map(Cases::fields)
    }

    /// The setting in `[case]` of a field, as `case.A.lr`, if there is one.
    pub(crate) fn describe_case_owner(&self, field: &str) -> Option<String> {
        self.cases.as_ref()?.describe_owner(field)
    }
}

/// The tables that cells have values in: `[measure]` only if it has expressions.
fn tables_of_cells(document: &SpecTable) -> SpecTable {
    let mut tables = SpecTable::default();
    for key in ["data", "model", "train", "measure", program::SECTION] {
        let node = document
            .get(key)
            .filter(|node| key != "measure" || !find_expressions(key, node).is_empty());
        tables
            .0
            .extend(node.map(|node| (key.to_owned(), node.clone())));
    }
    program::move_constants(&mut tables);
    tables
}

/// The numbers of the cell with these digits.
struct DigitNumbers<'a>(&'a Grid, &'a [u64]);

impl CellNumbers for DigitNumbers<'_> {
    fn axis_number(&self, axis: usize) -> f64 {
        self.0.axis_number(axis, self.1)
    }

    fn digit(&self, axis: usize) -> u64 {
        self.1[self.0.factor_index(axis)]
    }

    fn case_number(&self, quantity: usize) -> CaseNumber {
        self.0.case_number(quantity, self.1)
    }
}
