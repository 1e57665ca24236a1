//! The coordinator's decisions: methods over a state, without IO, async or a clock.
//!
//! Each method takes an event and `now`, a monotonic time from the caller, and returns the
//! [`Effect`]s to carry out, in order. Everything else in this crate moves bytes.
//!
//! Invariant: every trial of a running sweep is in exactly one of four states – *pending* (in the
//! interval set of its class), *waiting* (quarantined, and held by no worker), *leased* (in exactly
//! one lease), or *done* (with a row in the store). Some done trials are audited: each audit waits,
//! is in one lease for audits, or is settled. [`Core::check_invariants`] states it, and the model
//! test holds the core to it.

mod assign;
pub mod audits;
mod capacity;
mod checkpoints;
mod clock;
mod effects;
pub mod explanation;
mod failing;
mod fair_share;
mod invariants;
pub mod lease_size;
mod lease_table;
mod pending;
pub mod quarantine;
pub mod queries;
pub mod reuse;
mod roster;
pub mod running_stats;
mod state;
mod step_count;
pub mod stopping;
pub mod sweep;
#[cfg(test)]
mod tests;
mod verbs;
mod work_stealing;
mod worker_state;

pub use clock::{CoreTime, Timing};
pub use effects::{Effect, GiveUpReversal, GivenUpTrial, Steering, SweepChange};
pub use state::{Core, Worker, WorkerSupply};
pub use sweep::{Sweep, UnreadableSweep};
pub use verbs::{Admission, JoiningWorker, SessionEnd};

pub use crate::result_batch::CommitOutcome;
pub use crate::stored_row::{MetricPositions, StoredRow, main_metric, selection_metric};
