//! Least squares over the cells of a grid.
//!
//! A cell's mean is the sum of an overall mean, an effect of each factor's level, and interactions
//! of pairs of levels, in sum-to-zero coding: the effects of a factor's levels sum to 0. In a full
//! grid these parts are orthogonal, and least squares gives the plain averages. If cells are
//! missing, it still gives what each part adds beyond the others.

/// Columns of a model over cells, with their products.
#[derive(Debug, Clone)]
pub(super) struct ModelColumns {
    /// Columns, `[column][cell]`.
    columns: Vec<Vec<f64>>,
    /// Products of columns, `[column][column]`.
    products: Vec<f64>,
}

/// Cholesky factor of the products of some columns, without columns that others explain.
struct CholeskyFactor {
    /// Indices of the independent columns.
    independent_columns: Vec<usize>,
    /// Rows of the factor, `[row][..=row]`.
    rows: Vec<Vec<f64>>,
}

/// Share of a column's length below which its remainder counts as rounding, so that others explain
/// it.
const COLLINEARITY_TOLERANCE: f64 = 1e-9;

impl ModelColumns {
    /// Creates a model from columns, each with one number per cell.
    pub(super) fn new(columns: Vec<Vec<f64>>) -> Self {
        let products = columns
            .iter()
            .flat_map(|a| columns.iter().map(move |b| dot_product(a, b)))
            .collect();
        Self { columns, products }
    }

    /// Sum of squares of `y` that these columns leave unexplained, and number of independent ones.
    pub(super) fn residual_squares(&self, chosen: &[usize], y: &[f64]) -> (f64, usize) {
        let triangle = self.factorize_columns(chosen);
        let z = triangle.solve_lower(|column| dot_product(&self.columns[column], y));
        let explained: f64 = z.iter().map(|z| z * z).sum();
        (
            (dot_product(y, y) - explained).max(0.0),
            triangle.independent_columns.len(),
        )
    }

    /// Coefficients of these columns as linear functions of cell values, `[column][cell]`; `None`
    /// if the columns are not independent.
    pub(super) fn solve_coefficients(&self, chosen: &[usize]) -> Option<Vec<Vec<f64>>> {
        let triangle = self.factorize_columns(chosen);
        if triangle.independent_columns.len() < chosen.len() {
            return None;
        }

        let cells = self.columns.first().map_or(0, Vec::len);
        let mut solution = vec![vec![0.0; cells]; chosen.len()];

        for cell in 0..cells {
            let z = triangle.solve_lower(|column| self.columns[column][cell]);
            for (row, x) in solution.iter_mut().zip(triangle.solve_transposed(z)) {
                row[cell] = x;
            }
        }

        Some(solution)
    }

    fn column_product(&self, a: usize, b: usize) -> f64 {
        self.products[a * self.columns.len() + b]
    }

    fn factorize_columns(&self, chosen: &[usize]) -> CholeskyFactor {
        let mut triangle = CholeskyFactor {
            independent_columns: Vec::new(),
            rows: Vec::new(),
        };

        for column in chosen {
            let mut row: Vec<f64> =
                triangle.solve_lower(|other| self.column_product(*column, other));
            let left =
                self.column_product(*column, *column) - row.iter().map(|x| x * x).sum::<f64>();
            if left > COLLINEARITY_TOLERANCE * self.column_product(*column, *column) {
                row.push(left.sqrt());
                triangle.independent_columns.push(*column);
                triangle.rows.push(row);
            }
        }

        triangle
    }
}

impl CholeskyFactor {
    /// Solves L·z = b, with b given by column.
    fn solve_lower(&self, b: impl Fn(usize) -> f64) -> Vec<f64> {
        let mut z: Vec<f64> = Vec::with_capacity(self.independent_columns.len());
        for (column, row) in self.independent_columns.iter().zip(&self.rows) {
            let diagonal = row[row.len() - 1];
            let before = dot_product(&row[..row.len() - 1], &z);
            z.push((b(*column) - before) / diagonal);
        }
        z
    }

    /// Solves Lᵀ·x = z.
    fn solve_transposed(&self, mut z: Vec<f64>) -> Vec<f64> {
        for at in (0..z.len()).rev() {
            z[at] /= self.rows[at][at];
            for before in 0..at {
                z[before] -= self.rows[at][before] * z[at];
            }
        }
        z
    }
}

pub(super) fn dot_product(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}
