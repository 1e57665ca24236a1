//! The seal of a completed sweep: what its rows amount to, so that a start need not read them.
//!
//! A seal is a function of the sweep's file, of its rows in the order of cell and repeat, and of its
//! audits. It has everything that the core makes of rows when it reads them. Under a stopping rule
//! the core needs the value of every trial, so such sweeps have no seal.

use ergodic_common::ids::CellIndex;
use ergodic_common::{Outcome, Spec};

use crate::cell_stats::{CellStats, average_seconds};
use crate::records::{AuditCounts, OutcomeCounts};
use crate::stored_row::{MetricPositions, StoredRow};

/// What the rows of a completed sweep amount to.
#[derive(Debug, Clone, PartialEq)]
pub struct SweepSeal {
    /// Position of the watched metric in the sweep's list.
    pub watched: u32,
    /// Numbers of rows by outcome.
    pub counts: OutcomeCounts,
    /// Sum of the checksums of all rows, modulo 2^64.
    pub row_sum: u64,
    /// Numbers of audits by finding.
    pub audits: AuditCounts,
    /// Moving average of the durations of trials in seconds, by shape class.
    pub class_seconds: Vec<Option<f64>>,
    /// The cause of the last failure of a program.
    pub last_failure: Option<String>,
    /// Running statistics of all cells, by number.
    pub cells: Vec<(CellIndex, CellStats)>,
}

/// Whether a completed sweep with this file gets a seal.
pub fn can_be_sealed(spec: &Spec) -> bool {
    spec.stopping_rule.is_none()
}

impl SweepSeal {
    /// Whether the seal may stand for the rows of a sweep: it has a row of every trial, and watches the same metric.
    pub fn fits_spec(&self, spec: &Spec) -> bool {
        let watched = MetricPositions::from_spec(spec).watched;
        can_be_sealed(spec)
            && self.watched as usize == watched
            && self.class_seconds.len() == spec.grid.class_count() as usize
            && self.counts.done() == spec.trial_count()
            && self.cells.len() as u64 == spec.grid.cell_count()
            && self.has_whole_cells(spec)
    }

    /// Whether the cells are different ones of the sweep, have all of their repeats, and add up to the counts.
    fn has_whole_cells(&self, spec: &Spec) -> bool {
        let mut sum = OutcomeCounts::default();
        for (_, stats) in &self.cells {
            sum.merge(&OutcomeCounts {
                completed: stats.completed.into(),
                diverged: stats.diverged.into(),
                failed: stats.failed.into(),
            });
        }

        let are_whole = self.cells.iter().all(|(cell, stats)| {
            spec.grid.has_cell(*cell) && stats.count_rows() == u64::from(spec.repeats)
        });
        are_whole && self.cells.is_sorted_by(|(a, _), (b, _)| a < b) && sum == self.counts
    }
}

/// Seals a sweep row by row.
#[derive(Debug)]
pub struct SealBuilder<'a> {
    spec: &'a Spec,
    seal: SweepSeal,
}

impl<'a> SealBuilder<'a> {
    /// Begins the seal of a sweep without rows.
    pub fn new(spec: &'a Spec) -> Self {
        let seal = SweepSeal {
            watched: MetricPositions::from_spec(spec).watched as u32,
            counts: OutcomeCounts::default(),
            row_sum: 0,
            audits: AuditCounts::default(),
            class_seconds: vec![None; spec.grid.class_count() as usize],
            last_failure: None,
            cells: Vec::new(),
        };
        Self { spec, seal }
    }

    /// Adds the next row in the order of cell and repeat, with its checksum. Returns whether it is
    /// of a trial of the sweep.
    pub fn add_row(&mut self, row: &StoredRow, checksum: i64) -> bool {
        if !self.spec.has_trial(row.key) {
            return false;
        }

        let Self { spec, seal } = self;
        seal.counts.add(&row.outcome);
        seal.row_sum = seal.row_sum.wrapping_add(checksum as u64);
        match &row.outcome {
            Outcome::Failed { cause } if spec.program().is_some() => {
                seal.last_failure = Some(cause.clone());
            }
            // A failed trial says nothing about how long trials take.
            Outcome::Failed { .. } => {}
            Outcome::Completed | Outcome::Diverged { .. } => {
                let seconds = &mut seal.class_seconds[spec.grid.class_of(row.key.cell).position()];
                *seconds = Some(average_seconds(*seconds, row.seconds));
            }
        }

        match seal.cells.last_mut() {
            Some((cell, stats)) if *cell == row.key.cell => {
                stats.record_trial(&row.outcome, row.watched_metric);
            }
            _ => {
                let mut stats = CellStats::default();
                stats.record_trial(&row.outcome, row.watched_metric);
                seal.cells.push((row.key.cell, stats));
            }
        }

        true
    }

    /// The seal, if every trial has a row.
    pub fn finish(self, audits: AuditCounts) -> Option<SweepSeal> {
        let seal = SweepSeal {
            audits,
            ..self.seal
        };
        seal.fits_spec(self.spec).then_some(seal)
    }
}
