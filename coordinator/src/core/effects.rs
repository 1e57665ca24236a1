//! The effects that the core asks its caller to carry out, in order.

use ergodic_common::TrialKey;
use ergodic_common::ids::{Fence, SweepId, SweepNumber, WorkerId};
use ergodic_common::spec::scheduling::Share;

use crate::records::{EndedLease, LeaseRow, SweepState};

/// A user's command to a sweep.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Steering {
    /// Assign no more trials; leased ones finish.
    Pause,
    /// Assign trials again.
    Resume,
    /// End the sweep.
    Cancel,
    /// Run failed trials again.
    Retry,
    /// Change the sweep's share of the workers; `None` keeps a value.
    Share {
        /// The new priority.
        priority: Option<i32>,
        /// The new weight.
        weight: Option<f64>,
    },
}

/// An effect that the caller carries out, in order.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Make the lease durable, then send it.
    Grant {
        /// The lease as it is to be stored.
        lease: LeaseRow,
        /// The sweep's id.
        sweep: SweepId,
        /// The trials in the order in which the worker runs them.
        keys: Vec<TrialKey>,
    },
    /// Ask a worker to return trials of a lease that it has not begun, as far as there are any.
    Retract {
        /// The worker that holds the lease.
        worker: WorkerId,
        /// The lease's fencing token.
        fence: Fence,
        /// Maximum number of trials to return.
        trials: u64,
    },
    /// Store that a lease has only these trials left.
    ShrinkLease(LeaseRow),
    /// Remove leases from the store, which makes their fences invalid.
    EndLeases(Vec<EndedLease>),
    /// Tell a worker, if it is connected, that it has lost these leases.
    RevokeLeases(WorkerId, Vec<Fence>),
    /// Make a sweep's state durable.
    SetSweepState(SweepNumber, SweepState),
    /// Store a failed row for a trial in which three workers crashed.
    GiveUp(GivenUpTrial),
    /// Take a stored give-up back: a worker whose crash was counted has come back.
    RevertGiveUp(GiveUpReversal),
    /// Read the rows of these trials, some of which the core does not know.
    LookUpRows(SweepNumber, Vec<TrialKey>),
    /// Remove the checkpoints of trials that are not unfinished any more.
    DiscardCheckpoints(SweepNumber, Vec<TrialKey>),
}

/// A user's change of a sweep, which is stored first and then applied.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum SweepChange {
    /// A new state of the sweep.
    State(SweepState),
    /// A new share of the workers.
    Share(Share),
}

/// A trial, or an audit, in which three workers crashed: its failure is to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GivenUpTrial {
    /// Number of the sweep.
    pub sweep: SweepNumber,
    /// The key of the trial.
    pub key: TrialKey,
    /// The cause of the failure, for the user.
    pub cause: String,
    /// Number of metrics that the sweep measures.
    pub metric_count: usize,
    /// Whether only the trial's audit failed; its row stays.
    pub is_audit: bool,
}

/// A trial or audit that killed fewer workers than was thought, whose failure is to be reverted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GiveUpReversal {
    /// Number of the sweep.
    pub sweep: SweepNumber,
    /// The key of the trial.
    pub key: TrialKey,
    /// Whether only the trial's audit was given up.
    pub is_audit: bool,
}
