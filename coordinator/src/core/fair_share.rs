//! Fair sharing: sweeps that want the same workers share them by priority and weight.
//!
//! A lease charges its sweep the slot-seconds that it should take, divided by the sweep's weight,
//! as *virtual time*. Among sweeps of one priority, the next lease goes to the one with the least
//! virtual time. When a row arrives, the actual duration of its trial replaces the estimate. A
//! lease that takes longer than estimated counts for the time that it has taken. A sweep that
//! begins to compete starts at the virtual time of the others of its priority, so it neither waits
//! for them nor catches up on the past. After a restart of the coordinator all sweeps start at 0.

use ergodic_common::Spec;
use ergodic_common::ids::{Fence, ShapeClass, SweepNumber};
use ergodic_common::program::is_program_class;
use ergodic_common::spec::scheduling::Share;

use super::Sweep;
use super::clock::CoreTime;
use super::lease_table::pause_after_scan;
use super::state::{Core, LeaseState};
use crate::stored_row::StoredRow;

/// Assumed duration of a trial while none is known, in seconds.
const DEFAULT_TRIAL_SECONDS: f64 = 1.0;

impl Core {
    /// Running sweeps in the order in which they are served: by priority, highest first, then by
    /// virtual time, least first.
    pub(super) fn sweeps_by_fair_share(&self) -> Vec<&Sweep> {
        let running = self.sweeps.values().filter(|sweep| sweep.is_running());
        let mut sweeps: Vec<(f64, &Sweep)> = running
            .map(|sweep| (sweep.fair_share.current_vruntime(), sweep))
            .collect();
        sweeps.sort_by(|(a_passed, a), (b_passed, b)| {
            let of_priority = b.share.priority.cmp(&a.share.priority);
            of_priority
                .then(a_passed.total_cmp(b_passed))
                .then(a.number.cmp(&b.number))
        });

        sweeps.into_iter().map(|(_, sweep)| sweep).collect()
    }

    /// Sums up anew what the leases of running sweeps take beyond their estimates. With many leases the sum stays for a while,
    /// because otherwise each event would cost more, the more leases there are.
    pub(super) fn update_overdue_vruntime(&mut self, now: CoreTime) {
        let running = self.sweeps.values().filter(|sweep| sweep.is_running());
        let due = running.filter(|sweep| {
            let until = sweep.fair_share.overdue_until;
            until.is_none_or(|until| now >= until)
        });
        let overdue: Vec<(SweepNumber, usize, f64)> = due
            .map(|sweep| {
                let leases = self.leases.of_sweep(sweep.number);
                let (count, sum) = leases.fold((0, 0.0), |(count, sum), lease| {
                    (count + 1, sum + self.overdue_vruntime(lease, sweep, now))
                });
                (sweep.number, count, sum)
            })
            .collect();

        for (number, count, sum) in overdue {
            if let Some(sweep) = self.sweeps.get_mut(&number) {
                sweep.fair_share.overdue = sum;
                sweep.fair_share.overdue_until = Some(now + pause_after_scan(count));
            }
        }
    }

    /// Virtual time that a lease has taken beyond its estimate.
    fn overdue_vruntime(&self, lease: &LeaseState, sweep: &Sweep, now: CoreTime) -> f64 {
        let left = lease.row.trials.len() as f64;
        let slots = self
            .workers
            .get(&lease.row.worker)
            .map_or(1.0, |worker| f64::from(worker.slots));
        let wanted = left * slots_per_trial(sweep);
        let taken = now.saturating_sub(lease.granted_at).as_secs_f64() * slots.min(wanted);
        (taken / sweep.share.weight - lease.charge_per_trial * left).max(0.0)
    }

    /// Moves sweeps that begin to compete to the virtual time of the others of their priority.
    pub(super) fn catch_up_competitors(&mut self, now: CoreTime) {
        let competing: Vec<(SweepNumber, bool)> = self
            .sweeps
            .values()
            .map(|sweep| (sweep.number, self.competes_for_workers(sweep, now)))
            .collect();

        for (number, competes) in competing {
            let Some(sweep) = self.sweeps.get_mut(&number) else {
                continue;
            };
            if competes && !sweep.fair_share.competes {
                let clock = self
                    .virtual_clocks
                    .get(&sweep.share.priority)
                    .copied()
                    .unwrap_or(0.0);
                sweep.fair_share.vruntime = sweep.fair_share.vruntime.max(clock);
            }

            sweep.fair_share.competes = competes;
        }
    }

    /// Whether a sweep has work that a worker could run.
    fn competes_for_workers(&self, sweep: &Sweep, now: CoreTime) -> bool {
        sweep.is_running()
            && sweep.has_work()
            && self
                .workers
                .connected_kinds()
                .any(|(of_kind, _)| of_kind.is_of_use_for(&sweep.spec))
            && self
                .workers
                .keys()
                .any(|id| self.can_work_on(id, sweep, now))
    }

