//! How many trials to put into a lease.

/// Target duration of a lease, in seconds.
const LEASE_SECONDS: f64 = 10.0;
/// Duration in seconds from which trials that need more than a slot do not wait on a worker.
const MAX_AHEAD_SECONDS: f64 = 1.0;
/// Maximum number of trials in a lease.
const MAX_LEASE_TRIALS: u64 = 16_384;

/// The inputs of the size of a lease.
#[derive(Debug, Clone, Copy)]
pub struct LeaseDemand {
    /// Number of the sweep's trials that no worker holds.
    pub unleased: u64,
    /// Number of trials that the worker can run at a time: its slots, if each takes one.
    pub slots: u32,
    /// Number of trials that can run on what is idle of it.
    pub idle: u32,
    /// Whether a trial takes one slot and nothing else.
    pub is_narrow: bool,
    /// Number of trials that all workers can run at a time.
    pub all_slots: u32,
    /// Observed duration of a trial of this class, in seconds.
    pub trial_seconds: Option<f64>,
    /// Time for which the worker begins trials, in seconds of a worker of the usual pace; `None` without a limit.
    pub begins_for: Option<f64>,
}

/// Number of trials for a lease: enough for ten seconds, but at most half of a fair share of the
/// remaining ones, so that all workers finish together, and no more than the worker begins before its
/// time is over. As many as can run on what is idle while the
/// duration is unknown, and for trials that need more than a slot and take long: those that waited on
/// the worker would block what they leave of it for others.
pub fn compute_lease_size(demand: LeaseDemand) -> u64 {
    let idle = u64::from(demand.idle.max(1));
    let ahead = |seconds: &f64| demand.is_narrow || *seconds < MAX_AHEAD_SECONDS;
    let Some(seconds) = demand.trial_seconds.filter(ahead) else {
        return idle.min(demand.unleased);
    };
    let slots = u64::from(demand.slots.max(1));
    let seconds = seconds.max(1e-6);
    let busy = ((LEASE_SECONDS / seconds) as u64).max(1) * slots;
    let in_time = demand.begins_for.map_or(u64::MAX, |left| {
        ((left / seconds).ceil() as u64)
            .max(1)
            .saturating_mul(slots)
    });

    let share = demand
        .unleased
        .div_ceil(2 * u64::from(demand.all_slots.max(demand.slots).max(1)))
        * slots;
    busy.min(share)
        .min(in_time)
        .min(MAX_LEASE_TRIALS)
        .max(idle)
        .min(demand.unleased)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::core::lease_size::*;

    proptest! {
        #[test]
        fn a_lease_fits_what_is_left_and_feeds_idle_slots(
            unleased in 1_u64..1_000_000, slots in 1_u32..64, idle in 0_u32..64, others in 0_u32..64, us in 1_u64..1e9 as u64,
        ) {
            let idle = idle.min(slots);
            let demand = LeaseDemand { unleased, slots, idle, is_narrow: true, all_slots: slots + others, trial_seconds: Some(us as f64 * 1e-6), begins_for: None };
            let size = compute_lease_size(demand);
            prop_assert!(size >= 1 && size <= unleased && size <= MAX_LEASE_TRIALS);
            prop_assert!(size >= u64::from(idle).min(unleased));
        }
    }

    #[test]
    fn long_trials_are_given_one_per_slot_and_short_ones_by_the_thousand() {
        let demand = LeaseDemand {
            unleased: 1_000_000,
            slots: 4,
            idle: 4,
            is_narrow: true,
            all_slots: 8,
            trial_seconds: Some(60.0),
            begins_for: None,
        };
        assert_eq!(compute_lease_size(demand), 4);

        assert_eq!(
            compute_lease_size(LeaseDemand {
                trial_seconds: Some(0.1),
                ..demand
            }),
            400
        );

        assert_eq!(
            compute_lease_size(LeaseDemand {
                trial_seconds: Some(1e-5),
                ..demand
            }),
            16_384
        );

        assert_eq!(
            compute_lease_size(LeaseDemand {
                trial_seconds: None,
                ..demand
            }),
            4
        );

        let tail = LeaseDemand {
            unleased: 12,
            trial_seconds: Some(0.1),
            idle: 1,
            ..demand
        };
        assert_eq!(compute_lease_size(tail), 4);
    }

    #[test]
    fn a_worker_whose_time_ends_gets_what_it_begins_until_then() {
        let demand = LeaseDemand {
            unleased: 1_000_000,
            slots: 4,
            idle: 2,
            is_narrow: true,
            all_slots: 8,
            trial_seconds: Some(0.5),
            begins_for: Some(3.2),
        };
        // Each slot begins a trial after 0, 0.5, … 3 seconds.
        assert_eq!(compute_lease_size(demand), 7 * 4);
        let last = LeaseDemand {
            begins_for: Some(0.0),
            ..demand
        };
        assert_eq!(compute_lease_size(last), 4);
    }

    #[test]
    fn trials_that_need_more_than_a_slot_wait_on_a_worker_only_if_they_are_short() {
        let demand = LeaseDemand {
            unleased: 1_000_000,
            slots: 4,
            idle: 1,
            is_narrow: false,
            all_slots: 8,
            trial_seconds: Some(1.0),
            begins_for: None,
        };
        assert_eq!(compute_lease_size(demand), 1);
        let short = LeaseDemand {
            trial_seconds: Some(0.5),
            ..demand
        };
        assert_eq!(compute_lease_size(short), 80);
    }
}
