//! Finds the cells that claims are about, and compiles their quantities.

use std::collections::{BTreeMap, HashSet};

use crate::grid::Grid;
use crate::ids::CellIndex;
use crate::metric::Metric;
use crate::quantity::cell_names::{CellName, CellValues, ComparedName, NamedCondition};
use crate::quantity::claim::{Claim, ClaimForm, TrialPooling};
use crate::quantity::compile::QuantityCompiler;
use crate::quantity::program::{NodeIndex, QuantityProgram};
use crate::quantity::section::ClaimSection;
use crate::spec::measure::Probe;
use crate::spec_file::error::{ErrorCause, SpecError};
use crate::spec_file::suggest::suggest_nearest;

/// Maximum number of cells of a sweep with claims, each of which is looked at.
pub const MAX_CLAIM_CELLS: u64 = 200_000;
/// Maximum cells of a spread or slope, whose pairs are compared.
const MAX_JOINED_CELLS: usize = 200;
/// Maximum number of effects of a claim.
pub const MAX_EFFECTS: usize = 10_000;
/// Number of cells for which windows of a claim are checked that depend on more than the length of trials.
const CHECKED_CELLS: usize = 2_000;

/// Claims with the cells that they are about.
#[derive(Debug, Clone, Default)]
pub struct ExpandedClaims {
    /// The nodes of all quantities.
    pub program: QuantityProgram,
    /// The claims, in the order of the file.
    pub claims: Vec<ExpandedClaim>,
}

/// A claim with the cells that it is about.
#[derive(Debug, Clone)]
pub struct ExpandedClaim {
    /// The claim as stated.
    pub claim: Claim,
    /// The nodes of its quantities.
    pub roots: Vec<NodeIndex>,
    /// Whether its quantity is one of a trial and of the same repeat of the reference cell.
    pub pairs_trials: bool,
    /// That its file defines a quantity anew, which the sweep defines differently.
    pub redefinition: Option<String>,
    /// The effects, one at least, each of which lies in the region if the claim is true.
    pub effects: Vec<ClaimEffect>,
    /// Why nothing can be said about the claim at this scale of the sweep, which lacks its cells; its only effect then has none.
    pub lack: Option<String>,
}

/// Cells of which a claim makes one number.
#[derive(Debug, Clone, PartialEq)]
pub struct ClaimEffect {
    /// The cells: one, or those of a spread or slope; none if the sweep lacks them.
    pub cells: Vec<CellIndex>,
    /// The cell that the one is set against, or compared with.
    pub reference: Option<CellIndex>,
    /// The x of each cell, for a slope.
    pub abscissas: Vec<f64>,
    /// Whether a cell does not meet what the claim needs.
    pub has_too_few_steps: bool,
}

impl ClaimSection {
    /// Compiles all quantities of a sweep and finds the cells of each claim.
    ///
    /// # Errors
    /// A quantity cannot be computed, or a claim names something that the sweep does not have. That it lacks the cells of a claim is an
    /// error unless `keeps_lacking`.
    pub fn expand(
        &self,
        grid: &Grid,
        metrics: &[Metric],
        probe: Option<&Probe>,
        keeps_lacking: bool,
    ) -> Result<ExpandedClaims, SpecError> {
        self.check_quantities(grid, metrics)?;
        let mut expander = ClaimExpander {
            grid,
            probe,
            keeps_lacking,
            cells: Vec::new(),
            compiler: QuantityCompiler::new(grid, metrics, self.quantity_texts()),
        };
        if let Some(first) = self.claims.first() {
            if grid.cell_count() > MAX_CLAIM_CELLS {
                let message = format!(
                    "claims are possible in sweeps of at most {MAX_CLAIM_CELLS} cells, found {}",
                    grid.cell_count()
                );
                return Err(first.error_at("name", message));
            }
            expander.cells = grid.iter().collect();
        }

        let claims = self.claims.iter().map(|claim| expander.expand_claim(claim));
        let claims = claims.collect::<Result<_, _>>()?;
        Ok(ExpandedClaims {
            program: expander.compiler.into_program(),
            claims,
        })
    }

