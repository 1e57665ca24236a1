//! The single pass over all cells of a sweep, which evaluates `[where]` and `[derive]`.

use crate::grid::cases::CaseNumber;
use crate::grid::fields::shown_field;
use crate::grid::formula::{CellNumbers, DerivedField, FormulaOwner};
use crate::grid::hashing::{hash_text, mix_hash};
use crate::grid::ranked_bitmap::RankedBitmap;
use crate::grid::varieties::Varieties;
use crate::grid::{Grid, StillWanted};
use crate::ids::CellIndex;
use crate::spec_file::error::{Origin, SpecError};
use crate::spec_file::reader::NumberRange;

/// Number of cells between two checks whether the result is still needed.
const CELLS_PER_CHECK: u64 = 1 << 14;

/// The state of the pass.
struct CellPass {
    /// Numbers of each axis that an expression uses.
    numbers: Vec<Vec<f64>>,
    /// Index of the factor that each axis belongs to.
    homes: Vec<usize>,
    /// The numbers that each derived number may be.
    ranges: Vec<NumberRange>,
    /// A hash of the path of each derived number.
    path_hashes: Vec<u64>,
    /// Whether two cells can be equal, which takes axes that set no field, or cases.
    may_be_equal: bool,
    /// The digits of the current cell.
    digits: Vec<u64>,
    /// Fingerprints and positions of kept cells, if two cells can be equal.
    fingerprints: Vec<(u64, u32)>,
}

impl CellPass {
    fn new(grid: &Grid) -> Self {
        Self {
            numbers: grid.used_axis_numbers(),
            homes: (0..grid.axes.len())
                .map(|axis| grid.factor_index(axis))
                .collect(),
            ranges: grid.derived.iter().map(DerivedField::range).collect(),
            path_hashes: grid
                .derived
                .iter()
                .map(|derived| hash_text(&derived.field))
                .collect(),
            may_be_equal: grid.axes.iter().any(|axis| axis.field.is_none()),
            digits: vec![0; grid.factors.len()],
            fingerprints: Vec::new(),
        }
    }

    /// The values of the derived fields in the current cell; `None` if `[where]` drops the cell.
    fn kept_values(&self, grid: &Grid) -> Result<Option<Vec<f64>>, SpecError> {
        let numbers = PassNumbers { grid, pass: self };
        let derived = grid.derived_values(&numbers);
        if !grid.is_kept(&numbers, &derived, &self.digits)? {
            return Ok(None);
        }

        grid.check_derived_values(&numbers, &derived, &self.ranges, &self.digits)?;
        Ok(Some(derived))
    }

    fn record_fingerprint(&mut self, grid: &Grid, derived: &[f64], position: u32) {
        if self.may_be_equal {
            let numbers = PassNumbers { grid, pass: self };
            let of_derived = grid
                .derived
                .iter()
                .zip(derived)
                .zip(&self.path_hashes)
                .filter(|((derived, _), _)| {
                    let is_written =
                        derived.slot.is_some() || derived.owner == FormulaOwner::Derive;
                    is_written && derived.is_in_use(&numbers)
                })
                .fold(0, |h: u64, ((_, x), path)| {
                    h.wrapping_add(mix_hash(*path, (x + 0.0).to_bits()))
                });
            let fingerprint = grid.config_fingerprint(&self.digits, &self.homes, of_derived);
            self.fingerprints.push((fingerprint, position));
        }
    }
}

/// The numbers of the current cell.
struct PassNumbers<'a> {
    grid: &'a Grid,
    pass: &'a CellPass,
}

impl CellNumbers for PassNumbers<'_> {
    fn digit(&self, axis: usize) -> u64 {
        self.pass.digits[self.pass.homes[axis]]
    }

    fn axis_number(&self, axis: usize) -> f64 {
        self.pass.numbers[axis][self.pass.digits[self.pass.homes[axis]] as usize]
    }

    fn case_number(&self, quantity: usize) -> CaseNumber {
        self.grid.case_number(quantity, &self.pass.digits)
    }
}

/// A kept cell for each value of each factor; empty if every cell is kept.
#[derive(Default)]
pub(super) struct Witnesses(pub(super) Vec<Vec<Option<CellIndex>>>);

impl Witnesses {
    pub(super) fn record_cell(&mut self, digits: &[u64], cell: CellIndex) {
        for (cells, digit) in self.0.iter_mut().zip(digits) {
            cells[*digit as usize].get_or_insert(cell);
        }
    }
}

