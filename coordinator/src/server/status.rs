//! Converts the core's state to messages.

use ergodic_common::ids::{SweepNumber, WorkerId};
use ergodic_common::spec::stopping_rule::StoppingCriterion;
use ergodic_proto::v1;

use crate::core::audits::AuditCounts;
use crate::core::stopping::AdaptiveRepeats;
use crate::core::{Core, Sweep, UnreadableSweep, Worker};
use crate::records::SweepState;

/// The status of a sweep.
pub(crate) fn sweep_status(core: &Core, sweep: &Sweep) -> v1::SweepStatus {
    let left = sweep.expected_trials().saturating_sub(sweep.counts.done());
    let (workers, slots) = core.capacity_for(&sweep.spec);
    let rate = if sweep.is_running() {
        sweep.estimate_trial_rate(core.estimate_slots(sweep))
    } else {
        0.0
    };

    let (_, metric) = sweep.watched_metric();
    let larger = metric.larger_is_better().filter(|_| sweep.is_ranked);
    let best = larger.and_then(|larger| sweep.live_stats.best_cell(larger));
    v1::SweepStatus {
        id: sweep.id.to_string(),
        name: sweep.spec.name.clone(),
        state: state_to_wire(sweep.state).into(),
        cells: sweep.spec.grid.cell_count(),
        repeats: sweep.spec.repeats,
        trials: sweep.total_trials(),
        completed: sweep.counts.completed,
        diverged: sweep.counts.diverged,
        failed: sweep.counts.failed,
        leased: sweep.leased_count(),
        releases: sweep.tallies.lost_leases,
        duplicates: sweep.tallies.duplicates,
        mismatches: sweep.tallies.mismatches,
        fenced: sweep.tallies.fenced,
        workers,
        slots,
        rate,
        eta_seconds: if rate > 0.0 { left as f64 / rate } else { 0.0 },
        launched_at: sweep.record.launched_at,
        launched_by: sweep.record.launched_by.clone(),
        numerics: sweep.spec.numerics.clone(),
        data: sweep.record.data.provenance.clone(),
        metric: metric.name().into_owned(),
        best_cell: best.map_or_else(String::new, |(cell, _)| sweep.spec.grid.describe_cell(cell)),
        best_mean: best.map_or(0.0, |(_, running)| running.mean),
        best_n: best.map_or(0, |(_, running)| running.n),
        priority: sweep.share.priority,
        weight: sweep.share.weight,
        // The core knows neither the store nor the leader; the service fills these in.
        trouble: String::new(),
        leader: String::new(),
        audit: audit_status(sweep),
        checkpoints: sweep.checkpoint_count(),
        precision: precision_status(sweep),
        halving: halving_status(sweep),
        withheld: sweep.withheld.clone().unwrap_or_default(),
        unreadable: false,
        may_differ: !sweep.spec.must_repeat_exactly(),
        failing: sweep.describe_failing().unwrap_or_default().to_owned(),
    }
}

/// The status of a sweep that cannot be read.
pub(crate) fn unreadable_status(sweep: &UnreadableSweep) -> v1::SweepStatus {
    let UnreadableSweep { record, why } = sweep;
    v1::SweepStatus {
        id: record.id.to_string(),
        name: record.source.sweep_name().unwrap_or_else(|| "?".to_owned()),
        state: state_to_wire(record.state).into(),
        releases: record.tallies.lost_leases,
        duplicates: record.tallies.duplicates,
        mismatches: record.tallies.mismatches,
        fenced: record.tallies.fenced,
        launched_at: record.launched_at,
        launched_by: record.launched_by.clone(),
        data: record.data.provenance.clone(),
        priority: record.share.priority,
        weight: record.share.weight,
        withheld: why.clone(),
        unreadable: true,
        ..v1::SweepStatus::default()
    }
}

/// All sweeps in the order of launch.
pub(crate) fn all_statuses(core: &Core) -> Vec<v1::SweepStatus> {
    list_statuses_from(core, SweepNumber::UNSTORED, usize::MAX)
        .into_iter()
        .map(|(_, status)| status)
        .collect()
}

