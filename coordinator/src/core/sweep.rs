//! A sweep as stored and as the core sees it: pending trials, rows, speed.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use ergodic_common::ids::{CellHash, CellIndex, DatasetHash, SweepId, SweepNumber, TrialIndex};
use ergodic_common::metric::Metric;
use ergodic_common::spec::misleading::find_mixed_losses;
use ergodic_common::spec::scheduling::Share;
use ergodic_common::{Outcome, Spec, TrialKey};

use super::audits::Audits;
use super::clock::CoreTime;
use super::quarantine::Quarantine;
use super::running_stats::LiveStats;
use super::stopping::AdaptiveRepeats;
use crate::cell_stats::average_seconds;
use crate::interval_set::IntervalSet;
use crate::records::{LeaseRow, OutcomeCounts, RecordedAudit, SweepRow, SweepState, SweepTallies};
use crate::stored_row::{StoredRow, watched_metric};
use crate::sweep_seal::SweepSeal;

/// A stored sweep that this program cannot read.
#[derive(Debug, Clone)]
pub struct UnreadableSweep {
    /// The sweep's row in the store.
    pub record: Arc<SweepRow>,
    /// The reason why the sweep cannot be read.
    pub why: String,
}

/// A sweep in the core.
#[derive(Debug)]
pub struct Sweep {
    /// The id by which users name it.
    pub id: SweepId,
    /// Number of the sweep in the store, in the order of launch.
    pub number: SweepNumber,
    /// The spec in the sweep's file.
    pub spec: Arc<Spec>,
    /// The row that it was launched with.
    pub record: Arc<SweepRow>,
    /// Whether the sweep runs, is paused, or has ended.
    pub state: SweepState,
    /// Why the sweep is only shown, and neither run nor changed; `None` for a sweep that this
    /// program can run.
    pub withheld: Option<String>,
    /// Priority and weight, by which sweeps share workers.
    pub share: Share,
    /// Numbers of trials with a row, by outcome.
    pub counts: OutcomeCounts,
    /// Counts of events that leave no row.
    pub tallies: SweepTallies,
    /// Running statistics of the main metric, per cell.
    pub live_stats: LiveStats,
    /// Whether the main metric is the same quantity in all cells.
    pub is_ranked: bool,
    /// Trials that are suspected of killing workers.
    pub quarantine: Quarantine,
    /// Trials that run a second time.
    pub audits: Audits,
    /// The progress of the stopping rule, if there is one.
    pub adaptive_repeats: Option<AdaptiveRepeats>,
    /// Time until which workers from before a restart may come back to run the sweep's audits.
    pub(super) auditors_expected_until: CoreTime,
    /// A cache of the identities of cells, which decide about audits.
    pub(super) cell_hashes: HashMap<CellIndex, CellHash>,
    /// Unfinished trials with a checkpoint, and the number of steps at which it was taken.
    pub(super) checkpoints: BTreeMap<TrialKey, u64>,
    pub(super) classes: Vec<ClassState>,
    pub(super) leased: u64,
    pub(super) completion_rate: CompletionRate,
    pub(super) fair_share: FairShare,
    /// The cause of the last failure of a program.
    pub(super) last_failure: Option<String>,
    /// Whether the sweep of a program paused itself, and nobody has steered it since.
    pub(super) has_paused_itself: bool,
}

#[derive(Debug)]
pub(super) struct ClassState {
    pub(super) pending: IntervalSet,
    /// Moving average of the duration of a trial, in seconds.
    pub(super) trial_seconds: Option<f64>,
}

/// A sweep's position in the competition for workers.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct FairShare {
    /// Virtual time of the sweep: the slot-seconds that it got, divided by its weight.
    pub(super) vruntime: f64,
    /// Whether the sweep had work when leases were last assigned.
    pub(super) competes: bool,
    /// Virtual time that the leases took beyond their estimates when they were last summed up.
    pub(super) overdue: f64,
    /// Time until which that sum stays.
    pub(super) overdue_until: Option<CoreTime>,
}

impl FairShare {
    /// Virtual time of the sweep, including what its leases take beyond their estimates.
    pub(super) fn current_vruntime(&self) -> f64 {
        self.vruntime + self.overdue
    }

