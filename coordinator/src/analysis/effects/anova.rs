//! Analysis of variance of a metric over the grid.
//!
//! The sum of squares of a term is what it explains beyond all terms that do not contain it (type
//! II), which is the usual one in a full grid. Cells have equal weight whatever their numbers of
//! values, for which the harmonic mean stands (unweighted means, Yates 1934). Repeats are blocks,
//! because a repeat has the same random streams in all cells, and their common effect is no noise
//! between cells.

use ergodic_common::Spec;

use super::design::EffectsDesign;
use super::least_squares::dot_product;
use super::resample::RepeatBlocks;
use crate::estimators::Sample;

/// A line of an analysis of variance.
#[derive(Debug, Clone, PartialEq)]
pub struct AnovaTerm {
    /// The term: an axis, two of them, or a rest.
    pub name: String,
    /// Degrees of freedom.
    pub df: u64,
    /// Sum of squares.
    pub squares: f64,
    /// Share of all sums of squares, η²; `None` if all values are equal.
    pub share: Option<f64>,
    /// Share of the variance between cells; `None` for terms within cells.
    pub between: Option<f64>,
}

impl AnovaTerm {
    /// A term of differences between trials of one cell.
    fn within_cells(name: &str, df: usize, squares: f64) -> Self {
        Self {
            name: name.to_owned(),
            df: df as u64,
            squares,
            share: None,
            between: None,
        }
    }
}

/// Computes the analysis of cells with these values and means; adds caveats to `notes`.
pub(super) fn compute_anova_terms(
    spec: &Spec,
    design: &EffectsDesign,
    values: &[&[(u32, f64)]],
    blocks: &RepeatBlocks,
    means: &[f64],
    notes: &mut Vec<String>,
) -> Vec<AnovaTerm> {
    // Centred, because squares of values far from zero would lose digits.
    let middle = Sample::new(means.to_vec()).mean().unwrap_or(0.0);
    let y: Vec<f64> = means.iter().map(|mean| mean - middle).collect();
    let per_cell = values.len() as f64
        / values
            .iter()
            .map(|values| 1.0 / values.len() as f64)
            .sum::<f64>();
    let between = per_cell * dot_product(&y, &y);
    let mut terms: Vec<AnovaTerm> = explained_squares(spec, design, &y)
        .into_iter()
        .map(|(name, df, squares)| {
            let squares = per_cell * squares;
            AnovaTerm {
                name,
                df,
                squares,
                share: None,
                between: (between > 0.0).then(|| squares / between),
            }
        })
        .collect();

    let inside = within_cell_terms(values, blocks, means, notes);
    let total = between + inside.iter().map(|term| term.squares).sum::<f64>();
    terms.extend(inside);

    if total > 0.0 {
        terms
            .iter_mut()
            .for_each(|term| term.share = Some(term.squares / total));
    } else {
        notes.push("all values are equal: there is no variance to divide among the axes".into());
    }

    terms
}

/// Degrees of freedom and sums of squares of factors, pairs of factors, and the rest of the
/// differences between cells.
fn explained_squares(spec: &Spec, design: &EffectsDesign, y: &[f64]) -> Vec<(String, u64, f64)> {
    let all: Vec<&[usize]> = design
        .factor_columns
        .iter()
        .map(Vec::as_slice)
        .chain(design.pairs.iter().map(|pair| &pair.2[..]))
        .collect();

    let mains = design.factor_columns.len();
    let contains = |term: usize, part: usize| {
        part < mains
            && term >= mains
            && [design.pairs[term - mains].0, design.pairs[term - mains].1].contains(&part)
    };

    let mut found = Vec::new();
    for (term, columns) in all.iter().enumerate() {
        let others = (0..all.len()).filter(|other| *other != term && !contains(*other, term));
        let base: Vec<usize> = std::iter::once(0)
            .chain(others.flat_map(|other| all[other].iter().copied()))
            .collect();
        let (without, rank) = design.columns.residual_squares(&base, y);
        let (with, larger) = design
            .columns
            .residual_squares(&[&base[..], *columns].concat(), y);

        found.push((
            term_name(spec, design, term),
            (larger - rank) as u64,
            (without - with).max(0.0),
        ));
    }

    let whole: Vec<usize> = std::iter::once(0).chain(all.concat()).collect();
    let (left, rank) = design.columns.residual_squares(&whole, y);
    if y.len() > rank {
        found.push((
            "further interactions".to_owned(),
            (y.len() - rank) as u64,
            left,
        ));
    }

    found
}

/// The name of a term; factors come first, then pairs of them.
fn term_name(spec: &Spec, design: &EffectsDesign, term: usize) -> String {
    match term.checked_sub(design.factor_columns.len()) {
        None => design.factor_name(spec, term),
        Some(pair) => {
            let (a, b, _) = &design.pairs[pair];
            format!(
                "{} × {}",
                design.factor_name(spec, *a),
                design.factor_name(spec, *b)
            )
        }
    }
}

/// The terms within cells: the common effect of repeats over all cells, and the rest; both in one
/// if trials are missing.
fn within_cell_terms(
    values: &[&[(u32, f64)]],
    blocks: &RepeatBlocks,
    means: &[f64],
    notes: &mut Vec<String>,
) -> Vec<AnovaTerm> {
    let trials: usize = values.iter().map(|values| values.len()).sum();
    let squares: f64 = values
        .iter()
        .zip(means)
        .map(|(values, mean)| {
            values
                .iter()
                .map(|(_, x)| (x - mean) * (x - mean))
                .sum::<f64>()
        })
        .sum();
    let cells = means.len();
    let repeats = blocks.repeat_count();
    if repeats < 2 || trials == cells {
        return Vec::new();
    }

    if !blocks.is_complete() {
        let lacking = cells * repeats - trials;
        notes.push(format!(
            "{lacking} of {} trials have no value: the variance that a repeat has in common across cells cannot be \
             separated from the rest",
            cells * repeats
        ));

        return vec![AnovaTerm::within_cells(
            "within cells",
            trials - cells,
            squares,
        )];
    }

    let average =
        |row: &[f64]| row.iter().zip(means).map(|(x, mean)| x - mean).sum::<f64>() / cells as f64;
    let common = (0..repeats)
        .map(|repeat| average(blocks.repeat_values(repeat)))
        .map(|x| x * x)
        .sum::<f64>()
        * cells as f64;
    let rest = (squares - common).max(0.0);

    vec![
        AnovaTerm::within_cells("repeats", repeats - 1, common),
        AnovaTerm::within_cells("residual", (repeats - 1) * (cells - 1), rest),
    ]
}