    /// Charges the sweep for a lease of `trials` trials of a class; returns the virtual time
    /// charged per trial.
    pub(super) fn charge_lease(
        &mut self,
        number: SweepNumber,
        class: ShapeClass,
        trials: u64,
    ) -> f64 {
        let seconds = self.estimate_trial_seconds(number, class);
        let Some(sweep) = self.sweeps.get_mut(&number) else {
            return 0.0;
        };
        let clock = self.virtual_clocks.entry(sweep.share.priority).or_default();
        *clock = clock.max(sweep.fair_share.current_vruntime());

        let each = seconds * slots_per_trial(sweep) / sweep.share.weight;
        sweep.fair_share.vruntime += each * trials as f64;
        each
    }

    /// Expected duration of a trial in seconds: from its class, or else from the rest of its sweep,
    /// or else from all sweeps.
    fn estimate_trial_seconds(&self, number: SweepNumber, class: ShapeClass) -> f64 {
        let sweep = &self.sweeps[&number];
        sweep.classes[class.position()]
            .trial_seconds
            .or_else(|| mean_trial_seconds(sweep))
            .unwrap_or_else(|| self.mean_seconds_of_sweeps())
    }

    fn mean_seconds_of_sweeps(&self) -> f64 {
        let known: Vec<f64> = self
            .sweeps
            .values()
            .filter(|sweep| sweep.state.is_open())
            .filter_map(mean_trial_seconds)
            .collect();
        if known.is_empty() {
            DEFAULT_TRIAL_SECONDS
        } else {
            known.iter().sum::<f64>() / known.len() as f64
        }
    }

    /// Replaces estimates by the actual durations of trials whose rows arrived under a lease.
    pub(super) fn settle_charges(&mut self, fence: Fence, number: SweepNumber, rows: &[StoredRow]) {
        let lease = self
            .leases
            .get(fence.lease)
            .filter(|lease| lease.row.fence == fence);
        let booked = lease.map_or(0.0, |lease| lease.charge_per_trial);
        let Some(sweep) = self.sweeps.get_mut(&number) else {
            return;
        };

        let took: f64 = rows.iter().map(|row| row.seconds.max(0.0)).sum();
        let taken = took * slots_per_trial(sweep);
        sweep.fair_share.vruntime += taken / sweep.share.weight - booked * rows.len() as f64;
    }

    /// Refunds what was charged for the remaining trials of a lease that ended.
    pub(super) fn refund_lease(&mut self, lease: &LeaseState) {
        if let Some(sweep) = self.sweeps.get_mut(&lease.row.sweep) {
            sweep.fair_share.vruntime -= lease.charge_per_trial * lease.row.trials.len() as f64;
        }
    }

    /// Changes the share of a sweep. The sweep keeps its distance in virtual time to the others,
    /// even at another priority.
    pub(super) fn change_share(&mut self, number: SweepNumber, share: Share) {
        let Some(sweep) = self.sweeps.get_mut(&number) else {
            return;
        };
        let old = std::mem::replace(&mut sweep.share, share);
        let clocks = &self.virtual_clocks;
        let new_clock = clocks.get(&share.priority).copied().unwrap_or(0.0);
        let old_clock = clocks.get(&old.priority).copied().unwrap_or(0.0);
        sweep.fair_share.vruntime += new_clock - old_clock;
    }

    /// Number of trials of a running sweep that can be expected to run at a time, as workers are shared now; 0 if a higher
    /// priority may take all.
    pub fn estimate_slots(&self, sweep: &Sweep) -> f64 {
        let slots = self.count_parallel_trials(&sweep.spec);
        let rivals = self.rival_sweeps(sweep);
        if rivals
            .iter()
            .any(|rival| rival.share.priority > sweep.share.priority)
        {
            return 0.0;
        }

        let equal = rivals
            .iter()
            .filter(|rival| rival.share.priority == sweep.share.priority);
        let weights: f64 = equal.map(|rival| rival.share.weight).sum();
        f64::from(slots) * sweep.share.weight / (sweep.share.weight + weights)
    }

    /// Other sweeps that want the same workers.
    pub(super) fn rival_sweeps(&self, sweep: &Sweep) -> Vec<&Sweep> {
        let running = self
            .sweeps
            .values()
            .filter(|s| s.is_running() && s.number != sweep.number);
        running
            .filter(|rival| {
                rival.fair_share.competes && want_same_workers(&rival.spec, &sweep.spec)
            })
            .collect()
    }
}

/// Whether the same workers can run two sweeps. Whoever runs one program runs all.
fn want_same_workers(a: &Spec, b: &Spec) -> bool {
    let are_programs = is_program_class(&a.numerics) && is_program_class(&b.numerics);
    a.numerics == b.numerics || are_programs
}

/// Number of slots that a trial of a sweep takes.
fn slots_per_trial(sweep: &Sweep) -> f64 {
    f64::from(sweep.spec.trial_needs().slots)
}

/// Mean duration of a trial in seconds, over the classes of a sweep in which it is known.
fn mean_trial_seconds(sweep: &Sweep) -> Option<f64> {
    let seconds: Vec<f64> = sweep
        .classes
        .iter()
        .filter_map(|class| class.trial_seconds)
        .collect();
    (!seconds.is_empty()).then(|| seconds.iter().sum::<f64>() / seconds.len() as f64)
}