    /// Refunds virtual time that was charged and not used.
    pub(super) fn refund_vruntime(&mut self, booked: f64) {
        self.vruntime -= booked;
    }
}

/// Trials per second, averaged with a time constant of [`CompletionRate::TIME_CONSTANT`].
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct CompletionRate {
    per_second: f64,
    counted_since: Option<CoreTime>,
    newly_counted: u64,
}

impl Sweep {
    /// Creates a sweep without rows.
    pub fn new(record: Arc<SweepRow>, spec: Arc<Spec>) -> Self {
        let adaptive_repeats = spec
            .stopping_rule
            .as_ref()
            .map(|rule| AdaptiveRepeats::new(&spec, rule));
        let is_ranked =
            find_mixed_losses(&spec, &watched_metric(&spec.measure.metrics).1).is_none();

        let repeats = u64::from(
            adaptive_repeats
                .as_ref()
                .map_or(spec.repeats, AdaptiveRepeats::min_repeats),
        );
        let classes = spec
            .grid
            .shape_classes()
            .map(|class| ClassState {
                pending: IntervalSet::from_range(0, spec.grid.class_cell_count(class) * repeats),
                trial_seconds: None,
            })
            .collect();

        Self {
            id: record.id.clone(),
            number: record.number,
            spec,
            state: record.state,
            withheld: None,
            share: record.share,
            tallies: record.tallies,
            record,
            counts: crate::records::OutcomeCounts::default(),
            live_stats: LiveStats::default(),
            is_ranked,
            quarantine: Quarantine::default(),
            audits: Audits::default(),
            adaptive_repeats,
            auditors_expected_until: CoreTime::ZERO,
            cell_hashes: HashMap::new(),
            checkpoints: BTreeMap::new(),
            classes,
            leased: 0,
            completion_rate: CompletionRate::default(),
            fair_share: FairShare::default(),
            last_failure: None,
            has_paused_itself: false,
        }
    }

    /// Whether the sweep's trials are assigned to workers.
    pub fn is_running(&self) -> bool {
        self.state == crate::records::SweepState::Running && self.withheld.is_none()
    }

    /// The metric that is watched while the sweep runs: the one by which its cells are selected.
    pub fn watched_metric(&self) -> (usize, Metric) {
        watched_metric(&self.spec.measure.metrics)
    }

    /// Number of trials to run, as far as is known. It grows under a stopping rule.
    pub fn total_trials(&self) -> u64 {
        self.adaptive_repeats
            .as_ref()
            .map_or_else(|| self.spec.trial_count(), AdaptiveRepeats::total_trials)
    }

    /// Expected number of trials in the end.
    pub fn expected_trials(&self) -> u64 {
        self.adaptive_repeats
            .as_ref()
            .map_or_else(|| self.spec.trial_count(), AdaptiveRepeats::expected_trials)
    }

    /// Whether the sweep needs a trial, as far as is known, or has run it.
    pub fn needs_trial(&self, key: TrialKey) -> bool {
        self.spec.has_trial(key)
            && self
                .adaptive_repeats
                .as_ref()
                .is_none_or(|adaptive| key.repeat.0 < adaptive.allowed_repeats(key.cell))
    }

    /// Number of unfinished trials with a checkpoint.
    pub fn checkpoint_count(&self) -> u64 {
        self.checkpoints.len() as u64
    }

    /// Number of trials in leases.
    pub fn leased_count(&self) -> u64 {
        self.leased
    }

    /// Trials per second: as counted lately if trials are short, and otherwise as `slots` slots
    /// should achieve.
    pub fn estimate_trial_rate(&self, slots: f64) -> f64 {
        let (trials, seconds) = self
            .classes
            .iter()
            .filter(|class| !class.pending.is_empty() && class.trial_seconds.is_some())
            .fold((0.0, 0.0), |(trials, seconds), class| {
                let pending = class.pending.len() as f64;
                (
                    trials + pending,
                    seconds + pending * class.trial_seconds.unwrap_or(0.0),
                )
            });

        if seconds > LONG_TRIAL_SECONDS * trials {
            slots * trials / seconds
        } else {
            self.completion_rate.per_second
        }
    }

