//! The factors of a grid, as far as cells with values show them.

use ergodic_common::Spec;
use ergodic_common::ids::CellIndex;
use ergodic_common::spec_file::node::SpecValue;

use super::least_squares::ModelColumns;
use crate::analysis::error::AnalysisError;

/// A factor: one axis, or several that change together.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct DesignFactor {
    /// The axes of the factor.
    pub(super) axes: Vec<usize>,
    /// The values of each level, one per axis, in the order of the grid.
    pub(super) levels: Vec<Vec<SpecValue>>,
    /// Index of the level of each cell.
    pub(super) level_of_cell: Vec<usize>,
}

/// The cells and the linear model of their means: a mean, level effects and interactions of levels.
#[derive(Debug, Clone)]
pub(super) struct EffectsDesign {
    /// Numbers of the cells.
    pub(super) cells: Vec<CellIndex>,
    /// Factors with at least two levels.
    pub(super) factors: Vec<DesignFactor>,
    /// Axes that have one value in all cells.
    pub(super) constant_axes: Vec<usize>,
    /// All columns of the model; the mean's comes first.
    pub(super) columns: ModelColumns,
    /// The columns of each factor.
    pub(super) factor_columns: Vec<Vec<usize>>,
    /// Pairs of factors, each with the columns of their interaction.
    pub(super) pairs: Vec<(usize, usize, Vec<usize>)>,
}

/// Maximum number of columns of a model.
const MAX_COLUMNS: usize = 400;

impl EffectsDesign {
    /// Creates the design of these cells.
    ///
    /// # Errors
    /// There is nothing to compare, or too much.
    pub(super) fn new(spec: &Spec, cells: Vec<CellIndex>) -> Result<Self, AnalysisError> {
        let (factors, constant) = find_factors(spec, &cells);
        if factors.is_empty() {
            let message = format!(
                "effects are differences between cells: only {} of the sweep's {} has completed trials with a value",
                if cells.len() == 1 {
                    "one cell"
                } else {
                    "no cell"
                },
                spec.grid.cell_count()
            );

            return Err(AnalysisError::Unknown(message));
        }

        check_model_size(spec, &factors)?;
        let mut columns = vec![vec![1.0; cells.len()]];
        let main: Vec<Vec<usize>> = factors
            .iter()
            .map(|factor| append_columns(&mut columns, factor.contrast_columns()))
            .collect();
        let mut pairs = Vec::new();

        for a in 0..factors.len() {
            for b in a + 1..factors.len() {
                let products = main[a]
                    .iter()
                    .flat_map(|x| main[b].iter().map(move |y| (x, y)));
                let products: Vec<Vec<f64>> = products
                    .map(|(x, y)| multiply_columns(&columns[*x], &columns[*y]))
                    .collect();
                pairs.push((a, b, append_columns(&mut columns, products)));
            }
        }

        Ok(Self {
            cells,
            factors,
            constant_axes: constant,
            columns: ModelColumns::new(columns),
            factor_columns: main,
            pairs,
        })
    }

    /// Indices of the columns of the mean and all factors.
    pub(super) fn additive_columns(&self) -> Vec<usize> {
        std::iter::once(0)
            .chain(self.factor_columns.iter().flatten().copied())
            .collect()
    }

    /// Names of a factor's axes.
    pub(super) fn factor_name(&self, spec: &Spec, factor: usize) -> String {
        let names: Vec<&str> = self.factors[factor]
            .axes
            .iter()
            .map(|axis| spec.grid.axes()[*axis].name.as_str())
            .collect();
        names.join("+")
    }

    /// The factor that an axis belongs to.
    pub(super) fn factor_of_axis(&self, axis: usize) -> Option<usize> {
        self.factors
            .iter()
            .position(|factor| factor.axes.contains(&axis))
    }
}

