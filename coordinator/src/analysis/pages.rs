//! Tables and curves in pages, so that large sweeps need not fit into memory.

use std::cell::Cell;

use ergodic_common::Spec;

use crate::analysis::AnalysisError;
use crate::analysis::query::{MAX_EMPTY_ROWS, TableQuery};
use crate::analysis::row_source::{CellRange, RowSource};
use crate::analysis::table::TableEntry;

/// Number of points of curves, or rows of a table, per page.
const ENTRIES_PER_PAGE: u64 = 2_000;

/// Number of trial values that are read per page.
const VALUES_PER_PAGE: u64 = 1_000_000;

/// Approximate bytes of an entry on its way to a peer.
const ENTRY_BYTES: u64 = 1024;

/// Bytes of a value in memory.
const VALUE_BYTES: u64 = 16;

/// Bytes of a trial's end in memory while cells are ranked.
const END_BYTES: u64 = 64;

impl TableQuery {
    /// Calls `each` with the pages of a table, until `each` returns `false`.
    ///
    /// # Errors
    /// As for [`TableQuery::compute_table`].
    pub fn for_each_table_page(
        &self,
        rows: RowSource<'_>,
        each: &mut dyn FnMut(Vec<TableEntry>) -> bool,
    ) -> Result<(), AnalysisError> {
        self.for_each_page_of_cells(cells_per_page(rows.spec, 1), rows, each)
    }

    /// Calls `each` with the pages of a table, with `cells` cells per page if each row is one cell.
    pub(super) fn for_each_page_of_cells(
        &self,
        cells: u64,
        rows: RowSource<'_>,
        each: &mut dyn FnMut(Vec<TableEntry>) -> bool,
    ) -> Result<(), AnalysisError> {
        // With `at`, only the end of all curves shows whether any has a sample. A table of one page
        // is cheaper in one read.
        if self.at.is_some() || self.pooled || cells >= rows.spec.grid.cell_number_bound() {
            return hand_out_pages(self.compute_table(rows)?, each);
        }

        let places = self.rank_cells(rows)?;
        let drawn = Cell::new(0);
        self.for_each_page(
            rows,
            cells,
            &|within| self.compute_table_page(rows, within, &places, &drawn),
            each,
        )
    }

    /// Calls `each` with the pages of curves, until `each` returns `false`.
    ///
    /// # Errors
    /// As for [`TableQuery::compute_curves`].
    pub fn for_each_curve_page(
        &self,
        rows: RowSource<'_>,
        each: &mut dyn FnMut(Vec<TableEntry>) -> bool,
    ) -> Result<(), AnalysisError> {
        let drawn = Cell::new(0);
        let cells = cells_per_page(rows.spec, max_samples_per_trial(rows.spec));
        self.for_each_page(
            rows,
            cells,
            &|within| self.compute_curve_page(rows, within, &drawn),
            each,
        )
    }

    /// Computes pages of `cells` cells if each row is one cell, and otherwise a single page.
    fn for_each_page(
        &self,
        rows: RowSource<'_>,
        cells: u64,
        work_out: &dyn Fn(CellRange) -> Result<Vec<TableEntry>, AnalysisError>,
        each: &mut dyn FnMut(Vec<TableEntry>) -> bool,
    ) -> Result<(), AnalysisError> {
        if self.pooled {
            return hand_out_pages(work_out(CellRange::ALL)?, each);
        }

        let numbers = rows.spec.grid.cell_number_bound();
        let mut from = 0;
        while from < numbers {
            let within = CellRange {
                from,
                to: from.saturating_add(cells).min(numbers),
            };
            let page = work_out(within)?;
            if !page.is_empty() && !each(page) {
                return Ok(());
            }

            from = within.to;
        }

        Ok(())
    }

    /// Approximate bytes of an answer for `done` trials: of a table or of curves, in pages or in
    /// one piece.
    pub fn estimate_bytes(&self, spec: &Spec, done: u64, curves: bool, paged: bool) -> u64 {
        let samples = if curves {
            max_samples_per_trial(spec)
        } else {
            1
        };

        if paged && !self.pooled && (curves || self.at.is_none()) {
            // Ranking needs the ends of all cells at once, even if rows are sent in pages.
            let ends = if !curves && self.is_ranked(spec) {
                done.saturating_mul(END_BYTES)
            } else {
                0
            };

            return estimate_page_bytes(spec, done, samples).saturating_add(ends);
        }

        let places = self.axes.iter().fold(1_u64, |n, axis| {
            n.saturating_mul(spec.grid.axes()[*axis].len())
        });
        let rows = places
            .min(done.max(MAX_EMPTY_ROWS))
            .min(spec.grid.cell_count());

        let values = done.saturating_mul(samples).saturating_mul(VALUE_BYTES);
        rows.saturating_mul(samples)
            .saturating_mul(ENTRY_BYTES)
            .saturating_add(values)
    }
}

/// Approximate bytes of a page for `done` trials with `samples` samples each.
fn estimate_page_bytes(spec: &Spec, done: u64, samples: u64) -> u64 {
    let all = done.saturating_mul(samples);
    // A cell's curves are read in one piece, however many values they have.
    let values = VALUES_PER_PAGE
        .max(samples.saturating_mul(u64::from(spec.repeats)))
        .min(all);
    (4 * ENTRIES_PER_PAGE).min(all) * ENTRY_BYTES + values * VALUE_BYTES
}

/// Number of cells per page, for trials with `samples` samples each.
fn cells_per_page(spec: &Spec, samples: u64) -> u64 {
    let values = samples.saturating_mul(u64::from(spec.repeats));
    (ENTRIES_PER_PAGE / samples)
        .min(VALUES_PER_PAGE / values)
        .max(1)
}

/// Number of samples that a trial of a program is taken to have, which is known afterwards alone.
const ASSUMED_PROGRAM_SAMPLES: u64 = 1_000;

/// Maximum number of samples of a trial.
fn max_samples_per_trial(spec: &Spec) -> u64 {
    if spec.program().is_some() {
        return ASSUMED_PROGRAM_SAMPLES;
    }
    spec.grid
        .kept_classes()
        .filter_map(|class| {
            let config = spec
                .grid
                .resolve_config(spec.grid.class_cell_at(class, 0))
                .ok()?;
            let measure = spec.measure_of_class(class).ok()?;
            let samples = measure.every.steps_in_trial(&config);
            Some(samples.count())
        })
        .max()
        .unwrap_or(1)
        .max(1)
}

fn hand_out_pages(
    mut entries: Vec<TableEntry>,
    each: &mut dyn FnMut(Vec<TableEntry>) -> bool,
) -> Result<(), AnalysisError> {
    while !entries.is_empty() {
        let rest = entries.split_off(entries.len().min(ENTRIES_PER_PAGE as usize));
        if !each(std::mem::replace(&mut entries, rest)) {
            break;
        }
    }
    Ok(())
}
