//! Counts the leases and workers that the core looks at. A test holds the number per event to a bound, which says more than a
//! time: it is the same on every machine. Outside of tests nothing is counted.

#[cfg(test)]
use std::cell::Cell;

#[cfg(test)]
thread_local! {
    static STEPS: Cell<u64> = const { Cell::new(0) };
}

/// Counts a lease or worker that is looked at among others.
#[inline]
pub(super) fn count_step() {
    #[cfg(test)]
    STEPS.with(|steps| steps.set(steps.get() + 1));
}

/// Returns the number of steps of this thread since the last call.
#[cfg(test)]
pub(super) fn take_steps() -> u64 {
    STEPS.with(Cell::take)
}