    /// Checks every quantity, whether a claim uses it or not.
    fn check_quantities(&self, grid: &Grid, metrics: &[Metric]) -> Result<(), SpecError> {
        let mut compiler = QuantityCompiler::new(grid, metrics, self.quantity_texts());
        for quantity in &self.quantities {
            let error = |message: String| {
                let path = format!("quantity.{}", quantity.name);
                SpecError::new(quantity.origin.clone(), path, message)
            };
            let owner = match CellName::find(grid, &quantity.name) {
                Some(CellName::Axis(_)) => Some("an axis has"),
                Some(CellName::FreeName(_) | CellName::Value(_)) => Some("the cases have"),
                _ => None,
            };
            let mut names = metrics.iter().map(Metric::name);
            let owner = owner.or_else(|| {
                names
                    .any(|name| name == quantity.name)
                    .then_some("a metric has")
            });
            if let Some(owner) = owner {
                return Err(error(format!("{owner} this name: choose another one")));
            }

            let prefix = format!("the quantity '{}': ", quantity.name);
            compiler
                .compile_text(&quantity.name)
                .map_err(|why| error(why.strip_prefix(&prefix).unwrap_or(&why).to_owned()))?;
        }

        Ok(())
    }
}

/// Finds the cells of claims about a sweep.
pub(super) struct ClaimExpander<'a> {
    pub(super) grid: &'a Grid,
    /// The probe set, if predictions are kept.
    pub(super) probe: Option<&'a Probe>,
    /// Whether a claim stays that lacks its cells.
    keeps_lacking: bool,
    cells: Vec<CellIndex>,
    compiler: QuantityCompiler<'a>,
}