    /// Records a row; returns its trial.
    pub(super) fn record_row(&mut self, row: &StoredRow) -> TrialIndex {
        let index = self.count_row(row);
        self.classes[index.class.position()]
            .pending
            .remove(index.number);
        self.quarantine.remove(index);
        index
    }

    /// Records the rows that a sweep starts with, in any order.
    pub(super) fn record_initial_rows(&mut self, rows: impl IntoIterator<Item = StoredRow>) {
        let mut done = vec![Vec::new(); self.classes.len()];
        let has_ended = self.state == crate::records::SweepState::Completed;
        self.adaptive_repeats
            .iter_mut()
            .filter(|_| has_ended)
            .for_each(AdaptiveRepeats::freeze_decisions);

        for row in rows {
            let index = self.count_row(&row);
            done[index.class.position()].push(index.number);
        }

        if has_ended {
            self.restore_decisions();
        }

        for (class, mut done) in self.classes.iter_mut().zip(done) {
            done.sort_unstable();
            class.pending.remove_all(&done);
        }
    }

    /// Records the rows that a completed sweep starts with by what they amount to: every trial has one. Audits count as made; those
    /// that are due are recorded like others.
    pub fn record_seal(&mut self, seal: SweepSeal) {
        self.counts = seal.counts;
        self.last_failure = seal.last_failure;
        self.live_stats = LiveStats::from_cells(seal.cells);
        for (class, seconds) in self.classes.iter_mut().zip(seal.class_seconds) {
            class.pending = IntervalSet::default();
            class.trial_seconds = seconds;
        }

        if seal.audits.remaining() == 0 {
            self.audits.counts = seal.audits;
        }
    }

    /// Records a row in everything but the pending trials; returns its trial.
    fn count_row(&mut self, row: &StoredRow) -> TrialIndex {
        let index = self.spec.grid.locate_trial(row.key);
        self.counts.add(&row.outcome);
        if let (Outcome::Failed { cause }, Some(_)) = (&row.outcome, self.spec.program()) {
            self.last_failure = Some(cause.clone());
        }
        self.live_stats
            .record_trial(row.key.cell, &row.outcome, row.watched_metric);
        self.update_allowance(row);

        // A failed trial says nothing about how long trials take.
        if !matches!(row.outcome, Outcome::Failed { .. }) {
            let seconds = &mut self.classes[index.class.position()].trial_seconds;
            *seconds = Some(average_seconds(*seconds, row.seconds));
        }

        index
    }

    /// Whether a trial is chosen for an audit.
    pub(super) fn is_chosen_for_audit(&mut self, key: TrialKey) -> bool {
        if self.spec.scheduling.audit_share == 0.0 || !self.spec.has_trial(key) {
            return false;
        }
        if self.cell_hashes.len() >= MAX_CELL_HASHES {
            self.cell_hashes.clear();
        }

        let spec = &self.spec;
        let data = self.record.data.hash.unwrap_or(DatasetHash::NONE);
        let hash = self.cell_hashes.entry(key.cell).or_insert_with(|| {
            // Resolving cannot fail, because reading the sweep has checked its cells.
            spec.grid
                .resolve_config(key.cell)
                .map_or(CellHash([0; 32]), |config| {
                    spec.compute_cell_hash(&config, data)
                })
        });

        spec.should_audit(*hash, key.repeat)
    }

    /// Records audits from the store: trials, the processes that computed their rows, and findings.
    pub fn record_audits(&mut self, audits: impl IntoIterator<Item = RecordedAudit>) {
        for (key, origin, finding) in audits {
            self.audits
                .add_audit(self.spec.grid.locate_trial(key), &origin, finding);
        }
    }

    /// Takes those trials of a lease in the store that have no row yet.
    pub(super) fn take_recorded_trials(&mut self, lease: &LeaseRow) -> IntervalSet {
        if let Some(origin) = &lease.audits {
            return self
                .audits
                .take_recorded_trials(origin, lease.class, &lease.trials);
        }

        let Some(class) = self.classes.get_mut(lease.class.position()) else {
            return IntervalSet::default();
        };

        // A damaged store may name trials beyond the end of the class.
        let end = self.spec.class_trial_count(lease.class);
        let trials = lease
            .trials
            .ranges()
            .flat_map(|(from, to)| from..to.min(end));
        let mut taken = IntervalSet::default();
        trials
            .filter(|n| class.pending.remove(*n))
            .for_each(|n| taken.insert(n, n + 1));

        self.leased += taken.len();
        taken
    }