/// The statuses of up to `most` sweeps from a number on, with their numbers.
pub(crate) fn list_statuses_from(
    core: &Core,
    number: SweepNumber,
    most: usize,
) -> Vec<(SweepNumber, v1::SweepStatus)> {
    let read = core
        .sweeps_from(number)
        .take(most)
        .map(|sweep| (sweep.number, sweep_status(core, sweep)));
    let unreadable = core
        .unreadable_sweeps()
        .filter(|sweep| sweep.record.number >= number);
    let mut all: Vec<(SweepNumber, v1::SweepStatus)> = read
        .chain(unreadable.map(|sweep| (sweep.record.number, unreadable_status(sweep))))
        .collect();
    all.sort_by_key(|(number, _)| *number);

    all.truncate(most);
    all
}

fn precision_status(sweep: &Sweep) -> Option<v1::PrecisionStatus> {
    let (Some(AdaptiveRepeats::Precision(adaptive)), Some(rule)) =
        (&sweep.adaptive_repeats, &sweep.spec.stopping_rule)
    else {
        return None;
    };
    let StoppingCriterion::Precision { ci95 } = rule.criterion else {
        return None;
    };

    Some(v1::PrecisionStatus {
        metric: rule.metric.name().into_owned(),
        ci95,
        min: rule.min_repeats,
        reached: adaptive.progress().count_known_cells(),
        exhausted: adaptive.progress().exhausted_cells,
        expected_trials: sweep.expected_trials(),
    })
}

fn halving_status(sweep: &Sweep) -> Option<v1::HalvingStatus> {
    let (Some(AdaptiveRepeats::Halving(adaptive)), Some(rule)) =
        (&sweep.adaptive_repeats, &sweep.spec.stopping_rule)
    else {
        return None;
    };
    let StoppingCriterion::Halving { factor } = rule.criterion else {
        return None;
    };

    let (standing, ready) = adaptive.rung_progress();
    Some(v1::HalvingStatus {
        metric: rule.metric.name().into_owned(),
        factor,
        min: rule.min_repeats,
        rung: adaptive.current_rung(),
        climbing: standing,
        ready,
        expected_trials: sweep.expected_trials(),
    })
}

fn audit_status(sweep: &Sweep) -> Option<v1::AuditStatus> {
    let share = sweep.spec.scheduling.audit_share;
    let AuditCounts {
        due,
        same,
        different,
        failed,
    } = sweep.audits.counts;

    (share > 0.0 || due > 0).then_some(v1::AuditStatus {
        share,
        due,
        same,
        different,
        failed,
    })
}

/// The statuses of all workers at a time `now` of the core, in seconds.
pub(crate) fn worker_statuses(core: &Core, now: f64) -> Vec<v1::WorkerStatus> {
    core.workers()
        .map(|(id, worker)| worker_status(id, worker, now))
        .collect()
}

/// The status of a worker at a time `now` of the core, in seconds.
fn worker_status(id: &WorkerId, worker: &Worker, now: f64) -> v1::WorkerStatus {
    v1::WorkerStatus {
        id: id.to_string(),
        name: worker.name.clone(),
        connected: worker.connected,
        slots: worker.slots,
        running: worker.running.len() as u32,
        queued: worker.queued,
        trials: worker.stored_rows,
        silent_seconds: (now - worker.last_seen_at.as_secs_f64()).max(0.0),
        numerics: worker.numerics.clone(),
        build: worker.build.clone(),
        begins_for_seconds: worker
            .begins_until
            .map(|until| (until.as_secs_f64() - now).max(0.0)),
    }
}

/// The state of a sweep in the words of the wire.
pub(super) fn state_to_wire(state: SweepState) -> v1::SweepState {
    match state {
        SweepState::Running => v1::SweepState::Running,
        SweepState::Completed => v1::SweepState::Completed,
        SweepState::Cancelled => v1::SweepState::Cancelled,
        SweepState::Paused => v1::SweepState::Paused,
    }
}