impl ClaimExpander<'_> {
    fn expand_claim(&mut self, claim: &Claim) -> Result<ExpandedClaim, SpecError> {
        let roots = self.compile_roots(claim)?;
        let mut lack = None;
        let effects = match self.find_effects(claim, &roots) {
            Err(error) if self.keeps_lacking && error.cause == ErrorCause::Cells => {
                lack = Some(error.message);
                vec![ClaimEffect::without_cells()]
            }
            found => found?,
        };
        Ok(ExpandedClaim {
            claim: claim.clone(),
            pairs_trials: self.uses_other(&roots),
            redefinition: None,
            roots,
            effects,
            lack,
        })
    }

    /// Finds the cells that a claim with these quantities is about.
    fn find_effects(
        &self,
        claim: &Claim,
        roots: &[NodeIndex],
    ) -> Result<Vec<ClaimEffect>, SpecError> {
        let cells = self.select_cells(claim, "where", claim.condition.as_deref())?;
        let mut effects = match claim.form {
            ClaimForm::Labels => self.pair_for_labels(claim, &cells)?,
            form if form.joins_cells() => self.join_cells(claim, &cells)?,
            _ if claim.to.is_some() => self.pair_with_references(claim, &cells)?,
            _ => cells
                .iter()
                .map(|cell| ClaimEffect::of_cell(*cell))
                .collect(),
        };
        if effects.len() > MAX_EFFECTS {
            let message = format!(
                "it is about {} groups of cells; at most {MAX_EFFECTS} are possible: select fewer",
                effects.len()
            );
            return Err(claim.error_at("where", message));
        }

        self.mark_needs(claim, &mut effects)?;
        self.check_windows(claim, roots, &effects)?;
        Ok(effects)
    }

    fn compile_roots(&mut self, claim: &Claim) -> Result<Vec<NodeIndex>, SpecError> {
        if claim.form == ClaimForm::Labels {
            return Ok(Vec::new());
        }

        let mut roots = Vec::with_capacity(claim.of.len());
        for text in &claim.of {
            let root = match claim.form {
                ClaimForm::Bits => self.compiler.compile_text(text),
                ClaimForm::Share => self.compile_condition(text),
                _ => self.compiler.compile_number(text),
            };
            roots.push(root.map_err(|why| claim.error_at("of", why))?);
        }

        let program = self.compiler.program();
        let mut series = roots.iter().map(|root| program.averaged_series(*root));
        if claim.per == TrialPooling::MeanCurve && series.any(|series| series.is_empty()) {
            let message =
                "per = \"mean\" averages the arguments of reducers, and this quantity has none";
            return Err(claim.error_at("of", message));
        }
        self.check_other(claim, &roots)?;
        Ok(roots)
    }

    /// Whether any quantity needs the trial of a reference cell.
    pub(super) fn uses_other(&self, roots: &[NodeIndex]) -> bool {
        let program = self.compiler.program();
        roots.iter().any(|root| program.uses_other(*root))
    }

    fn compile_condition(&mut self, text: &str) -> Result<NodeIndex, String> {
        let node = self.compiler.compile_text(text)?;
        let program = self.compiler.program();
        if program.is_series(node) || !program.is_condition(node) {
            return Err(format!(
                "'{text}' is no condition on a trial: write one such as \"at(test_acc, end) > 0.9\""
            ));
        }
        Ok(node)
    }

    /// The cells that meet a condition; all without one.
    pub(super) fn select_cells(
        &self,
        claim: &Claim,
        key: &str,
        condition: Option<&str>,
    ) -> Result<Vec<CellIndex>, SpecError> {
        let Some(text) = condition else {
            return Ok(self.cells.clone());
        };
        let condition =
            NamedCondition::parse(self.grid, text).map_err(|why| claim.error_at(key, why))?;
        let all = self.cells.iter().copied();
        let cells: Vec<CellIndex> = all
            .filter(|cell| condition.is_met_by(&CellValues::new(self.grid, *cell)))
            .collect();
        if cells.is_empty() {
            let message =
                format!("no cell of the sweep meets '{text}': `ergodic plan` lists its axes");
            return Err(claim.lack_at(key, message));
        }

        Ok(cells)
    }

    /// Joins the cells with equal values of some axes.
    fn join_cells(
        &self,
        claim: &Claim,
        cells: &[CellIndex],
    ) -> Result<Vec<ClaimEffect>, SpecError> {
        let abscissa = match &claim.against {
            Some(name) => Some(self.find_number(claim, name)?),
            None => None,
        };
        let groups = self.group_cells(claim, cells)?.into_iter();
        groups
            .map(|cells| self.join_group(claim, cells, abscissa.as_ref()))
            .collect()
    }

    /// Groups the cells with equal values of the axes at which a claim joins them.
    pub(super) fn group_cells(
        &self,
        claim: &Claim,
        cells: &[CellIndex],
    ) -> Result<Vec<Vec<CellIndex>>, SpecError> {
        let axes = self.joining_axes(claim)?;
        let mut groups: BTreeMap<Vec<u64>, Vec<CellIndex>> = BTreeMap::new();
        for cell in cells {
            let indices = self.grid.value_indices(*cell);
            let key = axes.iter().map(|axis| indices[*axis]).collect();
            groups.entry(key).or_default().push(*cell);
        }
        Ok(groups.into_values().collect())
    }

    /// Finds the axis or field of a slope.
    fn find_number(&self, claim: &Claim, name: &str) -> Result<ComparedName, SpecError> {
        let found = CellName::find(self.grid, name).ok_or_else(|| {
            let hint = CellName::suggest(self.grid, name, &[]);
            claim.error_at(
                "against",
                format!("cells have no axis or field '{name}', {hint}"),
            )
        })?;
        Ok(ComparedName {
            name: found,
            words: Vec::new(),
        })
    }

    fn join_group(
        &self,
        claim: &Claim,
        cells: Vec<CellIndex>,
        abscissa: Option<&ComparedName>,
    ) -> Result<ClaimEffect, SpecError> {
        let abscissas: Vec<f64> = cells
            .iter()
            .filter_map(|cell| Some(CellValues::new(self.grid, *cell).number(abscissa?)))
            .collect();
        if cells.len() > MAX_JOINED_CELLS {
            let message = format!(
                "a {} of {} cells compares too many; at most {MAX_JOINED_CELLS} are possible: select fewer, or set by",
                claim.form.name(),
                cells.len()
            );
            return Err(claim.error_at("where", message));
        }
        if cells.len() < 2 {
            let message = format!(
                "{} stands alone: a {} needs two cells at least",
                describe_values(self.grid, cells[0]),
                claim.form.name()
            );
            return Err(claim.lack_at("where", message));
        }

        let mut numbers = abscissas.iter();
        let are_usable = numbers.all(|x| x.is_finite() && (!claim.log.0 || *x > 0.0))
            && abscissas.iter().any(|x| *x != abscissas[0]);
        if abscissa.is_some() && !are_usable {
            let message = "expected different numbers, above 0 if their logarithms are taken (log = \"y\" or \"none\" takes none)";
            return Err(claim.lack_at("against", message));
        }
        Ok(ClaimEffect {
            abscissas,
            cells,
            reference: None,
            has_too_few_steps: false,
        })
    }

    /// The axes at whose equal values cells are joined.
    fn joining_axes(&self, claim: &Claim) -> Result<Vec<usize>, SpecError> {
        let axes = self.grid.axes();
        let find = |key: &str, name: &String| match CellName::find(self.grid, name) {
            Some(CellName::Axis(at)) => Ok(at),
            _ => {
                let hint = suggest_nearest(name, axes.iter().map(|axis| axis.name.as_str()));
                Err(claim.error_at(key, format!("the sweep has no axis '{name}', {hint}")))
            }
        };
        if claim.over.is_empty() {
            return claim.by.iter().map(|name| find("by", name)).collect();
        }

        let over: Vec<usize> = claim
            .over
            .iter()
            .map(|name| find("over", name))
            .collect::<Result<_, _>>()?;
        Ok((0..axes.len())
            .filter(|axis| !over.contains(axis))
            .collect())
    }

    fn check_windows(
        &self,
        claim: &Claim,
        roots: &[NodeIndex],
        effects: &[ClaimEffect],
    ) -> Result<(), SpecError> {
        let program = self.compiler.program();
        let long_enough = effects.iter().filter(|effect| !effect.has_too_few_steps);
        let cells = long_enough.flat_map(ClaimEffect::all_cells);
        let differ = roots.iter().any(|root| program.has_windows_of_cells(*root));
        for cell in self.choose_checked_cells(cells, differ) {
            let Some(inputs) = program.cell_inputs(self.grid, cell) else {
                continue;
            };
            for root in roots {
                program
                    .check_whole_windows(*root, &inputs)
                    .map_err(|why| claim.lack_at("of", why))?;
            }
        }

        Ok(())
    }

    /// One cell of each length of trials and, if cells of one length `differ`, the first ones of all.
    pub(super) fn choose_checked_cells(
        &self,
        cells: impl Iterator<Item = CellIndex>,
        differ: bool,
    ) -> Vec<CellIndex> {
        let mut others = if differ { CHECKED_CELLS } else { 0 };
        let mut classes = HashSet::new();
        let mut known = HashSet::new();
        let chosen = cells.filter(|cell| {
            // Trials of a shape class have the same number of steps.
            let is_new = classes.insert(self.grid.class_of(*cell));
            if is_new || others == 0 || !known.insert(*cell) {
                return is_new;
            }
            others -= 1;
            true
        });
        chosen.collect()
    }

    fn mark_needs(&self, claim: &Claim, effects: &mut [ClaimEffect]) -> Result<(), SpecError> {
        let Some(text) = &claim.needs else {
            return Ok(());
        };
        let needs =
            NamedCondition::parse(self.grid, text).map_err(|why| claim.error_at("needs", why))?;
        for effect in effects {
            let has_too_few_steps = effect
                .all_cells()
                .any(|cell| !needs.is_met_by(&CellValues::new(self.grid, cell)));
            effect.has_too_few_steps = has_too_few_steps;
        }
        Ok(())
    }
}