    /// Whether a retry would have something to run: failed trials, failed audits, or audits that
    /// were left undone.
    pub fn has_failures(&self) -> bool {
        let left = self.state == crate::records::SweepState::Completed
            && self.audits.counts.remaining() > 0;
        self.counts.failed + self.audits.counts.failed > 0 || left
    }

    /// Returns trials that a lease no longer holds to the pending ones.
    pub(super) fn take_back_trials(&mut self, lease: &LeaseRow, trials: IntervalSet) {
        if let Some(origin) = &lease.audits {
            return self.audits.take_back_trials(origin, lease.class, trials);
        }
        self.leased -= trials.len();
        let rest = self.quarantine.take_back_quarantined(lease.class, trials);
        self.classes[lease.class.position()]
            .pending
            .insert_all(&rest);
        self.reopen_cells(lease.class, &rest);
    }

    /// Makes a failed trial pending, so that it runs again.
    pub(super) fn reopen_failed_trial(&mut self, key: TrialKey) {
        self.counts.failed -= 1;
        self.rejudge_without_row(key);
        self.live_stats.forget_failed_trial(key.cell);
        self.add_pending_trial(key);
    }

    /// Whether a trial is pending, and neither leased nor quarantined.
    pub(super) fn has_pending_trial(&self, index: TrialIndex) -> bool {
        self.classes[index.class.position()]
            .pending
            .contains(index.number)
    }

    /// Whether there is anything that a worker could be offered: trials or audits that nobody holds.
    pub(super) fn has_work(&self) -> bool {
        self.has_pending() || self.quarantine.next_trial().is_some() || self.audits.has_waiting()
    }

    /// Whether trials are pending, apart from quarantined ones.
    pub(super) fn has_pending(&self) -> bool {
        self.classes.iter().any(|class| !class.pending.is_empty())
    }
}

/// Maximum number of cells whose identity is cached.
const MAX_CELL_HASHES: usize = 100_000;
/// Duration in seconds from which on trials end too rarely to measure the rate by counting them.
const LONG_TRIAL_SECONDS: f64 = 2.0;

impl CompletionRate {
    /// The time constant, in seconds.
    const TIME_CONSTANT: f64 = 15.0;

    pub(super) fn count_trials(&mut self, trials: u64, now: CoreTime) {
        self.newly_counted += trials;
        let since = *self.counted_since.get_or_insert(now);
        let elapsed = now.saturating_sub(since).as_secs_f64();
        if elapsed < 1.0 {
            return;
        }

        let fresh = self.newly_counted as f64 / elapsed;
        let keep = if self.per_second == 0.0 {
            0.0
        } else {
            (-elapsed / Self::TIME_CONSTANT).exp()
        };
        self.per_second = keep * self.per_second + (1.0 - keep) * fresh;

        self.counted_since = Some(now);
        self.newly_counted = 0;
    }
}

#[cfg(test)]
mod tests {
    use crate::core::sweep::*;
    use crate::core::{MetricPositions, main_metric};

    #[test]
    fn what_is_watched_is_what_chooses() {
        let metrics = [
            Metric::TrainLoss,
            Metric::TestAcc,
            Metric::ValLoss,
            Metric::ValAcc,
        ];
        assert_eq!(watched_metric(&metrics), (3, Metric::ValAcc));

        assert_eq!(
            watched_metric(&metrics[..3]),
            (1, Metric::TestAcc),
            "another metric of the same images does not choose"
        );
        assert_eq!(main_metric(&metrics), (1, Metric::TestAcc));

        let row = MetricPositions {
            watched: watched_metric(&metrics).0,
            deciding: None,
        }
        .build_row(
            TrialKey::new(0, 0),
            Outcome::Completed,
            |at| [1.0, 2.0, 3.0, 4.0].get(at).copied(),
            0.0,
        );

        assert_eq!(row.watched_metric, 4.0);
    }
}