impl DesignFactor {
    /// Adds an axis that changes together with the factor: its value at each level is that of the
    /// level's cells.
    fn join_axis(&mut self, axis: usize, values: &[SpecValue], level_of_cell: &[usize]) {
        self.axes.push(axis);
        for (at, level) in self.levels.iter_mut().enumerate() {
            let cell = self.level_of_cell.iter().position(|known| *known == at);
            let value = cell.map_or(0, |cell| level_of_cell[cell]);
            level.push(values[value].clone());
        }
    }

    /// One column per level except the last, which has the opposite sign in each.
    fn contrast_columns(&self) -> Vec<Vec<f64>> {
        let last = self.levels.len() - 1;
        (0..last)
            .map(|level| {
                self.level_of_cell
                    .iter()
                    .map(|of| f64::from(u8::from(*of == level)) - f64::from(u8::from(*of == last)))
                    .collect()
            })
            .collect()
    }
}

fn multiply_columns(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(x, y)| x * y).collect()
}

/// Appends columns; returns their indices.
fn append_columns(columns: &mut Vec<Vec<f64>>, more: Vec<Vec<f64>>) -> Vec<usize> {
    let start = columns.len();
    columns.extend(more);
    (start..columns.len()).collect()
}

/// Groups axes that always change together into factors. Also returns the axes that never change.
fn find_factors(spec: &Spec, cells: &[CellIndex]) -> (Vec<DesignFactor>, Vec<usize>) {
    let indices: Vec<Vec<u64>> = cells
        .iter()
        .map(|cell| spec.grid.value_indices(*cell))
        .collect();
    let (mut factors, mut constant): (Vec<DesignFactor>, Vec<usize>) = (Vec::new(), Vec::new());

    for (axis, definition) in spec.grid.axes().iter().enumerate() {
        let mut levels: Vec<u64> = indices.iter().map(|indices| indices[axis]).collect();
        levels.sort_unstable();
        levels.dedup();
        let of: Vec<usize> = indices
            .iter()
            .filter_map(|indices| levels.binary_search(&indices[axis]).ok())
            .collect();

        let values = levels.iter().map(|level| definition.value_at(*level));
        if levels.len() < 2 {
            constant.push(axis);
        } else if let Some(known) = factors
            .iter_mut()
            .find(|known| is_one_to_one(&known.level_of_cell, &of))
        {
            known.join_axis(axis, &values.collect::<Vec<_>>(), &of);
        } else {
            factors.push(DesignFactor {
                axes: vec![axis],
                levels: values.map(|value| vec![value]).collect(),
                level_of_cell: of,
            });
        }
    }

    (factors, constant)
}

/// Whether each of two labelings determines the other.
fn is_one_to_one(a: &[usize], b: &[usize]) -> bool {
    let mut seen = std::collections::BTreeMap::new();
    let mut back = std::collections::BTreeMap::new();
    a.iter()
        .zip(b)
        .all(|(a, b)| *seen.entry(a).or_insert(b) == b && *back.entry(b).or_insert(a) == a)
}

fn check_model_size(spec: &Spec, factors: &[DesignFactor]) -> Result<(), AnalysisError> {
    let (sum, squares): (usize, usize) = factors
        .iter()
        .map(|factor| factor.levels.len() - 1)
        .fold((0, 0), |(sum, squares), n| (sum + n, squares + n * n));
    if 1 + sum + (sum * sum - squares) / 2 <= MAX_COLUMNS {
        return Ok(());
    }

    let largest = factors.iter().max_by_key(|factor| factor.levels.len());
    let (name, levels) = largest.map_or(("", 0), |factor| {
        (
            spec.grid.axes()[factor.axes[0]].name.as_str(),
            factor.levels.len(),
        )
    });
    Err(AnalysisError::Invalid(format!(
        "effects can only be estimated for axes with few values: '{name}' has {levels}, and all pairs of values make more \
         than {MAX_COLUMNS} differences; see `ergodic table --by {name}` instead"
    )))
}