impl ExpandedClaim {
    /// The cells whose numbers make an effect: the reference is one of them, unless each trial is set against its own.
    pub fn number_cells<'a>(
        &self,
        effect: &'a ClaimEffect,
    ) -> impl Iterator<Item = CellIndex> + 'a {
        let reference = effect.reference.filter(|_| !self.pairs_trials);
        effect.cells.iter().copied().chain(reference)
    }
}

impl ClaimEffect {
    pub(super) fn of_cell(cell: CellIndex) -> Self {
        Self {
            cells: vec![cell],
            ..Self::without_cells()
        }
    }

    fn without_cells() -> Self {
        Self {
            cells: Vec::new(),
            reference: None,
            abscissas: Vec::new(),
            has_too_few_steps: false,
        }
    }

    /// The cells, and the reference after them.
    pub fn all_cells(&self) -> impl Iterator<Item = CellIndex> + '_ {
        self.cells.iter().copied().chain(self.reference)
    }
}

/// The values of a cell's axes.
pub(super) fn describe_values(grid: &Grid, cell: CellIndex) -> String {
    let values = grid.axis_values(cell);
    let axes = grid.axes().iter().zip(&values);
    let named: Vec<String> = axes
        .map(|(axis, value)| format!("{}={}", axis.name, axis.format_value(value)))
        .collect();
    named.join(", ")
}