impl Grid {
    /// Passes over the cells: evaluates `[where]` and `[derive]`, and refuses equal cells.
    ///
    /// Returns, for each value of each factor, a kept cell that has it.
    pub(super) fn pass_over_cells(
        &mut self,
        wanted: StillWanted<'_>,
    ) -> Result<Witnesses, SpecError> {
        let mut witnesses = Witnesses::default();
        let mut varieties = Varieties::new(self);

        if self.keep_condition.is_none() && self.derived.is_empty() && self.cases.is_none() {
            self.variety_cells = varieties.into_unfiltered_cells(self);
            return Ok(witnesses);
        }

        let mut pass = CellPass::new(self);
        let mut kept = self
            .keep_condition
            .is_some()
            .then(|| RankedBitmap::new(self.product));
        witnesses.0 = self
            .factors
            .iter()
            .map(|f| vec![None; f.len as usize])
            .collect();

        for position in 0..self.product {
            if position % CELLS_PER_CHECK == 0 {
                check_still_wanted(wanted)?;
            }

            if let Some(derived) = pass.kept_values(self)? {
                self.derived_fingerprint = derived
                    .iter()
                    .fold(self.derived_fingerprint, |h, x| mix_hash(h, x.to_bits()));
                if let Some(kept) = &mut kept {
                    kept.set(position);
                }

                let digits = &pass.digits;
                witnesses.record_cell(digits, self.cell_from_digits(digits));
                varieties.record_cell(digits, &derived, || self.cell_from_digits(digits));
                pass.record_fingerprint(self, &derived, position as u32);
            }

            self.advance_digits(&self.factor_order, &mut pass.digits);
        }

        self.variety_cells = varieties.into_cells();
        self.kept_positions = kept.map(|mut kept| {
            kept.build_ranks();
            kept
        });
        self.refuse_no_cells()?;
        self.refuse_equal_cells(pass.fingerprints)?;
        Ok(witnesses)
    }

    pub(super) fn refuse_no_cells(&self) -> Result<(), SpecError> {
        if self.cell_count() > 0 {
            return Ok(());
        }

        let origin = self
            .keep_condition
            .as_ref()
            .map_or(Origin::Default, |k| k.origin.clone());
        Err(SpecError::new(
            origin,
            "where.keep",
            "this condition keeps no cell",
        ))
    }

    pub(super) fn is_kept(
        &self,
        numbers: &dyn CellNumbers,
        derived: &[f64],
        digits: &[u64],
    ) -> Result<bool, SpecError> {
        let Some(keep) = &self.keep_condition else {
            return Ok(true);
        };
        let value = keep.eval(numbers, derived);
        if value.is_nan() {
            return Err(self.cell_error(
                &keep.origin,
                "where.keep",
                digits,
                "the expression has no value",
            ));
        }

        Ok(value != 0.0)
    }

    pub(super) fn check_derived_values(
        &self,
        numbers: &dyn CellNumbers,
        derived: &[f64],
        ranges: &[NumberRange],
        digits: &[u64],
    ) -> Result<(), SpecError> {
        for ((d, x), range) in self.derived.iter().zip(derived).zip(ranges) {
            if range.contains(*x) || !d.is_in_use(numbers) {
                continue;
            }

            let advice = match range.is_whole && x.is_finite() && x.fract() != 0.0 {
                true => ": use round(…), floor(…) or ceil(…)",
                false => "",
            };
            let message = format!("expected {}, found {x}{advice}", range.describe());
            let path = match shown_field(&d.field) {
                name if name == d.field => name.to_owned(),
                name => format!("derive.{name}"),
            };
            return Err(self.cell_error(&d.formula.origin, &path, digits, &message));
        }
        Ok(())
    }

    /// The numbers of each axis that an expression uses.
    pub(super) fn used_axis_numbers(&self) -> Vec<Vec<f64>> {
        let mut used = vec![false; self.axes.len()];
        self.formulas().for_each(|f| self.mark_inputs(f, &mut used));
        self.axes
            .iter()
            .zip(used)
            .map(|(axis, used)| {
                let numbers = if used { axis.len() } else { 0 };
                (0..numbers)
                    .map(|i| axis.number_at(i).unwrap_or(f64::NAN))
                    .collect()
            })
            .collect()
    }

    /// Advances the digits of these factors, the last one fastest. Returns false after the last
    /// combination.
    pub(super) fn advance_digits(&self, factors: &[usize], digits: &mut [u64]) -> bool {
        for f in factors.iter().rev() {
            digits[*f] += 1;
            if digits[*f] < self.factors[*f].len {
                return true;
            }
            digits[*f] = 0;
        }
        false
    }

    /// A fingerprint of the config of a cell: the values of axes that set fields, what its case sets, and the
    /// values of derived fields. Equal cells have equal fingerprints.
    pub(super) fn config_fingerprint(
        &self,
        digits: &[u64],
        homes: &[usize],
        of_derived: u64,
    ) -> u64 {
        let fields = self
            .axes
            .iter()
            .zip(homes)
            .filter(|(axis, _)| axis.field.is_some());
        let of_case = self
            .cases
            .as_ref()
            .map_or(0, |cases| cases.fingerprint(self.case_digit(digits)));
        let h = fields.fold(0x1234_5678_u64, |h, (_, home)| {
            mix_hash(h, digits[*home] + 1)
        });

        h.wrapping_add(of_derived).wrapping_add(of_case)
    }

    pub(super) fn refuse_equal_cells(&self, mut prints: Vec<(u64, u32)>) -> Result<(), SpecError> {
        prints.sort_unstable();
        for pair in prints.windows(2).filter(|pair| pair[0].0 == pair[1].0) {
            let [a, b] =
                [pair[0].1, pair[1].1].map(|position| self.cell_at_position(u64::from(position)));
            if self.resolve_config(a)? == self.resolve_config(b)? {
                return Err(self.equal_cells_error(a, b));
            }
        }

        Ok(())
    }
}

/// Returns an error if the result is not needed any more.
pub(super) fn check_still_wanted(wanted: StillWanted<'_>) -> Result<(), SpecError> {
    if wanted() {
        return Ok(());
    }
    Err(SpecError::new(
        Origin::Default,
        "",
        "the result is not needed any more",
    ))
}
