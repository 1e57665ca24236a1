//! The coordinator's decisions: plain verbs over a state, without IO, async or a clock.
//!
//! Each verb takes what happened and `now` (a monotonic time handed in by the caller) and returns the [`Effect`]s to
//! carry out, in order. Everything else in this crate moves bytes.
//!
//! Invariant: every trial of a running sweep is in exactly one of four states – *pending* (in its class' interval
//! set), *waiting* (in quarantine, and nobody holds it), *leased* (in exactly one lease), or *done* (it has a row in the
//! store). Some trials that are done are audited: each audit waits, is in one lease for audits, or was settled.
//! [`Core::check_invariants`] states it, and the model test holds the core to it.

mod assign;
pub mod audits;
mod checkpoints;
mod clock;
mod effects;
pub mod explanation;
mod fair_share;
mod invariants;
pub mod lease_size;
mod pending;
pub mod quarantine;
pub mod queries;
pub mod reuse;
pub mod running_stats;
mod state;
pub mod stopping;
pub mod sweep;
#[cfg(test)]
mod tests;
mod verbs;
mod work_stealing;

pub use clock::{CoreTime, Timing};
pub use effects::{Effect, GiveUpReversal, GivenUpTrial, Steering, SweepChange};
pub use state::{Core, Worker};
pub use sweep::{Sweep, UnreadableSweep};
pub use verbs::{Admission, JoiningWorker, SessionEnd};

pub use crate::result_batch::CommitOutcome;
pub use crate::stored_row::{MetricPositions, StoredRow, main_metric, selection_metric};
